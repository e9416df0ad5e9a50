"""Requests to one child, and what it answers, none of which is trusted: a wrong answer is a crash."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

from align.pipeline.process.channel import Channel, Ended, Malformed
from align.pipeline.process.deadline import Deadline
from align.pipeline.process.defects import defect_of
from align.pipeline.process.frames import DEFECT, DONE, ERROR, OPEN, READ, READY, REQUEST
from align.pipeline.process.remote_reads import MOST_URI, ServedFiles
from align.pipeline.process.replies import TEXT_BYTES, Replies, counters_of, error_of
from align.pipeline.storage.files import is_remote
from align.schemas.errors import AlignError
from align.transforms.stages import add

_START_S = 10.0
"""CPU time that a child may take to start, beside its time-out."""

_LAST_S = 5.0  # from the end of a pipe to the end of its process
_ALWAYS: Mapping[bytes, int] = {ERROR: TEXT_BYTES, DEFECT: TEXT_BYTES, DONE: TEXT_BYTES}
_ASKING: Mapping[bytes, int] = {OPEN: MOST_URI, READ: MOST_URI}

_T = TypeVar("_T")


class Conversation:
    """With a child that has just been started.

    Args:
        process: the child.
        timeout_s: CPU time after which a reply is overdue: see :mod:`align.pipeline.process.deadline`.

    Attributes:
        heard_out: whether the last answer was whole, so that the child can be asked again.
    """

    def __init__(self, process: subprocess.Popen[bytes], timeout_s: float) -> None:
        self.heard_out = True
        self._process, self._timeout_s = process, timeout_s
        self._channel, self._files = Channel(process), ServedFiles()
        self._has_answered = False

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked: it has not died, nor said anything unasked."""
        return self.heard_out and (not self._has_answered or self._channel.is_clear)

    def close(self) -> None:
        """Close the files that are open for it."""
        self._files.close()

    def ask(
        self, request: dict[str, Any], replies: Replies, uris: Collection[str], output: str
    ) -> Iterator[Any]:
        """Send a request and give what its replies hold.

        Args:
            request: plain values; ``memory`` is what the child may hold, in bytes.
            replies: checks them.
            uris: files that the request needs; those in an object store are read for the child.
            output: folder or bucket of the run, for tracebacks of our own defects; or "".

        Raises:
            AlignError: what the child reports; ``decoder_crashed`` where it dies or answers what it was not
                asked; ``decode_timeout``, ``memory_limit``.
        """
        self.heard_out = False
        remote = [uri for uri in uris if is_remote(uri)]
        self._files.begin(remote)
        most = {**replies.most, **_ALWAYS, **(_ASKING if remote else {})}
        try:
            for kind, payload in self._exchange(json.dumps(request).encode("ascii"), most, request["memory"]):
                if kind == DONE:
                    _checked(_finish, replies, payload)
                    self.heard_out = True
                    return
                if kind == DEFECT:
                    raise defect_of(payload, output)
                if kind == ERROR:
                    error = _checked(error_of, payload)
                    self.heard_out = error.code != "memory_limit"  # it may have stopped amid a frame
                    raise error
                if (item := _checked(replies.check, kind, payload)) is not None:
                    yield item
        except Malformed as what:
            detail = f"the decoder answered what it was not asked ({what}): the file is damaged or hostile"
            raise AlignError("decoder_crashed", detail) from what
        except Ended:
            self._last_words()

    def _exchange(
        self, request: bytes, most: Mapping[bytes, int], memory: int
    ) -> Iterator[tuple[bytes, bytes]]:
        """The frames that answer a request; what the child wants read meanwhile is read for it."""
        self._channel.put(REQUEST, request)
        patience_s = self._timeout_s + (0.0 if self._has_answered else _START_S)
        deadline = Deadline(patience_s, time.monotonic())
        while True:
            may_come = most if self._has_answered else {**most, READY: 0}
            kind, payload = self._channel.frame(may_come, memory, deadline)
            if not self._has_answered:
                self._has_answered, deadline = True, Deadline(self._timeout_s, time.monotonic())
            if kind in (OPEN, READ):
                self._channel.put(*_checked(self._files.answer, kind, payload))
            elif kind != READY:
                deadline.restart()
                yield kind, payload
            deadline.excuse(time.monotonic())

    def _last_words(self) -> NoReturn:
        """Say how the child ended.

        Raises:
            AlignError: ``decoder_crashed``.
        """
        whose = "the file is damaged or hostile"
        try:
            code = self._process.wait(_LAST_S)
        except subprocess.TimeoutExpired:  # it closed its end, and lives
            raise AlignError("decoder_crashed", f"the decoder hung up: {whose}") from None
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not self._has_answered:
            raise AlignError("decoder_crashed", f"the decoding process does not start ({how})")
        raise AlignError("decoder_crashed", f"the decoder crashed ({how}): {whose}")


def _finish(replies: Replies, payload: bytes) -> None:
    replies.finish()
    add(counters_of(payload))


def _checked(check: Callable[..., _T], *given: Any) -> _T:
    """What a check makes of something from a child.

    Raises:
        Malformed: the check fails, in whatever way: what it reads may have been written to that end.
    """
    try:
        return check(*given)
    except Malformed:
        raise
    except Exception as error:
        raise Malformed(f"{type(error).__name__}: {error}"[:300]) from error
