"""Worker processes of a run on this machine, spoken to over pipes: nothing listens, nothing is pickled.

Each worker has a thread here that hands it one task after the other, the longest first. The first task that
fails, or the first worker that is lost, ends the work of all: the run goes on with ``--resume``.
"""

from __future__ import annotations

import heapq
import json
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from align.pipeline.process.environment import child_environment, python_module
from align.pipeline.process.frames import receive, send
from align.pipeline.process.progress import Progress
from align.pipeline.process.tasks import Task, job_of, packed, unpacked
from align.pipeline.process.worker_process import BEGIN, COUNTS, DEFECT, ERROR, PROGRESS, RESULT, TASK
from align.schemas.errors import AlignError, UsageError
from align.transforms.stages import add

COMMAND = python_module("align.pipeline.process.worker_process")

_PATIENCE_S = 2.0


class WorkerDefect(RuntimeError):
    """A defect of ours in a worker; its traceback there is a note of the exception."""


@dataclass(slots=True)
class Ticket:
    """A task that was submitted: what came of it, once that is known."""

    task: Task
    request: bytes
    result: bytes | None = None
    counts: dict[str, int] = field(default_factory=dict)


class Pool:
    """So many worker processes.

    Args:
        job: names the tasks: see :func:`align.pipeline.process.tasks.job_of`.
        config: of the job.
        size: how many.
        progress: is given what the workers count.
        stores: URIs that the workers read and write.
    """

    def __init__(
        self, job: str, config: Any, size: int, progress: Progress, stores: Sequence[str] = ()
    ) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Ticket]] = []
        self._order = count()
        self._error: Exception | None = None
        self._closed = False
        self._busy = 0
        self._progress = progress
        begin = job.encode() + b"\n" + packed(job_of(job).config, config)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._drivers: list[threading.Thread] = []
        environment, pipe = child_environment(stores), subprocess.PIPE
        try:
            for _ in range(size):
                worker = subprocess.Popen(
                    COMMAND, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment
                )
                self._workers.append(worker)
                driver = threading.Thread(target=self._drive, args=(worker, begin), daemon=True)
                self._drivers.append(driver)
                driver.start()
        except BaseException:
            self.close()
            raise

    def submit(self, task: Task, item: Any) -> Ticket:
        """Have a task done; the item waits in few bytes until a worker is free."""
        ticket = Ticket(task, task.name.encode() + b"\n" + packed(task.item, item))
        with self._changed:
            heapq.heappush(self._waiting, (-task.cost(item), next(self._order), ticket))
            self._changed.notify()
        return ticket

    def result(self, ticket: Ticket) -> Any:
        """What came of a task, when it is done; what its stages counted is added to this thread's.

        Raises:
            AlignError: that of the first task that failed, this one or another; ``worker_died``.
            WorkerDefect: a task ended in a defect of ours.
        """
        with self._changed:
            while ticket.result is None and self._error is None and not self._closed:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            if ticket.result is None:
                raise RuntimeError("the workers were told to end before the task was done")
        add(ticket.counts)
        data, ticket.result = ticket.result, b""
        return unpacked(ticket.task.result, data)

    def close(self) -> None:
        """End the workers: idle ones see their pipe closed, others are killed."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            idle = not (self._busy or self._error)
            self._changed.notify_all()
        for worker in self._workers:
            assert worker.stdin is not None
            if not idle:
                worker.kill()
            with suppress(OSError):
                worker.stdin.close()
        for worker, driver in zip(self._workers, self._drivers, strict=False):
            try:
                worker.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            driver.join(_PATIENCE_S)
            assert worker.stdout is not None
            if not driver.is_alive():
                worker.stdout.close()

    def _drive(self, worker: subprocess.Popen[bytes], begin: bytes) -> None:
        """Keep one worker busy, until there is nothing more to come or something has failed."""
        assert worker.stdin is not None
        try:
            send(worker.stdin, BEGIN, begin)  # type: ignore[arg-type]
            while (ticket := self._next()) is not None:
                send(worker.stdin, TASK, ticket.request)  # type: ignore[arg-type]
                ticket.request = b""
                self._hear(worker, ticket)
        except (OSError, EOFError):
            detail = f"worker process {worker.pid} died (out of memory?); run again with --resume"
            self._fail(AlignError("worker_died", detail, stage="write"))
        except Exception as error:
            self._fail(error)

    def _next(self) -> Ticket | None:
        with self._changed:
            while not (self._waiting or self._closed or self._error):
                self._changed.wait()
            if self._closed or self._error:
                return None
            self._busy += 1
            return heapq.heappop(self._waiting)[2]

    def _hear(self, worker: subprocess.Popen[bytes], ticket: Ticket) -> None:
        """Take in what a worker says of a task, up to its result.

        Raises:
            EOFError: it says nothing any more.
        """
        assert worker.stdout is not None
        while (frame := receive(worker.stdout)) is not None:  # type: ignore[arg-type]
            kind, payload = frame
            if kind == PROGRESS:
                self._progress.add(json.loads(payload))
            elif kind == COUNTS:
                ticket.counts = json.loads(payload)
            elif kind == ERROR:
                raise _as_raised(*json.loads(payload))
            elif kind == DEFECT:
                shown, where = json.loads(payload)
                defect = WorkerDefect(f"in a worker process: {shown}")
                defect.add_note(where)
                raise defect
            elif kind == RESULT:
                with self._changed:
                    self._busy -= 1
                    ticket.result = payload
                    self._changed.notify_all()
                return
        raise EOFError

    def _fail(self, error: Exception) -> None:
        with self._changed:
            if self._error is None and not self._closed:
                self._error = error
            self._changed.notify_all()


def _as_raised(code: str, detail: str, stage: Any, usage: bool) -> AlignError:
    if usage:
        return UsageError(detail, code=code, stage=stage)
    return AlignError(code, detail, stage=stage)
