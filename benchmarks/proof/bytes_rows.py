"""Window bytes: identical whatever the segment, shard, worker count, order or retry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from align import Recording, Stream
from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
from benchmarks.proof.imu_rows import Table
from benchmarks.proof.job import Result, run
from benchmarks.proof.media import write
from benchmarks.proof.media_rows import OPTIONS, awkward, recording_of

_CUTS: dict[str, dict[str, Any]] = {
    "segments of 1 s": {"segment": 1.0},
    "small shards, another seed": {"segment": 2.0, "shard_size": 100_000, "seed": 5},
    "two workers": {
        "segment": 2.0,
        "shard_size": 100_000,
        "workers": 2,
        "beam_args": ("--default_sdk_harness_log_level=ERROR",),
    },
    "every bundle replayed": {"beam_args": ("--direct_runner_bundle_repeat=2",)},
}


def rows(folder: Path) -> Iterator[Result]:
    """One row for each way to cut the same job."""
    recordings = [_with_imu(i, recording_of(write(r, folder)), folder) for i, r in enumerate(awkward())]
    reference = run(recordings, OPTIONS).by_key
    yield _same("once more, recordings in reverse", reference, run(recordings[::-1], OPTIONS).by_key)
    for name, changes in _CUTS.items():
        yield _same(name, reference, run(recordings, OPTIONS, **changes).by_key)


def _with_imu(index: int, recording: Recording, folder: Path) -> Recording:
    path = folder / f"{recording.recording_id}.csv"
    table = Table(199.3, ((0.0, 0.2, 40.0),), 0.002, gaps=((1.5, 1.7),), end_s=40, seed=index)
    table.write(path)
    imu = Stream("imu", str(path), path.name, clock=table.clock_map, columns=IMU_COLUMNS)
    return replace(recording, imu=imu)


def _same(name: str, reference: dict[str, Any], other: dict[str, Any]) -> Result:
    differing = sum(reference.get(key) != other.get(key) for key in reference.keys() | other.keys())
    return Result(
        f"window bytes: {name}", "identical", f"{differing} of {len(reference)} differ",
        not differing and len(reference) > 0,
    )  # fmt: skip
