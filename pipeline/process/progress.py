"""Live progress: what each worker counts, added up in the launcher.

A Beam run blocks its launcher and reports metrics only at its end, so progress travels beside it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

Tell = Callable[[Mapping[str, int]], None]

_EVERY_S = 0.25


class Heartbeat:
    """Counts of one worker, passed on at most four times a second.

    Args:
        tell: takes what has been counted since it was called last; None where nobody wants to know.
    """

    def __init__(self, tell: Tell | None = None) -> None:
        self._tell = tell
        self._counts: Counter[str] = Counter()
        self._told = 0.0

    def add(self, **counts: int) -> None:
        """Add to the counts, e.g. ``add(written=1)``."""
        self._counts.update(counts)
        if time.monotonic() - self._told > _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Pass the counts on now."""
        counts, self._counts = self._counts, Counter()
        self._told = time.monotonic()
        if self._tell and counts:
            self._tell(counts)


class Progress:
    """The counts of all workers of a run; threads may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, counts: Mapping[str, int]) -> None:
        """Add what a worker has counted."""
        with self._lock:
            self._counts.update(counts)

    def total(self) -> Counter[str]:
        """All counts so far."""
        with self._lock:
            return Counter(self._counts)


@contextmanager
def watch(show: Callable[[Counter[str]], None]) -> Iterator[Progress]:
    """Call ``show`` with the counts so far, now and then until the block ends, and once after it."""
    progress, done = Progress(), threading.Event()

    def tell() -> None:
        with suppress(OSError):  # a closed terminal is no reason to stop
            show(progress.total())

    def look() -> None:
        while not done.wait(2 * _EVERY_S):
            tell()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        done.set()
        thread.join()
        tell()
