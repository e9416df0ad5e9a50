"""Functions of ours that read what a stranger wrote, in a child process with limits of memory and CPU time.

Whatever a file makes a library do, allocate without end, loop or crash, ends the child and costs one request.
Requests and replies are lines of JSON. A request names one of a few functions; nothing is pickled. The clock
of a request is that of the child's CPU, so a machine that is paused or busy makes no healthy file fail; a
child that sleeps over files of this machine is ended, too.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from typing import IO, Any

from align.pipeline.process.deadline import LOOK_S, Deadline
from align.pipeline.process.environment import child_environment, python_module
from align.pipeline.process.limits import confine
from align.pipeline.process.vitals import vitals
from align.pipeline.storage.files import is_remote
from align.schemas.errors import AlignError

_FUNCTIONS: Mapping[str, str] = {
    "check": "align.pipeline.process.data_set_looks",
    "seen": "align.pipeline.process.data_set_looks",
}
_MEMORY = 800 << 20
_CPU_S, _BYTES_A_S = 25.0, 1_000_000
_MOST_REPLY = 256 << 20
# Libraries start a thread, and reserve its stack and arena, for each core: none of that is needed here.
_ALONE = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_IO_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


COMMAND = python_module("align.pipeline.process.limited")


class Limited:
    """A child that carries out one request after another; started when it is first needed.

    Args:
        stores: URIs that it reads; it is given the credentials of their stores, and no others.
    """

    def __init__(self, stores: Iterable[str] = ()) -> None:
        stores = tuple(stores)
        self._environment = {**child_environment(stores), **_ALONE}
        self._may_wait = any(map(is_remote, stores))
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def call(self, name: str, size: int, **given: Any) -> Any:
        """Carry out a function of the list on JSON values.

        Args:
            name: of the function.
            size: bytes of what it reads; the time it may take follows.
            given: its arguments.

        Raises:
            AlignError: what the function raised; ``limits`` where the child died of it.
        """
        with self._lock:
            child = self._child = self._child or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            seconds = _CPU_S + size / _BYTES_A_S
            request = {"name": name, "seconds": seconds, "given": given}
            try:
                with nullcontext() if self._may_wait else _watched(child, seconds):
                    child.stdin.write(json.dumps(request).encode() + b"\n")
                    child.stdin.flush()
                    line = child.stdout.readline(_MOST_REPLY)
                reply = json.loads(line) if line.endswith(b"\n") else None
            except (OSError, ValueError, RecursionError):
                reply = None
            if not isinstance(reply, dict) or not {"error", "value"} & reply.keys():
                raise self._lost(child)
        if "error" in reply:
            code, detail = reply["error"]
            raise AlignError(str(code), str(detail), stage="verify")
        return reply["value"]

    def close(self) -> None:
        """End the child."""
        with self._lock:
            if self._child is not None:
                self._end(self._child)

    def __enter__(self) -> Limited:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        )

    def _lost(self, child: subprocess.Popen[bytes]) -> AlignError:
        self._end(child)
        ended = {-signal.SIGPROF: "it takes too long", -signal.SIGSEGV: "a library crashed"}
        why = ended.get(child.returncode, "it asks for too much memory, or a library crashed")
        return AlignError("limits", f"{why}: nothing that align wrote does", stage="verify")

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        self._child = None
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            child.wait(0.5)  # it ends by itself: its input has ended, or it is dead already
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def _watched(child: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """Kill a child that sleeps instead of working: the timer of its CPU never runs out."""
    done = threading.Event()
    deadline = Deadline(seconds, time.monotonic())

    def look() -> None:
        while not done.wait(LOOK_S):
            now = time.monotonic()
            if deadline.is_due(now) and deadline.passed(now, vitals(child.pid)):
                child.kill()
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def main() -> None:
    """The child: one request a line until the input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    confine()
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    memory = _MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        function = getattr(import_module(_FUNCTIONS[request["name"]]), request["name"])
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        _reply(replies, function, request["given"])
        signal.setitimer(signal.ITIMER_PROF, 0)


def _reply(replies: IO[bytes], function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    try:
        reply: dict[str, Any] = {"value": function(**given)}
    except AlignError as error:
        reply = {"error": [error.code, error.detail]}
    except MemoryError:
        reply = {"error": ["limits", "it asks for too much memory: nothing that align wrote does"]}
    except Exception as error:
        reply = {"error": ["unreadable", f"{type(error).__name__}: {error}"[:2000]]}
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    main()
