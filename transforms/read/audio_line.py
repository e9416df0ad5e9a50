"""How fast sound ticks by its timestamps: where it breaks, and a line through each piece without a break.

A stream's timestamps may say that it runs at another speed than its nominal rate: a sound card whose crystal
is off, a recorder that stretches time. Others are merely untidy: rounded to the container's tick, jittered by
a live muxer, written for every eighth frame only (MPEG-TS) with the rest filled in::

    timestamp minus nominal time
    exact            ----------------        nominal
    rounded          -_--_-_--_--_-_-        nominal: explains every stamp within a tick
    jittered         .'.,'.',..,'.,'.        nominal: a slope would not be significant
    stretched        ___...---'''            a line, its slope fitted
    a hole           -------  ------- (up)   two runs

All sums are of integers, so that a line does not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import sqrt
from statistics import median, median_high, median_low
from typing import NamedTuple

MOST_STRETCH = 0.03
"""By so much, relative, a fitted rate may differ from the nominal one."""

_FEWEST = 8  # timestamps, or a line is nobody's
_EXACT_HZ = 10_000  # a line that keeps timestamps within 0.1 ms in all, or a tick, explains them
_SLACK_HZ = 20_000  # twice rounded: a tick and 0.05 ms more
_SIGNIFICANT = 4.0  # standard errors of what a slope moves the ends by
_OUTLIER = 5.0  # median deviations
_LOCAL_S = 0.5  # over so long, noise is told from drift
_LONGEST_NOISE_S = 0.1  # timestamps that scatter wider are not smoothed
_NOISE_SHARE = 1.5  # of the scatter: what lies beyond is a hole
_ALIKE = Fraction(1, 2)  # of the whole run's slope, in each half of it
_GRAIN = 1 << 40  # slopes are kept to a part in so many


class Line(NamedTuple):
    """Sample ``i`` stands at ``start + i * sample``, in units of the clock; exact."""

    start: Fraction
    sample: Fraction


class Scale(NamedTuple):
    """Units of the clock in a second, in a tick of the container, in a sample of the nominal rate."""

    hz: int
    tick: int
    sample: int

    @property
    def explained(self) -> float:
        """By so much timestamps may scatter, from least to greatest, about a line that explains them."""
        return max(self.tick + self.hz / _SLACK_HZ, self.hz / _EXACT_HZ)


class Breaks(NamedTuple):
    """What tells a break from the way the stream ticks.

    Attributes:
        slope: of timestamp minus nominal time, relative.
        tolerance: a timestamp that is farther from the last one's end, the slope allowed for, is a break.
        by_frames: whether a whole frame's length more is a break as well.
    """

    slope: float
    tolerance: float
    by_frames: bool

    def between(self, step: int, length: int) -> bool:
        """Whether sound breaks before a frame that begins ``step`` after the end of one of this length."""
        off = step - self.slope * length
        return abs(off) > self.tolerance or (self.by_frames and off > 0.9 * length)


def explains(offsets: Sequence[int | Fraction], scale: Scale) -> bool:
    """Whether timestamps minus a line's are no more than rounding."""
    return float(max(offsets) - min(offsets)) <= scale.explained


