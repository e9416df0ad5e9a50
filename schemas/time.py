"""Time on the recording clock: integer nanoseconds, half-open spans, and the maps that lead there.

The recording clock is the presentation timeline of the recording's master video file. Everything here
is exact: ticks and seconds are rationals until the one rounding, which goes to the nearest nanosecond
with ties up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NS = 1_000_000_000
"""Nanoseconds in a second."""


def round_ties_up(value: Fraction) -> int:
    """Round to the nearest integer, ties towards +infinity: the only rounding rule of time here."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def ticks_to_ns(ticks: int, time_base: Fraction) -> int:
    """Nanoseconds of a timestamp that counts ``time_base`` seconds."""
    return tick_clock(time_base)(ticks)


def tick_clock(time_base: Fraction, offset_ns: int = 0) -> Callable[[int], int]:
    """:func:`ticks_to_ns` of one stream, less an offset: every packet asks for it, an hour has 300,000."""
    factor, denominator = 2 * NS * time_base.numerator, time_base.denominator
    return lambda ticks: (factor * ticks + denominator) // (2 * denominator) - offset_ns


def latest_tick(time_ns: int, time_base: Fraction, offset_ns: int = 0) -> int:
    """The last tick whose :func:`tick_clock` time is not after an instant."""
    ticks = (time_ns + offset_ns) * time_base.denominator // (NS * time_base.numerator)
    return ticks + 1 if tick_clock(time_base, offset_ns)(ticks + 1) <= time_ns else ticks


def seconds_to_ns(seconds: float | str | Fraction) -> int:
    """Nanoseconds of a number of seconds.

    A float is read as the decimal it prints as, so that 0.1 is 100 000 000 ns and not one less.

    Raises:
        ValueError: ``seconds`` is not a finite number.
    """
    return round_ties_up(Fraction(repr(seconds) if isinstance(seconds, float) else seconds) * NS)


def count_in(length_ns: int, rate: int) -> int:
    """How many samples at ``rate`` Hz a span of ``length_ns`` holds, by the one rounding rule."""
    return round_ties_up(Fraction(length_ns * rate, NS))


@dataclass(frozen=True, slots=True, order=True)
class TimeSpan:
    """A half-open interval ``[start_ns, end_ns)`` in nanoseconds."""

    start_ns: int
    end_ns: int

    def __post_init__(self) -> None:
        if self.end_ns < self.start_ns:
            raise ValueError(f"a span ends before it starts: [{self.start_ns}, {self.end_ns}) ns")

    @property
    def length_ns(self) -> int:
        """Length in nanoseconds."""
        return self.end_ns - self.start_ns

    @property
    def center_ns(self) -> int:
        """The middle, in nanoseconds, ties up."""
        return (self.start_ns + self.end_ns + 1) // 2

    def holds(self, time_ns: int) -> bool:
        """Whether the instant lies inside."""
        return self.start_ns <= time_ns < self.end_ns

    def covers(self, other: TimeSpan) -> bool:
        """Whether ``other`` lies wholly inside."""
        return self.start_ns <= other.start_ns and other.end_ns <= self.end_ns

    def touches(self, other: TimeSpan) -> bool:
        """Whether the two share any instant."""
        return self.start_ns < other.end_ns and other.start_ns < self.end_ns

    def cut_to(self, other: TimeSpan) -> TimeSpan | None:
        """The common part, or None where there is none."""
        if not self.touches(other):
            return None
        return TimeSpan(max(self.start_ns, other.start_ns), min(self.end_ns, other.end_ns))

    def widened(self, margin_ns: int) -> TimeSpan:
        """The span with ``margin_ns`` more on both sides."""
        return TimeSpan(self.start_ns - margin_ns, self.end_ns + margin_ns)


@dataclass(frozen=True, slots=True)
class ClockPiece:
    """From ``start_ns`` of the stream's clock on: ``t + offset_ns + drift_ppm·1e-6·(t - start_ns)``."""

    start_ns: int
    offset_ns: int
    drift_ppm: float = 0.0


