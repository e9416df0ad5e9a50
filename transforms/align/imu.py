"""IMU of one window: both sensors on the window's own grid, each from its own instants.

Output sample k stands at ``window.start + k / rate`` exactly. Rows are split into runs where they are more
than three nominal periods apart and at joints; nothing is interpolated across. An output sample is *measured*
for a sensor if it lies between the first and the last row of a run, ends included::

    rows      x x x x x x x x . . . . . . x x x x x x x x
    run       [-------------]             [-------------]
    mask      1 1 1 1 1 1 1 1 0 0 0 0 0 0 1 1 1 1 1 1 1 1

Rows are interpolated by timestamp with a spline of degree 9: of a signal below 0.2 of the rate, jittered by
2 of 5 ms, a cubic keeps 44 dB, degree 7 keeps 80 and degree 9 keeps 98. Odd reflection at a run's ends, in
place of the usual end polynomials, keeps the noise there from growing (1.1 times against 16). When the target
rate is below the source's, the spline is taken at a dense grid and filtered with a Kaiser-windowed FIR.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from align.schemas.media import ImuTrack
from align.schemas.sample import ImuWindow
from align.schemas.time import NS, TimeSpan, count_in
from align.transforms.align.margins import IMU_MARGIN_NS

_LONGEST_STEP = 3  # nominal periods: rows further apart belong to different runs
_DEGREE = 9
_REFLECTED = 12  # rows mirrored at a run's end: the spline forgets them within as many
_CLOSEST = 0.05  # of a period: nearer rows say one thing twice, and their difference is noise
_PASS, _STOP = 0.4, 0.5  # of the target rate
_STOP_DB = 100.0
_LONGEST_FILTER_NS = 800_000_000  # half its length; reached below 40 Hz, where the pass band then narrows


@dataclass(frozen=True, slots=True)
class WindowImuResult:
    """The IMU of one window, and how well it is covered.

    Attributes:
        imu: values and mask.
        coverage: share of output samples at which both sensors are measured.
        max_gap_ns: longest stretch of the window without a row of one of the sensors, to the window's edges.
    """

    imu: ImuWindow
    coverage: float
    max_gap_ns: int


def window_imu(track: ImuTrack, window: TimeSpan, rate: int) -> WindowImuResult:
    """Resample both sensors to ``rate`` Hz over a window.

    The result depends on the rows within ``window ± IMU_MARGIN_NS`` and on the track's rates only. A run of
    two or three rows is interpolated linearly.

    Args:
        track: rows around the window, recording clock.
        window: recording clock.
        rate: Hz of the output.
    """
    joints_ns = track.joints_ns
    gyro_ns, gyro = _near(track.gyro_ns, track.gyro, window)
    accl_ns, accl = _near(track.accl_ns, track.accl, window)
    if track.gyro_rate_hz == track.accl_rate_hz and np.array_equal(gyro_ns, accl_ns):
        both = np.concatenate([gyro, accl], axis=1)  # one spline for rows of both sensors: half the work
        found, mask = _resample(gyro_ns, both, track.gyro_rate_hz, joints_ns, window, rate)
    else:
        gyro, gyro_there = _resample(gyro_ns, gyro, track.gyro_rate_hz, joints_ns, window, rate)
        accl, accl_there = _resample(accl_ns, accl, track.accl_rate_hz, joints_ns, window, rate)
        found, mask = np.concatenate([gyro, accl], axis=1), gyro_there & accl_there
    values = found.T.astype(np.float32)
    values[:, ~mask] = 0.0
    coverage = float(mask.mean()) if len(mask) else 0.0
    max_gap_ns = max(_longest_gap(gyro_ns, window), _longest_gap(accl_ns, window))
    return WindowImuResult(ImuWindow(np.ascontiguousarray(values), mask), coverage, max_gap_ns)


def _longest_gap(times_ns: NDArray[np.int64], window: TimeSpan) -> int:
    inside = times_ns[(times_ns >= window.start_ns) & (times_ns < window.end_ns)]
    return int(np.diff(np.concatenate(([window.start_ns], inside, [window.end_ns]))).max())


def _near(
    times_ns: NDArray[np.int64], values: NDArray[np.float64], window: TimeSpan
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rows that a window's samples may depend on."""
    reach = window.widened(IMU_MARGIN_NS)
    low, high = np.searchsorted(times_ns, (reach.start_ns, reach.end_ns))
    return times_ns[low:high], values[low:high]


