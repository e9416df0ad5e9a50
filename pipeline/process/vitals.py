"""What the system says of a process: its CPU time, its memory, whether it runs, sleeps or was stopped."""

from __future__ import annotations

import os
from dataclasses import dataclass

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_STATE, _USER, _SYSTEM, _RESIDENT = 0, 11, 12, 21  # counted from the state, proc_pid_stat(5)


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at a process.

    Attributes:
        cpu_s: user and system time so far, all threads; None where the system does not tell.
        state: of its main thread: ``R`` runs or could, ``S`` sleeps, ``D`` waits for a disk, ``T`` and ``t``
            were stopped (proc_pid_stat(5)); "" where the system does not tell.
        resident: bytes; 0 where the system does not tell.
    """

    cpu_s: float | None = None
    state: str = ""
    resident: int = 0


def vitals(pid: int) -> Vitals:
    """Look at a process. Without ``/proc`` (macOS) nothing is known of it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            told = file.read().rpartition(b")")[2].split()
        ticks = int(told[_USER]) + int(told[_SYSTEM])
        return Vitals(ticks / _TICKS, told[_STATE].decode("ascii"), int(told[_RESIDENT]) * _PAGE)
    except (OSError, IndexError, ValueError):
        return Vitals()
