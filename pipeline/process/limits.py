"""What a decoder may do, set by itself before it touches any data and never taken back.

It may not write a file, open many files, leave a core dump, or gain rights by a program that has some
(set-user-ID). Whatever a system lacks is left out: nothing here needs Linux.

Processes are not limited: ``RLIMIT_NPROC`` counts the threads of all of a user's processes, so what one
decoder may start would depend on what else runs, and Arrow ends the process when it cannot start a thread to
read a table. Root is exempt from it anyway (setrlimit(2)).

This keeps a program that was taken over from filling the disk or the memory. It is no sandbox: what the user
may read, connect to and run, it may, too.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_LIMITS = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 128}
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h


def confine() -> None:
    """Give up what decoding does not need; libraries must have been imported."""
    sys.dont_write_bytecode = True
    for name, value in _LIMITS.items():
        _limit(name, value, forever=True)
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def limit_memory(size: int) -> None:
    """Refuse to allocate much more than the parent would let pass: it looks only now and then."""
    used = next((int(s.split()[1]) * 1024 for s in _status() if s.startswith("VmData:")), 0)
    _limit("RLIMIT_DATA", used + size)


def _limit(name: str, value: int, *, forever: bool = False) -> None:
    """Set a limit where the system has it, and never above what was allowed before."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    number = getattr(resource, name, None)
    if number is None:
        return
    _, hard = resource.getrlimit(number)
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(number, (soft, soft if forever else hard))


def _status() -> list[str]:
    try:
        with open("/proc/self/status") as file:
            return file.readlines()
    except OSError:
        return []
