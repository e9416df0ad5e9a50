"""Reads the media of a segment's windows in one pass over the file.

Packets of video and audio come as the file interleaves them. Video goes run by run through the frame
decoder, which decodes only what the targets need; audio packets are kept while a window may still want
them. Long stretches that no window needs are skipped by seeking. What a window gets does not depend on
which other windows are read with it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from math import floor
from typing import TypeAlias, TypeVar, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.stream import VideoStream

from align.schemas.errors import AlignError
from align.schemas.media import MediaInfo, VideoInfo
from align.schemas.time import NS, TimeSpan, ticks_to_ns
from align.transforms.read.frames import DecodedFrame as DecodedFrame
from align.transforms.read.frames import Run, RunAssembler, RunDecoder
from align.transforms.read.nal import entry_test
from align.transforms.read.probe import clock_offset_ns, packets_of, rewind, time_base
from align.transforms.stages import count, stage

_S = TypeVar("_S", VideoStream, AudioStream)
_AnyPacket: TypeAlias = "Packet[VideoStream] | Packet[AudioStream]"

PREROLL_NS = NS // 4
"""Audio packets that end later than this before a window's audio are handed over, so decoders settle."""

PREROLL_PACKETS = 4
"""At least so many packets before the window's audio, where the stream has them."""

STALE_FRAMES = 3
"""A damaged frame is replaced by a sound one at most so many nominal frames before it."""

_INTERLEAVE_NS = 10 * NS
"""How far a stream may lag behind the other in the file before it is taken to have ended."""

_JUMP_NS = 10 * NS
"""Shorter stretches are read through."""

_LANDING_PACKETS = 2000
_BACKOFF_NS = (0, NS, 4 * NS, 16 * NS, 64 * NS)


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """What a window wants of a file.

    Attributes:
        window: the window, recording clock.
        targets_ns: instants whose frames are wanted, recording clock.
        audio: the span of audio wanted, margins included; None without audio.
    """

    window: TimeSpan
    targets_ns: tuple[int, ...] = ()
    audio: TimeSpan | None = None


@dataclass(frozen=True, slots=True)
class WindowMedia:
    """What a file holds for a window.

    Attributes:
        frames: one for each target; None where none could be had.
        audio_packets: what covers the audio asked for, one packet more, and a pre-roll before it. The first
            packet depends on the stream and the window alone.
        audio_stream: the stream of the packets.
        frame_error: why a frame that the header promises is None or replaced by the one before it, else "".
    """

    request: WindowRequest
    frames: tuple[DecodedFrame | None, ...]
    audio_packets: tuple[Packet[AudioStream], ...] = ()
    audio_stream: AudioStream | None = None
    frame_error: str = ""


def read_media(
    container: InputContainer, media: MediaInfo, requests: Sequence[WindowRequest]
) -> Iterator[WindowMedia]:
    """Read windows from an open file, in the order given.

    Memory is bounded by a run of packets, the audio of the windows in flight, and their frames.

    Args:
        container: as :func:`~align.transforms.read.guard.open_media` opens it.
        media: the same file, probed.
        requests: ascending by window; they may overlap and leave gaps.

    Raises:
        AlignError: ``no_such_stream`` where the file has not the streams that were probed.
    """
    reader = _Reader(container, media, requests)
    for request in requests:
        with stage("read"):
            found = reader.window(request)
        count("read", *reader.taken())
        yield found


