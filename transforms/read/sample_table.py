"""What an MP4's header lists of its packets: where each lies and when it is decoded, before any is read."""

from __future__ import annotations

from dataclasses import dataclass

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from align.schemas.media import VideoInfo
from align.schemas.time import NS, latest_tick, tick_clock
from align.transforms.read.container import time_base

_ORDER_NS = NS
"""libavformat gives packets of an MP4 in the order of the file where streams are less than this apart, else
in that of decoding."""


_APART_BYTES = 1 << 16
"""Less than this between sound and a keyframe is read: libavformat fetches 32 kB at a time."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Where reading of sound alone has to end, so that a keyframe is not passed.

    Attributes:
        time_ns: of the sound after which the video is wanted again, recording clock.
        seek_ticks: presentation time of the keyframe, if to seek there saves reading what lies between and
            leaves no sound out; else None.
    """

    time_ns: int
    seek_ticks: int | None = None


class SampleTable:
    """When the keyframes of a video stream are decoded.

    Each is taken to be shown as long after its decoding as the one that waits longest. Whoever jumps to a
    keyframe looks whether it is shown in time, and says so if not: headers may lie.
    """

    def __init__(self, stream: VideoStream, delay_ns: int, clock_offset_ns: int) -> None:
        self._entries = stream.index_entries
        self._base = time_base(stream)
        self._offset_ns = clock_offset_ns
        self._ns = tick_clock(self._base, clock_offset_ns)
        self._delay = -latest_tick(-delay_ns, self._base)
        self.is_trusted = True

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream, info: VideoInfo) -> SampleTable | None:
        """The table, where it lists every packet: not in fragments, nor in other containers."""
        is_mp4 = "mov" in container.format.name.split(",")
        if info.keyframe_delay_ns is None or not is_mp4 or not _is_whole(stream):
            return None
        return cls(stream, info.keyframe_delay_ns, info.clock_offset_ns)

    def keyframe(self, ticks: int) -> int:
        """When the last keyframe shown at or before an instant is decoded; the first one, if in doubt."""
        return self._entries[self._place(ticks)].timestamp

    def keyframe_ns(self, time_ns: int) -> int:
        """The same, of and on the recording clock."""
        return self._ns(self.keyframe(latest_tick(time_ns, self._base, self._offset_ns)))

    def wake(self, time_ns: int, sound: AudioStream) -> Wake:
        """Until when sound can be read alone before an instant's keyframe is needed."""
        entry = self._entries[self._place(latest_tick(time_ns, self._base, self._offset_ns))]
        keyframe_ns, base = self._ns(entry.timestamp), time_base(sound)
        if not _is_whole(sound):
            return Wake(keyframe_ns - _ORDER_NS)
        heard = sound.index_entries
        beside = place = heard.search_timestamp(
            latest_tick(keyframe_ns, base, self._offset_ns), any_frame=True
        )
        while place > 0 and heard[place].pos > entry.pos:
            place -= 1
        if place <= 0:
            return Wake(keyframe_ns - _ORDER_NS)
        time = tick_clock(base, self._offset_ns)(heard[place].timestamp)
        # A seek to the keyframe takes the sound to ``beside``, too.
        is_apart = place == beside and entry.pos - heard[place].pos > _APART_BYTES
        return Wake(time, entry.timestamp + self._delay if is_apart else None)

    def _place(self, ticks: int) -> int:
        if not self.is_trusted:
            return 0
        return max(self._entries.search_timestamp(ticks - self._delay, backward=True, any_frame=False), 0)


def _is_whole(stream: Stream) -> bool:
    return 0 < stream.frames == len(stream.index_entries)
