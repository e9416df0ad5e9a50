"""Compares the pipeline with the decoder's own limit and with other ways to do its work.

``python -m benchmarks.run [--short]``. Every figure is user + system CPU seconds per hour of media, of a
process and all its children, less the start-up of its program. Variants take turns, round after round, so
that a change of the machine's pace meets all of them; tables show medians and, in brackets, lowest and
highest; ratios are taken round by round. What was measured is kept: a run that was stopped goes on where it
was, as long as the code is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import variants as v
from benchmarks.figures import Figure, figures, ratios, spread
from benchmarks.recordings import CODECS, Download, make
from benchmarks.rounds import Taken, Variant, code_version, left, take_rounds
from benchmarks.targets import Result, results

_ROUNDS, _VP9_ROUNDS = 5, 3
_console = Console(width=150)


def show_figures(found: Mapping[str, Figure], estimates: Mapping[str, float]) -> None:
    """Print what each variant takes."""
    table = Table(
        "media", "what", "CPU s per hour", "of full decode", "of floor", "estimate", "wall s", "peak"
    )
    floors = {kind.name: kind.floor for kind in v.KINDS}
    for name, figure in found.items():
        unit = "" if figure.per_hour else " s"
        estimate = estimates.get(name)
        off = f"{estimate:.0f} ({estimate / median(figure.cpu.values()):.2f})" if estimate else ""
        table.add_row(
            *(figure.media, name, spread([*figure.cpu.values()], ".1f") + unit),
            spread(ratios(figure.cpu, found[v.FULL].cpu), ".3f")
            if figure.per_hour and v.FULL in found
            else "",
            spread(ratios(figure.cpu, found[floors[name]].cpu), ".2f") if floors.get(name) in found else "",
            *(
                off,
                f"{median(figure.wall_s.values()):.1f}",
                f"{figure.peak_mb:.0f} MB" if figure.peak_mb else "",
            ),
        )
    _console.print(table)


def show_results(judged: Sequence[Result]) -> None:
    """Print which targets are met."""
    table = Table("", "media", "what", "target", "measured")
    for result in judged:
        verdict = {True: "ok", False: "MISSED", None: ""}[result.met]
        table.add_row(verdict, result.media, result.what, result.target, result.measured)
    _console.print(table)


def machine() -> dict[str, object]:
    """What it was measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "python": platform.python_version()}


def main() -> None:
    """Make the media, take the rounds, print the tables and write them as JSON."""
    given = _arguments()
    minutes, copies = (1, 2) if given.short else (3, 4)
    given.folder.mkdir(parents=True, exist_ok=True)
    taken = Taken(given.folder / "rounds.jsonl", f"{code_version()}, {minutes} min")
    peers = not (given.short or given.no_peers)
    if peers and not given.video2dataset:
        print("video2dataset is left out: --video2dataset PYTHON names an interpreter that has it, e.g. of")
        print("  python -m venv v2d && v2d/bin/pip install --no-deps video2dataset==1.3.0 ffmpeg-python")
    plans: list[tuple[str, Download, list[Variant], int]] = []
    for codec in given.media.split(","):
        download = make(given.folder, codec, minutes, copies)
        options = {"peers": peers, "video2dataset": given.video2dataset, "memory": True}
        usual = 2 if given.short else _VP9_ROUNDS if codec == "vp9" else _ROUNDS
        rounds = usual if given.rounds is None else given.rounds
        plans.append((codec, download, list(v.compared(download, codec, **options)), rounds))
    seconds = sum(one.expected_s for c, _, all_, n in plans for _, one in left(taken, c, all_, n))
    print(f"about {timedelta(seconds=round(seconds))} on a quiet machine; load is {os.getloadavg()[0]:.1f}")
    found: list[Figure] = []
    judged: list[Result] = []
    for codec, download, compared, rounds in plans:
        take_rounds(taken, codec, compared, rounds)
        by_name = figures(taken, codec, compared)
        estimates = {kind.name: v.estimated(download, kind.options) for kind in v.KINDS}
        groups = {kind.name: v.needed_groups(download, kind.options) for kind in v.KINDS}
        show_figures(by_name, estimates)
        found += by_name.values()
        judged += results(codec, by_name, groups)
    show_results(judged)
    report = {
        **machine(),
        "version": code_version(),
        "minutes": minutes,
        "figures": [asdict(figure) for figure in found],
        "targets": [asdict(result) for result in judged],
    }
    (given.json or given.folder / "results.json").write_text(json.dumps(report, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one minute of media, two rounds, no peers")
    parser.add_argument("--rounds", type=int, help="at most so many; 0 shows what was measured")
    parser.add_argument("--media", default=",".join(CODECS), help=f"of {','.join(CODECS)}")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--video2dataset", default="", metavar="PYTHON", help="an interpreter that has it")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "align-benchmark")
    parser.add_argument("--json", type=Path, help="where the figures go (default: FOLDER/results.json)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
