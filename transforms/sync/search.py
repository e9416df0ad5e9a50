"""Where a window of picture rotation fits the gyro best: evidence over offsets, and the refined offset.

Two curves are used. The first lets every window find its own best 3×3 map and weighs all axes by what they
tell: with canonical correlations ρ between seen and integrated rotation, its height is Wilks'
−n/2·Σ log(1 − ρ²) in nats (Mardia, Kent and Bibby, *Multivariate Analysis*, 1979, ch. 10). The second takes a
map learnt elsewhere and is the correlation of the rotation it predicts with the one seen: evidence that the
window had no part in shaping.

An offset is what to add to the gyro's times to stand on the recording clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from align.schemas.time import NS
from align.transforms.sync.flow import FlowTrack
from align.transforms.sync.gyro import GyroIntegral

Floats = NDArray[np.float64]

_LEAST_COVERED = 0.5  # share of a window that the gyro must cover for an offset to be weighed
_LEAST_INTERVALS = 20
_LONGEST = 2.5  # usual frame intervals
_ROUGHEST = 8.0  # usual errors of flow
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Window:
    """Picture rotation in one window, times in seconds on the gyro integral's axis.

    Attributes:
        centre: middle of the window.
        start: float64 [n], start of each interval that could be followed.
        end: float64 [n].
        seen: float64 [n, 3], rotation by the picture, radians at a nominal focal length.
        noise: standard error of ``seen``, radians (median).
        followed: share of the window's intervals that could be followed.
    """

    centre: float
    start: Floats
    end: Floats
    seen: Floats
    noise: float
    followed: float

    @property
    def motion(self) -> float:
        """Root mean square of the rotation about its mean, over its noise."""
        if len(self.seen) < 2 or self.noise <= 0:
            return 0.0
        return float(np.sqrt(self.seen.var(axis=0).mean()) / self.noise)


def make_window(track: FlowTrack, gyro: GyroIntegral, start_ns: int, end_ns: int) -> Window:
    """The part of ``track`` inside ``[start_ns, end_ns]``, on the gyro's axis of seconds."""
    part = track.between(start_ns, end_ns)
    good = _trusted(part)
    return Window(
        centre=float(gyro.seconds(np.array([(start_ns + end_ns) // 2]))[0]),
        start=gyro.seconds(part.start_ns[good]),
        end=gyro.seconds(part.end_ns[good]),
        seen=part.rotation[good],
        noise=float(np.median(part.sigma[good])) if good.any() else 0.0,
        followed=float(part.measured.mean()) if len(good) else 0.0,
    )


def _trusted(track: FlowTrack) -> NDArray[np.bool_]:
    """Intervals of usual length whose flow is one rotation about as well as that of the others, bool [n].

    Across a pause the picture moves too far to be followed for sure; one wild interval outweighs a hundred.
    """
    good = track.measured
    if not good.any():
        return good
    length = track.end_ns - track.start_ns
    rough = track.sigma * np.sqrt(np.median(length[good]) / length)
    with np.errstate(invalid="ignore"):
        usual = (length <= _LONGEST * np.median(length[good])) & (rough <= _ROUGHEST * np.median(rough[good]))
    return np.asarray(good & usual, np.bool_)


def gyro_rotation(window: Window, gyro: GyroIntegral, offsets: Floats, drift: float) -> tuple[Floats, Floats]:
    """The gyro over the window's intervals at each offset.

    Args:
        window: n intervals.
        gyro: the integral.
        offsets: float64 [k], seconds, at the window's centre.
        drift: seconds per second of recording time.

    Returns:
        float64 [k, n, 3], radians, and float64 [k, n], 1 where the gyro covers the interval, else 0.
    """
    warp_start = window.start - drift * (window.start - window.centre)
    warp_end = window.end - drift * (window.end - window.centre)
    start, end = warp_start - offsets[:, None], warp_end - offsets[:, None]
    return gyro.at(end) - gyro.at(start), gyro.covers(start, end).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Moments:
    """Second moments of gyro rotation x and seen rotation y for k offsets; those of several windows add up.

    Attributes:
        xx: float64 [k, 3, 3].
        xy: float64 [k, 3, 3].
        yy: float64 [k, 3, 3].
        count: float64 [k], intervals that the gyro covers.
    """

    xx: Floats
    xy: Floats
    yy: Floats
    count: Floats

    def at(self, which: slice) -> Moments:
        """Those of some of the offsets."""
        return Moments(self.xx[which], self.xy[which], self.yy[which], self.count[which])

    def weighted(self, weight: float) -> Moments:
        """As if every interval had counted ``weight`` times; the count stays."""
        return Moments(self.xx * weight, self.xy * weight, self.yy * weight, self.count)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.xx + other.xx, self.xy + other.xy, self.yy + other.yy, self.count + other.count)

    def evidence(self) -> Floats:
        """Nats for each offset (float64 [k]) with the best map."""
        # a millionth of the whole motion keeps an axis that does not turn from being divided by nothing
        floor = 1e-6 * np.trace(self.xx, axis1=1, axis2=2) + 1e-18
        xx = self.xx + floor[:, None, None] * np.eye(3)
        left = self.yy - np.swapaxes(self.xy, 1, 2) @ np.linalg.solve(xx, self.xy)
        with np.errstate(all="ignore"):
            return np.asarray(-0.5 * self.count * (_logdet(left) - _logdet(self.yy)), np.float64)


def moments(window: Window, gyro: GyroIntegral, offsets: Floats, drift: float = 0.0) -> Moments:
    """A window's moments at each offset (float64 [k], seconds)."""
    parts = [_moments(window, gyro, offsets[i : i + _CHUNK], drift) for i in range(0, len(offsets), _CHUNK)]
    return Moments(
        np.concatenate([p.xx for p in parts]),
        np.concatenate([p.xy for p in parts]),
        np.concatenate([p.yy for p in parts]),
        np.concatenate([p.count for p in parts]),
    )


def _moments(window: Window, gyro: GyroIntegral, offsets: Floats, drift: float) -> Moments:
    turned, covered = gyro_rotation(window, gyro, offsets, drift)
    length = window.end - window.start
    x = without_bias(turned, covered, length)
    y = without_bias(np.broadcast_to(window.seen, turned.shape), covered, length)
    xx, xy, yy = (np.swapaxes(a, 1, 2) @ b for a, b in ((x, x), (x, y), (y, y)))
    return Moments(xx, xy, yy, covered.sum(axis=1))


def evidence(window: Window, gyro: GyroIntegral, offsets: Floats) -> Floats:
    """Nats per offset (float64 [k]) with the window's own best map; NaN where the gyro covers too little."""
    found = moments(window, gyro, offsets)
    nats = found.evidence()
    nats[(found.count < _LEAST_COVERED * len(window.start)) | (found.count < _LEAST_INTERVALS)] = np.nan
    return nats


def _logdet(matrices: Floats) -> Floats:
    return np.asarray(np.linalg.slogdet(matrices)[1], np.float64)


def without_bias(values: Floats, covered: Floats, length: Floats) -> Floats:
    """What is left of ``values`` [k, n, 3] beside a constant rate (a gyro's bias); 0 where not covered."""
    power = np.maximum((covered * length**2).sum(axis=1), 1e-18)
    rate = np.einsum("kn,n,knc->kc", covered, length, values) / power[:, None]
    return np.asarray((values - length[:, None] * rate[:, None, :]) * covered[:, :, None], np.float64)


@dataclass(frozen=True, slots=True)
class Mapping:
    """How rotation by the gyro becomes rotation by the picture.

    Attributes:
        matrix: float64 [3, 3]; seen ≈ gyro @ matrix.
        whiten: float64 [3, 3]; what is left, times it, has unit variance on every axis.
    """

    matrix: Floats
    whiten: Floats


def learn_mapping(
    windows: list[Window], gyro: GyroIntegral, offsets: list[float], drift: float
) -> Mapping | None:
    """The map that fits all windows at their offsets best, by reweighted least squares; None without data."""
    turned, seen = [], []
    for window, offset in zip(windows, offsets, strict=True):
        rotation, covered = gyro_rotation(window, gyro, np.array([offset]), drift)
        length = window.end - window.start
        x = without_bias(rotation, covered, length)[0]
        y = without_bias(window.seen[None], covered, length)[0]
        turned.append(x[covered[0] > 0])
        seen.append(y[covered[0] > 0])
    x, y = np.concatenate(turned), np.concatenate(seen)
    if len(x) < 30:
        return None
    weight = np.ones(len(x))
    matrix = np.zeros((3, 3))
    for _ in range(4):
        gram = (x * weight[:, None]).T @ x
        gram += (1e-6 * np.trace(gram) + 1e-18) * np.eye(3)
        matrix = np.linalg.solve(gram, (x * weight[:, None]).T @ y)
        weight = huber_weight(y - x @ matrix)
    left = (y - x @ matrix) * np.sqrt(weight)[:, None]
    covariance = left.T @ left / weight.sum() + 1e-14 * np.eye(3)
    return Mapping(matrix, np.linalg.inv(np.linalg.cholesky(covariance)).T)


def huber_weight(left: Floats) -> Floats:
    """Huber-like weights of residuals [n, 3] by their length, knee at 2.5 median deviations."""
    size = np.linalg.norm(left, axis=1)
    knee = 2.5 * max(float(np.median(size)), 1e-12) / 1.538  # median of a chi distribution of 3 degrees
    return np.asarray(np.minimum(1.0, knee / np.maximum(size, 1e-12)), np.float64)


def correlation(
    window: Window, gyro: GyroIntegral, offsets: Floats, drift: float, mapping: Mapping
) -> Floats:
    """Correlation (float64 [k], −1 to 1) of what ``mapping`` predicts with what was seen; NaN uncovered."""
    parts = [offsets[i : i + _CHUNK] for i in range(0, len(offsets), _CHUNK)]
    return np.concatenate([_correlation(window, gyro, part, drift, mapping) for part in parts])


def _correlation(
    window: Window, gyro: GyroIntegral, offsets: Floats, drift: float, mapping: Mapping
) -> Floats:
    turned, covered = gyro_rotation(window, gyro, offsets, drift)
    length = window.end - window.start
    to_seen = mapping.matrix @ mapping.whiten
    predicted = without_bias(turned, covered, length) @ to_seen
    seen = without_bias(np.broadcast_to(window.seen, turned.shape), covered, length) @ mapping.whiten
    product = (predicted * seen).sum(axis=(1, 2))
    power = (predicted**2).sum(axis=(1, 2)) * (seen**2).sum(axis=(1, 2))
    count = covered.sum(axis=1)
    value = product / np.sqrt(np.maximum(power, 1e-30))
    value[(count < _LEAST_COVERED * len(length)) | (count < _LEAST_INTERVALS)] = np.nan
    return np.asarray(value, np.float64)


def refine_offset(
    window: Window, gyro: GyroIntegral, offset: float, drift: float, mapping: Mapping
) -> tuple[float, float]:
    """The offset at the window's centre, by Gauss-Newton with ``mapping`` held, and its standard error.

    The standard error allows for residuals that hang together in time (Newey and West, 1987).
    """
    length = window.end - window.start
    sigma = np.inf
    for _ in range(6):
        turned, covered = gyro_rotation(window, gyro, np.array([offset]), drift)
        keep = covered[0] > 0
        if keep.sum() < _LEAST_INTERVALS:
            return offset, float("inf")
        slope = offset_slope(window, gyro, offset, drift) @ mapping.matrix @ mapping.whiten
        left = (window.seen - turned[0] @ mapping.matrix) @ mapping.whiten
        left = without_bias(left[None], covered, length)[0]
        slope = without_bias(slope[None], covered, length)[0]
        weight = huber_weight(left)[:, None] * covered[0][:, None]
        information = float((weight * slope**2).sum())
        if information <= 0:
            return offset, float("inf")
        step = float((weight * slope * left).sum()) / information
        offset += float(np.clip(step, -0.02, 0.02))
        sigma = float(np.sqrt(_long_run_variance((weight * slope * left).sum(axis=1)[keep]))) / information
        if abs(step) < 1e-6:
            break
    return offset, sigma


def offset_slope(window: Window, gyro: GyroIntegral, offset: float, drift: float) -> Floats:
    """By how much the gyro's rotation over each interval grows with the offset, rad/s [n, 3]."""
    start = window.start - drift * (window.start - window.centre) - offset
    end = window.end - drift * (window.end - window.centre) - offset
    return np.asarray(gyro.rate(start) - gyro.rate(end), np.float64)


def _long_run_variance(score: Floats) -> float:
    """Variance of the sum of a series that hangs together over a few steps (Bartlett kernel)."""
    centred = score - score.mean()
    total = float(centred @ centred)
    lags = min(len(score) // 4, max(1, round(4 * (len(score) / 100) ** (2 / 9))))
    for lag in range(1, lags + 1):
        total += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    return max(total, 0.2 * float(centred @ centred))


def offset_grid(reach: float, step: float) -> Floats:
    """Offsets from −reach to reach, seconds, 0 among them."""
    half = int(np.ceil(reach / step))
    return np.asarray(np.arange(-half, half + 1) * step, np.float64)


def to_ns(seconds: float) -> int:
    """Nanoseconds of a measured offset in seconds."""
    return round(seconds * NS)
