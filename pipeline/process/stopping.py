"""How a run ends before its end: by a signal, or by a fault that another thread found."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from align.schemas.errors import AlignError

Leave = Callable[[BaseException], object]

GRACE_S = 2.0

_DELICATE = "soundfile"
"""An exception from outside is lost in what libsndfile calls back, and frees memory twice in ``close``."""


class Terminated(BaseException):
    """The process was told to end (SIGTERM)."""


class Stopper:
    """Ends what the main thread waits for: on a signal, or when another thread says so.

    Attributes:
        reason: what ended it.
    """

    def __init__(self) -> None:
        self.reason: BaseException | None = None

    def stop(self, error: AlignError) -> None:
        """Raise an error in the main thread."""
        self.reason = error
        os.kill(os.getpid(), signal.SIGTERM)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Unwind, so that everything is put away: at once, or as soon as a delicate library has returned."""
        reason, outer = self.tell(number), frame
        while outer is not None and outer.f_globals.get("__name__") == _DELICATE:
            outer = outer.f_back
        if outer is None or outer is frame:
            raise reason

        def unwind(*_: object) -> None:
            raise reason

        outer.f_trace = unwind  # called before the frame's next line, as a debugger is
        sys.settrace(lambda *_: None)

    def tell(self, number: int) -> BaseException:
        """Why the run ends, given a signal's number."""
        if self.reason is None:
            self.reason = KeyboardInterrupt() if number == signal.SIGINT else Terminated()
        return self.reason


@contextmanager
def stoppable(leave: Leave | None = None) -> Iterator[Stopper]:
    """While the block runs, SIGINT and SIGTERM end it; so does the stopper.

    Args:
        leave: ends the process, given the reason, where the block has not ended after ``GRACE_S``; None
            where that is not ours to do.

    Raises:
        KeyboardInterrupt, Terminated, AlignError: what ended it, whatever Beam makes of that on the way.
    """
    stopper = Stopper()
    if threading.current_thread() is not threading.main_thread():
        yield stopper  # a library's caller may run us anywhere; signals reach the main thread only
        return
    before = {number: signal.signal(number, stopper.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _guarded(stopper, leave):
            yield stopper
    except BaseException:
        if stopper.reason is None:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopper.reason is not None:
        raise stopper.reason


@contextmanager
def _guarded(stopper: Stopper, leave: Leave | None) -> Iterator[None]:
    """Call ``leave`` if the block outlives a signal: Beam may swallow the exception, or wait for ever.

    Python's own handlers run when the main thread next executes Python code, which it may never do. The
    descriptor is written to when the signal comes.
    """
    if leave is None:
        yield
        return
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    done = threading.Event()

    def listen() -> None:
        number = os.read(told, 1)
        if number and not done.wait(GRACE_S):
            leave(stopper.tell(number[0]))

    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(tell)
        thread.join()
        os.close(told)
