"""Where the work goes: CPU time, elements and bytes by stage, counted in each thread.

A stage's time is its own: what a stage inside it takes counts for that one. Whoever reports (the Beam steps,
or a decoding process to its parent) takes what has been counted since.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import thread_time_ns

NAMESPACE = "align"
"""Of the counters, where a runner keeps them."""

STAGES = ("probe", "plan", "read", "decode", "align", "encode", "write")


class _Tally(threading.local):
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.inner_ns = 0


_tally = _Tally()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Attribute the CPU time of a block to a stage, less what stages inside it take."""
    started, around_ns = thread_time_ns(), _tally.inner_ns
    _tally.inner_ns = 0
    try:
        yield
    finally:
        spent_ns = thread_time_ns() - started
        _tally.counts[f"{name}.cpu_ns"] += spent_ns - _tally.inner_ns
        _tally.inner_ns = around_ns + spent_ns


def count(name: str, elements: int, size: int = 0) -> None:
    """Count what a stage has put out: elements and their bytes."""
    _tally.counts[f"{name}.elements"] += elements
    _tally.counts[f"{name}.bytes"] += size


def add(counts: Mapping[str, int]) -> None:
    """Add what another process has counted."""
    _tally.counts.update(counts)


def take() -> dict[str, int]:
    """What this thread has counted since the last time, as ``{"decode.cpu_ns": …, "decode.bytes": …}``."""
    counts, _tally.counts = _tally.counts, Counter()
    return {name: value for name, value in counts.items() if value}
