"""One offset, one drift and one map for all intervals of all windows at once: what a line is refined with.

Windows that are fitted one by one each spend a bias and, through it, most of a motion slower than themselves.
Here all share one bias. The picture's error is no white noise either: an encoder moves each frame a little,
so one interval's error is taken back by the next. Prewhitened (Cochrane and Orcutt 1949), slow motion counts
for what it tells, which is three times more than its scatter suggests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_toeplitz

from align.transforms.sync.gyro import GyroIntegral
from align.transforms.sync.line import TYPICAL_DRIFT, Line
from align.transforms.sync.search import Window, gyro_rotation, huber_weight, offset_slope

Floats = NDArray[np.float64]

_ORDER = 2  # of the autoregression; more brings nothing (2, 5 and 8 measured)
_LAGS = 8  # of what is left of correlation after it (Newey and West 1987)
_ROUNDS = 6
_LEAST_ROWS = 100
_CONTIGUOUS_S = 1e-6
_MOST_NOISE = 0.8  # share of the gyro's rate of change that may be taken for noise


@dataclass(frozen=True, slots=True)
class _Rows:
    """Intervals of all windows, ascending: n of them.

    Attributes:
        seen: float64 [n, 3], rotation by the picture.
        known: float64 [n, 5], what is fitted to it: rotation by the gyro, a constant rate, a growing one.
        slope: float64 [n, 3], by how much the gyro's rotation grows with the offset.
        since: float64 [n], seconds since the line's own instant.
        follows: bool [n], whether the ``_ORDER`` intervals before it join on without a pause.
        step: seconds, median length of an interval.
    """

    seen: Floats
    known: Floats
    slope: Floats
    since: Floats
    follows: NDArray[np.bool_]
    step: float


def joint_line(windows: Sequence[Window], gyro: GyroIntegral, line: Line) -> Line | None:
    """A line near ``line`` by generalised least squares over all windows; None where they hold too little.

    Args:
        windows: ascending; those that disagree with ``line`` had better be left out.
        gyro: the integral.
        line: to start from, right to a few hundredths of a second.
    """
    covariance = None
    for _ in range(_ROUNDS):
        rows = _rows(windows, gyro, line)
        if int(rows.follows.sum()) < _LEAST_ROWS:
            return None
        step, covariance = _step(rows, gyro, line.drift)
        line = Line(line.at, line.offset + float(step[0]), line.drift + float(step[1]), covariance)
        if abs(step[0]) < 1e-7:
            break
    return line


def _rows(windows: Sequence[Window], gyro: GyroIntegral, line: Line) -> _Rows:
    parts = []
    for window in windows:
        offset = line.offset_at(window.centre)
        turned, covered = gyro_rotation(window, gyro, np.array([offset]), line.drift)
        slope = offset_slope(window, gyro, offset, line.drift)
        times = np.stack([window.start, window.end], axis=1)
        parts.append(np.concatenate([window.seen, turned[0], slope, times], axis=1)[covered[0] > 0])
    table = np.concatenate(parts)
    start, end = table[:, 9], table[:, 10]
    length, since = end - start, (start + end) / 2 - line.at
    joined = np.concatenate([[False], np.abs(start[1:] - end[:-1]) < _CONTIGUOUS_S])
    follows = joined.copy()
    for lag in range(1, _ORDER):
        follows[lag:] &= joined[:-lag]
        follows[:lag] = False
    known = np.concatenate([table[:, 3:6], length[:, None], (length * since)[:, None]], axis=1)
    return _Rows(table[:, :3], known, table[:, 6:9], since, follows, float(np.median(length)))


def _step(rows: _Rows, gyro: GyroIntegral, drift: float) -> tuple[Floats, Floats]:
    """Gauss-Newton step of (offset, drift), and their covariance [2, 2]."""
    matrix, whiten = _mapped(rows)
    n = int(rows.follows.sum())
    left, pull, lost = np.empty((n, 3)), np.empty((n, 3, 2)), 0.0
    seen, slope = rows.seen @ whiten, rows.slope @ matrix @ whiten
    known_matrix = np.linalg.lstsq(rows.known, seen, rcond=None)[0]
    weight = huber_weight(seen - rows.known @ known_matrix)
    for axis in range(3):
        history = _autoregression((seen - rows.known @ known_matrix)[:, axis] * weight)
        both = np.stack([slope[:, axis], slope[:, axis] * rows.since], axis=1)
        columns = np.concatenate([seen[:, axis, None], both, rows.known], axis=1)
        columns = _innovations(columns, history)[rows.follows]
        # Frisch and Waugh: without the part of each that map and bias could explain
        nuisance, kept = columns[:, 3:], weight[rows.follows, None]
        fitted = np.linalg.lstsq(nuisance * np.sqrt(kept), columns[:, :3] * np.sqrt(kept), rcond=None)[0]
        free = columns[:, :3] - nuisance @ fitted
        left[:, axis], pull[:, axis] = free[:, 0], free[:, 1:]
        lost += _slope_noise(gyro, rows.step, history, float(np.sum((matrix @ whiten)[:, axis] ** 2)))
    weight = huber_weight(left)
    information = np.einsum("n,nai,naj->ij", weight, pull, pull)
    # The gyro's own noise changes quickly and poses as information.
    noise = lost * float(weight.sum()) / max(float(information[0, 0]), 1e-30)
    information *= 1 - min(noise, _MOST_NOISE)
    information[1, 1] += 1 / TYPICAL_DRIFT**2
    information += 1e-9 * np.diag(np.diag(information))
    score = np.einsum("n,nai,na->ni", weight, pull, left)
    inverse = np.linalg.inv(information)
    step = inverse @ (score.sum(axis=0) - [0.0, drift / TYPICAL_DRIFT**2])
    small: Floats = np.asarray(np.clip(step, [-0.02, -1e-3], [0.02, 1e-3]), np.float64)
    return small, inverse @ _long_run(score) @ inverse


def _mapped(rows: _Rows) -> tuple[Floats, Floats]:
    """The map [3, 3] from gyro to picture, and what makes its residuals white across axes [3, 3]."""
    weight = np.ones(len(rows.seen))
    for _ in range(4):
        root = np.sqrt(weight)[:, None]
        matrix = np.linalg.lstsq(rows.known * root, rows.seen * root, rcond=None)[0]
        left = rows.seen - rows.known @ matrix
        weight = huber_weight(left)
    covariance = (left * weight[:, None]).T @ left / weight.sum() + 1e-14 * np.eye(3)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T
    return np.asarray(matrix[:3], np.float64), np.asarray(whiten, np.float64)


def _autoregression(series: Floats) -> Floats:
    """Coefficients [``_ORDER``] by Yule and Walker's equations."""
    n = len(series)
    moments = np.array([series[lag:] @ series[: n - lag] for lag in range(_ORDER + 1)]) / n
    moments[0] = 1.01 * moments[0] + 1e-30
    return np.asarray(solve_toeplitz(moments[:_ORDER], moments[1:]), np.float64)


