"""One run at a time on one output: a lock file that says who holds it, and tells when its holder is dead.

On a local disk taking the lock is atomic. An object store offers no exclusive creation through Beam's file
systems, so there the lock is written and read back: two runs that start within the same second may both pass.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from align.schemas.errors import AlignError, UsageError
from align.transforms.store.publish import Store, publish_json, read_json, strict_json

LOCK = "_work/lock"
BEAT_S = 10.0
STALE_S = 300.0
"""A holder on another machine that has not renewed its lock for so long is taken to be dead."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        started: when the process began, in the system's own count: a process id may be given anew.
        since: when the lock was taken, s since 1970.
        beat: when it was last renewed.
        token: names this taking of the lock.
    """

    host: str
    pid: int
    started: str
    since: float
    beat: float
    token: str

    @classmethod
    def here(cls) -> Holder:
        """This process, now."""
        now = time.time()
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()), now, now, secrets.token_hex(8))

    def is_alive(self) -> bool:
        """Whether it still runs, as far as can be told from here."""
        if self.host != socket.gethostname():
            return time.time() - self.beat < STALE_S
        return is_running(self.pid) and self.started == _started(self.pid)


def is_running(pid: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
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


@contextmanager
def locked(store: Store, output: str, on_loss: Callable[[AlignError], None]) -> Iterator[None]:
    """Hold the lock of an output.

    Args:
        store: the output.
        output: its name, for messages.
        on_loss: called from another thread when the lock is gone: the output was removed, or taken over.

    Raises:
        UsageError: another run holds it.
        AlignError: ``write_failed``: the output cannot be written to.
    """
    mine = Holder.here()
    _take(store, output, mine)
    done = threading.Event()

    def renew() -> None:
        while not done.wait(BEAT_S):
            if _token(store) != mine.token:
                detail = f"{output} was removed or taken over under way; run again with --resume"
                on_loss(AlignError("output_lost", detail, stage="write"))
                return
            with suppress(AlignError):  # the disk may be full just now: shards will tell
                publish_json(store, LOCK, {**asdict(mine), "beat": time.time()})

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if _token(store) == mine.token:
            store.remove(LOCK)


def holder_of(store: Store) -> Holder | None:
    """Who holds the lock of an output, alive or not; None where nobody does or the file says nothing."""
    try:
        return Holder(**read_json(store, LOCK))
    except (FileNotFoundError, NotADirectoryError, AlignError, TypeError):
        return None


def refuse_if_held(store: Store, output: str) -> None:
    """Refuse to touch an output on which a run is under way.

    Raises:
        UsageError: another run holds it.
    """
    holder = holder_of(store)
    if holder is not None and holder.is_alive():
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
        who = f"process {holder.pid} on {holder.host}, since {since}"
        raise UsageError(f"another run is writing to {output} ({who}); wait for it or stop it", code="locked")


def _take(store: Store, output: str, mine: Holder) -> None:
    refuse_if_held(store, output)
    store.remove(LOCK)
    try:
        stream = store.create(LOCK)
        stream.write(strict_json(asdict(mine)).encode("ascii"))
        store.seal(stream)
    except FileExistsError:
        refuse_if_held(store, output)
        raise UsageError(f"another run has just begun to write to {output}", code="locked") from None
    except OSError as error:
        detail = f"cannot write to {output}: {error.strerror or error}; choose another --output"
        raise AlignError("write_failed", detail, stage="write") from error
    if _token(store) != mine.token:
        raise UsageError(f"another run has just begun to write to {output}", code="locked")


def _token(store: Store) -> Any:
    holder = holder_of(store)
    return holder and holder.token
