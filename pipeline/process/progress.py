"""Live progress across processes: workers leave small heartbeat files, the launcher adds them up.

A Beam run blocks its launcher and reports metrics only at its end, so progress travels beside it.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from align.pipeline.process.stopping import last_word
from align.pipeline.process.worker_process import ALIVE
from align.pipeline.storage.lock import is_running
from align.schemas.errors import AlignError

_EVERY_S = 0.25
_DEAD_LOOKS = 4  # 2 s, in which Beam may find it out by itself and unwinds better


class Heartbeat:
    """Counts of one worker process, written to a file at most four times a second."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._counts: Counter[str] = Counter()
        self._written = 0.0

        self.flush()

    def add(self, **counts: int) -> None:
        """Add to the counts, e.g. ``add(written=1)``."""
        self._counts.update(counts)
        if self._folder and time.monotonic() - self._written > _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write the counts now."""
        if not self._folder:
            return
        self._written = time.monotonic()
        path = Path(self._folder) / f"{os.getpid()}-{id(self)}"
        try:
            path.with_suffix(".tmp").write_text(json.dumps(self._counts))
            path.with_suffix(".tmp").replace(path)
        except OSError:
            self._folder = None  # the launcher has gone: progress has no reader


def total(folder: str) -> Counter[str]:
    """The sum of all heartbeats in a folder."""
    counts: Counter[str] = Counter()
    for path in Path(folder).iterdir():
        if not path.suffix:
            try:
                counts.update(json.loads(path.read_text()))
            except (OSError, ValueError):
                continue  # replaced or removed under our eyes: the next look finds it
    return counts


def lost_worker(folder: str, error: Exception) -> AlignError | None:
    """What Beam's complaint about a broken channel means, if it is one and a worker process is gone."""
    dead = _dead_worker(folder) if "Channel closed" in str(error) else None
    return _worker_died(dead) if dead else None


def _worker_died(pid: int) -> AlignError:
    detail = f"worker process {pid} died (out of memory?); run again with --resume"
    return AlignError("worker_died", detail, stage="write")


def _dead_worker(folder: str) -> int | None:
    return next((pid for pid in _workers(folder) if not is_running(pid)), None)


def _workers(folder: str) -> list[int]:
    """Processes that have signed on and were not told to end."""
    return sorted(int(path.stem) for path in Path(folder).glob(f"*{ALIVE}"))


def _end_workers(folder: str) -> None:
    for pid in _workers(folder):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def watch(
    show: Callable[[Counter[str]], None], stop: Callable[[AlignError], None] | None = None
) -> Iterator[str]:
    """Give workers a folder for heartbeats and call ``show`` with their sum until the block ends.

    Beam's in-process runner waits for ever for a worker process that was killed; ``stop`` is called then,
    when the other workers have been ended, so that nothing of the run goes on.
    """
    with TemporaryDirectory(prefix="align-progress-", ignore_cleanup_errors=True) as folder:
        done = threading.Event()

        def tell() -> None:
            with suppress(OSError):  # a closed terminal, or a cleaner of temporary files: no reason to stop
                show(total(folder))

        def look() -> None:
            dead_looks = 0
            while not done.wait(2 * _EVERY_S):
                tell()
                dead = _dead_worker(folder)
                dead_looks = dead_looks + 1 if dead else 0
                if stop and dead and dead_looks == _DEAD_LOOKS:
                    _end_workers(folder)
                    stop(last_word(folder) or _worker_died(dead))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield folder
        finally:
            done.set()
            thread.join()
            tell()
