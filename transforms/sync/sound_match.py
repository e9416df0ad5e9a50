"""Offset and drift between two recordings of one event, from their sound.

As for the gyro, agreement decides: windows are searched one by one over all offsets, and only where enough of
them arrive at one line by themselves is that line believed. How well it is known depends on the paths of the
sound. Between microphones that stand still, all windows agree to a fraction of a millisecond. Between people
who move and speak by turns, each metre of difference shifts what is heard by 2.9 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from align.schemas.media import AudioTrack
from align.schemas.recording import SyncStatus
from align.schemas.time import NS, TimeSpan, seconds_to_ns
from align.transforms.align.audio import resampled
from align.transforms.sync.gcc_phat import (
    COARSE_RATE,
    COARSE_STEP,
    FINE_RATE,
    FINE_REACH,
    Floats,
    Sound,
    coarse,
    fine,
    fine_lags,
    likeness,
)
from align.transforms.sync.line import MAX_DRIFT, Candidate, Line, find_line, fit_line

Hear = Callable[[Sequence[TimeSpan], int], Iterator[Sound]]
"""The sound in each of some spans of a recording's own clock, ascending by start, at a rate in Hz."""

LEAST_WINDOWS = 4
"""Fewer windows can agree by accident."""

_WINDOW_S = 4.0
_MOST_WINDOWS = 60
_SHARE = 0.6  # of the windows in which both are heard must agree
_UNHEARD = 0.25  # a share of agreeing windows below which nothing is shared
_AGREES = 10e-3  # seconds from the line: a path longer by 3 m
_NEAR = 3e-4  # seconds from the line, where paths stay the same
_HEARD = 3.0  # standard deviations by which a fine peak stands out ...
_SHARE_OF_BEST = 0.6  # ... and its share of the window's highest
_LIKE_BEST = 0.64  # evidence over that of a window's best offset from which the two cannot be told apart
_BY_CHANCE = 25.0  # nats, 7 standard deviations: windows of one sound are never so alike by accident ...
_ALIKE = 0.1  # ... nor by so much of what they share with the other sound
_RIVALRY = 0.8
_ECHO = 0.55  # an echo this loud beside the common peak: in one room it misleads all windows alike
_PEAK_SIGMA = 1e-5  # seconds; the scatter of the windows raises it where they deserve less
_PATHS_SIGMA = 4e-3  # seconds; what moving paths may leave in a line, however many windows there are
_SHARPEST = 10e-3  # seconds; a vaguer line is no measurement
_MOST_TILTS = 300
_MOST_COMPARED = 12
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class SoundMatch:
    """How one sound's clock leads to another's.

    Attributes:
        status: ``verified``, ``refuted`` (both are heard, and share nothing) or ``unobservable``.
        line: seconds to add to the other's times, over this one's time; None unless verified.
        windows: in how many both are heard.
        agreeing: how many of them agree with one line.
        reason: in words.
        centres: float64 [windows], seconds.
        offsets: float64 [windows], what each window says by itself, seconds.
        agrees: bool [windows].
    """

    status: SyncStatus
    line: Line | None
    windows: int
    agreeing: int
    reason: str
    centres: Floats = field(default_factory=lambda: np.empty(0))
    offsets: Floats = field(default_factory=lambda: np.empty(0))
    agrees: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))


def match_sounds(here: Sound, there: Sound, reach: float = 5.0) -> SoundMatch:
    """Offset and drift of ``there`` against ``here``, both in memory.

    Args:
        here: the clock to reach.
        there: at most ``reach`` seconds and 1000 ppm away.
        reach: seconds searched on both sides.
    """
    return match(hearing(here), hearing(there), here.start, here.end, reach=reach)


def hearing(sound: Sound) -> Hear:
    """Hears what is in memory."""
    start_ns = seconds_to_ns(Fraction(sound.start))
    track = AudioTrack(round(sound.rate), Fraction(start_ns), np.asarray(sound.samples, np.float32))
    return lambda spans, rate: (heard(track, span, rate) for span in spans)


def heard(track: AudioTrack, span: TimeSpan, rate: int) -> Sound:
    """A span of a track, at another rate."""
    return Sound(rate, span.start_ns / NS, resampled(track, span, rate))


