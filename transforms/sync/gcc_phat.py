"""Offset and drift between two recordings of one event, from their sound.

Generalised cross-correlation with phase transform (Knapp and Carter, *The generalized correlation method
for estimation of time delay*, 1976) gives every window a sharp peak where the direct sound coincides,
reverberation or not. Windows are searched alone, and a line through their peaks is found as for the gyro:
agreement decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.interpolate import CubicSpline

from align.transforms.sync.line import Line, find_line, fit_line

Floats = NDArray[np.float64]

_WINDOW_S = 4.0
_MOST_WINDOWS = 60
_COARSE_BAND = (
    200.0,
    1200.0,
)  # Hz: wide enough to be sharp, slow enough not to smear under drift within a window
_FINE_BAND = 200.0, 4000.0
_COARSE_STEP = 2e-3
_FINE_REACH = 8e-3
_NEAR = 3e-4  # seconds from the common peak within which a window's own peak agrees
_HEARD = 3.0  # standard deviations of the correlation by which a peak stands out ...
_SHARE_OF_BEST = 0.6  # ... and its share of the window's highest
_PEAK_SIGMA = 1e-5  # seconds; the scatter of the windows raises it where they deserve less
_LEAST_WINDOWS, _LEAST_SHARE = 3, 0.8
_RIVALRY = 0.8
_ECHO = 0.55  # an echo this loud beside the common peak: in one room it misleads all windows alike
_UPSAMPLING = 4
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Sound:
    """Mono sound on a clock of its own.

    Attributes:
        rate: Hz.
        start: time of sample 0, seconds.
        samples: float [n].
    """

    rate: float
    start: float
    samples: NDArray[np.floating]

    @property
    def end(self) -> float:
        """Time after the last sample, seconds."""
        return self.start + len(self.samples) / self.rate


@dataclass(frozen=True, slots=True)
class SoundMatch:
    """How the other sound's clock leads to the reference's.

    Attributes:
        line: seconds to add to the other's times, over reference time; None where the windows do not agree.
        windows: how many were compared.
        agreeing: how many of them agree with one line.
        reason: in words.
    """

    line: Line | None
    windows: int
    agreeing: int
    reason: str


def match_sounds(reference: Sound, other: Sound, reach: float = 5.0) -> SoundMatch:
    """Offset and drift of ``other`` against ``reference``.

    Args:
        reference: the clock to reach.
        other: at the same rate, at most ``reach`` seconds and 1000 ppm away.
        reach: seconds searched on both sides.
    """
    if reference.rate != other.rate:
        raise ValueError(f"sounds to compare need one rate, not {reference.rate} and {other.rate} Hz")
    starts = _window_starts(reference)
    if len(starts) < _LEAST_WINDOWS:
        return SoundMatch(None, len(starts), 0, f"too short: {len(starts)} windows of {_WINDOW_S:g} s")
    offsets = np.arange(-np.ceil(reach / _COARSE_STEP), np.ceil(reach / _COARSE_STEP) + 1) * _COARSE_STEP
    curves = np.stack([_coarse(reference, other, s, offsets) for s in starts])
    centres = starts + _WINDOW_S / 2
    found = find_line(curves, offsets, centres)
    if found is None:
        return SoundMatch(None, len(starts), 0, "there is silence where the sounds overlap")
    heard = np.isfinite(curves).any(axis=1)
    line, near, echo = found.line, np.zeros(len(starts), bool), 1.0
    tilt = 2 * _COARSE_STEP / max(float(centres[-1] - centres[0]) / 2, 1.0)
    for _ in range(_ROUNDS):
        fine = np.stack([_fine(reference, other, s, line) for s in starts])
        common = find_line(np.maximum(fine, 0) ** 2 / 2, _fine_lags(reference.rate), centres, tilt)
        if common is None:
            break
        delay = _delays(fine, centres, common.line, reference.rate)
        near = np.isfinite(delay)
        if near.sum() < _LEAST_WINDOWS:
            break
        at = np.array([line.offset_at(c) for c in centres[near]]) + delay[near]
        echo = _echo(fine[near], reference.rate)
        line = fit_line(centres[near], at, np.full(int(near.sum()), _PEAK_SIGMA))
        tilt /= 8  # the line is known better each time: less is searched
    return _judged(line, int(near.sum()), int(heard.sum()), found.rivalry, echo)


def _judged(line: Line, agreeing: int, windows: int, rivalry: float, echo: float) -> SoundMatch:
    of = f"{agreeing} of {windows} windows agree with one line"
    if agreeing < max(_LEAST_WINDOWS, _LEAST_SHARE * windows):
        return SoundMatch(None, windows, agreeing, f"only {of}")
    if rivalry > _RIVALRY:
        return SoundMatch(None, windows, agreeing, f"{of}, but the sound repeats itself")
    if echo > _ECHO:
        return SoundMatch(
            None, windows, agreeing, f"{of}, but echoes are {echo:.0%} as loud as what they hear"
        )
    return SoundMatch(line, windows, agreeing, of)


def _window_starts(sound: Sound) -> Floats:
    length = sound.end - sound.start
    count = int(min(length // _WINDOW_S, _MOST_WINDOWS))
    return np.linspace(sound.start, sound.end - _WINDOW_S, count) if count else np.empty(0)


def _cut(sound: Sound, start: float, count: int) -> Floats:
    """``count`` samples from the one nearest ``start``; silence where nothing was recorded."""
    first = round((start - sound.start) * sound.rate)
    out = np.zeros(count)
    low, high = max(first, 0), min(first + count, len(sound.samples))
    if low < high:
        out[low - first : high - first] = sound.samples[low:high]
    return out


def _phat(
    a: Floats, b: Floats, rate: float, band: tuple[float, float], upsampling: int = 1
) -> tuple[Floats, int]:
    """GCC-PHAT and its period: at index k, ``a`` comes k (upsampled) samples later than ``b``."""
    size = next_fast_len(len(a) + len(b), real=True)
    cross = rfft(a, size) * np.conj(rfft(b, size))
    size_of = np.abs(cross)
    cross /= np.maximum(size_of, 1e-3 * size_of.mean() + 1e-30)  # whitened, but silence is not made loud
    frequency = rfftfreq(size, 1 / rate)
    cross[(frequency < band[0]) | (frequency > band[1])] = 0
    return np.asarray(irfft(cross, size * upsampling), np.float64), size * upsampling


def _coarse(reference: Sound, other: Sound, start: float, offsets: Floats) -> Floats:
    """How strongly a window coincides about each offset, as nats; NaN in silence."""
    rate, reach = reference.rate, float(offsets[-1])
    count = round(_WINDOW_S * rate)
    piece = _cut(reference, start, count)
    # An offset o moves the other's time t to t + o, so the window's sound stands at start - o there.
    wide = _cut(other, start - reach - _COARSE_STEP, count + 2 * round((reach + _COARSE_STEP) * rate))
    if not piece.any() or not wide.any():
        return np.full(len(offsets), np.nan)
    correlation, size = _phat(piece * np.hanning(count), wide, rate, _COARSE_BAND)
    strength = np.abs(correlation)
    strength /= strength.std() + 1e-30
    # piece begins (reach + step - o)·rate samples into wide, so it is earlier there by that many samples
    middle = (reach + _COARSE_STEP - offsets) * rate
    half = max(1, round(_COARSE_STEP * rate / 2))
    index = np.rint(middle).astype(int)[:, None] + np.arange(-half, half + 1)
    return np.asarray(strength[(-index) % size].max(axis=1) ** 2 / 2, np.float64)


def _fine_lags(rate: float) -> Floats:
    """Seconds within ``_FINE_REACH`` of a line, in steps of an upsampled sample."""
    half = round(_FINE_REACH * rate * _UPSAMPLING)
    return np.arange(-half, half + 1) / (rate * _UPSAMPLING)


def _fine(reference: Sound, other: Sound, start: float, line: Line) -> Floats:
    """Correlation at ``_fine_lags`` about the line, in standard deviations, the other read along the line."""
    rate = reference.rate
    count = round(_WINDOW_S * rate)
    half = round(_FINE_REACH * rate * _UPSAMPLING)
    first = round((start - reference.start) * rate)
    piece = _cut(reference, start, count)
    times = reference.start + (first + np.arange(count)) / rate
    read = _read_at(other, times - (line.offset + line.drift * (times - line.at)))
    if not piece.any() or not read.any():
        return np.zeros(2 * half + 1)
    taper = np.hanning(count)
    correlation, size = _phat(piece * taper, read * taper, rate, _FINE_BAND, _UPSAMPLING)
    near = correlation[np.arange(-half, half + 1) % size]
    return np.asarray(near / (near.std() + 1e-30), np.float64)


def _delays(fine: Floats, centres: Floats, common: Line, rate: float) -> Floats:
    """What the line lacks at each window, seconds; NaN where the window does not agree with the others.

    An echo may be louder than the direct sound in one window; over all of them the direct sound is loudest.
    """
    step, middle = 1 / (rate * _UPSAMPLING), fine.shape[1] // 2
    out = np.full(len(fine), np.nan)
    for i, row in enumerate(fine):
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


def _echo(fine: Floats, rate: float) -> float:
    """The loudest of what lies beside the peak on the line, over that peak, in the windows' mean."""
    mean = fine.mean(axis=0)
    beside = np.abs(_fine_lags(rate)) > _NEAR
    return float(np.abs(mean[beside]).max() / max(float(mean[~beside].max()), 1e-12))


def _read_at(sound: Sound, times: Floats) -> Floats:
    """Samples at any times inside, by cubic spline: true to a thousandth below a quarter of the rate."""
    first = int(np.floor((times[0] - sound.start) * sound.rate)) - 8
    count = int(np.ceil((times[-1] - times[0]) * sound.rate)) + 18
    samples = _cut(sound, sound.start + first / sound.rate, count)
    if not samples.any():
        return np.zeros(len(times))
    position = (times - sound.start) * sound.rate - first
    return np.asarray(CubicSpline(np.arange(count), samples)(position), np.float64)
