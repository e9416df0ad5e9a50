"""One run at a time on an output: a lock file that says who holds it, and shows when its holder is dead.

The lock of a dead run passes to exactly one successor. Whoever wants it first creates the *guard* of that
lock, a file named after the lock's content, which only one can; under the guard it looks whether the lock
still has that content, and replaces it. No content comes twice, so a guard created too late opens nothing.
A holder gives its lock back under the same guard. A guard is a lock itself: that of a dead process passes on
in the same way.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Literal

from align.pipeline.storage.holder import Holder, is_running
from align.pipeline.storage.lock_files import LOCK, LockFiles, lock_files
from align.schemas.errors import AlignError, UsageError
from align.transforms.store.publish import Store, strict_json

__all__ = ["LOCK", "Holder", "holder_of", "is_running", "locked", "refuse_if_held"]

BEAT_S = 10.0
STALE_S = 300.0
"""A holder elsewhere that gave a sign of life within this time is alive."""
WATCH_S = 30.0
"""How long a lock from elsewhere is watched, without a sign, before it is taken over."""
_BACKWARDS_S = 2.0  # by which a file server's times of change may step back
_ATTEMPTS = 5

State = Literal["alive", "dead", "unclear"]


@contextmanager
def locked(
    store: Store,
    output: str,
    on_loss: Callable[[AlignError], None],
    say: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lock of an output.

    Args:
        store: the output.
        output: its name, for messages.
        on_loss: called from another thread when the lock is gone: the output was removed, or taken over.
        say: called with a line where a lock from elsewhere has to be watched; by default it goes to stderr.

    Raises:
        UsageError: another run holds it.
        AlignError: ``write_failed``: the output cannot be written to.
    """
    files = lock_files(store)
    lock = Lock(files, output, say or _say)
    mine = strict_json(asdict(Holder.here())).encode("ascii")
    try:
        lock.take(mine)
    except OSError as error:
        detail = f"cannot write to {output}: {error.strerror or error}; choose another --output"
        raise AlignError("write_failed", detail, stage="write") from error
    done = threading.Event()
    thread = threading.Thread(target=_renew, args=(files, output, mine, done, on_loss), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with suppress(OSError):
            lock.give_back(mine)


def _renew(
    files: LockFiles, output: str, mine: bytes, done: threading.Event, on_loss: Callable[[AlignError], None]
) -> None:
    while not done.wait(BEAT_S):
        try:
            if files.read(LOCK) == mine:
                files.touch(LOCK)
                continue
        except OSError:  # a file server that does not answer just now; the lock is lost when it says so
            continue
        detail = f"{output} was removed or taken over under way; run again with --resume"
        on_loss(AlignError("output_lost", detail, stage="write"))
        return


class Lock:
    """Taking and giving back, in terms of whole operations on small files."""

    def __init__(self, files: LockFiles, output: str, say: Callable[[str], None]) -> None:
        self._files, self._output, self._say = files, output, say

    def take(self, mine: bytes, path: str = LOCK) -> None:
        """Take the lock, or a guard.

        Raises:
            UsageError: another run holds it.
            OSError: the output cannot be written to.
        """
        for _ in range(_ATTEMPTS):
            if self._files.create(path, mine) or self._taken_over(path, mine):
                break
        else:
            raise self._just_begun()
        if self._files.read(path) != mine:  # a bucket has no exclusive creation
            raise self._just_begun()
        if path == LOCK:
            for guard in set(self._files.guards()) - {guard_of(mine)}:
                self._files.remove(guard)  # of locks that are gone: they open nothing any more

    def give_back(self, mine: bytes) -> None:
        """Remove the lock if it is still that of ``mine``."""
        if self._files.read(LOCK) != mine:
            return
        guard = guard_of(mine)
        if self._files.create(guard, mine):
            if self._files.read(LOCK) == mine:
                self._files.remove(LOCK)
            self._files.remove(guard)

    def _taken_over(self, path: str, mine: bytes) -> bool:
        """Succeed a dead holder; False where the file has gone meanwhile."""
        found = self._files.read(path)
        if found is None:
            return False
        self._refuse_unless_dead(path, found)
        guard = guard_of(found, path)
        self.take(mine, guard)
        try:
            if self._files.read(path) != found:
                return False
            self._files.replace(path, mine)
        finally:
            if self._files.read(guard) == mine:
                self._files.remove(guard)
        return True

    def _refuse_unless_dead(self, path: str, found: bytes) -> None:
        state = state_of(self._files, path, found)
        if state == "unclear":
            self._say(
                f"{self._output} holds the lock of {_named(found)}, which this machine cannot ask for; "
                f"watching {WATCH_S:g} s for a sign of life before taking over"
            )
            state = "alive" if _gives_sign(self._files, path) else "dead"
        if state == "alive":
            raise held(self._output, found)

    def _just_begun(self) -> UsageError:
        return UsageError(f"another run has just begun to write to {self._output}", code="locked")


def guard_of(content: bytes, path: str = LOCK) -> str:
    """The file under which the lock or guard at a path, with this content, changes hands."""
    return f"{LOCK}.after-{hashlib.sha256(path.encode() + content).hexdigest()[:16]}"


def state_of(files: LockFiles, path: str, found: bytes) -> State:
    """Whether the holder that a lock names still runs, as far as can be told at once.

    A file that names no holder is a lock in the making, or a damaged one: its age decides.
    """
    holder = Holder.of(found)
    if holder is not None and holder.can_be_asked_for():
        return "alive" if holder.runs() else "dead"
    age = files.age_s(path)
    return "alive" if age is None or -_BACKWARDS_S <= age < STALE_S else "unclear"


def _gives_sign(files: LockFiles, path: str) -> bool:
    """Watch a lock for so long that a living holder touches it several times."""
    before, end = files.sign(path), time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_S / 10))
        with suppress(OSError):
            if files.sign(path) != before:
                return True
    return False


def holder_of(store: Store) -> Holder | None:
    """Who holds the lock of an output, alive or not; None where nobody does or the file says nothing."""
    data = lock_files(store).read(LOCK)
    return None if data is None else Holder.of(data)


def refuse_if_held(store: Store, output: str) -> None:
    """Refuse to touch an output on which a run is known to be under way.

    Raises:
        UsageError: another run holds it.
    """
    files = lock_files(store)
    try:
        found = files.read(LOCK)
        alive = found is not None and state_of(files, LOCK, found) == "alive"
    except OSError:  # said when the lock is to be taken
        return
    if found is not None and alive:
        raise held(output, found)


def held(output: str, found: bytes) -> UsageError:
    """What a second run is told."""
    holder = Holder.of(found)
    detail = f"another run is writing to {output} ({_named(found)}); wait for it or stop it"
    if holder is None or not holder.can_be_asked_for():
        detail += f"; if it died, try again {STALE_S:g} s after that"
    return UsageError(detail, code="locked")


def _named(found: bytes) -> str:
    holder = Holder.of(found)
    if holder is None:
        return "a process that left no name"
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
    except (TypeError, ValueError, OverflowError, OSError):
        since = "an unknown time"
    host = "".join(c for c in holder.host[:80] if c.isprintable())
    return f"process {holder.pid} on {host}, since {since}"


def _say(line: str) -> None:
    print(f"align: {line}", file=sys.stderr, flush=True)
