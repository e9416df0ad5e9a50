"""Decoding in a child process that can be killed: a codec's crash or hang costs one segment, not the run.

A worker process keeps one child and sends it request after request. The child streams encoded samples back
as it makes them, so what was delivered before it died counts.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from align.pipeline.config import RunConfig
from align.pipeline.process.decoder_process import COUNTS, DEFECT, DONE, ERROR, FAULT, MEDIA, SAMPLE, send
from align.pipeline.process.tasks import PART
from align.pipeline.storage.files import is_remote
from align.schemas.errors import AlignError, Fault
from align.schemas.features import arrow_schema
from align.schemas.media import MediaInfo
from align.schemas.plan import Segment
from align.schemas.time import ClockMap, TimeSpan
from align.schemas.wire import from_plain, to_plain
from align.transforms.stages import add
from align.transforms.write.encoded import EncodedRow, received

COMMAND = (sys.executable, "-m", "align.pipeline.process.decoder_process")
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

_LOOK_S = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Terms(Protocol):
    """What a run asks of its children: see :class:`~align.pipeline.config.RunConfig`."""

    @property
    def decode_timeout_s(self) -> float:
        """Silence after which a child is taken to hang."""
        ...

    @property
    def beam_args(self) -> tuple[str, ...]:
        """Options of the file systems."""
        ...


class Decoder:
    """A child process, started when it is first needed and again after it was lost.

    Args:
        timeout_s: silence after which the child is taken to hang.
        command: starts the child.
    """

    def __init__(self, timeout_s: float, command: Sequence[str] = COMMAND) -> None:
        self.terms = timeout_s, tuple(command)
        self._timeout_s, self._command = timeout_s, command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """The running child."""
        if self._process is None or self._process.poll() is not None:
            pipe = subprocess.PIPE
            environment = {**os.environ, **_ALLOCATORS}
            self._process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment
            )
        return self._process

    def stop(self) -> None:
        """Kill the child."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                with suppress(OSError):
                    stream.close()
            self._process = None

    def probe(self, uri: str, video_index: int | None, audio_index: int | None = None) -> MediaInfo:
        """Probe a media file: see :func:`align.transforms.read.probe.probe_media`.

        Raises:
            AlignError: also ``decoder_crashed``, ``decode_timeout``, ``memory_limit``.
        """
        request = {"task": "probe", "uri": uri, "video_index": video_index, "audio_index": audio_index}
        replies = self._ask(request, MEMORY_BYTES)
        media: MediaInfo = from_plain(MediaInfo, json.loads(_only(MEDIA, replies)))
        return media

    def ask(self, task: str, request: Mapping[str, Any], *, pixels: int = 0) -> Generator[bytes, None, None]:
        """The parts of the answer to one of :mod:`align.pipeline.process.tasks`; unchecked.

        Args:
            task: its name.
            request: plain values.
            pixels: of a picture that the task decodes.

        Raises:
            AlignError: also ``decoder_crashed``, ``decode_timeout``, ``memory_limit``.
        """
        memory = MEMORY_BYTES + MEMORY_PER_PIXEL * pixels
        for kind, payload in self._ask({"task": task, **request}, memory):
            if kind == PART:
                yield payload

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
        for _, payload in self._ask(request, MEMORY_BYTES):
            yield np.frombuffer(payload, "<f8")

    def samples(
        self, segment: Segment, options: Any, config_sha256: str, *, keep_open: bool = False
    ) -> Iterator[EncodedRow | Fault]:
        """The samples of a segment as rows: see :func:`align.transforms.align.segment.align_segment`.

        With ``keep_open`` the child keeps the media file open, as the next segment is of the same one. Where
        the child is lost, the windows it had not delivered fail with ``decoder_crashed``, ``decode_timeout``
        or ``memory_limit``.
        """
        schema = arrow_schema(options.audio_rate, options.imu_rate)
        video, done, counts = segment.media.video, 0, b""
        memory = MEMORY_BYTES + MEMORY_PER_PIXEL * (video.width * video.height if video else 0)
        request = {
            "task": "segment",
            "segment": to_plain(segment),
            "options": to_plain(options),
            "config_sha256": config_sha256,
            "keep_open": keep_open,
        }
        try:
            for kind, payload in self._ask(request, memory):
                if kind == COUNTS:
                    counts = payload
                    continue
                if kind == SAMPLE:
                    yield _with_counts(pa.ipc.read_record_batch(pa.py_buffer(payload), schema), counts)
                elif kind == FAULT:
                    yield Fault(**json.loads(payload))
                done += 1
        except AlignError as error:
            recording = segment.recording
            detail = f"{recording.video.name}: {error.detail}"
            for start in segment.starts_ns[done:]:
                yield Fault(recording.recording_id, start, error.stage, error.code, detail)

    def _ask(self, request: dict[str, Any], memory: int) -> Iterator[tuple[bytes, bytes]]:
        """Send a request and give the replies; a child that was not heard out is killed."""
        payload, heard_out = json.dumps({**request, "memory": memory}).encode("ascii"), False
        try:
            self._send(payload)
            while True:
                kind, reply = self._frame(memory)
                if kind == DONE:
                    heard_out = True
                    add(json.loads(reply))
                    return
                if kind == ERROR:
                    heard_out = True
                    code, detail, stage = json.loads(reply)
                    raise AlignError(code, detail, stage=stage)
                if kind == DEFECT:
                    raise RuntimeError(f"in the decoding process:\n{reply.decode('utf-8', 'replace')}")
                yield kind, reply
        finally:
            if not heard_out:
                self.stop()

    def _send(self, payload: bytes) -> None:
        for attempt in range(2):
            stdin = self.start().stdin
            assert stdin is not None
            try:
                send(stdin, b"Q", payload)  # type: ignore[arg-type]
            except BrokenPipeError:  # it died while nothing was asked of it
                self.stop()
                if attempt:
                    raise AlignError("decoder_crashed", "the decoding process does not start") from None
            else:
                return

    def _frame(self, memory: int) -> tuple[bytes, bytes]:
        header = self._read(5, memory)
        return header[:1], self._read(int.from_bytes(header[1:], "big"), memory)

    def _read(self, size: int, memory: int) -> bytes:
        """So many bytes, while the child lives, is not silent for too long and keeps its memory in bounds."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        data, silent_since = bytearray(), time.monotonic()
        while len(data) < size:
            if waiting.poll(_LOOK_S * 1000):
                part = os.read(descriptor, size - len(data))
                if not part:
                    raise AlignError("decoder_crashed", self._last_words())
                data += part
                silent_since = time.monotonic()
                continue
            if _resident_bytes(self._process.pid) > memory:
                detail = f"decoding took over {memory // 10**6} MB of memory: the file is damaged or hostile"
                raise AlignError("memory_limit", detail)
            if time.monotonic() - silent_since > self._timeout_s:
                detail = f"decoding gave nothing for {self._timeout_s:g} s: see --decode-timeout"
                raise AlignError("decode_timeout", detail)
        return bytes(data)

    def _last_words(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the decoder crashed ({how}): the file is damaged or hostile"


def _with_counts(batch: pa.RecordBatch, counts: bytes) -> EncodedRow:
    try:
        return received(batch, counts)
    except ValueError as error:
        raise AlignError("decoder_crashed", f"the decoder sent a sample's counts wrong: {error}") from error


def _only(kind: bytes, replies: Iterator[tuple[bytes, bytes]]) -> bytes:
    ((found, payload),) = replies
    if found != kind:
        raise RuntimeError(f"the decoding process answered {found!r} instead of {kind!r}")
    return payload


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where the system does not tell (no /proc)."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


class _Pool:
    """Idle children of this process. Beam may work on several bundles at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []

    @contextmanager
    def borrow(self, config: Terms) -> Iterator[Decoder]:
        terms = _terms(config)
        with self._lock:
            for other in [d for d in self._idle if d.terms != terms]:  # an earlier run's, on other terms
                self._idle.remove(other)
                other.stop()
            decoder = self._idle.pop() if self._idle else Decoder(*terms)
        try:
            yield decoder
        finally:
            with self._lock:
                self._idle.append(decoder)

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().stop()


def _terms(config: Terms) -> tuple[float, tuple[str, ...]]:
    """Time-out and command of the children that a run needs."""
    options = ("--use", *config.beam_args) if config.beam_args else ()
    return config.decode_timeout_s, (*COMMAND, *options)


_POOL = _Pool()
atexit.register(_POOL.close)
borrow, stop_idle = _POOL.borrow, _POOL.close


def start_early(config: RunConfig) -> None:
    """Let a child start while this process is still importing."""
    if is_remote(config.input):
        _POOL.close()  # an earlier run's children would keep the credentials and endpoints of their start
    with borrow(config) as decoder:
        decoder.start()
