"""How far one line and one map explain what the picture does: as a whole, axis by axis, and by frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from align.transforms.sync.gyro import GyroIntegral
from align.transforms.sync.line import Line
from align.transforms.sync.search import Mapping, Window, gyro_rotation, without_bias

Floats = NDArray[np.float64]

_TELLING = 8.0  # times its noise from which an axis must be explained too
_SMOOTH_S = 0.15  # Gaussian that parts slow from quick motion: about 1 Hz
_HALF_POWER = 0.13  # of a Gaussian's standard deviation times the frequency whose power it halves
_MOST_NOISE = 0.5  # share of the gyro's noise in its quick motion beyond which that tells nothing
_LEAST_INTERVALS = 20
_JOINED_S = 1e-6  # intervals no further apart share a frame


@dataclass(frozen=True, slots=True)
class Explained:
    """What gyro, map and line explain of the seen rotation, and what they leave.

    Attributes:
        explained: share of the power, 0 to 1.
        weakest: the same share on that of the picture's principal axes where it is least, of those that turn
            well above noise; 1 where none does. Motion that happens to look alike does so on one axis.
        unexplained: what is left, root mean square, in standard errors of picture and gyro: of the flow's
            points, of frames that stand off their place, and of the gyro's white noise.
        quick_gain: gain of quick motion (above some 1 Hz) over that of slow motion: 1 for a camera that shows
            what it records, near 0 for a picture that was stabilised, NaN where there is too little of it.
        own_gain: the same, parted at the motion's own frequency: what smooths a slow motion shows only there.
        axes: principal axes that turn well above noise.
        swings: how often the rotation turns round, about: the fewer, the likelier two motions look alike.
    """

    explained: float
    weakest: float
    unexplained: float
    quick_gain: float
    own_gain: float
    axes: int
    swings: float


def explain(windows: list[Window], gyro: GyroIntegral, line: Line, mapping: Mapping) -> Explained:
    """Measure what gyro, map and line explain of the windows."""
    compared = [_compare(w, gyro, line, mapping) for w in windows]
    seen = np.concatenate([c.seen for c in compared])
    left = np.concatenate([c.left for c in compared])
    shares = _shares(seen, left, float(np.median([w.noise for w in windows])))
    rates = [_rates(c) for c in compared]
    kept = [(w, r) for w, r in zip(windows, rates, strict=True) if len(r.seen) >= _LEAST_INTERVALS]
    swings, seconds = _swings([r for _, r in kept])
    own_s = _HALF_POWER * 2 * seconds / max(swings, 1.0)
    return Explained(
        1.0 - float((left**2).sum()) / max(float((seen**2).sum()), 1e-30),
        min(shares, default=1.0),
        _unexplained(compared, windows, gyro),
        _quick_gain(kept, gyro, mapping, _SMOOTH_S),
        _quick_gain(kept, gyro, mapping, own_s),
        len(shares),
        swings,
    )


def predicted_and_seen(
    window: Window, gyro: GyroIntegral, line: Line, mapping: Mapping
) -> tuple[Floats, Floats]:
    """Rotation predicted by gyro, line and map, and that seen: float64 [n, 3] each, where the gyro covers."""
    compared = _compare(window, gyro, line, mapping)
    return compared.turned, compared.seen


@dataclass(frozen=True, slots=True)
class _Compared:
    """A window's rotation without bias where the gyro covers it: predicted and seen, float64 [n, 3] each.

    ``start`` and ``end`` of the intervals are seconds, float64 [n].
    """

    turned: Floats
    seen: Floats
    start: Floats
    end: Floats

    @property
    def left(self) -> Floats:
        """What is left unexplained, float64 [n, 3]."""
        return self.seen - self.turned


def _compare(window: Window, gyro: GyroIntegral, line: Line, mapping: Mapping) -> _Compared:
    at = np.array([line.offset_at(window.centre)])
    rotation, covered = gyro_rotation(window, gyro, at, line.drift)
    length, good = window.end - window.start, covered[0] > 0
    turned = without_bias(rotation, covered, length)[0] @ mapping.matrix
    seen = without_bias(window.seen[None], covered, length)[0]
    return _Compared(turned[good], seen[good], window.start[good], window.end[good])


def _shares(seen: Floats, left: Floats, noise: float) -> list[float]:
    """Explained shares on those principal axes of ``seen`` that stand out of the noise."""
    if not len(seen):
        return []
    _, axes = np.linalg.eigh(seen.T @ seen)
    power, rest = ((seen @ axes) ** 2).mean(axis=0), ((left @ axes) ** 2).mean(axis=0)
    told = power > (_TELLING * noise) ** 2
    return [float(share) for share in 1 - rest[told] / power[told]]


def _unexplained(compared: list[_Compared], windows: list[Window], gyro: GyroIntegral) -> float:
    left = np.concatenate([c.left for c in compared])
    if not len(left):
        return 0.0
    length = float(np.median(np.concatenate([w.end - w.start for w in windows])))
    noise = float(np.median([w.noise for w in windows])) ** 2 + gyro.noise(length) ** 2
    return float(left.std() / max(np.sqrt(noise + _unsteadiness(compared)), 1e-12))


def _unsteadiness(compared: list[_Compared]) -> float:
    """Variance of an interval's rotation (radians², mean of the axes) by frames that stand off their place.

    An encoder moves a frame as a whole, which the scatter of its points does not show. The next interval
    takes back what one frame adds, so neighbours share −1/2 of that variance (as an overdifferenced series
    does: Plosser and Schwert 1977). A gyro's white noise leaves no such trace, and a motion that is not the
    gyro's, being slower than the frames, leaves the opposite one: it makes this less, down to nothing.
    """
    shared = count = 0.0
    for one in compared:
        joined = np.abs(one.start[1:] - one.end[:-1]) < _JOINED_S
        shared += float((one.left[1:] * one.left[:-1])[joined].sum())
        count += 3 * float(joined.sum())
    return max(0.0, -2 * shared / count) if count else 0.0


@dataclass(frozen=True, slots=True)
class _Rates:
    """A window's rotation per second, for intervals differ in length: float64 [n, 3] each, and their mean."""

    turned: Floats
    seen: Floats
    step: float


