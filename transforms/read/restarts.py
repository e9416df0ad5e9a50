"""Where the clock of a file begins again, and how much stands behind that.

Looked for while a file is probed, so that what reads it never meets the rest: of a file whose clock restarts,
only the bytes up to there are opened. Then no seek can land in another recording, whatever its timestamps.

- A further file in the file is read off the structure (:mod:`align.transforms.read.joined`). It ends the
  first timeline unless the container itself goes on: MPEG-4 fragments, Matroska and AVI with the same
  parameters of their streams, and with times that ascend (AVI has none of its own, and is joined).
- Elsewhere the packets tell. A file of up to :data:`SCAN_BYTES` is demuxed once, without decoding. Of a
  larger one that holds no table of its packets, times are sampled all over it, and only if these do not
  ascend is it read through: reading it twice would cost hours of input.

An MP4 whose header lists all packets has one timeline by construction (ISO/IEC 14496-12: durations add up);
nothing is read of it but the boxes at top level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.codec.context import CodecContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from align.schemas.errors import AlignError
from align.schemas.media import ClockRestart, MediaInfo
from align.schemas.time import NS, tick_clock
from align.transforms.read.container import time_base
from align.transforms.read.file_part import Borrowed
from align.transforms.read.guard import open_as
from align.transforms.read.joined import file_starts
from align.transforms.read.timeline import Timeline, longest_jump_ns, tolerance_ns

SCAN_BYTES = 256 << 20
"""A larger file is not read through to plan it."""

_SAMPLES, _SAMPLE_BYTES = 32, 1 << 20
_SELF_SYNCHRONISING = frozenset({"mpegts", "mpeg"})
"""Demuxers that can begin anywhere in a file."""

_ALONE = frozenset({"flv", "ogg"})
"""Demuxers that do not go on in a further file."""

Part = Callable[[int, int | None], Borrowed]
"""Some bytes of the file: ``part(begin, end)``."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """What is known of a file's clock.

    Attributes:
        restart: where its first timeline ends; None where nothing stands behind that.
        sound_end_ns: when the sound ends, container's clock; None where no packet was looked at.
    """

    restart: ClockRestart | None = None
    sound_end_ns: int | None = None


def survey_clocks(part: Part, size: int, media: MediaInfo, *, by_tables: bool) -> Clocks:
    """Where the first timeline of a file ends, if anything stands behind it.

    Args:
        part: gives bytes of the file.
        size: of the file.
        media: the file, probed; its spans need not be right.
        by_tables: a header lists all of its packets.
    """
    file = _File(part, size, media)
    starts = file_starts(part(0, None), size, media.format)
    if by_tables:
        apart = [s for s in starts if not file.refers_beyond(s)]
        return Clocks(file.restart(apart[0], _Scan(), apart) if apart else None)
    apart = list(starts) if starts and file.is_apart(starts[0]) else []
    if not starts and size > SCAN_BYTES and file.seems_ascending():
        return Clocks()
    scan = file.scan(0, apart[0] if apart else None)
    ends = [*apart, *(_begun(end, scan.reached, starts) for end in (scan.end,) if end is not None)]
    return Clocks(file.restart(min(ends), scan, apart) if ends else None, scan.sound_end_ns)


def _begun(end: int, reached: int, starts: tuple[int, ...]) -> int:
    """Where what holds the first stray packet begins: at a further file's header, if that precedes it."""
    return max((s for s in starts if reached < s <= end), default=end)


@dataclass(slots=True)
class _Scan:
    """What the packets of a file tell.

    Attributes:
        end: the first byte behind the first timeline; None where there is only one.
        reached: where the last packet of the first timeline begins.
        lengths_ns: of the timelines, in the order of the file.
        sound_end_ns: when the sound of the last one ends, container's clock; None without sound.
    """

    end: int | None = None
    reached: int = 0
    lengths_ns: list[int] = field(default_factory=list)
    sound_end_ns: int | None = None


@dataclass(slots=True)
class _Track:
    """One stream while it is scanned."""

    new: Callable[[], Timeline]
    clock: Callable[[int], int]
    timeline: Timeline = field(init=False)
    spans: list[tuple[int, int]] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    behind: list[tuple[int, int, int]] = field(default_factory=list)
    end: int | None = None
    reached: int = 0

    def __post_init__(self) -> None:
        self.timeline = self.new()

    def take(self, packet: Packet[Stream], at: int) -> None:
        """Take the next packet, which stands at byte ``at``."""
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None or packet.pts is None:
            return
        shown, length = self.clock(packet.pts), self.clock(packet.duration or 0)
        ends = self.timeline.ends_before(self.clock(ticks))
        if self.timeline.behind:
            self.behind.append((at, shown, shown + length))
        else:
            self.behind.clear()
            self._extend(shown, shown + length)
            self.reached = at if self.end is None else self.reached
        if ends:
            self.end = self.behind[0][0] if self.end is None else self.end
            self.timeline = self.new()
            self.spans.append((self.behind[0][1], self.behind[0][1]))
            self.idle.append(0)
            for _, start, end in self.behind:
                self._extend(start, end)
            self.behind.clear()

    def _extend(self, start: int, end: int) -> None:
        if not self.spans:
            self.spans.append((start, start))
            self.idle.append(0)
        low, high = self.spans[-1]
        self.idle[-1] += start - high if start - high > NS else 0
        self.spans[-1] = min(low, start), max(high, end)

    @property
    def lengths_ns(self) -> list[int]:
        """How much was recorded on each timeline: jumps ahead are not."""
        return [high - low - idle for (low, high), idle in zip(self.spans, self.idle, strict=True)]


