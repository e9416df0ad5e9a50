"""Where the clock of a file begins again, and how much stands behind that.

Looked for while a file is probed, so that what reads it never meets the rest: of a file whose clock restarts,
only the bytes up to there are opened. Then no seek can land in another recording, whatever its timestamps.

- A further file in the file is read off the structure (:mod:`align.transforms.read.joined`). It ends the
  first timeline unless the container itself goes on: MPEG-4 fragments, Matroska and AVI with the same
  parameters of their streams, and with times that ascend (AVI has none of its own, and is joined).
- Elsewhere the packets tell: the file is demuxed once, without decoding. Only a remote file that is larger
  than :data:`SCAN_BYTES` and holds no table of its packets would cost too much input; its times are sampled
  all over it, and it is read through if these do not ascend.

An MP4 whose header lists all packets has one timeline by construction (ISO/IEC 14496-12: durations add up);
nothing is read of it but the boxes at top level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import av
from av.audio.codeccontext import AudioCodecContext
from av.codec.context import CodecContext
from av.container import InputContainer
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext

from align.schemas.errors import AlignError
from align.schemas.media import ClockRestart, MediaInfo
from align.schemas.time import NS, tick_clock
from align.transforms.read.clock_scan import Scan, every_packet, scan_clock
from align.transforms.read.container import time_base
from align.transforms.read.file_part import Borrowed
from align.transforms.read.guard import open_as
from align.transforms.read.joined import file_starts
from align.transforms.read.timeline import longest_jump_ns

SCAN_BYTES = 256 << 20
"""A larger remote file is not read through to plan it."""

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


def survey_clocks(part: Part, size: int, media: MediaInfo, *, by_tables: bool, remote: bool) -> Clocks:
    """Where the first timeline of a file ends, if anything stands behind it.

    Args:
        part: gives bytes of the file.
        size: of the file.
        media: the file, probed; its spans need not be right.
        by_tables: a header lists all of its packets.
        remote: reading costs more than the time to demux.
    """
    file = _File(part, size, media)
    starts = file_starts(part(0, None), size, media.format)
    if by_tables:
        apart = [s for s in starts if not file.refers_beyond(s)]
        return Clocks(file.restart(apart[0], Scan(), apart) if apart else None)
    apart = list(starts) if starts and file.is_apart(starts[0]) else []
    if remote and not starts and size > SCAN_BYTES and file.seems_ascending():
        return Clocks()
    scan = file.scan(0, apart[0] if apart else None, starts)
    ends = [*apart, *(_begun(end, scan.reached, starts) for end in (scan.end,) if end is not None)]
    return Clocks(file.restart(min(ends), scan, apart) if ends else None, scan.sound_end_ns)


def _begun(end: int, reached: int, starts: tuple[int, ...]) -> int:
    """Where what holds the first stray packet begins: at a further file's header, if that precedes it."""
    return max((s for s in starts if reached < s <= end), default=end)


@dataclass(frozen=True, slots=True)
class _File:
    """A file that may hold several timelines."""

    part: Part
    size: int
    media: MediaInfo

    def restart(self, end: int, scan: Scan, apart: Sequence[int]) -> ClockRestart:
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

    def scan(self, begin: int, end: int | None, starts: Sequence[int] = ()) -> Scan:
        """Demux some bytes of the file; of what is no medium, nothing is known."""
        try:
            with closing(self._opened(begin, end)) as container:
                return scan_clock(container, self.media, starts)
        except AlignError:
            return Scan()

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
                for packet in every_packet(container):
                    if packet.dts is not None:
                        return tick_clock(time_base(packet.stream))(packet.dts)
        except (AlignError, av.error.FFmpegError):
            return None
        return None

    def _opened(self, begin: int, end: int | None) -> InputContainer:
        return open_as(self.media.format.split(",")[0], "a part of the file", self.part(begin, end))


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