def _rates(compared: _Compared) -> _Rates:
    length = (compared.end - compared.start)[:, None]
    step = float(length.mean()) if len(length) else 0.0
    return _Rates(compared.turned / length, compared.seen / length, step)


def _swings(rates: list[_Rates]) -> tuple[float, float]:
    """Twice the root mean square frequency of the predicted rotation, times how long it is seen; and that.

    The frequency of zero crossings of Gaussian noise (Rice 1944), from the power of the derivative.
    """
    power = slope = seconds = 0.0
    for one in rates:
        smooth = gaussian_filter1d(one.turned, _SMOOTH_S / 3 / one.step, axis=0)
        power += float(((smooth - smooth.mean(axis=0)) ** 2).sum())
        slope += float((np.diff(smooth, axis=0) ** 2).sum()) / one.step**2
        seconds += len(smooth) * one.step
    return seconds * float(np.sqrt(slope / power)) / np.pi if power else 0.0, seconds


def _quick_gain(
    pairs: list[tuple[Window, _Rates]], gyro: GyroIntegral, mapping: Mapping, parted_s: float
) -> float:
    """Gain of the quick over that of the slow part of the predicted rotation, in what was seen.

    ``parted_s`` is the standard deviation of the Gaussian that leaves the slow part. The gyro's own noise is
    quick, and no picture shows it: where it is not much less than the motion, nothing is said.
    """
    if not pairs:
        return float("nan")
    slow = [gaussian_filter1d(r.turned, parted_s / r.step, axis=0) for _, r in pairs]
    quick = [r.turned - s for (_, r), s in zip(pairs, slow, strict=True)]
    parts = np.stack([np.concatenate(slow).ravel(), np.concatenate(quick).ravel()], axis=1)
    picture = np.concatenate([r.seen for _, r in pairs]).ravel()
    step = float(np.median([r.step for _, r in pairs]))
    of_gyro = (gyro.noise(step) / step) ** 2 * float((mapping.matrix**2).sum()) / 3
    share = of_gyro / max(float(parts[:, 1].var()), 1e-30)
    if parts[:, 1].std() < 2 * np.median([w.noise / r.step for w, r in pairs]) or share > _MOST_NOISE:
        return float("nan")
    gain = np.linalg.lstsq(parts, picture, rcond=None)[0]
    return float(gain[1] / gain[0] / (1 - share)) if abs(gain[0]) > 0.05 else float("nan")
