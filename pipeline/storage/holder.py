"""A process that holds a lock: which it is, and whether this system can say that it still runs."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
import uuid
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        started: when the process began, in the system's own count: a process id may be used again.
        since: when the lock was taken, s since 1970, by the clock of its host; only for messages.
        token: names this taking of the lock.
        machine: names the running system: equal hosts may be different machines.
        space: names the process id namespace: containers number their processes independently.
    """

    host: str
    pid: int
    started: str
    since: float
    token: str
    machine: str = ""
    space: str = ""

    @classmethod
    def here(cls) -> Holder:
        """This process, now."""
        pid = os.getpid()
        place = (_machine(), _space())
        return cls(socket.gethostname(), pid, _started(pid), time.time(), secrets.token_hex(8), *place)

    @classmethod
    def of(cls, data: bytes) -> Holder | None:
        """The holder that a lock file names; None where it names none."""
        try:
            found = json.loads(data)
            holder = cls(**{f.name: found[f.name] for f in fields(cls) if f.name in found})
        except (ValueError, TypeError, RecursionError):
            return None
        return holder if type(holder.pid) is int and type(holder.host) is str else None

    def can_be_asked_for(self) -> bool:
        """Whether this system can say if the process still runs: it is one of its own, as seen from here."""
        place = (self.host, self.machine, self.space)
        return bool(self.machine and self.space) and place == (socket.gethostname(), _machine(), _space())

    def runs(self) -> bool:
        """Whether the process runs, where :meth:`can_be_asked_for`."""
        return is_running(self.pid) and self.started == _started(self.pid)


def is_running(pid: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it is another user's
    return True


def _started(pid: int) -> str:
    """The start of a process in clock ticks since boot (proc(5), field 22); "" without /proc."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _machine() -> str:
    """Names this boot of this machine (random(4)); without /proc, the machine by its network card."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return "" if sys.platform == "linux" else f"{uuid.getnode():012x}"


def _space() -> str:
    """Names the process id namespace (namespaces(7)); other systems have one."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "" if sys.platform == "linux" else "one"