@dataclass(frozen=True, slots=True)
class _File:
    """A file that may hold several timelines."""

    part: Part
    size: int
    media: MediaInfo

    def restart(self, end: int, scan: _Scan, apart: Sequence[int]) -> ClockRestart:
        """What stands behind ``end``: later timelines of what was scanned, and files that were not."""
        behind = sum(scan.lengths_ns[1:])
        others = (self.scan(a, b) for a, b in pairwise([*apart, self.size]))
        return ClockRestart(end, self.size - end, behind + sum(sum(o.lengths_ns) for o in others))

    def is_apart(self, start: int) -> bool:
        """Whether the container does not go on in the file that begins at a byte."""
        if self.media.format in _ALONE:
            return True
        try:
            with closing(self._opened(0, start)) as one, closing(self._opened(start, None)) as other:
                return _parameters(one) != _parameters(other)
        except AlignError:
            return True

    def refers_beyond(self, end: int) -> bool:
        """Whether the tables of an MP4 list packets that lie behind a byte."""
        with closing(self._opened(0, None)) as container:
            return any(e.pos >= end for s in container.streams for e in s.index_entries)

    def scan(self, begin: int, end: int | None) -> _Scan:
        """Demux some bytes of the file; of what is no medium, nothing is known."""
        try:
            with closing(self._opened(begin, end)) as container:
                return self._scanned(container)
        except AlignError:
            return _Scan()

    def _scanned(self, container: InputContainer) -> _Scan:
        streams = _chosen(container, self.media)
        jump = longest_jump_ns(container.format.name)
        tracks = {s.index: _track(s, self.media, jump) for s in streams}
        at = 0
        for packet in _every_packet(container):
            at = at if packet.pos is None else packet.pos
            track = tracks.get(packet.stream_index)
            if track is not None:
                track.take(packet, at)
        ends = [t.end for t in tracks.values() if t.end is not None]
        if ends:  # what another stream has begun, too few packets prove
            ends += [t.behind[0][0] for t in tracks.values() if t.behind and t.end is None]
        lengths = next((t.lengths_ns for t in tracks.values() if t.spans), [])
        reached = max((t.reached for t in tracks.values()), default=0)
        sound = next((tracks[s.index].spans for s in streams if isinstance(s, AudioStream)), [])
        return _Scan(min(ends, default=None), reached, lengths, sound[-1][1] if sound else None)

    def seems_ascending(self) -> bool:
        """Whether times sampled all over a large file ascend."""
        if self.media.format not in _SELF_SYNCHRONISING:
            return True
        times = [t for n in range(_SAMPLES) if (t := self._time_at(n * self.size // _SAMPLES)) is not None]
        jump = longest_jump_ns(self.media.format) or 0
        return all(a - NS < b < a + jump for a, b in pairwise(times))

    def _time_at(self, at: int) -> int | None:
        try:
            with closing(self._opened(at, at + _SAMPLE_BYTES)) as container:
                for packet in _every_packet(container):
                    if packet.dts is not None:
                        return tick_clock(time_base(packet.stream))(packet.dts)
        except (AlignError, av.error.FFmpegError):
            return None
        return None

    def _opened(self, begin: int, end: int | None) -> InputContainer:
        return open_as(self.media.format.split(",")[0], "a part of the file", self.part(begin, end))


def _track(stream: Stream, media: MediaInfo, jump: int | None) -> _Track:
    frame_ns = media.video.frame_ns if isinstance(stream, VideoStream) and media.video else 0
    return _Track(lambda: Timeline(tolerance_ns(frame_ns), jump), tick_clock(time_base(stream)))


def _chosen(container: InputContainer, media: MediaInfo) -> list[Stream]:
    """The streams that are read, where the container has them; in another file, the first of each kind."""
    kinds = ((media.video, VideoStream), (media.audio, AudioStream))
    found: list[Stream] = []
    for info, kind in kinds:
        alike = [s for s in container.streams if isinstance(s, kind) and s.time_base]
        if info is not None and alike:
            found.append(next((s for s in alike if s.index == info.index), alike[0]))
    return found


def _every_packet(container: InputContainer) -> Iterator[Packet[Stream]]:
    """Packets with data of the streams that were there when the file was opened."""
    while True:
        try:
            for packet in container.demux():
                if packet.size:
                    yield packet
            return
        except IndexError:  # a stream that begins in mid-file
            continue
        except av.error.FFmpegError:
            return


def _parameters(container: InputContainer) -> list[object]:
    """What a decoder must know of each stream."""
    return [_stream_parameters(s) for s in container.streams]


def _stream_parameters(stream: Stream) -> tuple[object, ...]:
    codec: CodecContext | None = stream.codec_context
    shape: tuple[object, ...] = ()
    if isinstance(codec, VideoCodecContext):
        shape = codec.width, codec.height
    elif isinstance(codec, AudioCodecContext):
        shape = codec.sample_rate, codec.channels
    return (stream.type, *((codec.name, codec.extradata) if codec is not None else ()), *shape)