class _Reader:
    """One pass over a file; seeks forward where nothing is needed."""

    def __init__(
        self, container: InputContainer, media: MediaInfo, requests: Sequence[WindowRequest]
    ) -> None:
        self._container = container
        self._offset = clock_offset_ns(container)
        self._video = _VideoReader(container, media.video, requests) if media.video is not None else None
        wants_audio = media.audio is not None and any(r.audio is not None for r in requests)
        self._audio = _AudioReader(container, media, requests) if wants_audio else None
        self._keyframes = media.video.keyframes_ns if media.video is not None else ()
        self._start_ns = min(i.span.start_ns for i in (media.video, media.audio) if i is not None)
        self._streams = [r.stream for r in (self._video, self._audio) if r is not None]
        self._bases = {s.index: time_base(s) for s in self._streams}
        for stream in container.streams:
            stream.discard = Discard.default if stream in self._streams else Discard.all
        self._packets: Iterator[_AnyPacket] = self._demux()
        self._at_ns = self._start_ns
        self._may_seek = True
        self._sought_ns = self._start_ns
        self._packets_read = self._bytes_read = 0

    def window(self, request: WindowRequest) -> WindowMedia:
        """Read on until the window has all it wants."""
        left = None
        while not self._has(request):
            if self._left() != left:  # what is needed next may be far away
                left = self._left()
                self._seek_if_far()
            self._step()
        frames, error = self._video.take(request) if self._video is not None else (_none(request), "")
        packets = self._audio.take(request) if self._audio is not None else ()
        stream = self._audio.stream if self._audio is not None else None
        return WindowMedia(request, frames, packets, stream, error)

    def taken(self) -> tuple[int, int]:
        """Packets and bytes read since the last time."""
        packets, size = self._packets_read, self._bytes_read
        self._packets_read = self._bytes_read = 0
        return packets, size

    def _has(self, request: WindowRequest) -> bool:
        return (self._video is None or self._video.has(request)) and (
            self._audio is None or self._audio.has(request)
        )

    def _left(self) -> int:
        return self._video.left if self._video is not None else 0

    def _demux(self) -> Iterator[_AnyPacket]:
        return cast("Iterator[_AnyPacket]", packets_of(self._container, self._streams))

    def _step(self) -> None:
        packet = next(self._packets, None)
        if packet is None:
            self._finish()
            return
        self._at_ns = self._packet_ns(packet, self._at_ns)
        self._packets_read += 1
        self._bytes_read += packet.size
        if self._video is not None and packet.stream_index == self._video.stream.index:
            self._video.push(cast("Packet[VideoStream]", packet))
            if self._audio is not None and self._at_ns > self._audio.last_ns + _INTERLEAVE_NS:
                self._audio.reached(self._at_ns - _INTERLEAVE_NS)
        elif self._audio is not None:
            self._audio.push(cast("Packet[AudioStream]", packet))
            if self._video is not None and self._at_ns > self._video.end_ns + _INTERLEAVE_NS:
                self._video.finish()

    def _packet_ns(self, packet: _AnyPacket, default_ns: int) -> int:
        return _packet_ns(packet, self._bases[packet.stream_index], self._offset, default_ns)

    def _finish(self) -> None:
        for reader in (self._video, self._audio):
            if reader is not None:
                reader.finish()

    def _need_ns(self) -> int | None:
        """The earliest instant that is still to be read, or None where nothing is."""
        needs = [r.need_ns() for r in (self._video, self._audio) if r is not None]
        return min((n for n in needs if n is not None), default=None)

    def _seek_if_far(self) -> None:
        need = self._need_ns()
        at = max(self._at_ns, self._sought_ns)
        if not self._may_seek or need is None or need - at < _JUMP_NS:
            return
        before = bisect_right(self._keyframes, need - NS)
        if self._keyframes and (before == 0 or self._keyframes[before - 1] <= at):
            return
        self._seek(need)

    def _seek(self, need_ns: int) -> None:
        """Go to packets from which everything at ``need_ns`` can be decoded; at worst, to the beginning."""
        for margin in _BACKOFF_NS:
            goal = need_ns - margin
            if goal <= self._start_ns:
                break
            try:
                self._container.seek((goal + self._offset) // 1000)
            except av.error.FFmpegError:
                break
            packets = self._demux()
            head = list(self._head(packets))
            if self._covers(head, need_ns):
                self._restart(chain(head, packets), goal, from_start=False)
                self._sought_ns = need_ns
                return
        self._may_seek = False
        rewind(self._container)
        self._restart(self._demux(), self._start_ns, from_start=True)

    def _head(self, packets: Iterator[_AnyPacket]) -> Iterator[_AnyPacket]:
        """Packets up to where every stream has begun."""
        waiting = {s.index for s in self._streams}
        for packet in islice(packets, _LANDING_PACKETS):
            yield packet
            if self._begins(packet):
                waiting.discard(packet.stream_index)
            if not waiting:
                return

    def _begins(self, packet: _AnyPacket) -> bool:
        """Whether the packet's stream can be decoded from here on."""
        video = self._video
        if video is None or packet.stream_index != video.stream.index:
            return True
        return video.is_entry(cast("Packet[VideoStream]", packet))

    def _covers(self, head: Sequence[_AnyPacket], need_ns: int) -> bool:
        """Whether reading on from ``head`` misses nothing: keyframe and audio pre-roll precede the need."""
        begins: dict[int, int] = {}
        for packet in head:
            if packet.pts is not None and self._begins(packet):
                begins.setdefault(packet.stream_index, self._packet_ns(packet, 0))
        video_ok = self._video is None or begins.get(self._video.stream.index, need_ns + 1) <= need_ns
        audio_ok = (
            self._audio is None
            or self._audio.end_ns < need_ns - NS
            or begins.get(self._audio.stream.index, need_ns) < need_ns - NS // 2
        )
        return video_ok and audio_ok

    def _restart(self, packets: Iterator[_AnyPacket], at_ns: int, *, from_start: bool) -> None:
        self._packets, self._at_ns = packets, at_ns
        for reader in (self._video, self._audio):
            if reader is not None:
                reader.restart(from_start=from_start)


class _VideoReader:
    """Resolves targets as runs of packets come by."""

    def __init__(self, container: InputContainer, info: VideoInfo, requests: Sequence[WindowRequest]) -> None:
        self.stream = _stream(container, info.index, VideoStream)
        self.end_ns = info.span.end_ns
        self._info = info
        self._base = time_base(self.stream)
        self._uses = Counter(t for r in requests for t in r.targets_ns)
        self._frames: dict[int, DecodedFrame] = {}
        self._errors: dict[int, str] = {}
        self._pending = deque(t for t in sorted(self._uses) if self._is_covered(t))
        self.is_entry = entry_test(self.stream)
        self._assembler = RunAssembler(self.is_entry)
        self._decoder = RunDecoder(self.stream)

    def _is_covered(self, target_ns: int) -> bool:
        """The first frame holds for less than a frame before its time, the last for as long after its end."""
        span, frame = self._info.span, self._info.frame_ns
        return span.start_ns - frame < target_ns < span.end_ns + frame

    def has(self, request: WindowRequest) -> bool:
        return not self._pending or not request.targets_ns or max(request.targets_ns) < self._pending[0]

    @property
    def left(self) -> int:
        """How many targets are still to be resolved."""
        return len(self._pending)

    def need_ns(self) -> int | None:
        return max(self._pending[0], self._info.span.start_ns) if self._pending else None

    def push(self, packet: Packet[VideoStream]) -> None:
        for run in self._assembler.push(packet):
            self._resolve(run)

    def finish(self) -> None:
        for run in self._assembler.finish():
            self._resolve(run)
        for target in self._pending:
            self._errors[target] = "the file ends before this frame"
        self._pending.clear()

    def restart(self, *, from_start: bool) -> None:
        self._assembler = RunAssembler(self.is_entry, from_start=from_start)

    def take(self, request: WindowRequest) -> tuple[tuple[DecodedFrame | None, ...], str]:
        frames = tuple(self._frames.get(t) for t in request.targets_ns)
        errors = [self._errors[t] for t in request.targets_ns if t in self._errors]
        for target in request.targets_ns:
            self._uses[target] -= 1
            if not self._uses[target]:
                self._frames.pop(target, None)
                self._errors.pop(target, None)
        return frames, errors[0] if errors else ""

    def _resolve(self, run: Run) -> None:
        """Decode the frames of all targets that lie before the run's end."""
        targets: dict[int, int] = {}
        while self._pending and (run.end is None or self._ticks(self._pending[0]) < run.end):
            target = self._pending.popleft()
            targets[target] = self._ticks(target)
        if run.end is None:
            targets = self._within_reach(run, targets)
        if not targets:
            return
        with stage("decode"):
            frames = self._decoder.frames(run, set(targets.values()))
        count("decode", len(frames), sum(p.size for p in run.packets))
        for target, ticks in targets.items():
            if ticks in frames:
                self._accept(
                    run, target, ticks, DecodedFrame(self._ns(frames[ticks].pts or 0), frames[ticks])
                )
            else:
                self._errors[target] = "the frame cannot be decoded"

    def _accept(self, run: Run, target: int, ticks: int, frame: DecodedFrame) -> None:
        due = max((t for t in run.shown if t <= ticks), default=ticks)
        if self._ns(due) - frame.time_ns > STALE_FRAMES * self._info.frame_ns:
            self._errors[target] = "the frame is damaged, and so are those before it"
            return
        if due != frame.frame.pts:
            self._errors[target] = "the frame is damaged: the one before it stands in"
        self._frames[target] = frame

    def _within_reach(self, run: Run, targets: dict[int, int]) -> dict[int, int]:
        """Of the stream's last run, the targets that its last frame reaches: a file may be cut short."""
        shown = run.shown
        if not shown:
            return targets
        last = max(shown)
        length = max(self._ns_length(run.packets[shown[last]].duration or 0), self._info.frame_ns)
        end = self._ns(last) + length + self._info.frame_ns
        for target in [t for t in targets if t >= end]:
            del targets[target]
            self._errors[target] = "the file ends before this frame"
        return targets

    def _ticks(self, time_ns: int) -> int:
        """The latest tick that is not after an instant; before the first frame, that frame's."""
        time = max(time_ns, self._info.span.start_ns)
        ticks = floor((time + self._info.clock_offset_ns) / (self._base * NS))
        return ticks + 1 if self._ns(ticks + 1) <= time else ticks

    def _ns(self, ticks: int) -> int:
        return ticks_to_ns(ticks, self._base) - self._info.clock_offset_ns

    def _ns_length(self, ticks: int) -> int:
        return ticks_to_ns(ticks, self._base)


class _AudioReader:
    """Keeps audio packets while a window may want them."""

    def __init__(
        self, container: InputContainer, media: MediaInfo, requests: Sequence[WindowRequest]
    ) -> None:
        if media.audio is None:
            raise AlignError("no_such_stream", "the file holds no audio")
        self.stream = _stream(container, media.audio.index, AudioStream)
        self.end_ns = media.audio.span.end_ns
        self._offset = clock_offset_ns(container)
        self._base = time_base(self.stream)
        self._wanted = deque(r.audio for r in requests if r.audio is not None)
        self._packets: deque[Packet[AudioStream]] = deque()
        self._starts: deque[int] = deque()
        self._ends: deque[int] = deque()
        self.last_ns = media.audio.span.start_ns
        self._reached_ns = self.last_ns

    def has(self, request: WindowRequest) -> bool:
        return request.audio is None or self._reached_ns >= request.audio.end_ns

    def need_ns(self) -> int | None:
        """Where the next audio begins, pre-roll included; what is under way is needed now."""
        for span in self._wanted:
            if span.end_ns > self._reached_ns:
                return max(span.start_ns - NS, min(self._reached_ns, span.start_ns))
        return None

    def push(self, packet: Packet[AudioStream]) -> None:
        if packet.pts is None:
            return
        self.last_ns = _packet_ns(packet, self._base, self._offset, self.last_ns)
        self.reached(self.last_ns)
        self._packets.append(packet)
        self._starts.append(self.last_ns)
        self._ends.append(self.last_ns + ticks_to_ns(packet.duration or 0, self._base))
        if len(self._starts) > 4 * PREROLL_PACKETS:
            self._forget()

    def reached(self, time_ns: int) -> None:
        """All audio before this instant has been seen."""
        self._reached_ns = max(self._reached_ns, time_ns)

    def finish(self) -> None:
        self.reached(1 << 62)

    def restart(self, *, from_start: bool) -> None:
        del from_start
        for kept in (self._packets, self._starts, self._ends):
            kept.clear()

    def take(self, request: WindowRequest) -> tuple[Packet[AudioStream], ...]:
        if request.audio is None:
            return ()
        chosen = audio_range(list(self._starts), list(self._ends), request.audio)
        self._wanted.popleft()
        return tuple(self._packets)[chosen]

    def _forget(self) -> None:
        """Drop packets that stand too far before the next window's audio for its pre-roll."""
        keep_ns = self._wanted[0].start_ns - 4 * NS if self._wanted else self.last_ns
        while len(self._starts) > 4 * PREROLL_PACKETS and self._starts[2 * PREROLL_PACKETS] < keep_ns:
            for kept in (self._packets, self._starts, self._ends):
                kept.popleft()


def audio_range(starts_ns: Sequence[int], ends_ns: Sequence[int], span: TimeSpan) -> slice:
    """Which packets serve a span of audio.

    The first is the earlier of: the first one that ends later than ``PREROLL_NS`` before the span, and the
    one ``PREROLL_PACKETS`` before the first that reaches into it. The last is the first that begins at or
    after the span's end, for decoders that put out a block late. Where no packet reaches into the span, none
    serves it.

    Args:
        starts_ns: ascending starts of the packets, ns.
        ends_ns: their ends, ascending, ns.
        span: the audio wanted.
    """
    inside = bisect_right(ends_ns, span.start_ns)
    settled = bisect_right(ends_ns, span.start_ns - PREROLL_NS)
    after = bisect_left(starts_ns, span.end_ns)
    if inside >= after:
        return slice(0, 0)
    return slice(max(0, min(settled, inside - PREROLL_PACKETS)), after + 1)


def _stream(container: InputContainer, index: int, kind: type[_S]) -> _S:
    stream = container.streams[index] if index < len(container.streams) else None
    if not isinstance(stream, kind):
        raise AlignError(
            "no_such_stream", f"stream {index} is no longer what was probed: has the file changed?"
        )
    return stream


def _none(request: WindowRequest) -> tuple[None, ...]:
    return (None,) * len(request.targets_ns)


def _packet_ns(packet: _AnyPacket, base: Fraction, offset_ns: int, default_ns: int) -> int:
    """Where a packet stands; ``base`` is its time base, which a packet makes anew whenever it is asked."""
    ticks = packet.pts if packet.pts is not None else packet.dts
    return default_ns if ticks is None else ticks_to_ns(ticks, base) - offset_ns
