"""What a person sees: a live bar, tables at the end, and the next command to type."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from align.pipeline.cli.printing import console
from align.pipeline.job.run import PlanSummary, RunResult
from align.pipeline.storage.files import absolute, is_remote
from align.pipeline.storage.stores import store
from align.schemas.errors import UsageError
from align.schemas.options import MODALITIES
from align.schemas.time import NS, TimeSpan
from align.transforms.check.described import read_manifest, read_stats
from align.transforms.check.inspect import StreamView
from align.transforms.stages import STAGES

_LINE_EVERY_S = 10.0
_COLUMNS = 64


@contextmanager
def progress_display() -> Iterator[Callable[[Counter[str]], None]]:
    """A callable that shows counts: a live bar on a terminal, a plain line now and then elsewhere."""
    if not console.is_terminal:
        yield _Lines().show
        return
    columns = (
        TextColumn("windows", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("windows", total=None, detail="planning")
        started = time.monotonic()

        def show(counts: Counter[str]) -> None:
            state = _state(counts, started)
            bar.update(task, completed=_done(counts), total=counts["planned"] or None, detail=state)

        yield show


class _Lines:
    """A line now and then, for logs and pipes."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._next = self._started + _LINE_EVERY_S

    def show(self, counts: Counter[str]) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LINE_EVERY_S
        done, planned = _done(counts), counts["planned"]
        left = f" · {(planned - done) * (now - self._started) / done:.0f} s left" if done else ""
        console.print(f"{done} of {planned} windows · {_state(counts, self._started)}{left}", soft_wrap=True)


def _done(counts: Counter[str]) -> int:
    return counts["written"] + counts["skipped"] + counts["failed"]


def _state(counts: Counter[str], started: float) -> str:
    """``3 recordings · 12.5/s · 2 skipped · 1 failed``."""
    rate = _done(counts) / max(time.monotonic() - started, 1e-3)
    lost = [f"{counts[outcome]} {outcome}" for outcome in ("skipped", "failed") if counts[outcome]]
    return " · ".join([f"{counts['recordings']} recordings", f"{rate:.1f}/s", *lost])


