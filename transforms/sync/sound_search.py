"""Windows of two sounds: what each says over all offsets, and closely about a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from align.schemas.time import NS, TimeSpan
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
WINDOW_S = 4.0
AGREES = 10e-3
"""Seconds from the line within which a window agrees: a path longer by 3 m."""
LIKE_BEST = 0.64
"""Evidence over that of a window's best offset from which the two cannot be told apart."""

_NEAR = 3e-4  # seconds from the line, where paths stay the same
_HEARD = 3.0  # standard deviations by which a fine peak stands out ...
_SHARE_OF_BEST = 0.6  # ... and its share of the window's highest
_BY_CHANCE = 25.0  # nats, 7 standard deviations: windows of one sound are never so alike by accident ...
_ALIKE = 0.1  # ... nor by so much of what they share with the other sound
_PEAK_SIGMA = 1e-5  # seconds; the scatter of the windows raises it where they deserve less
_MOST_TILTS = 300
_MOST_COMPARED = 12
_ROUNDS = 3


def _spans(starts: Floats, before: float = 0.0, after: float = 0.0) -> list[TimeSpan]:
    """Windows, widened, in nanoseconds."""
    return [TimeSpan(round((s - before) * NS), round((s + WINDOW_S + after) * NS)) for s in starts]


@dataclass(frozen=True, slots=True)
class Search:
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
    def over(cls, here: Hear, there: Hear, starts: Floats, expected: float, reach: float) -> Search:
        """Look for what is heard here within ``reach`` seconds of where it is expected there."""
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
        """Middles of the windows, float64 [w], seconds."""
        return self.starts + WINDOW_S / 2

    @property
    def own(self) -> Floats:
        """The best offset of each window by itself, seconds."""
        return np.asarray(self.offsets[self.curves.argmax(axis=1)], np.float64)

    def only(self, which: NDArray[np.bool_]) -> Search:
        """Some of the windows; ``which`` is bool [w]."""
        pieces = tuple(p for p, kept in zip(self.pieces, which, strict=True) if kept)
        return Search(self.starts[which], pieces, self.offsets, self.curves[which])

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
        return np.asarray(np.where(far <= AGREES, self.curves, 0.0).max(axis=1) / self.curves.max(axis=1))

    def repeats_itself(self, evidence: float) -> bool:
        """Whether what is heard in one window is heard in another: a loop fits wherever it starts anew."""
        chosen = np.unique(np.linspace(0, len(self.pieces) - 1, _MOST_COMPARED).round().astype(int))
        pairs = combinations([self.pieces[i] for i in chosen], 2)
        least = max(_ALIKE * evidence, _BY_CHANCE)
        return any(likeness(one, other) > least for one, other in pairs)


def _sum(one: Line, other: Line) -> Line:
    return Line(one.at, one.offset + other.offset_at(one.at), one.drift + other.drift)


@dataclass(frozen=True, slots=True)
class CloseLook:
    """A line, improved by what windows say about it closely.

    Attributes:
        search: the windows in which both are heard along the line.
        offsets: float64 [w], each one's own, seconds; read about the line.
        line: best fit to those that are near; the line it began with where there are too few.
        near: bool [w], which of them have a peak on one line together.
        echo: the loudest beside it over the common peak.
    """

    search: Search
    offsets: Floats
    line: Line
    near: NDArray[np.bool_]
    echo: float

    @classmethod
    def along(cls, line: Line, here: Hear, there: Hear, search: Search) -> CloseLook:
        """Hear the windows again, at a higher rate, and refine the line round by round."""
        margin = FINE_REACH + COARSE_STEP + MAX_DRIFT * WINDOW_S
        moved = np.array([s - line.offset_at(s) for s in search.starts])
        around = there(_spans(moved, margin, margin), FINE_RATE)
        pairs = [
            (a, b) if fine(a, b, line) is not None else None
            for a, b in zip(here(_spans(search.starts), FINE_RATE), around, strict=True)
        ]
        search = search.only(np.array([p is not None for p in pairs], np.bool_))
        return cls._of([p for p in pairs if p is not None], search, line)

    @classmethod
    def _of(cls, pairs: Sequence[tuple[Sound, Sound]], search: Search, line: Line) -> CloseLook:
        centres, lags = search.centres, fine_lags(FINE_RATE)
        found = cls(search, np.empty(0), line, np.zeros(len(pairs), np.bool_), 1.0)
        if len(pairs) < LEAST_WINDOWS:
            return found
        tilt = 2 * COARSE_STEP / max(float(centres[-1] - centres[0]) / 2, 1.0)
        for _ in range(_ROUNDS):
            rows = np.stack([r for a, b in pairs if (r := fine(a, b, line)) is not None])
            own = np.array([line.offset_at(c) for c in centres]) + lags[rows.argmax(axis=1)]
            found = replace(found, offsets=own)
            common = find_line(np.maximum(rows, 0) ** 2 / 2, lags, centres, tilt)
            if common is None:
                break
            delay = _delays(rows, centres, common.line)
            near = np.isfinite(delay)
            found = replace(found, near=near)
            if near.sum() < LEAST_WINDOWS:
                break
            at = np.array([line.offset_at(c) for c in centres[near]]) + delay[near]
            line = fit_line(centres[near], at, np.full(int(near.sum()), _PEAK_SIGMA))
            found = replace(found, line=line, echo=_echo(rows[near]))
            tilt /= 8  # the line is known better each time: less is searched
        return found


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
