"""``align sync``: is this IMU the picture's, by how much is it off, and does it drift?

Recordings of one event are compared too, sound against sound, so that they share a clock.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from align.pipeline.cli.options import config_from, run_options

if TYPE_CHECKING:
    from align.pipeline.sync.run import SyncResult

_MOST_ROWS = 40


@click.command()
@run_options("source", "input", "media", "recordings", "limit", "scenario", "exclude", "allow_symlinks")
@click.option(
    "--output", "clocks", required=True, metavar="FILE.parquet", help="The table of clocks to write."
)
@click.option("--report", default="", metavar="FILE.html", help="A page with plots of every recording.")
@click.option(
    "--reach", type=float, default=5.0, show_default=True, metavar="SECONDS", help="Search ± this far."
)
@click.option(
    "--threshold", type=float, default=5.0, show_default=True, metavar="MS", help="Beyond it: corrected."
)
@run_options("resume", "max_pixels", "decode_timeout", "isolate", "workers", workers="1")
def sync(clocks: str, report: str, reach: float, threshold: float, **given: Any) -> None:
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
    from align.pipeline.sync.run import SyncConfig, run_sync
    from align.transforms.sync.verdict import SyncOptions

    run = config_from(**given)
    run = run.but(workers=run.execution.workers or os.cpu_count() or 1)
    config = SyncConfig(run, clocks, report, SyncOptions(reach, threshold / 1e3))
    with _progress() as show:
        result = run_sync(config, show=show)
    sys.exit(_finish(result, clocks, report))


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
