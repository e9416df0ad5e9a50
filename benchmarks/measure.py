"""What a command costs: CPU time and peak memory of its whole process tree."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK_S = 0.25


@dataclass(frozen=True)
class Usage:
    """What a command took.

    Attributes:
        cpu_s: user and system time, of all processes that it started and waited for.
        wall_s: from start to end.
        peak_bytes: of memory: the largest process, or, where it was watched, the sum over all of them.
    """

    cpu_s: float
    wall_s: float
    peak_bytes: int


def measure(command: Sequence[str], *, watch_memory: bool = False, show: bool = False) -> Usage:
    """Run a command to its end.

    Args:
        command: the program and its arguments.
        watch_memory: add up the memory of all its processes; else the peak is that of the largest one.
        show: let it print.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    started = time.monotonic()
    shown = None if show else subprocess.DEVNULL
    with subprocess.Popen(command, stdout=shown, stderr=subprocess.PIPE) as process:
        watch = _Watch(process.pid) if watch_memory else None
        said = process.stderr.read() if process.stderr else b""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    peak = watch.stop() if watch else used.ru_maxrss * 1024
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {said.decode(errors='replace')[-2000:]}")
    return Usage(used.ru_utime + used.ru_stime, time.monotonic() - started, peak)


class _Watch:
    """Adds up the proportional set sizes of a process tree four times a second; keeps the largest sum."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._done = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        while not self._done.wait(_LOOK_S):
            self._peak = max(self._peak, sum(map(_memory, tree(self._pid))))


def tree(pid: int) -> list[int]:
    """A process and all its descendants, by Linux's ``/proc``."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(c) for task in tasks for c in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(p for child in children for p in tree(child))]


def _memory(pid: int) -> int:
    """Proportional set size: what is shared with others counts by its share."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
