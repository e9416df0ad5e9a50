"""``align sync``: is this IMU the picture's, by how much is it off, and does it drift?

Recordings of one event are compared too, sound against sound, so that they share a clock.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from align.pipeline.cli.options import DECODE_TIMEOUT, ISOLATE, MAX_PIXELS

if TYPE_CHECKING:
    from align.pipeline.sync.run import SyncResult

_MOST_ROWS = 40


@click.command()
@click.option("--source", required=True, metavar="NAME", help="Data set layout to read: ego4d.")
@click.option("--input", "folder", required=True, metavar="DIR", help="Folder with the recordings.")
@click.option(
    "--output", "clocks", required=True, metavar="FILE.parquet", help="The table of clocks to write."
)
@click.option("--report", default="", metavar="FILE.html", help="A page with plots of every recording.")
@click.option("--media", default="full_scale", show_default=True, help="full_scale, video_540ss or clips.")
@click.option("--recordings", default="", metavar="UID,UID", help="Only these recordings.")
@click.option("--scenario", default="", metavar="NAME,NAME", help="Only recordings of these scenarios.")
@click.option("--limit", type=int, metavar="N", help="Only the first N recordings.")
@click.option(
    "--reach", type=float, default=5.0, show_default=True, metavar="SECONDS", help="Search ± this far."
)
@click.option(
    "--threshold", type=float, default=5.0, show_default=True, metavar="MS", help="Beyond it: corrected."
)
@click.option("--allow-symlinks", is_flag=True, help="Follow links that leave the input folder.")
@click.option("--resume", is_flag=True, help="Go on with what an interrupted run measured.")
@click.option("--workers", default="1", show_default=True, metavar="auto|N", help="Processes.")
@MAX_PIXELS
@DECODE_TIMEOUT
@ISOLATE
def sync(
    source: str,
    folder: str,
    clocks: str,
    report: str,
    media: str,
    recordings: str,
    scenario: str,
    limit: int | None,
    reach: float,
    threshold: float,
    allow_symlinks: bool,
    resume: bool,
    workers: str,
    max_pixels: int,
    decode_timeout: float,
    isolate: str,
) -> None:
    """Measure each recording's IMU clock against its picture, and concurrent recordings' against each other.

    \b
    align sync --source ego4d --input ego4d_data --output clocks.parquet --report sync.html
    align run --source ego4d --input ego4d_data --output out --clocks clocks.parquet

    Verdicts: verified (many windows agree with one line), corrected (verified, and off by more than the
    threshold), refuted (motion, but no agreement: another recording's IMU, or a stabilised picture),
    unobservable (static, dark or too short to tell).

    Recordings that the metadata calls concurrent have a row of stream audio too: what leads from their
    clock to that of the longest of them, by what they hear.
    """
    from align.pipeline.config import RunConfig
    from align.pipeline.sync.run import SyncConfig, run_sync
    from align.schemas.options import AlignOptions
    from align.transforms.sync.verdict import SyncOptions

    run = RunConfig(
        source=source,
        input=folder,
        media=media,
        recordings=_names(recordings),
        scenarios=_names(scenario),
        limit=limit,
        allow_symlinks=allow_symlinks,
        resume=resume,
        workers=_count(workers),
        options=AlignOptions(max_pixels=max_pixels),
        decode_timeout_s=decode_timeout,
        isolate=isolate == "on",
    )
    config = SyncConfig(run, clocks, report, SyncOptions(reach, threshold / 1e3))
    with _progress() as show:
        result = run_sync(config, show=show)
    sys.exit(_finish(result, clocks, report))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _count(workers: str) -> int:
    import os

    from align.schemas.errors import UsageError

    if workers == "auto":
        return os.cpu_count() or 1
    if not workers.isdecimal() or int(workers) < 1:
        raise UsageError(f"--workers is a positive number or auto, not {workers!r}")
    return int(workers)


@contextmanager
def _progress() -> Iterator[Callable[[Counter[str]], None]]:
    """A live bar on a terminal, a plain line for every tenth of the work elsewhere."""
    from align.pipeline.cli.printing import console

    if console.is_terminal:
        from rich.progress import Progress

        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("measuring", total=None)
            yield lambda c: bar.update(task, completed=c["recordings"], total=c["total"] or None)
        return
    told = 0

    def tell(counts: Counter[str]) -> None:
        nonlocal told
        tenth = 10 * counts["recordings"] // max(counts["total"], 1)
        if tenth > told:
            told = tenth
            console.print(f"{counts['recordings']} of {counts['total']} measured")

    yield tell


def _finish(result: SyncResult, clocks: str, report: str) -> int:
    """Print what was found and return the exit code: 3 where more than a hundredth could not be read."""
    from rich.table import Table

    from align.pipeline.cli.printing import console

    table = Table(box=None)
    for name in ("recording", "stream", "verdict", "offset ms", "drift ppm", "σ ms", "windows", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name not in ("recording", "reason"))
    for row in result.rows[:_MOST_ROWS]:
        known = row.offset_ns is not None and row.drift_ppm is not None and row.sigma_ns is not None
        figures = (
            (
                f"{(row.offset_ns or 0) / 1e6:+.2f}",
                f"{row.drift_ppm:+.1f}",
                f"{(row.sigma_ns or 0) / 1e6:.2f}",
            )
            if known
            else ("", "", "")
        )
        windows = f"{row.agreeing}/{row.windows}"
        table.add_row(row.recording_id, row.stream, row.status, *figures, windows, row.reason)
    console.print(table)
    counts = Counter(r.status for r in result.rows)
    if len(result.rows) > _MOST_ROWS:
        console.print(f"… and {len(result.rows) - _MOST_ROWS} more")
    console.print(", ".join(f"{n} {status}" for status, n in counts.most_common()))
    for recording_id, why in result.failures[:_MOST_ROWS]:
        console.print(f"could not be read: {recording_id}: {why}")
    console.print(f"wrote {clocks}" + (f" and {report}" if report else ""))
    recordings = len({r.recording_id for r in result.rows})
    return 3 if len(result.failures) > 0.01 * recordings else 0