def ticking(at: Sequence[int], stamps: Sequence[int], tolerance: int, scale: Scale) -> Breaks | None:
    """How a stream ticks whose timestamps are not one frame's length apart.

    Args:
        at: frame -> samples before it, holes not counted; ascending, and one more: all samples.
        stamps: frame -> its timestamp.
        tolerance: of clean timestamps.
        scale: of the timestamps.

    Returns:
        None where the frames are too few, or scatter so much that each timestamp stands for itself.
    """
    count = len(stamps)
    if count < _FEWEST:
        return None
    offsets = [y - stamps[0] - x * scale.sample for x, y in zip(at, stamps, strict=False)]
    lengths = [(b - a) * scale.sample for a, b in pairwise(at)]
    lag = round(_LOCAL_S * count * scale.hz / max(sum(lengths), 1))
    lag = max(min(lag, count // 3), 2)
    slopes = [
        (offsets[i + lag] - offsets[i]) / ((at[i + lag] - at[i]) * scale.sample) for i in range(count - lag)
    ]
    slope = median(slopes)
    if abs(slope) > MOST_STRETCH:
        return None
    level = [d - slope * x * scale.sample for x, d in zip(at, offsets, strict=False)]
    pieces = (level[i : i + lag + 1] for i in range(count - lag))
    scatter = median([max(piece) - min(piece) for piece in pieces])
    if scatter > _LONGEST_NOISE_S * scale.hz:
        return None
    is_clean = median([abs(b - a) for a, b in pairwise(level)]) <= tolerance
    return Breaks(slope, max(tolerance, _NOISE_SHARE * scatter), is_clean)


def nominal(at: Sequence[int], stamps: Sequence[int], sample: int | Fraction) -> Line:
    """The line of a known slope: by the median over the timestamps."""
    starts = [y - x * sample for x, y in zip(at, stamps, strict=True)]
    return Line(Fraction(median_low(starts) + median_high(starts)) / 2, Fraction(sample))


def fit(at: Sequence[int], stamps: Sequence[int], scale: Scale) -> Line:
    """A run's line: the nominal one, unless the timestamps contradict it and agree on another.

    Args:
        at: samples of the run before each timestamp.
        stamps: the timestamps, at least one.
        scale: of the timestamps.
    """
    plain = nominal(at, stamps, scale.sample)
    offsets = [y - stamps[0] - x * scale.sample for x, y in zip(at, stamps, strict=True)]
    if explains(offsets, scale) or len(stamps) < _FEWEST:
        return plain
    kept = _inliers(at, offsets, scale)
    found = _least_squares([at[i] for i in kept], [offsets[i] for i in kept], scale)
    if found is None or abs(found[1]) > MOST_STRETCH * scale.sample:
        return plain
    start, slope = found
    left = [float(offsets[i] - start - slope * at[i]) for i in kept]
    reach = abs(float(slope)) * (at[kept[-1]] - at[kept[0]]) / 2
    is_sure = max(left) - min(left) <= scale.explained and len(kept) > 0.9 * len(at)
    if not is_sure:
        is_clear = reach > max(_SIGNIFICANT * _end_error(left), scale.explained)
        if not is_clear or not _is_steady([at[i] for i in kept], [offsets[i] for i in kept], slope, scale):
            return plain
    return Line(stamps[0] + start, scale.sample + slope)


def _inliers(at: Sequence[int], offsets: Sequence[int], scale: Scale) -> list[int]:
    """Indexes of the timestamps near a first line, by the median of slopes over half the run."""
    half = len(at) // 2
    slopes = [(offsets[i + half] - offsets[i]) / max(at[i + half] - at[i], 1) for i in range(len(at) - half)]
    slope = median(slopes)
    level = [d - slope * x for x, d in zip(at, offsets, strict=True)]
    middle = median(level)
    far = _OUTLIER * median([abs(e - middle) for e in level])
    far = max(far, scale.explained)
    return [i for i, e in enumerate(level) if abs(e - middle) <= far]


def _least_squares(
    at: Sequence[int], offsets: Sequence[int], scale: Scale
) -> tuple[Fraction, Fraction] | None:
    """Offset and slope (units per sample), the slope on a fine grid of its own; None where it has none."""
    n, sx, sd = len(at), sum(at), sum(offsets)
    spread = n * sum(x * x for x in at) - sx * sx
    if not spread:
        return None
    slope = Fraction(n * sum(x * d for x, d in zip(at, offsets, strict=True)) - sx * sd, spread)
    slope = Fraction(round(slope / scale.sample * _GRAIN) * scale.sample, _GRAIN)
    return Fraction(sd - slope * sx) / n, slope


def _is_steady(at: Sequence[int], offsets: Sequence[int], slope: Fraction, scale: Scale) -> bool:
    """Whether both halves rise alike: a hole among timestamps that scatter is a step, not a slope."""
    half = len(at) // 2
    halves = (
        _least_squares(at[part], offsets[part], scale) for part in (slice(0, half), slice(half, len(at)))
    )
    return all(found is not None and found[1] / slope > _ALIKE for found in halves)


def _end_error(left: Sequence[float]) -> float:
    """Standard error of a line at its ends, from what it leaves; slow swings count as few timestamps."""
    crossings = sum((a < 0) != (b < 0) for a, b in pairwise(left))
    alike = min(max(2 * crossings, 1), len(left))
    return sqrt(sum(e * e for e in left) / len(left)) * sqrt(3 / alike)
