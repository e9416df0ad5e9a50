"""The gyroscope integrated over frame intervals: what the picture's rotation is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from align.schemas.time import NS

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

_SMOOTH_S = 0.013  # Gaussian, -3 dB at 10 Hz
_GAP_PERIODS = 3.0  # a longer pause between rows is a gap: nothing is integrated across it


class GyroIntegral:
    """The running integral of angular rate, after a low-pass without delay, as a cubic spline.

    Vibration faster than pictures follow each other (propellers, steps on a hard floor) reaches the picture
    aliased and smeared over the exposure. Left in, it makes evidence ripple with its period, and the best
    offset jump by whole ripples. So the gyro is smoothed to what 30 pictures a second can show.

    Integrals are of the vector, not of the rotation: over a frame interval (tens of milliseconds) the order
    in which rotations follow each other is a matter of less than a thousandth of the angle.

    Args:
        gyro_ns: int64 [n], strictly ascending.
        gyro: float64 [n, 3], rad/s.
    """

    def __init__(self, gyro_ns: Times, gyro: Floats) -> None:
        if len(gyro_ns) < 4:
            raise ValueError("a gyro integral needs at least 4 rows")
        self.times_ns = np.asarray(gyro_ns, np.int64)
        self.origin_ns = int(self.times_ns[0])
        steps = np.diff(self.times_ns)
        gaps = np.flatnonzero(steps > _GAP_PERIODS * np.median(steps))
        self._gaps = (
            (self.times_ns[gaps] - self.origin_ns) / NS,
            (self.times_ns[gaps + 1] - self.origin_ns) / NS,
        )
        own = (self.times_ns - self.origin_ns) / NS
        second = np.diff(np.asarray(gyro, np.float64), n=2, axis=0)
        white = 1.4826 * float(np.median(np.abs(second))) / np.sqrt(6)  # of three rows with weights 1, -2, 1
        self._walk = white * float(np.sqrt(np.median(steps) / NS))
        step = min(float(np.median(steps)) / NS, _SMOOTH_S / 2)
        even = np.arange(0.0, own[-1] + step, step)
        rate = np.stack([np.interp(even, own, axis) for axis in np.asarray(gyro, np.float64).T], axis=1)
        self._rate = CubicSpline(even, gaussian_filter1d(rate, _SMOOTH_S / step, axis=0, mode="nearest"))
        self._integral = self._rate.antiderivative()

    @property
    def start_ns(self) -> int:
        """The first row."""
        return self.origin_ns

    @property
    def end_ns(self) -> int:
        """The last row."""
        return int(self.times_ns[-1])

    def seconds(self, times_ns: Times) -> Floats:
        """Times in seconds since the first row, as the other methods take them."""
        return np.asarray((np.asarray(times_ns, np.int64) - self.origin_ns) / NS, np.float64)

    def at(self, seconds: Floats) -> Floats:
        """The running integral, radians [..., 3]; held constant outside the rows."""
        inside = np.clip(seconds, 0.0, (self.end_ns - self.origin_ns) / NS)
        return np.asarray(self._integral(inside), np.float64)

    def rate(self, seconds: Floats) -> Floats:
        """Angular rate, rad/s [..., 3]."""
        inside = np.clip(seconds, 0.0, (self.end_ns - self.origin_ns) / NS)
        return np.asarray(self._rate(inside), np.float64)

    def noise(self, interval: float) -> float:
        """Standard error of an integral over ``interval`` seconds from the rows' white noise, radians."""
        return float(self._walk * np.sqrt(interval))

    def rate_noise(self, apart: Floats) -> Floats:
        """Covariance of two rates ``apart`` seconds from each other by the rows' white noise, (rad/s)²."""
        spread = self._walk**2 / (2 * np.sqrt(np.pi) * _SMOOTH_S)
        return np.asarray(spread * np.exp(-((apart / (2 * _SMOOTH_S)) ** 2)), np.float64)

    def covers(self, start: Floats, end: Floats) -> NDArray[np.bool_]:
        """Whether each ``[start, end]`` (seconds) lies inside the rows and touches no gap."""
        good = (start >= 0.0) & (end <= (self.end_ns - self.origin_ns) / NS)
        left, right = self._gaps
        if len(left):
            # the last gap that opens before the interval's end must have closed before its start
            which = np.searchsorted(left, end, side="left") - 1
            closed = np.where(which >= 0, right[np.maximum(which, 0)] <= start, True)
            good &= closed
        return np.asarray(good, np.bool_)
