"""Decoding in a child process that can be killed: a codec's crash or hang costs one segment, not the run.

A worker process keeps one child and sends it request after request. The child streams encoded samples back
as it makes them, so what was delivered before it died counts.
"""

from __future__ import annotations

import atexit
import subprocess
import threading
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.pipeline.config import RunConfig
from align.pipeline.process.conversation import Conversation
from align.pipeline.process.environment import child_environment, python_module
from align.pipeline.process.replies import PartReplies, ProbeReplies, Replies, SegmentReplies, SoundReplies
from align.schemas.errors import AlignError, Fault
from align.schemas.media import MediaInfo
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.time import ClockMap, TimeSpan
from align.schemas.wire import to_plain
from align.transforms.write.encoded import EncodedRow

COMMAND = python_module("align.pipeline.process.decoder_process")
MEMORY_BYTES = 1_000_000_000
MEMORY_PER_PIXEL = 40
"""Resident memory that a child may take: a base, and some 20 reference pictures of the video."""

_ALLOCATORS = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
}
"""Of the child. Arrow's own allocator reserves a gigabyte at its first use, which would count as used. glibc
would keep the tables of a long file, tens of megabytes each, after it is closed. Told to give back what is
so large, it gives back each window's arrays, too, a page fault for every 4 kB, unless told to keep some."""


class Decoder:
    """A child process, started when it is first needed and again after it was lost.

    What it sends is not trusted: see :mod:`align.pipeline.process.replies`. An answer that is none costs what
    was asked for, as a crash does, and the child.

    Args:
        timeout_s: CPU time after which a reply is overdue: see :mod:`align.pipeline.process.deadline`.
        command: starts the child.

    Attributes:
        output: where tracebacks of our own defects are kept: folder or bucket of the run, or "".
    """

    def __init__(self, timeout_s: float, command: Sequence[str] = COMMAND) -> None:
        self.terms = timeout_s, tuple(command)
        self.output = ""
        self._timeout_s, self._command = timeout_s, command
        self._process: subprocess.Popen[bytes] | None = None
        self._conversation: Conversation | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """The running child."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            pipe = subprocess.PIPE
            environment = {**child_environment(), **_ALLOCATORS}
            self._process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment
            )
            self._conversation = Conversation(self._process, self._timeout_s)
        return self._process

    def stop(self) -> None:
        """Kill the child."""
        if self._conversation is not None:
            self._conversation.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                with suppress(OSError):
                    stream.close()
            self._process = self._conversation = None

    def probe(self, uri: str, video_index: int | None, audio_index: int | None = None) -> MediaInfo:
        """Probe a media file: see :func:`align.transforms.read.probe.probe_media`.

        Raises:
            AlignError: also ``decoder_crashed``, ``decode_timeout``, ``memory_limit``.
        """
        request = {"task": "probe", "uri": uri, "video_index": video_index, "audio_index": audio_index}
        *_, media = self._ask(request, ProbeReplies(), [uri], MEMORY_BYTES)
        assert isinstance(media, MediaInfo)
        return media

    def ask(
        self, task: str, request: Mapping[str, Any], *, parts: int, pixels: int = 0
    ) -> Generator[bytes, None, None]:
        """The parts of the answer to one of :mod:`~align.pipeline.process.decoder_tasks`, unchecked.

        Args:
            task: its name.
            request: plain values; ``uri`` is the file.
            parts: how many there must be.
            pixels: of a picture that the task decodes.

        Raises:
            AlignError: also ``decoder_crashed``, ``decode_timeout``, ``memory_limit``.
        """
        memory = MEMORY_BYTES + MEMORY_PER_PIXEL * pixels
        yield from self._ask({"task": task, **request}, PartReplies(parts), [request["uri"]], memory)

    def sounds(
        self, uri: str, media: MediaInfo, spans: Sequence[TimeSpan], rate: int, clock: ClockMap
    ) -> Iterator[NDArray[np.float64]]:
        """The sound of some spans of a file: see :func:`align.transforms.sync.sound.hearing_file`.

        Raises:
            AlignError: also ``decoder_crashed``, ``decode_timeout``, ``memory_limit``.
        """
        request = {
            "task": "hear",
            "uri": uri,
            "media": to_plain(media),
            "spans": to_plain(tuple(spans)),
            "rate": rate,
            "clock": to_plain(clock),
        }
        yield from self._ask(request, SoundReplies(spans, rate), [uri], MEMORY_BYTES)

    def samples(
        self, segment: Segment, options: AlignOptions, config_sha256: str, *, keep_open: bool = False
    ) -> Iterator[EncodedRow | Fault]:
        """The samples of a segment as rows: see :func:`align.transforms.align.segment.align_segment`.

        With ``keep_open`` the child keeps the media file open, as the next segment is of the same one. Where
        the child is lost, or answers what it was not asked, the windows it had not delivered fail with
        ``decoder_crashed``, ``decode_timeout`` or ``memory_limit``.
        """
        video, recording = segment.media.video, segment.recording
        memory = MEMORY_BYTES + MEMORY_PER_PIXEL * (video.width * video.height if video else 0)
        request = {
            "task": "segment",
            "segment": to_plain(segment),
            "options": to_plain(options),
            "config_sha256": config_sha256,
            "keep_open": keep_open,
        }
        streams = (recording.video, recording.audio, recording.sound_file, recording.imu)
        uris = [stream.uri for stream in streams if stream]
        replies = SegmentReplies(segment, options, config_sha256)
        try:
            yield from self._ask(request, replies, uris, memory)
        except AlignError as error:
            detail = f"{recording.video.name}: {error.detail}"
            for start in segment.starts_ns[replies.done :]:
                yield Fault(recording.recording_id, start, error.stage, error.code, detail)

    def _ask(
        self, request: dict[str, Any], replies: Replies, uris: Collection[str], memory: int
    ) -> Iterator[Any]:
        """Send a request and give what its replies hold; a child that was not heard out is killed."""
        self.start()
        if self._conversation is not None and not self._conversation.is_ready:
            self.stop()  # it died while nothing was asked of it, or spoke
            self.start()
        conversation = self._conversation
        assert conversation is not None
        try:
            yield from conversation.ask({**request, "memory": memory}, replies, uris, self.output)
        finally:
            if not conversation.heard_out:
                self.stop()


class _Pool:
    """Idle children of this process. Beam may work on several bundles at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []

    @contextmanager
    def borrow(self, config: RunConfig) -> Iterator[Decoder]:
        terms = _terms(config)
        with self._lock:
            for other in [d for d in self._idle if d.terms != terms]:  # an earlier run's, on other terms
                self._idle.remove(other)
                other.stop()
            decoder = self._idle.pop() if self._idle else Decoder(*terms)
        decoder.output = config.outputs.output
        try:
            yield decoder
        finally:
            with self._lock:
                self._idle.append(decoder)

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().stop()


def _terms(config: RunConfig) -> tuple[float, tuple[str, ...]]:
    """Time-out and command of the children that a run needs."""
    return config.execution.decode_timeout, COMMAND


_POOL = _Pool()
atexit.register(_POOL.close)
borrow, stop_idle = _POOL.borrow, _POOL.close


def start_early(config: RunConfig) -> None:
    """Let a child start while this process is still importing."""
    with borrow(config) as decoder:
        decoder.start()
