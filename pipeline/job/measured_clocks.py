"""Puts recordings on the clocks that ``align sync`` measured."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from align.pipeline.config import RunConfig
from align.pipeline.storage.files import absolute, open_binary
from align.schemas.errors import AlignError, UsageError
from align.schemas.recording import Recording
from align.transforms.sync.clocks import ClockRow, parse_clocks, with_clock

Clocks = Mapping[str, tuple[ClockRow, ...]]
"""Recording id -> the rows of its IMU."""


def with_measured_clock(recording: Recording, config: RunConfig) -> Recording:
    """The recording on its measured clock; one whose IMU the table does not know has a note in ``absent``.

    Raises:
        UsageError: see :func:`measured_clocks`.
    """
    if recording.imu is None:
        return recording
    rows = measured_clocks(config).get(recording.recording_id, ())
    if rows:
        return with_clock(recording, rows)
    return replace(recording, absent={**recording.absent, "clock": "the table of clocks does not name it"})


def measured_clocks(config: RunConfig) -> Clocks:
    """The table that the configuration names, read once per process.

    Raises:
        UsageError: it is no table of clocks, or not the one that the run began with.
    """
    return _read(config.inputs.clocks, config.inputs.clocks_sha256)


@lru_cache(maxsize=1)
def _read(path: str, sha256: str) -> Clocks:
    try:
        with open_binary(absolute(path)) as stream:
            content = stream.read()
        rows = parse_clocks(path, content)
    except (OSError, AlignError) as error:
        raise UsageError(f"--clocks: {error}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UsageError(f"--clocks: {path} was written anew while the run went on; start it again")
    found: dict[str, tuple[ClockRow, ...]] = defaultdict(tuple)
    for row in rows:
        if row.stream == "imu":
            found[row.recording_id] += (row,)
    return dict(found)
