"""Do the windows agree with one line and one map? What the verdict rests on, measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from align.transforms.sync.explained import Explained, explain
from align.transforms.sync.gyro import GyroIntegral
from align.transforms.sync.joint import joint_line
from align.transforms.sync.line import MAX_DRIFT, TYPICAL_DRIFT, Line, find_line, fit_line, scatter
from align.transforms.sync.search import (
    Mapping,
    Window,
    correlation,
    evidence,
    gyro_rotation,
    learn_mapping,
    moments,
    offset_grid,
    refine_offset,
)

Floats = NDArray[np.float64]

STEP = 0.01
"""Seconds between the offsets of the coarse search: a third of a frame at 30 fps."""

_NEAR = 0.015  # seconds from the line within which a window's best answer is the line's answer ...
_NEAR_SIGMAS, _NEAR_MOST = 4.0, 0.04  # ... or within its own error, where slow motion blurs the answer
_LEAST_TOGETHER = 3  # windows that agree, below which nothing is gained by fitting them at once
_BY_ITSELF_S = 1e-3  # by so much windows, one by one, are wrong alike where motion is slow (0.5 ms measured)
_CONTRADICTED = 9.2  # squared standard errors between two lines: 1 % of true ones are further apart
_ROUNDS = 2
_FINE_REACH, _FINE_TILT, _FINE_STEP = (
    0.02,
    0.02,
    5e-4,
)  # seconds about the coarse line: level, tilt at the ends
_TILTS = 81
_UNKNOWN = np.diag([1.0, 1e-6])  # of (offset, drift), where no window could refine them


@dataclass(frozen=True, slots=True)
class Check:
    """What one window says of the line.

    Attributes:
        window: the window.
        covered: whether the gyro covers it at the line.
        offset: its own offset near the line, seconds, with the common map; NaN where it has none.
        sigma: its standard error.
        alone: whether its best answer in the whole search, with a map of its own, is the line's.
        by_others: the same with the map that the other windows teach.
    """

    window: Window
    covered: bool
    offset: float
    sigma: float
    alone: bool
    by_others: bool

    @property
    def agrees(self) -> bool:
        """Whether the window, searched by itself, arrives at the line."""
        return self.covered and (self.alone or self.by_others)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The best line for some windows, and how far they bear it out.

    Attributes:
        line: with its error.
        mapping: the map common to all windows.
        checks: one per window.
        rivalry: evidence of the best other answer over that of this one, 0 to 1.
        fit: how far line and map explain what the picture does.
    """

    line: Line
    mapping: Mapping
    checks: tuple[Check, ...]
    rivalry: float
    fit: Explained


def evidence_curves(windows: list[Window], gyro: GyroIntegral, reach: float) -> Floats:
    """Nats per window and offset, float64 [w, k], over ``offset_grid(reach, STEP)``."""
    return np.stack([evidence(w, gyro, offset_grid(reach, STEP)) for w in windows])


def find_agreement(
    windows: list[Window], curves: Floats, gyro: GyroIntegral, reach: float
) -> Agreement | None:
    """The line on which the windows agree best; None where the gyro has nothing to say of them."""
    offsets = offset_grid(reach, STEP)
    found = find_line(curves, offsets, np.array([w.centre for w in windows]))
    if found is None:
        return None
    refined = _refined(windows, gyro, found.line)
    if refined is None:
        return None
    line, mapping, near = refined
    checks = tuple(_check(i, windows, curves[i], gyro, offsets, line, near[i]) for i in range(len(windows)))
    return Agreement(line, mapping, checks, found.rivalry, explain(windows, gyro, line, mapping))


_Near = list[tuple[float, float]]


def _refined(windows: list[Window], gyro: GyroIntegral, coarse: Line) -> tuple[Line, Mapping, _Near] | None:
    """The line, the common map, and each window's own offset beside the line."""
    centres = np.array([w.centre for w in windows])
    line = _finer(windows, gyro, coarse)
    for _ in range(_ROUNDS):
        at = [line.offset_at(c) for c in centres]
        learnt = learn_mapping(windows, gyro, at, line.drift)
        if learnt is None:
            return None
        mapping = learnt
        near = [refine_offset(w, gyro, o, line.drift, mapping) for w, o in zip(windows, at, strict=True)]
        offset, sigma = np.array(near).T
        with np.errstate(invalid="ignore"):
            close = np.isfinite(sigma) & (np.abs(offset - at) < _NEAR_MOST)
        if not close.any():
            return line, mapping, near
        line = fit_line(centres[close], offset[close], sigma[close])
    vague = replace(line, covariance=line.covariance + np.diag([_BY_ITSELF_S**2, 0.0]))
    return _together(windows, gyro, vague, offset, sigma) or vague, mapping, near


