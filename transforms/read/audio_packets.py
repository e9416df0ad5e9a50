"""Keeps packets of sound while a window may want them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from av.audio.stream import AudioStream
from av.packet import Packet

from align.schemas.media import AudioInfo
from align.schemas.time import NS, TimeSpan, tick_clock
from align.transforms.read.container import time_base

PREROLL_NS = NS // 4
"""Audio packets that end later than this before a window's audio are handed over, so decoders settle."""

PREROLL_PACKETS = 4
"""At least so many packets before the window's audio, where the stream has them."""

REACH_NS = NS
"""No packet farther from a window's audio serves it: what lies beyond a hole is another matter."""

_SWEEP = 64  # packets between two looks for those that no window will want


class AudioPackets:
    """The packets that serve given spans, as they come by.

    Args:
        stream: what is read.
        info: the same, probed.
        wanted: the windows' audio, in their order, recording clock.
    """

    def __init__(self, stream: AudioStream, info: AudioInfo, wanted: Iterable[TimeSpan]) -> None:
        self.stream = stream
        self.end_ns = info.span.end_ns
        self._start_ns = self.last_ns = info.span.start_ns
        self._length_ns = _packet_length(stream)
        self._wanted = deque(wanted)
        self._packets: deque[Packet[AudioStream]] = deque()
        self._starts: deque[int] = deque()
        self._reached_ns = self.last_ns
        self._sweep_at = _SWEEP
        self._last_dts: int | None = None
        self._known_dts: int | None = None  # packets up to this one may come again
        self._joined = True

    def has(self, until_ns: int) -> bool:
        """Whether all audio before an instant has been seen."""
        return self._reached_ns >= until_ns

    def need_ns(self) -> int | None:
        """Where the next span's packets begin, pre-roll included; once they have, the span itself."""
        if not self._wanted:
            return None
        start = self._wanted[0].start_ns
        return max(start - NS, min(self._reached_ns, start))

    def push(self, packet: Packet[AudioStream], start_ns: int) -> None:
        """Take the next packet, which stands at ``start_ns``; one without a time serves no window."""
        if packet.pts is None or self._is_known(packet):
            return
        self._last_dts = packet.dts
        self.last_ns = start_ns
        self.reached(start_ns)
        self._packets.append(packet)
        self._starts.append(start_ns)
        if len(self._starts) >= self._sweep_at:
            self._forget()
            self._sweep_at = len(self._starts) + _SWEEP

    def reached(self, time_ns: int) -> None:
        """All audio before this instant has been seen."""
        self._reached_ns = max(self._reached_ns, time_ns)

    def finish(self) -> None:
        """There are no more packets."""
        self.reached(1 << 62)

    def restart(self) -> None:
        """Packets go on elsewhere, from before the need."""
        self._reached_ns = self._start_ns
        self._known_dts, self._joined = None, True
        self._packets.clear()
        self._starts.clear()
        self._sweep_at = _SWEEP

    def expect_again(self) -> None:
        """Packets go on at the last one that was taken, or before it; those are not taken twice."""
        self._known_dts, self._joined = self._last_dts, False

    @property
    def is_torn(self) -> bool:
        """Whether they went on after it: something may be left out."""
        return self._known_dts is None and not self._joined

    def _is_known(self, packet: Packet[AudioStream]) -> bool:
        known = self._known_dts is not None and packet.dts is not None and packet.dts <= self._known_dts
        self._joined |= known
        if not known:
            self._known_dts = None
        return known

    def take(self, span: TimeSpan) -> tuple[Packet[AudioStream], ...]:
        """What serves the next span that was announced."""
        self._wanted.popleft()
        packets, starts = tuple(self._packets), tuple(self._starts)
        return packets[audio_range(starts, lambda i: starts[i] + self._length_ns(packets[i]), span)]

    def _forget(self) -> None:
        """Drop packets that stand too far before the next window's audio for its pre-roll."""
        keep_ns = self._wanted[0].start_ns - 4 * NS if self._wanted else self.last_ns
        while len(self._starts) > 4 * PREROLL_PACKETS and self._starts[2 * PREROLL_PACKETS] < keep_ns:
            self._packets.popleft()
            self._starts.popleft()


def _packet_length(stream: AudioStream) -> Callable[[Packet[AudioStream]], int]:
    """How long a packet lasts, ns. The last one before a hole in an MP4 is given the hole's duration too."""
    clock, frame = tick_clock(time_base(stream)), stream.codec_context.frame_size
    if not frame or not stream.codec_context.sample_rate:
        return lambda packet: clock(packet.duration or 0)
    longest = max(NS, 2 * frame * NS // stream.codec_context.sample_rate)
    return lambda packet: min(clock(packet.duration or 0), longest)


def audio_range(starts_ns: Sequence[int], end_ns: Callable[[int], int], span: TimeSpan) -> slice:
    """Which packets serve a span of audio.

    The first is the earlier of: the first one that ends later than ``PREROLL_NS`` before the span, and the
    one ``PREROLL_PACKETS`` before the first that reaches into it; of packets that do not reach into it, none
    that begins more than ``REACH_NS`` before it. The last is the first that begins at or after the span's
    end, for decoders that put out a block late, unless it begins more than ``REACH_NS`` later. Where no
    packet reaches into the span, none serves it.

    Args:
        starts_ns: ascending starts of the packets, ns.
        end_ns: gives the end of the packet at an index, ns; ascending, and asked for a few only.
        span: the audio wanted.
    """
    indexes = range(len(starts_ns))
    inside = bisect_right(indexes, span.start_ns, key=end_ns)
    settled = bisect_right(indexes, span.start_ns - PREROLL_NS, key=end_ns)
    after = bisect_left(starts_ns, span.end_ns)
    if inside >= after:
        return slice(0, 0)
    near = bisect_left(starts_ns, span.start_ns - REACH_NS)
    first = min(max(near, min(settled, inside - PREROLL_PACKETS)), inside)
    late = after < len(starts_ns) and starts_ns[after] <= span.end_ns + REACH_NS
    return slice(first, after + late)