@dataclass(frozen=True, slots=True)
class ClockMap:
    """Leads from a stream's own clock to the recording clock, piece by piece.

    Before the first piece's start the first piece holds. The correction, not the time itself, is what a
    float carries, so ten hours of drift stay exact to well under a nanosecond.
    """

    pieces: tuple[ClockPiece, ...] = (ClockPiece(0, 0),)

    def __post_init__(self) -> None:
        starts = [p.start_ns for p in self.pieces]
        if not starts or starts != sorted(set(starts)):
            raise ValueError("a clock map needs at least one piece, with ascending, distinct starts")

    @property
    def is_identity(self) -> bool:
        """Whether the stream already stands on the recording clock."""
        return all(p.offset_ns == 0 and p.drift_ppm == 0.0 for p in self.pieces)

    def to_recording(self, times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Recording times (int64 ns) of stream times (int64 ns), any shape."""
        import numpy as np

        times = np.asarray(times_ns, np.int64)
        if self.is_identity:
            return times
        starts = np.array([p.start_ns for p in self.pieces], np.int64)
        which = np.maximum(np.searchsorted(starts, times, side="right") - 1, 0)
        offset = np.array([p.offset_ns for p in self.pieces], np.int64)[which]
        drift = np.array([p.drift_ppm for p in self.pieces], np.float64)[which]
        moved = np.floor(drift * 1e-6 * (times - starts[which]) + 0.5).astype(np.int64)
        return np.asarray(times + offset + moved, np.int64)

    def at(self, time_ns: int) -> int:
        """Recording time of one stream time."""
        import numpy as np

        return int(self.to_recording(np.array([time_ns], np.int64))[0])

    def then(self, after: ClockMap) -> ClockMap:
        """The map that applies this one first and ``after`` to what it gives, exact to 2 ns."""
        if self.is_identity:
            return after
        starts = {p.start_ns for p in self.pieces} | {self._entry(p.start_ns) for p in after.pieces}
        return ClockMap(tuple(self._joined(after, start) for start in sorted(starts)))

    def _entry(self, time_ns: int) -> int:
        """The stream time that leads to ``time_ns``, or, where rounding forbids it, to just after."""
        found = self.to_stream(time_ns)
        return found + (self.at(found) < time_ns)

    def _joined(self, after: ClockMap, start_ns: int) -> ClockPiece:
        between = self.at(start_ns)
        first, second = self._piece_at(start_ns), after._piece_at(between)
        rate = (1 + first.drift_ppm * 1e-6) * (1 + second.drift_ppm * 1e-6)
        return ClockPiece(start_ns, after.at(between) - start_ns, (rate - 1) * 1e6)

    def _piece_at(self, time_ns: int) -> ClockPiece:
        return self.pieces[max(bisect_right([p.start_ns for p in self.pieces], time_ns) - 1, 0)]

    def span_on_stream(self, span: TimeSpan) -> TimeSpan:
        """Holds every stream time that leads into the span, also where the clock leaps back at a join."""
        ends: list[int] = []
        for k, piece in enumerate(self.pieces):
            alone = ClockMap((piece,))
            start, end = (alone.to_stream(t) for t in (span.start_ns, span.end_ns))
            start = start if k == 0 else max(start, piece.start_ns)
            end = end if k + 1 == len(self.pieces) else min(end, self.pieces[k + 1].start_ns)
            ends += [start - 1, end + 1] if start <= end else []
        return TimeSpan(min(ends), max(ends)) if ends else TimeSpan(*[self.to_stream(span.start_ns)] * 2)

    def to_stream(self, time_ns: int) -> int:
        """A stream time that maps to within a nanosecond of ``time_ns``; in a join's gap, the join."""
        entries = [self.at(p.start_ns) for p in self.pieces]
        which = max(bisect_right(entries, time_ns) - 1, 0)
        piece = self.pieces[which]
        since = (time_ns - piece.start_ns - piece.offset_ns) / (1 + piece.drift_ppm * 1e-6)
        guess = piece.start_ns + round(since)
        return min(guess, self.pieces[which + 1].start_ns) if which + 1 < len(self.pieces) else guess


SAME_CLOCK = ClockMap()
"""Of a stream that stands on the recording clock."""