def match(
    here: Hear, there: Hear, start: float, end: float, *, expected: float = 0.0, reach: float = 5.0
) -> SoundMatch:
    """Offset and drift of ``there`` against ``here``; decodes only what some windows need.

    Args:
        here: the clock to reach.
        there: the clock to measure.
        start: of what both may hold, seconds of ``here``.
        end: of the same.
        expected: seconds to add to the times of ``there``, as far as known.
        reach: seconds searched on both sides of it.
    """
    count = int(min((end - start) // _WINDOW_S, _MOST_WINDOWS))
    if count < LEAST_WINDOWS:
        reason = f"too short: {max(count, 0)} windows of {_WINDOW_S:g} s, {LEAST_WINDOWS} are needed"
        return SoundMatch("unobservable", None, max(count, 0), 0, reason)
    search = _Search.over(here, there, np.linspace(start, end - _WINDOW_S, count), expected, reach)
    found = search.line()
    if found is None or len(search.starts) < LEAST_WINDOWS:
        reason = f"both are heard in {len(search.starts)} of {count} windows only"
        return SoundMatch("unobservable", None, len(search.starts), 0, reason)
    close = _Closely.along(found.line, here, there, search)
    if len(close.search.starts) < LEAST_WINDOWS:
        reason = f"both are heard in {len(close.search.starts)} of {count} windows only"
        return SoundMatch("unobservable", None, len(close.search.starts), 0, reason)
    return _judged(found, close, reach)


def _spans(starts: Floats, before: float = 0.0, after: float = 0.0) -> list[TimeSpan]:
    """Windows, widened, in nanoseconds."""
    return [TimeSpan(round((s - before) * NS), round((s + _WINDOW_S + after) * NS)) for s in starts]


@dataclass(frozen=True, slots=True)
class _Search:
    """Windows in which both are heard, and each one's evidence over all offsets.

    Attributes:
        starts: float64 [w], seconds.
        pieces: their sound.
        offsets: float64 [k], seconds.
        curves: float64 [w, k], nats.
    """

    starts: Floats
    pieces: tuple[Sound, ...]
    offsets: Floats
    curves: Floats

    @classmethod
    def over(cls, here: Hear, there: Hear, starts: Floats, expected: float, reach: float) -> _Search:
        steps = int(np.ceil(reach / COARSE_STEP))
        offsets: Floats = np.asarray(expected + np.arange(-steps, steps + 1) * COARSE_STEP, np.float64)
        margin = (steps + 1) * COARSE_STEP
        wide = there(_spans(starts - expected, margin, margin), COARSE_RATE)
        kept: list[float] = []
        pieces: list[Sound] = []
        curves: list[Floats] = []
        for start, piece, around in zip(starts, here(_spans(starts), COARSE_RATE), wide, strict=True):
            curve = coarse(piece, around, offsets)
            if np.isfinite(curve).all():
                kept.append(start)
                pieces.append(replace(piece, samples=np.asarray(piece.samples, np.float32)))
                curves.append(curve)
        return cls(np.array(kept), tuple(pieces), offsets, np.array(curves))

    @property
    def centres(self) -> Floats:
        return self.starts + _WINDOW_S / 2

    @property
    def own(self) -> Floats:
        """The best offset of each window by itself, seconds."""
        return np.asarray(self.offsets[self.curves.argmax(axis=1)], np.float64)

    def only(self, which: NDArray[np.bool_]) -> _Search:
        pieces = tuple(p for p, kept in zip(self.pieces, which, strict=True) if kept)
        return _Search(self.starts[which], pieces, self.offsets, self.curves[which])

    def line(self) -> Candidate | None:
        """The line along which most evidence lies.

        A long recording may drift to many places: it is searched coarsely first, then along what was found.
        """
        if len(self.starts) < LEAST_WINDOWS:
            return None
        half = float(self.centres[-1] - self.centres[0]) / 2
        pool = max(1, int(np.ceil(MAX_DRIFT * half / COARSE_STEP / _MOST_TILTS)))
        count = len(self.offsets) // pool * pool
        pooled = self.curves[:, :count].reshape(len(self.curves), -1, pool).max(axis=2)
        found = find_line(pooled, self.offsets[:count].reshape(-1, pool).mean(axis=1), self.centres)
        if pool == 1 or found is None:
            return found
        lags: Floats = np.asarray(np.arange(-2 * pool, 2 * pool + 1) * COARSE_STEP, np.float64)
        along = np.stack(
            [
                np.interp(found.line.offset_at(c) + lags, self.offsets, curve)
                for c, curve in zip(self.centres, self.curves, strict=True)
            ]
        )
        closer = find_line(along, lags, self.centres, float(lags[-1]) / half)
        return found if closer is None else replace(found, line=_sum(found.line, closer.line))

    def likeness(self, line: Line) -> Floats:
        """Evidence on a line over that of each window's best offset."""
        far = np.abs(self.offsets - np.array([line.offset_at(c) for c in self.centres])[:, None])
        return np.asarray(np.where(far <= _AGREES, self.curves, 0.0).max(axis=1) / self.curves.max(axis=1))

    def repeats_itself(self, evidence: float) -> bool:
        """Whether what is heard in one window is heard in another: a loop fits wherever it starts anew."""
        chosen = np.unique(np.linspace(0, len(self.pieces) - 1, _MOST_COMPARED).round().astype(int))
        pairs = combinations([self.pieces[i] for i in chosen], 2)
        least = max(_ALIKE * evidence, _BY_CHANCE)
        return any(likeness(one, other) > least for one, other in pairs)


def _sum(one: Line, other: Line) -> Line:
    return Line(one.at, one.offset + other.offset_at(one.at), one.drift + other.drift)


@dataclass(frozen=True, slots=True)
class _Closely:
    """A line, improved by what windows say about it closely.

    Attributes:
        search: the windows in which both are heard along the line.
        offsets: float64 [w], each one's own, seconds; read about the line.
        line: best fit to those that are near; the line it began with where there are too few.
        near: bool [w], which of them have a peak on one line together.
        echo: the loudest beside it over the common peak.
    """

    search: _Search
    offsets: Floats
    line: Line
    near: NDArray[np.bool_]
    echo: float

    @classmethod
    def along(cls, line: Line, here: Hear, there: Hear, search: _Search) -> _Closely:
        margin = FINE_REACH + COARSE_STEP + MAX_DRIFT * _WINDOW_S
        moved = np.array([s - line.offset_at(s) for s in search.starts])
        around = there(_spans(moved, margin, margin), FINE_RATE)
        pairs = [
            (a, b) if fine(a, b, line) is not None else None
            for a, b in zip(here(_spans(search.starts), FINE_RATE), around, strict=True)
        ]
        search = search.only(np.array([p is not None for p in pairs], np.bool_))
        return cls._of([p for p in pairs if p is not None], search, line)

    @classmethod
    def _of(cls, pairs: Sequence[tuple[Sound, Sound]], search: _Search, line: Line) -> _Closely:
        centres, lags = search.centres, fine_lags(FINE_RATE)
        found = cls(search, np.empty(0), line, np.zeros(len(pairs), np.bool_), 1.0)
        if len(pairs) < LEAST_WINDOWS:
            return found
        tilt = 2 * COARSE_STEP / max(float(centres[-1] - centres[0]) / 2, 1.0)
        for _ in range(_ROUNDS):
            rows = np.stack([r for a, b in pairs if (r := fine(a, b, line)) is not None])
            own = np.array([line.offset_at(c) for c in centres]) + lags[rows.argmax(axis=1)]
            common = find_line(np.maximum(rows, 0) ** 2 / 2, lags, centres, tilt)
            if common is None:
                break
            delay = _delays(rows, centres, common.line)
            near = np.isfinite(delay)
            found = replace(found, offsets=own, near=near)
            if near.sum() < LEAST_WINDOWS:
                break
            at = np.array([line.offset_at(c) for c in centres[near]]) + delay[near]
            line = fit_line(centres[near], at, np.full(int(near.sum()), _PEAK_SIGMA))
            found = replace(found, line=line, echo=_echo(rows[near]))
            tilt /= 8  # the line is known better each time: less is searched
        return found


def _judged(found: Candidate, close: _Closely, reach: float) -> SoundMatch:
    search, count = close.search, len(close.search.starts)
    agrees = np.abs(search.own - np.array([found.line.offset_at(c) for c in search.centres])) <= _AGREES
    needed = max(LEAST_WINDOWS, _SHARE * count)
    both = agrees & close.near
    closely = int(both.sum()) >= needed
    agrees = both if closely else agrees
    number = int(agrees.sum())
    of = f"{number} of {count} windows agree with one line"
    shown = search.centres, np.where(agrees, close.offsets, search.own), agrees

    def told(status: SyncStatus, reason: str, line: Line | None = None) -> SoundMatch:
        return SoundMatch(status, line, count, number, reason, *shown)

    if number < needed:
        alike = int((search.likeness(found.line) >= _LIKE_BEST).sum()) >= needed
        if alike and found.rivalry > _RIVALRY:
            return told("unobservable", "the sound repeats itself: many offsets fit alike")
        if number <= max(2, _UNHEARD * count):
            return told("refuted", f"both are heard, but within ±{reach:g} s only {of}")
        return told("unobservable", f"only {of}")
    evidence = float(np.median(search.curves.max(axis=1)[agrees]))
    if found.rivalry > _RIVALRY:
        reason = f"{of}, but another line fits {found.rivalry:.0%} as well"
        return told("unobservable", reason)
    if search.only(agrees).repeats_itself(evidence):
        return told("unobservable", f"{of}, but the sound repeats itself")
    if closely and close.echo > _ECHO:
        reason = f"{of}, but echoes are {close.echo:.0%} as loud as what they hear"
        return told("unobservable", reason)
    line = close.line if closely else _through_paths(search.centres[agrees], close.offsets[agrees])
    if abs(line.drift) > MAX_DRIFT:
        return told("unobservable", f"{of}, but it would mean a drift of {line.drift * 1e6:.0f} ppm")
    sigma = max(line.sigma_at(c) for c in (search.centres[0], search.centres[-1]))
    if sigma > _SHARPEST:
        return told("unobservable", f"{of}, but the line is uncertain by {sigma * 1e3:.1f} ms")
    closeness = "" if closely else f" to within {_AGREES * 1e3:g} ms: the paths of the sound change"
    return told("verified", of + closeness, line)


def _through_paths(centres: Floats, offsets: Floats) -> Line:
    """The line through windows that hear the sound over changing paths."""
    line = fit_line(centres, offsets, np.full(len(centres), _PATHS_SIGMA))
    return replace(line, covariance=line.covariance + np.diag([_PATHS_SIGMA**2, 0.0]))


def _delays(rows: Floats, centres: Floats, common: Line) -> Floats:
    """What the line lacks at each window, seconds; NaN where the window does not agree with the others.

    An echo may be louder than the direct sound in one window; over all of them the direct sound is loudest.
    """
    lags = fine_lags(FINE_RATE)
    step, middle = float(lags[1] - lags[0]), len(lags) // 2
    out = np.full(len(rows), np.nan)
    for i, row in enumerate(rows):
        low, high = (
            int(np.clip(round((common.offset_at(centres[i]) + d) / step) + middle, 1, len(row) - 2))
            for d in (-_NEAR, _NEAR)
        )
        top = low + int(np.argmax(row[low : high + 1]))
        if row[top] < max(_HEARD, _SHARE_OF_BEST * row.max()) or not low < top < high:
            continue
        left, peak, right = row[top - 1 : top + 2]
        curvature = left - 2 * peak + right
        shift = 0.5 * (left - right) / curvature if curvature < 0 else 0.0
        out[i] = (top + shift - middle) * step
    return out


def _echo(rows: Floats) -> float:
    """The loudest of what lies beside the peak on the line, over that peak, in the windows' mean."""
    mean = rows.mean(axis=0)
    beside = np.abs(fine_lags(FINE_RATE)) > _NEAR
    return float(np.abs(mean[beside]).max() / max(float(mean[~beside].max()), 1e-12))
