"""How a run ends before its end: by a signal, or by a fault that another thread or process found."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from align.schemas.errors import AlignError

GRACE_S = 2.0
_FATAL = "fatal.tmp"


class Terminated(BaseException):
    """The process was told to end (SIGTERM)."""


class Stopper:
    """Ends what the main thread waits for: on a signal, or when another thread says so.

    Args:
        leave: ends the process at once, saying why; None where that is not ours to do.
    """

    def __init__(self, leave: Callable[[BaseException], object] | None = None) -> None:
        self.reason: BaseException | None = None
        self._leave = leave
        self._timer: threading.Timer | None = None

    def stop(self, error: AlignError) -> None:
        """Raise an error in the main thread."""
        self.reason = error
        os.kill(os.getpid(), signal.SIGTERM)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Unwind, so that everything is put away; but Beam may swallow the exception, or wait for ever."""
        if self.reason is None:
            self.reason = KeyboardInterrupt() if number == signal.SIGINT else Terminated()
        if self._leave is not None and self._timer is None:
            self._timer = threading.Timer(GRACE_S, self._leave, [self.reason])
            self._timer.daemon = True
            self._timer.start()
        raise self.reason

    def done(self) -> None:
        """The main thread has unwound."""
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def stoppable(leave: Callable[[BaseException], object] | None = None) -> Iterator[Stopper]:
    """While the block runs, SIGINT and SIGTERM end it; so does the stopper.

    Raises:
        KeyboardInterrupt, Terminated, AlignError: what ended it, whatever Beam makes of that on the way.
    """
    stopper = Stopper(leave)
    if threading.current_thread() is not threading.main_thread():
        yield stopper  # a library's caller may run us anywhere; signals reach the main thread only
        return
    before = {number: signal.signal(number, stopper.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopper
    except BaseException:
        if stopper.reason is None:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stopper.done()
    if stopper.reason is not None:
        raise stopper.reason


def leave_word(folder: str | None, error: AlignError) -> None:
    """Tell the launcher why the run has to end: Beam passes on only the text of a traceback."""
    if folder:
        with suppress(OSError):
            text = json.dumps([error.code, error.detail, error.stage])
            (Path(folder) / _FATAL).write_text(text)


def last_word(folder: str) -> AlignError | None:
    """What :func:`leave_word` left."""
    try:
        code, detail, stage = json.loads((Path(folder) / _FATAL).read_text())
    except (OSError, ValueError):
        return None
    return AlignError(code, detail, stage=stage)


def stay_with(launcher: int) -> None:
    """In a worker process that the launcher started on this machine: end when the launcher ends.

    It also leaves the terminal's foreground group, so that Ctrl-C reaches the launcher alone.
    """
    if os.getpid() == launcher or os.getppid() != launcher:
        return
    os.setpgid(0, 0)

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