def _resample(
    times_ns: NDArray[np.int64],
    values: NDArray[np.float64],
    source_hz: float,
    joints_ns: tuple[int, ...],
    window: TimeSpan,
    rate: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rows [m, k] of one time base on the window's grid [n, k], and where they are measured [n]."""
    count = count_in(window.length_ns, rate)
    out, there = np.zeros((count, values.shape[1])), np.zeros(count, np.bool_)
    since = times_ns - window.start_ns
    if len(since) < 2:
        return out, there
    period_ns = NS / source_hz if source_hz > 0 else float(np.median(np.diff(since)))
    gaps = np.flatnonzero(np.diff(since) > _LONGEST_STEP * period_ns) + 1
    joints = np.searchsorted(times_ns, np.array(joints_ns, np.int64))
    breaks = np.union1d(gaps, joints[(joints > 0) & (joints < len(since))])
    for run_ns, run in zip(np.split(since, breaks), np.split(values, breaks), strict=True):
        first = max(_index_from(run_ns[0], rate), 0)
        end = min(_index_until(run_ns[-1], rate), count)
        if first < end and len(run) > 1:
            run_of = _slow_down if rate * period_ns < NS else _at_rate
            out[first:end] = run_of(run_ns, run, period_ns, rate, first, end)
            there[first:end] = True
    return out, there


def _index_from(time_ns: int, rate: int) -> int:
    """The first grid sample at or after an instant."""
    return ceil(Fraction(int(time_ns) * rate, NS))


def _index_until(time_ns: int, rate: int) -> int:
    """One past the last grid sample at or before an instant."""
    return floor(Fraction(int(time_ns) * rate, NS)) + 1


def _at_rate(
    run_ns: NDArray[np.int64], run: NDArray[np.float64], period_ns: float, rate: int, first: int, end: int
) -> NDArray[np.float64]:
    """Grid samples ``[first, end)`` of a run, interpolated."""
    return _curve(run_ns, run, period_ns)(np.arange(first, end, dtype=np.float64) * (NS / rate))


def _slow_down(
    run_ns: NDArray[np.int64], run: NDArray[np.float64], period_ns: float, rate: int, first: int, end: int
) -> NDArray[np.float64]:
    """Grid samples ``[first, end)`` of a run, low-passed to half the target rate.

    The dense grid is at least twice as fast as the source, so that the spline's images, at the source's rate
    minus the signal's frequency, stay above the pass band and are filtered with the rest.
    """
    factor = ceil(2 * NS / (period_ns * rate))
    dense = rate * factor
    taps = _low_pass(rate, factor)
    reach = len(taps) // 2
    low, high = first * factor - reach, (end - 1) * factor + reach + 1
    inner_low, inner_high = (
        max(low, _index_from(run_ns[0], dense)),
        min(high, _index_until(run_ns[-1], dense)),
    )
    curve = _at_rate(run_ns, run, period_ns, dense, inner_low, inner_high)
    pads = ((inner_low - low, high - inner_high), (0, 0))
    curve = np.pad(curve, pads, mode="reflect", reflect_type="odd")
    return np.asarray(sliding_window_view(curve, len(taps), axis=0)[::factor] @ taps, np.float64)


@lru_cache(maxsize=4)  # of every window the same; scipy.signal would take 0.4 CPU s and 36 MB to import
def _low_pass(rate: int, factor: int) -> NDArray[np.float64]:
    """Taps at ``rate · factor`` Hz whose half length is a multiple of ``factor``: a Kaiser-windowed sinc."""
    # samples of the target rate on either side (Kaiser's formula), no more than the margin feeds
    wanted = (_STOP_DB - 7.95) / (2.285 * 2 * np.pi * (_STOP - _PASS)) / 2
    half = max(min(ceil(wanted), _LONGEST_FILTER_NS * rate // NS), 1) * factor
    width = (_STOP_DB - 7.95) / (2.285 * 2 * np.pi * 2 * half / factor)
    cutoff = max(_STOP - width / 2, _STOP / 2)
    sinc = np.sinc(2 * cutoff / factor * np.arange(-half, half + 1))
    taps = sinc * np.kaiser(2 * half + 1, 0.1102 * (_STOP_DB - 8.7))  # Kaiser (1974), for 50 dB and more
    return np.asarray(taps / taps.sum(), np.float64)


def _curve(
    run_ns: NDArray[np.int64], run: NDArray[np.float64], period_ns: float
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The interpolant of a run, a function of ns."""
    instants, rows = _without_close(run_ns / period_ns, run)
    if len(rows) == 1:
        return lambda t: np.broadcast_to(rows[0], (len(t), rows.shape[1]))
    if len(rows) < 4:
        spline = make_interp_spline(instants, rows, k=1)
    else:
        spline = make_interp_spline(_reflected(instants), _reflected(rows), k=_DEGREE)
    return lambda t: np.asarray(spline(t / period_ns), np.float64)


def _reflected(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows with their odd reflection about the first and the last one."""
    count = min(_REFLECTED, len(rows) - 1)
    return np.concatenate([2 * rows[0] - rows[count:0:-1], rows, 2 * rows[-1] - rows[-2 : -count - 2 : -1]])


def _without_close(
    instants: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows with those much closer together than the run's median spacing replaced by their mean."""
    steps = np.diff(instants)
    close = steps < _CLOSEST * np.median(steps)
    if not close.any():
        return instants, rows
    first = np.flatnonzero(np.concatenate(([True], ~close)))
    count = np.diff(np.concatenate((first, [len(rows)])))
    return np.add.reduceat(instants, first) / count, np.add.reduceat(rows, first, axis=0) / count[:, None]
