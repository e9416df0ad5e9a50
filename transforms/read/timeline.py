"""Time goes one way: tells where the times of a stream's packets begin again.

In the order of decoding, times ascend: decoding times always, presentation times but for the few pictures
that are reordered, which is allowed for where no decoding time is known. Where times step back by more than
that, another *timeline* begins: a clock that was started again, or a second recording behind the first one in
the same file::

    time    0 1 2 3 4 5 | 0 1 2 3 4            a restart
    time    0 1 2 3 4 5   5 6 | 4 5 6 7 8      the second began a little before the first had ended
    time    0 1 2 9 3 4 5                      a damaged timestamp: those after it go on as before

A single packet proves nothing, since timestamps get damaged: a timeline ends where :data:`PROOF` packets in
a row stand before the last :data:`PROOF` that were right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from av.packet import Packet

from align.schemas.errors import AlignError
from align.schemas.time import NS

_P = TypeVar("_P", bound="Packet[Any]")

PROOF = 3
"""So many packets in a row must have stepped back."""

_LEAST_NS = NS // 10
"""Smaller steps back are a clock's correction, or rounding."""

_REORDERED = 4
"""A picture may be decoded so many frames after one that is shown later, where no decoding time is known."""

WRAPS = frozenset({"mpegts", "mpeg"})
"""Demuxers of clocks that wrap: 33 bits at 90 kHz (ISO/IEC 13818-1, 2.4.3.7)."""

_HALF_WRAP_NS = (1 << 32) * NS // 90_000


def tolerance_ns(frame_ns: int = 0) -> int:
    """By how much the times of a stream may step back: of sound, and of pictures ``frame_ns`` apart."""
    return max(_LEAST_NS, _REORDERED * frame_ns)


def packet_tolerance_ns(packet: Packet[Any]) -> int | None:
    """By how much a packet may step back, where that is less than its stream may: decoding times ascend."""
    return None if packet.dts is None else _LEAST_NS


def longest_jump_ns(format_name: str) -> int | None:
    """How far ahead a clock may jump.

    libavformat takes any step back to well before the first time for a wrap, and adds its 26.5 hours. A jump
    by more than half of that is therefore a clock that began again; other formats may jump as they like.
    """
    return _HALF_WRAP_NS if WRAPS & set(format_name.split(",")) else None


class Timeline:
    """The times of one stream, packet after packet, as long as they go one way.

    Args:
        tolerance: they may step back by so much.
        longest_jump: they may jump ahead by so much; None for any.

    Attributes:
        behind: how many of the last packets do not go on from those before them.
    """

    def __init__(self, tolerance: int, longest_jump: int | None = None) -> None:
        self._tolerance, self._jump = tolerance, longest_jump
        self._last: deque[int] = deque(maxlen=PROOF)
        self.behind = 0

    def ends_before(self, time: int, tolerance: int | None = None) -> bool:
        """Take the next packet's time; whether the timeline ended ``behind`` packets before the next one.

        Args:
            time: of the packet.
            tolerance: it may step back by so much, where that differs from the usual.
        """
        tolerance = self._tolerance if tolerance is None else tolerance
        if len(self._last) == PROOF and not self._goes_on(time, tolerance):
            self.behind += 1
            return self.behind >= PROOF
        self.behind = 0
        self._last.append(time)
        return False

    def _goes_on(self, time: int, tolerance: int) -> bool:
        if time < min(self._last) - tolerance:
            return False
        return self._jump is None or time <= max(self._last) + self._jump


_HELD = 1000
"""More packets than this are not kept back for want of a proof."""


def one_way(
    packets: Iterable[_P], timelines: Mapping[int, Timeline], clocks: Mapping[int, Callable[[int], int]]
) -> Iterator[_P]:
    """The packets, as long as the time of each stream goes one way.

    While a stream's last packets have stepped back, all that come are kept back: what belongs to another
    timeline is given to nobody.

    Args:
        packets: in the order of the file.
        timelines: by the index of the stream; others are not watched.
        clocks: lead from each stream's ticks to nanoseconds.

    Raises:
        AlignError: ``clock_restarted``.
    """
    held: list[_P] = []
    for packet in packets:
        held.append(packet)
        timeline = timelines.get(packet.stream_index)
        ticks = packet.pts if packet.dts is None else packet.dts
        if timeline is None or ticks is None:
            pass
        elif timeline.ends_before(clocks[packet.stream_index](ticks), packet_tolerance_ns(packet)):
            detail = f"the clock of stream {packet.stream_index} restarts before byte {packet.pos}"
            raise AlignError("clock_restarted", f"{detail}; cut the file there to use both parts")
        if len(held) > _HELD or not any(t.behind for t in timelines.values()):
            yield from held
            held.clear()
    yield from held