def finish(result: RunResult) -> int:
    """Print the summary of a run and return its exit code."""
    counts, output = result.manifest["counts"], result.output
    if result.already:
        console.print("already complete: every shard is what its checksum says")
    table = Table(title=output, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("recordings", f"{counts['recordings']:,}")
    table.add_row("windows planned", f"{counts['windows_planned']:,}")
    table.add_row("  written", Text(f"{counts['windows_written']:,}", "green"))
    for reason, number in counts["windows_skipped"].items():
        table.add_row(f"  skipped: {reason}", f"{number:,}")
    table.add_row("  failed", Text(f"{counts['failed']:,}", "red" if counts["failed"] else ""))
    for code, number in sorted(result.notes.items()):
        table.add_row(f"noted: {code}", f"{number:,}")
    for shard_format in dict.fromkeys(s["format"] for s in result.manifest["shards"]):
        shards = [s for s in result.manifest["shards"] if s["format"] == shard_format]
        table.add_row(f"{shard_format} shards", f"{len(shards):,} ({_size(sum(s['bytes'] for s in shards))})")
    for row in _split_rows(result.manifest):
        table.add_row(*row)
    if result.stages:
        table.add_row("where time went", _stages(result.stages))
    console.print(table)
    console.print()
    console.print(f"look at it:   align inspect {output}", soft_wrap=True)
    console.print(f"check it:     align verify {output}", soft_wrap=True)
    load = f"""python -c "import datasets; print(datasets.load_dataset('{output}'))\""""
    console.print(f"load it:      {load}", soft_wrap=True)
    if "index" not in result.manifest:
        console.print(f"weigh it:     align index {output}  (weights, near-duplicates)")
    if result.notes or counts["failed"] or counts["windows_skipped"]:
        console.print(f"what is lost: {output}/failures.jsonl", soft_wrap=True)
    if result.too_many_failures:
        planned = counts["windows_planned"]
        told = f"{counts['failed']} of {planned} windows failed: more than --max-failures allows"
        console.print(told, style="red")
        return 3
    return 0


def _split_rows(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What each split holds, and whether something leads from one to another."""
    splits, balance = manifest.get("splits", {}), manifest.get("balance")
    for name, said in splits.items():
        held = f"{said['windows']:,} windows of {said['groups']:,} groups"
        yield f"split {name}", held + (", in no other split" if len(splits) > 1 else "")
    if balance:
        across = f", {balance['across_splits']:,} across splits" if len(splits) > 1 else ""
        yield "near-duplicates", f"{balance['duplicates']:,}{across}"


def _stages(counts: Mapping[str, int]) -> str:
    """``decode 83 % (1.2 GB), align 6 %, …``: shares of the CPU time, and what each stage put out."""
    spent = {name: counts.get(f"{name}.cpu_ns", 0) for name in STAGES}
    total = sum(spent.values()) or 1
    parts = [
        f"{name} {100 * ns / total:.0f} %"
        + (f" ({_size(counts[f'{name}.bytes'])})" if counts.get(f"{name}.bytes") else "")
        for name, ns in sorted(spent.items(), key=lambda item: -item[1])
        if ns > total / 200
    ]
    return f"{', '.join(parts)}; {total / NS:,.1f} CPU s"


def print_plan(summary: PlanSummary) -> None:
    """Print what a run would read and write."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    kept = summary.windows - sum(summary.lost.values())
    table.add_row("recordings", f"{summary.recordings:,}")
    table.add_row("windows planned", f"{summary.windows:,}")
    table.add_row("  to write", f"{kept:,}")
    for reason, number in sorted(summary.lost.items()):
        if number:
            table.add_row(f"  lost: {reason}", f"{number:,}")
    for reason, number in sorted(summary.notes.items()):
        if number:
            table.add_row(f"noted: {reason}", f"{number:,}")
    table.add_row("segments", f"{summary.segments:,}")
    table.add_row("media to read", f"{summary.media_s / 3600:,.2f} h")
    table.add_row("CPU time, estimated", f"{summary.cpu_s:,.0f} s")
    table.add_row("output, estimated", _size(summary.output_bytes))
    console.print(table)


def print_verification(out: str, *, deep: bool) -> int:
    """Verify a data set, print what is off, and return the exit code."""
    from align.pipeline.process.data_set_looks import checking
    from align.transforms.check.verify import verify

    if not is_remote(out) and not Path(out).is_dir():
        raise UsageError(f"{out} is not a folder; name the --output of a finished run")
    with checking(absolute(out)) as looker:
        report = verify(store(out), deep=deep, looker=looker)
    for problem in report.problems:
        console.print(str(problem), style="red", soft_wrap=True)
    if report.problems:
        console.print(f"{out}: problems: {len(report.problems)}", soft_wrap=True)
        return 1
    held = f"{report.samples:,} samples in {report.shards:,} shards, everything holds"
    console.print(f"{out}: {held}", soft_wrap=True)
    return 0


def print_inspection(path: str, *, isolate: bool = True, timeout_s: float = 300.0) -> None:
    """Print a data set's manifest, or a recording's streams on one timeline.

    Args:
        path: a data set, a media file or an IMU table.
        isolate: read a file in a child process.
        timeout_s: silence after which that is taken to hang.
    """
    from align.pipeline.access import inspect
    from align.transforms.check.inspect import looks_like_dataset

    if is_remote(path) or looks_like_dataset(path):
        _print_dataset(path)
    else:
        _print_recording(inspect(path, isolate=isolate, timeout_s=timeout_s))


def _print_dataset(path: str) -> None:
    try:
        manifest, stats = read_manifest(store(path)), read_stats(store(path))
    except FileNotFoundError as error:
        raise UsageError(f"{path} holds no finished data set: {error.strerror or error}") from None
    table = Table("split", "windows", "hours", *MODALITIES, box=None, padding=(0, 2, 0, 0))
    for split, found in stats["splits"].items():
        present = [f"{found['modalities'][m]['present']:,}" for m in MODALITIES]
        table.add_row(split, f"{found['windows']:,}", f"{found['window_hours']:.3f}", *present)
    console.print(table)
    for name in ("source", "align_version", "counts", "config"):
        console.print(f"{name}: {manifest[name]!s}", soft_wrap=True)
    for shard in manifest["shards"]:
        console.print(f"{shard['path']}  {shard['samples']:,} samples  {_size(shard['bytes'])}")


def _print_recording(views: Sequence[StreamView]) -> None:
    spans = [v.span for v in views if v.span]
    if spans:
        start, end = min(0, *(s.start_ns for s in spans)), max(s.end_ns for s in spans)
        console.print(f"{'':32}{start / NS:<{_COLUMNS - 12}.3f}{end / NS:>12.3f} s", soft_wrap=True)
    for view in views:
        bar = timeline(view, start, end, _COLUMNS) if view.span else ""
        console.print(Text(f"{view.name[:31]:32}").append(bar, "cyan"), soft_wrap=True)
        where = f"{view.span.start_ns / NS:.6f} to {view.span.end_ns / NS:.6f} s, " if view.span else ""
        console.print(f"{'':32}{where}{', '.join(view.facts)}", style="dim", soft_wrap=True)
        for gap in view.gaps:
            console.print(f"{'':32}gap {gap.start_ns / NS:.3f} to {gap.end_ns / NS:.3f} s", style="yellow")
        for fault in view.faults:
            console.print(f"{'':32}{fault}", style="red", soft_wrap=True)


def timeline(view: StreamView, start_ns: int, end_ns: int, columns: int) -> str:
    """The stream as a row of characters: full where it was recorded, a dot where a gap lies."""
    edges = [start_ns + (end_ns - start_ns) * i // columns for i in range(columns + 1)]

    return "".join(_cell(view, TimeSpan(a, max(b, a + 1))) for a, b in pairwise(edges))


def _cell(view: StreamView, part: TimeSpan) -> str:
    if any(gap.touches(part) for gap in view.gaps):
        return "·"
    return "█" if view.span and view.span.touches(part) else " "


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"