def _innovations(columns: Floats, history: Floats) -> Floats:
    """What each row adds to what the rows before it foretell, of series that run down the columns."""
    out = columns.copy()
    for lag, share in enumerate(history, start=1):
        out[lag:] -= share * columns[:-lag]
    return out


def _slope_noise(gyro: GyroIntegral, step: float, history: Floats, gain: float) -> float:
    """Variance of a row's innovation of the slope from the gyro's white noise alone.

    The slope is the difference of the rate at an interval's ends; ``gain`` leads from the gyro's variance to
    that of the whitened axis. All that was left unexplained there is 1, and no noise can be more.
    """
    filter_ = np.concatenate([[1.0], -history])
    lags = np.arange(len(filter_)) * step
    rate = gyro.rate_noise(np.stack([lags - step, lags, lags + step]))
    spread = min(gain, 1.0 / max(gyro.noise(step) ** 2, 1e-30)) * (2 * rate[1] - rate[0] - rate[2])
    apart = np.abs(np.subtract.outer(np.arange(len(filter_)), np.arange(len(filter_))))
    return float(filter_ @ spread[apart] @ filter_)


def _long_run(score: Floats) -> Floats:
    """Variance [2, 2] of the sum of scores [n, 2] that may hang together; never less than of free ones."""
    free = score.T @ score
    long = free.copy()
    for lag in range(1, _LAGS + 1):
        share = score[lag:].T @ score[:-lag]
        long += (1 - lag / (_LAGS + 1)) * (share + share.T)
    return np.asarray(free * max(1.0, float((np.diag(long) / np.diag(free)).max())), np.float64)
