"""A worker of :mod:`align.pipeline.process.pool`: does a task at a time, and is gone when its launcher is.

Requests come on standard input, what comes of them goes to standard output, both as frames. The worker opens
no port, and Beam is imported only where an object store is read or written.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import BinaryIO

from align.pipeline.process.frames import receive, send, to_json
from align.schemas.errors import AlignError, UsageError

Frame = tuple[bytes, bytes]
"""Kind and payload."""

BEGIN, TASK = b"B", b"T"
PROGRESS, COUNTS, RESULT, ERROR, DEFECT = (bytes([c]) for c in b"PCREX")

_PATIENCE_S = 0.2


def end_with(launcher: int, every_s: float = 0.5) -> None:
    """End this process when the one that started it is gone; without that, children outlive a killed run."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(every_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def requests(stream: BinaryIO) -> Iterator[Frame]:
    """The requests as they come, until the launcher closes the pipe; at once where it does so under way."""
    inbox: SimpleQueue[Frame | None] = SimpleQueue()
    waiting = threading.Event()

    def read() -> None:
        with suppress(EOFError, OSError):
            while (frame := receive(stream)) is not None:
                inbox.put(frame)
        inbox.put(None)
        while True:
            time.sleep(_PATIENCE_S)
            if not waiting.is_set():  # nobody will hear what becomes of the task
                os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while True:
        waiting.set()
        frame = inbox.get()
        if frame is None:
            return
        waiting.clear()
        yield frame


def serve(frames: Iterator[Frame], replies: BinaryIO) -> None:
    """Get ready, then do what is asked."""
    from align.pipeline.process.progress import Heartbeat
    from align.pipeline.process.tasks import Task, job_of, packed, unpacked
    from align.transforms.stages import take

    def tell(counts: Mapping[str, int]) -> None:
        send(replies, PROGRESS, to_json(counts))

    heartbeat, tasks, config = Heartbeat(tell), dict[str, Task](), None
    for kind, payload in frames:
        name, _, body = payload.partition(b"\n")
        try:
            if kind == BEGIN:
                job = job_of(name.decode())
                config, tasks = unpacked(job.config, body), {task.name: task for task in job.tasks}
                job.begin(config)
                continue
            task = tasks[name.decode()]
            result = packed(task.result, task.do(config, unpacked(task.item, body), heartbeat))
        except AlignError as error:
            usage = isinstance(error, UsageError)
            send(replies, ERROR, to_json([error.code, error.detail, error.stage, usage]))
            continue
        except BrokenPipeError:
            raise
        except Exception as error:
            shown = "".join(traceback.format_exception_only(error)).strip()
            send(replies, DEFECT, to_json([shown, traceback.format_exc()]))
            continue
        heartbeat.flush()
        send(replies, COUNTS, to_json(take()))
        send(replies, RESULT, result)


def main() -> None:
    """Serve the process that started this one, silently, and end with it.

    Ctrl-C reaches the whole group, and batch systems send SIGTERM to every process of a job: what is to
    become of the run is the launcher's to decide.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with(os.getppid())
    asked, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what a library prints must not reach the frames
        os.dup2(silent, stream)
    try:
        serve(requests(asked), replies)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
