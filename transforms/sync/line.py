"""One straight line for a clock: found by adding up the windows' evidence, fitted robustly.

A clock's offset is a line over the recording: an offset and a drift. It is searched for over all windows at
once (a Hough transform over evidence), so that a window that misleads by itself cannot mislead alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_DRIFT = 1000e-6
"""Seconds per second. A quartz is allowed 50e-6; timestamps counted from nominal rates are further off."""

TYPICAL_DRIFT = 200e-6
"""Standard deviation of drifts before any is measured: it speaks where windows span a few seconds only."""

_CAP_NATS = 60.0  # evidence after which more of it from one window says nothing more
_APART = 0.2  # seconds from the best line after which another line is another answer
_FLOOR = 30e-6  # seconds; no window is trusted further, whatever its residuals say


@dataclass(frozen=True, slots=True)
class Line:
    """``offset + drift · (t − at)``, t in seconds of recording time on the gyro's axis.

    Attributes:
        offset: seconds to add to the stream's times.
        drift: seconds per second of recording time.
        at: where ``offset`` holds.
        covariance: float64 [2, 2] of (offset, drift).
    """

    at: float
    offset: float
    drift: float
    covariance: Any = None

    def offset_at(self, seconds: float) -> float:
        """Seconds to add at an instant."""
        return self.offset + self.drift * (seconds - self.at)

    def sigma_at(self, seconds: float) -> float:
        """Its standard error, seconds."""
        row = np.array([1.0, seconds - self.at])
        return float(np.sqrt(row @ self.covariance @ row))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A line found by adding up evidence.

    Attributes:
        line: without an error yet.
        rivalry: evidence of the best other answer over that of this one, 0 to 1; near 1 nothing was found.
    """

    line: Line
    rivalry: float


def find_line(
    curves: Floats, offsets: Floats, centres: Floats, max_drift: float = MAX_DRIFT
) -> Candidate | None:
    """The line along which the windows' evidence adds up highest; None where there is none.

    Args:
        curves: float64 [w, k], nats; NaN where an offset cannot be judged.
        offsets: float64 [k], seconds, evenly spaced.
        centres: float64 [w], seconds, ascending.
        max_drift: steepest line that is tried.
    """
    height = _levelled(curves)
    if not height.any():
        return None
    step = float(offsets[1] - offsets[0])
    middle, half = (centres[0] + centres[-1]) / 2, (centres[-1] - centres[0]) / 2
    count = int(np.ceil(max_drift * half / step))
    drifts = np.linspace(-max_drift, max_drift, 2 * count + 1) if count else np.zeros(1)
    total = np.stack([_added_up(height, step, d * (centres - middle)) for d in drifts])
    i, j = np.unravel_index(int(np.argmax(total)), total.shape)
    elsewhere = np.abs(offsets - offsets[j]) > _APART
    rival = float(total[:, elsewhere].max()) if elsewhere.any() else 0.0
    line = Line(float(middle), float(offsets[j]), float(drifts[i]))
    return Candidate(line, rival / float(total[i, j]))


def _levelled(curves: Floats) -> Floats:
    """Evidence above each window's own background, no window louder than the cap; 0 where unknown."""
    known = np.isfinite(curves)
    background = np.array([np.median(c[k]) if k.any() else 0.0 for c, k in zip(curves, known, strict=True)])
    height = np.where(known, np.maximum(np.where(known, curves, 0.0) - background[:, None], 0.0), 0.0)
    loudest = np.maximum(height.max(axis=1, keepdims=True), 1e-12)
    return np.asarray(height * np.minimum(1.0, _CAP_NATS / loudest), np.float64)


def _added_up(height: Floats, step: float, shifts: Floats) -> Floats:
    """The sum of the curves, each read ``shifts`` seconds further on, between samples linearly."""
    k = height.shape[1]
    grid = np.arange(k, dtype=np.float64)
    return np.asarray(
        sum(
            np.interp(grid + s / step, grid, h, left=0.0, right=0.0)
            for h, s in zip(height, shifts, strict=True)
        ),
        np.float64,
    )


def fit_line(centres: Floats, offsets: Floats, sigmas: Floats) -> Line:
    """Weighted least squares, reweighted against outliers; the error grows with the scatter that is left.

    Args:
        centres: float64 [w], seconds.
        offsets: float64 [w], seconds.
        sigmas: float64 [w], seconds, their standard errors.
    """
    sigma: Floats = np.asarray(np.hypot(sigmas, _FLOOR), np.float64)
    at = float(np.average(centres, weights=1 / sigma**2))
    design = np.stack([np.ones_like(centres), centres - at], axis=1)
    prior = np.diag([0.0, 1 / TYPICAL_DRIFT**2])
    weight: Floats = 1 / sigma**2
    solution: Floats = np.zeros(2)
    precision: Floats = np.eye(2)
    for _ in range(10):
        precision = np.asarray(design.T @ (design * weight[:, None]) + prior, np.float64)
        solution = np.asarray(np.linalg.solve(precision, design.T @ (weight * offsets)), np.float64)
        left: Floats = np.abs(offsets - design @ solution) / sigma
        typical = max(float(np.median(left)), 1.0)
        weight = np.asarray(np.minimum(1.0, 2.0 * typical / np.maximum(left, 1e-12)) / sigma**2, np.float64)
    excess = scatter(offsets - design @ solution, sigmas, weight * sigma**2)
    return Line(at, float(solution[0]), float(solution[1]), np.linalg.inv(precision) * excess)


def scatter(left: Floats, sigmas: Floats, weight: Floats | float = 1.0) -> float:
    """By how much a line's variance grows for the windows' scatter about it, at least 1.

    Scatter beyond the windows' own errors is error too. Few windows tell little of it: what is added to one
    over the degrees of freedom allows for that, as Student's t does.

    Args:
        left: float64 [w], seconds, offsets less the line.
        sigmas: float64 [w], seconds, their standard errors.
        weight: of each, at most 1.
    """
    freedom = max(len(left) - 2, 1)
    excess = float((weight * left**2 / np.hypot(sigmas, _FLOOR) ** 2).sum()) / freedom
    return max(1.0, excess) * (1 + 2 / freedom)
