"""How a run ends before its end: by a signal, or by a fault that another thread or process found."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from align.schemas.errors import AlignError

_FATAL = "fatal.tmp"


class Terminated(BaseException):
    """The process was told to end (SIGTERM)."""


class Stopper:
    """Lets other threads end what the main thread waits for."""

    def __init__(self) -> None:
        self._error: AlignError | None = None

    def stop(self, error: AlignError) -> None:
        """Raise an error in the main thread."""
        self._error = error
        os.kill(os.getpid(), signal.SIGTERM)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """What SIGTERM does meanwhile."""
        raise self._error or Terminated()


@contextmanager
def stoppable() -> Iterator[Stopper]:
    """While the block runs, SIGTERM raises :class:`Terminated`, or the error given to the stopper."""
    stopper = Stopper()
    if threading.current_thread() is not threading.main_thread():
        yield stopper  # a library's caller may run us anywhere; signals reach the main thread only
        return
    before = signal.signal(signal.SIGTERM, stopper.on_signal)
    try:
        yield stopper
    finally:
        signal.signal(signal.SIGTERM, before)


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
