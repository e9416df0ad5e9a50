"""One pass over the packets of a file, without decoding, for what their times tell of its clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from align.schemas.media import MediaInfo
from align.schemas.time import NS, tick_clock
from align.transforms.read.container import time_base
from align.transforms.read.timeline import Timeline, longest_jump_ns, packet_tolerance_ns, tolerance_ns


@dataclass(slots=True)
class Scan:
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
    files: int = 0

    def __post_init__(self) -> None:
        self.timeline = self.new()

    def take(self, packet: Packet[Stream], at: int, files: int) -> None:
        """Take the next packet, which stands at byte ``at``, behind the headers of so many further files."""
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None or packet.pts is None:
            return
        shown = self.clock(packet.pts)
        place = at, shown, shown + self.clock(packet.duration or 0)
        if files > self.files and self.spans and shown < self.spans[-1][1] - tolerance_ns():
            self.behind = [place]  # with the header of a further file before it, one packet is proof
            self._end()
        else:
            self._go_on(self.timeline.ends_before(self.clock(ticks), packet_tolerance_ns(packet)), place)
        self.files = files

    def _go_on(self, ends: bool, place: tuple[int, int, int]) -> None:
        if self.timeline.behind:
            self.behind.append(place)
        else:
            self.behind.clear()
            self._extend(*place[1:])
            self.reached = place[0] if self.end is None else self.reached
        if ends:
            self._end()

    def _end(self) -> None:
        """The timeline ended before what is behind it, which begins another."""
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


def scan_clock(container: InputContainer, media: MediaInfo, starts: Sequence[int] = ()) -> Scan:
    """Demux an open file to its end, without decoding: the streams that are read, or those that stand in.

    Args:
        container: the file, or a part of it.
        media: the file, probed.
        starts: where further files begin in it, by their headers.
    """
    streams = _chosen(container, media)
    jump = longest_jump_ns(container.format.name)
    tracks = {s.index: _track(s, media, jump) for s in streams}
    at = 0
    for packet in every_packet(container):
        at = at if packet.pos is None else packet.pos
        track = tracks.get(packet.stream_index)
        if track is not None:
            track.take(packet, at, bisect_right(starts, at))
    ends = [t.end for t in tracks.values() if t.end is not None]
    if ends:  # what another stream has begun, too few packets prove
        ends += [t.behind[0][0] for t in tracks.values() if t.behind and t.end is None]
    lengths = max((t.lengths_ns for t in tracks.values()), key=len, default=[])  # the first of equals
    reached = max((t.reached for t in tracks.values()), default=0)
    sound = next((tracks[s.index].spans for s in streams if isinstance(s, AudioStream)), [])
    return Scan(min(ends, default=None), reached, lengths, sound[-1][1] if sound else None)


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


def every_packet(container: InputContainer) -> Iterator[Packet[Stream]]:
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