def _together(
    windows: list[Window], gyro: GyroIntegral, line: Line, offset: Floats, sigma: Floats
) -> Line | None:
    """The line by all intervals at once, of windows that agree; None where it contradicts their own line.

    What disturbs slow rotation (a picture that moves past, a gyro that warms up) leaves windows, each with a
    bias of its own, nearly alone. So the sharper line must be one that the coarser one allows (Hausman 1978).
    Its error grows with the scatter of the windows' own offsets about it.
    """
    centres = np.array([w.centre for w in windows])
    with np.errstate(invalid="ignore"):
        own = np.abs(offset - [line.offset_at(c) for c in centres])
        good = own < np.maximum(_NEAR, np.minimum(_NEAR_SIGMAS * sigma, _NEAR_MOST))
    if good.sum() < _LEAST_TOGETHER:
        return None
    found = joint_line([w for w, g in zip(windows, good, strict=True) if g], gyro, line)
    if found is None:
        return None
    apart = np.array([found.offset - line.offset, found.drift - line.drift])
    if apart @ np.linalg.solve(line.covariance, apart) > _CONTRADICTED:
        return None
    left = offset[good] - [found.offset_at(c) for c in centres[good]]
    return replace(found, covariance=found.covariance * scatter(left, sigma[good]))


def _finer(windows: list[Window], gyro: GyroIntegral, coarse: Line) -> Line:
    """The line near a coarse one that explains all windows best with one map.

    Moments add up, so every line through the windows' fine grids costs one sum and one determinant.
    """
    grid = offset_grid(_FINE_REACH + _FINE_TILT, _FINE_STEP)
    apart = np.array([w.centre - coarse.at for w in windows])
    found = [
        moments(w, gyro, grid + coarse.offset_at(w.centre), coarse.drift).weighted(
            1 / max(w.noise, 1e-6) ** 2
        )
        for w in windows
    ]
    tilt = _FINE_TILT / max(float(np.abs(apart).max()), 1e-9)
    drifts = np.clip(coarse.drift + tilt * np.linspace(-1, 1, _TILTS), -MAX_DRIFT, MAX_DRIFT)
    margin = round(_FINE_TILT / _FINE_STEP)
    inner = len(grid) - 2 * margin
    best, answer = -np.inf, Line(coarse.at, coarse.offset, coarse.drift, _UNKNOWN)
    for drift in np.unique(drifts):
        shifts = np.rint((drift - coarse.drift) * apart / _FINE_STEP).astype(int) + margin
        nats = reduce(add, (m.at(slice(s, s + inner)) for m, s in zip(found, shifts, strict=True))).evidence()
        nats -= 0.5 * (drift / TYPICAL_DRIFT) ** 2
        top = int(np.argmax(nats))
        if nats[top] > best:
            best = float(nats[top])
            answer = Line(coarse.at, coarse.offset + float(grid[margin + top]), float(drift), _UNKNOWN)
    return answer


def _check(
    which: int,
    windows: list[Window],
    curve: Floats,
    gyro: GyroIntegral,
    offsets: Floats,
    line: Line,
    near: tuple[float, float],
) -> Check:
    window = windows[which]
    at = line.offset_at(window.centre)
    offset, sigma = near
    tolerance = max(_NEAR, min(_NEAR_SIGMAS * sigma, _NEAR_MOST))
    _, covered = gyro_rotation(window, gyro, np.array([at]), line.drift)
    others = windows[:which] + windows[which + 1 :]
    mapping = learn_mapping(others, gyro, [line.offset_at(w.centre) for w in others], line.drift)
    by_others = mapping is not None and _best_is(
        at, tolerance, offsets, correlation(window, gyro, offsets, line.drift, mapping)
    )
    return Check(
        window,
        bool(covered.mean() >= 0.5),
        offset if np.isfinite(sigma) else float("nan"),
        sigma,
        _best_is(at, tolerance, offsets, curve),
        by_others,
    )


def _best_is(at: float, tolerance: float, offsets: Floats, curve: Floats) -> bool:
    """Whether the highest point of a curve lies within tolerance of ``at``."""
    if not np.isfinite(curve).any():
        return False
    return bool(abs(float(offsets[int(np.nanargmax(curve))]) - at) <= tolerance)
