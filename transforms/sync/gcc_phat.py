"""When one sound comes in another: generalised cross-correlation with phase transform.

Knapp and Carter, *The generalized correlation method for estimation of time delay*, 1976. Whitened spectra
give a sharp peak where the direct sound coincides, reverberation or not. It is done twice: coarsely over all
offsets that are searched, at a low rate, then finely about a line, with the other sound read along it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.interpolate import CubicSpline

from align.transforms.sync.line import Line

Floats = NDArray[np.float64]

COARSE_RATE, FINE_RATE = 4000, 16_000
COARSE_STEP = 2e-3
"""Seconds between offsets of the coarse search."""
FINE_REACH = 10e-3
"""Seconds on both sides of a line that the fine search looks at."""

_COARSE_BAND = 200.0, 1200.0  # Hz: sharp, and yet drift within a window does not smear it
_FINE_BAND = 200.0, 4000.0
_UPSAMPLING = 4
_SILENT = 1e-4  # root mean square, -80 dB of full scale: less is a converter's own noise


@dataclass(frozen=True, slots=True)
class Sound:
    """Mono sound on a clock of its own.

    Attributes:
        rate: Hz.
        start: time of sample 0, seconds.
        samples: float [n], in [-1, 1]; 0 where nothing was recorded.
    """

    rate: float
    start: float
    samples: NDArray[np.floating]

    @property
    def end(self) -> float:
        """Time after the last sample, seconds."""
        return self.start + len(self.samples) / self.rate

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing to hear, or more than half of it was not recorded."""
        return is_silent(self.samples)


def is_silent(samples: NDArray[np.floating]) -> bool:
    """See :attr:`Sound.is_silent`."""
    if 2 * np.count_nonzero(samples) <= len(samples):
        return True
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) < _SILENT


def coarse(piece: Sound, wide: Sound, offsets: Floats) -> Floats:
    """How strongly a piece of sound coincides with another about each offset.

    Args:
        piece: what is looked for.
        wide: where it is looked for, at the same rate: from ``piece.start - offsets[-1] - COARSE_STEP`` to
            ``piece.end - offsets[0] + COARSE_STEP``.
        offsets: float64 [k], evenly spaced by ``COARSE_STEP``: seconds to add to the times of ``wide``.

    Returns:
        float64 [k], nats: half the square of the correlation in its own standard deviations; NaN in silence.
    """
    if piece.is_silent or wide.is_silent:
        return np.full(len(offsets), np.nan)
    taper = np.hanning(len(piece.samples))
    correlation, size = _phat(piece.samples * taper, wide.samples, piece.rate, _COARSE_BAND)
    strength = np.abs(correlation)
    strength /= strength.std() + 1e-30
    # By offset o, the piece's time t stands at t - o in the other: so many samples after its first.
    late = (piece.start - offsets - wide.start) * piece.rate
    half = max(1, round(COARSE_STEP * piece.rate / 2))
    index = np.rint(late).astype(int)[:, None] + np.arange(-half, half + 1)
    return np.asarray(strength[(-index) % size].max(axis=1) ** 2 / 2, np.float64)


def likeness(one: Sound, other: Sound) -> float:
    """The highest coincidence of two pieces of sound at any lag, as :func:`coarse` counts it."""
    taper = np.hanning(len(one.samples))
    correlation, _ = _phat(one.samples * taper, other.samples, one.rate, _COARSE_BAND)
    overlapping = 0.5  # of the lags, on average: where all overlaps, chance is so much louder than everywhere
    power = correlation**2
    return float(power.max() / (power.mean() + 1e-30) * overlapping / 2)


def fine(piece: Sound, other: Sound, line: Line) -> Floats | None:
    """Correlation at :func:`fine_lags` about a line, the other sound read along it.

    Args:
        piece: sound, at the rate of ``other``.
        other: what coincides with it by the line, and at least ``FINE_REACH`` more on both sides.
        line: seconds to add to the other's times, over the piece's time.

    Returns:
        float64 [``len(fine_lags(rate))``], in standard deviations; None where either is silent.
    """
    rate, count = piece.rate, len(piece.samples)
    times = piece.start + np.arange(count) / rate
    read = _read_at(other, times - (line.offset + line.drift * (times - line.at)))
    if piece.is_silent or is_silent(read):
        return None
    taper = np.hanning(count)
    correlation, size = _phat(piece.samples * taper, read * taper, rate, _FINE_BAND, _UPSAMPLING)
    half = round(FINE_REACH * rate * _UPSAMPLING)
    near = correlation[np.arange(-half, half + 1) % size]
    return np.asarray(near / (near.std() + 1e-30), np.float64)


def fine_lags(rate: float) -> Floats:
    """Seconds within ``FINE_REACH`` of a line, in steps of an upsampled sample."""
    half = round(FINE_REACH * rate * _UPSAMPLING)
    return np.arange(-half, half + 1) / (rate * _UPSAMPLING)


def _phat(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    rate: float,
    band: tuple[float, float],
    upsampling: int = 1,
) -> tuple[Floats, int]:
    """GCC-PHAT and its period: at index k, ``a`` comes k (upsampled) samples later than ``b``."""
    size = next_fast_len(len(a) + len(b), real=True)
    cross = rfft(a, size) * np.conj(rfft(b, size))
    size_of = np.abs(cross)
    cross /= np.maximum(size_of, 1e-3 * size_of.mean() + 1e-30)  # whitened, but silence is not made loud
    frequency = rfftfreq(size, 1 / rate)
    cross[(frequency < band[0]) | (frequency > band[1])] = 0
    return np.asarray(irfft(cross, size * upsampling), np.float64), size * upsampling


def _read_at(sound: Sound, times: Floats) -> Floats:
    """Samples at any times, by cubic spline: true to a thousandth below a quarter of the rate."""
    position = (times - sound.start) * sound.rate
    inside = (position >= 0) & (position <= len(sound.samples) - 1)
    if len(sound.samples) < 2 or not inside.any():
        return np.zeros(len(times))
    spline = CubicSpline(np.arange(len(sound.samples)), sound.samples)
    return np.asarray(np.where(inside, spline(position), 0.0), np.float64)
