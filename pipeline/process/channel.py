"""The pipes to a child, read and written at once: neither side can hold up the other.

A frame's size is looked at before anything of it is read, so that a claim costs no memory.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping

from align.pipeline.process.deadline import LOOK_S, Deadline
from align.pipeline.process.frames import HEADER_BYTES, header
from align.pipeline.process.vitals import vitals
from align.schemas.errors import AlignError

_PIECE = 1 << 20


class Malformed(Exception):
    """What came from a child is no answer to what it was asked."""


class Ended(Exception):
    """The child closed its end: it died."""


class Channel:
    """Frames to and from a running child.

    Args:
        process: with pipes for standard input and output.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._pid = process.pid
        self._to, self._from = process.stdin.fileno(), process.stdout.fileno()
        for descriptor in (self._to, self._from):
            os.set_blocking(descriptor, False)
        self._unsent = memoryview(b"")

    @property
    def is_clear(self) -> bool:
        """Whether all was sent, and nothing waits to be read: no stray bytes, and no end."""
        return not self._unsent and not self._polled(0, select.POLLIN)

    def put(self, kind: bytes, payload: bytes) -> None:
        """Send a frame; what the child does not take now is sent while replies are waited for.

        Raises:
            Malformed: it has not yet read what it asked for before.
        """
        if self._unsent:
            raise Malformed("it asked for more before it read what it had asked for")
        self._unsent = memoryview(header(kind, len(payload)) + payload)
        self._write()

    def frame(self, most: Mapping[bytes, int], memory: int, deadline: Deadline) -> tuple[bytes, bytes]:
        """The next frame.

        Args:
            most: kinds that may come -> bytes that one may have.
            memory: bytes that the child may hold.
            deadline: of the child.

        Raises:
            Malformed: another kind, or larger.
            Ended: the child has died.
            AlignError: ``memory_limit``, ``decode_timeout``.
        """
        head = self._read(HEADER_BYTES, memory, deadline)
        kind, size = head[:1], int.from_bytes(head[1:], "big")
        if kind not in most:
            raise Malformed(f"a frame of kind {kind!r}")
        if size > most[kind]:
            raise Malformed(f"a frame of {size} bytes where {most[kind]} may come")
        return kind, self._read(size, memory, deadline)

    def _read(self, size: int, memory: int, deadline: Deadline) -> bytes:
        data = bytearray()
        while len(data) < size:
            events = self._polled(LOOK_S, select.POLLIN)
            if deadline.is_due(now := time.monotonic()):
                self._look(now, memory, deadline)
            if self._unsent and events.get(self._to):
                self._write()
            if events.get(self._from):
                try:
                    part = os.read(self._from, min(size - len(data), _PIECE))
                except BlockingIOError:
                    continue
                if not part:
                    raise Ended
                data += part
        return bytes(data)

    def _polled(self, timeout_s: float, reading: int) -> dict[int, int]:
        poll = select.poll()
        poll.register(self._from, reading)
        if self._unsent:
            poll.register(self._to, select.POLLOUT)
        return dict(poll.poll(timeout_s * 1000))

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._to, self._unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # its end of the other pipe tells
            self._unsent = memoryview(b"")

    def _look(self, now: float, memory: int, deadline: Deadline) -> None:
        child = vitals(self._pid)
        if child.resident > memory:
            detail = f"decoding took over {memory // 10**6} MB of memory: the file is damaged or hostile"
            raise AlignError("memory_limit", detail)
        if deadline.passed(now, child):
            raise AlignError("decode_timeout", "decoding took too long over a window: see --decode-timeout")
