"""Compares the pipeline with the decoder's own limit and with other ways to do its work.

``python -m benchmarks.run [--short]``. Every figure is user + system CPU seconds per hour of media, of a
process and all its children. Variants take turns, round after round, so that a change of the machine's pace
meets all of them; the table shows medians, spreads (lowest to highest) and the ratio, round by round, to a
full decode of the same file.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.jobs import JOBS
from benchmarks.measure import Usage, measure
from benchmarks.recordings import CODECS, Download, make

OURS = {
    "align: 1 frame per 5 s": (),
    "align: 10 frames per 5 s": ("--frames", "10"),
    "align: keyframe-anchored": ("--anchor", "keyframe"),
    "align: narration-centred": ("--anchor", "narration"),
}
PEERS = ("ffmpeg_per_window", "cv2_and_librosa")
START_UP = "align: start-up (one window)"


@dataclass(frozen=True)
class Variant:
    """A command, and the hours of media it goes through."""

    name: str
    command: tuple[str, ...]
    hours: float


def variants(download: Download, *, peers: bool) -> Iterator[Variant]:
    """What is compared on one kind of media; ``{out}`` stands for an empty folder."""
    for job in JOBS:
        if peers or job not in PEERS:
            command = (sys.executable, "-m", "benchmarks.jobs", job, str(download.media), "{out}")
            yield Variant(job, command, download.seconds / 3600)
    align = (sys.executable, "-m", "align.pipeline.cli", "run", "--source", "ego4d", "--workers", "1")
    where = ("--input", str(download.root), "--output", "{out}")
    for name, options in OURS.items():
        yield Variant(name, (*align, *where, *options), download.hours)
    one = ("--limit", "1", "--anchor", "keyframe", "--window", "1", "--stride", "3600")
    yield Variant(START_UP, (*align, *where, *one), 0)


def run_once(variant: Variant) -> Usage:
    """Measure a variant in a folder that is empty before and gone afterwards."""
    out = tempfile.mkdtemp(prefix="align-bench-")
    try:
        return measure([word.format(out=out) if word == "{out}" else word for word in variant.command])
    finally:
        shutil.rmtree(out)


@dataclass(frozen=True)
class Row:
    """The figures of one variant: CPU seconds per hour, and their ratio to a full decode, by round."""

    media: str
    name: str
    cpu_s_per_h: list[float]
    of_full_decode: list[float]
    peak_mb: float


def rows(media: str, taken: dict[str, list[Usage]], found: list[Variant]) -> Iterator[Row]:
    """Figures per hour. A run's start-up is a row of its own, in seconds, and not part of the others."""
    hours = {v.name: v.hours for v in found}
    full = [u.cpu_s / hours["full_decode"] for u in taken["full_decode"]]
    start_up = median(u.cpu_s for u in taken[START_UP])
    for name, usages in taken.items():
        peak = max(u.peak_bytes for u in usages) / 1e6
        if not hours[name]:
            yield Row(media, f"{name}, seconds", [u.cpu_s for u in usages], [], peak)
            continue
        fixed = start_up if name.startswith("align") else 0.0
        figures = [(u.cpu_s - fixed) / hours[name] for u in usages]
        yield Row(media, name, figures, [a / b for a, b in zip(figures, full, strict=True)], peak)


def show(table_rows: list[Row]) -> None:
    """Print the table."""
    table = Table("media", "what", "CPU s per hour", "lowest to highest", "of full decode")
    for row in table_rows:
        low, high = min(row.cpu_s_per_h), max(row.cpu_s_per_h)
        ratio = f"{median(row.of_full_decode):.3f}" if row.of_full_decode else ""
        table.add_row(
            row.media, row.name, f"{median(row.cpu_s_per_h):.1f}", f"{low:.1f} to {high:.1f}", ratio
        )
    Console(width=110).print(table)


def main() -> None:
    """Make the media, take the rounds, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one minute of media, two rounds, no peers")
    parser.add_argument("--rounds", type=int, help="how often each variant is measured")
    parser.add_argument("--media", default=",".join(CODECS), help=f"of {','.join(CODECS)}")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "align-benchmark")
    parser.add_argument("--json", type=Path, help="where the figures go (default: FOLDER/results.json)")
    given = parser.parse_args()
    rounds = given.rounds or (2 if given.short else 5)
    minutes, copies = (1, 2) if given.short else (3, 4)
    found: list[Row] = []
    for codec in given.media.split(","):
        download = make(given.folder, codec, minutes, copies)
        compared = list(variants(download, peers=not (given.short or given.no_peers)))
        taken: dict[str, list[Usage]] = {v.name: [] for v in compared}
        for number in range(rounds):
            for variant in compared:
                taken[variant.name].append(run_once(variant))
                print(
                    f"{codec} round {number + 1}/{rounds} {variant.name}: {taken[variant.name][-1]}",
                    flush=True,
                )
        found += rows(codec, taken, compared)
        show(found)
    machine = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
    result = {**machine, "minutes": minutes, "copies": copies, "rows": [vars(row) for row in found]}
    (given.json or given.folder / "results.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
