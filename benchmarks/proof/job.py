"""Runs the real pipeline on recordings of known truth and reads the shards it wrote."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from align import AlignOptions, Recording, RunConfig
from align.transforms.check.verify import verify


@dataclass(frozen=True)
class Result:
    """One line of the table: a target, what was measured, and whether it holds."""

    what: str
    target: str
    measured: str
    holds: bool


@dataclass
class Shards:
    """What a run wrote: rows by recording, ascending in time, and the lines of failures.jsonl."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)

    @property
    def by_key(self) -> dict[str, dict[str, Any]]:
        """Every row by its key."""
        return {row["key"]: row for rows in self.rows.values() for row in rows}


def run(recordings: Iterable[Recording], options: AlignOptions, **changes: Any) -> Shards:
    """Align recordings with the public transform on Beam's in-process runner.

    Args:
        recordings: what a source would give.
        options: of the windows.
        changes: further fields of the run's configuration.

    Raises:
        RuntimeError: ``align verify`` finds fault with the output.
    """
    logging.disable(logging.WARNING)
    import apache_beam as beam

    from align import AlignRecordings
    from align.pipeline.job.runners import make_pipeline
    from align.pipeline.job.tasks import stores_of
    from align.pipeline.process.local_run import carried_out_here

    given = list(recordings)
    folder = str(Path(given[0].video.uri).parent)
    with tempfile.TemporaryDirectory(prefix="align-proof-") as out:
        named = {"source": "proof", "input": folder, "output": out, "sample": options}
        config = RunConfig(**named, max_failures=1.0, workers=1).but(**changes)
        workers, stores = config.execution.workers or 1, stores_of(config)
        with (
            carried_out_here("run", config, workers, stores, lambda _: None) as here,
            make_pipeline(config) as p,
        ):
            _ = p | beam.Create(given) | AlignRecordings(config, here.token)
        report = verify(out)
        if not report.ok:
            raise RuntimeError(f"align verify: {report}")
        return _read(Path(out))


def _read(out: Path) -> Shards:
    found = Shards()
    rows = [row for file in sorted(out.glob("data/*.parquet")) for row in pq.read_table(file).to_pylist()]
    for row in sorted(rows, key=lambda r: r["start_ns"]):
        found.rows.setdefault(row["recording_id"], []).append(row)
    found.faults = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    return found
