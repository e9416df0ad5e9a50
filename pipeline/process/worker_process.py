"""A worker process of Beam's in-process runner: silent on the terminal, and gone when its launcher is."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ALIVE = ".alive"


@contextmanager
def signed_on(folder: str) -> Iterator[None]:
    """Leave a sign, ``<process id>.alive``, that goes when the block ends well.

    So the launcher tells a worker that died, be it while it was still importing, from one that was told to
    end: Beam ends its workers one after the other, and on a busy machine the last may outlive the first by
    many seconds.
    """
    sign = Path(folder, f"{os.getpid()}{ALIVE}") if folder else None
    if sign:
        sign.touch()
    yield
    if sign:
        sign.unlink(missing_ok=True)


def end_with(launcher: int, every_s: float = 0.5) -> None:
    """End this process when the one that started it is gone; without that, workers outlive a killed run."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(every_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Do what Beam's own worker does, out of reach of Ctrl-C, which is the launcher's to handle.

    The one argument is the folder of :func:`align.pipeline.process.progress.watch`.
    What workers log would stand between the lines of the progress; errors reach the launcher by Beam's
    control channel.
    """
    end_with(os.getppid())
    os.setpgid(0, 0)
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    with signed_on(sys.argv[1]):
        from apache_beam.runners.worker import sdk_worker_main

        sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
