"""What the proof's recordings show, play and shake: closed forms of time, and how to read time off them.

A picture is a bar code of the frame's number. Sound and motion are sums of sines of known frequency and
phase, so their value at any instant is known to double precision, and the time error of a piece of them is
found by least squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BITS, BAR = 16, 8
WIDTH, HEIGHT = 2 * BITS * BAR, 32


@dataclass(frozen=True)
class Tones:
    """A sum of sines with an RMS of ``rms``: a function of seconds."""

    hz: Floats
    phase: Floats
    rms: float

    @classmethod
    def drawn(cls, low_hz: float, high_hz: float, count: int, rms: float, seed: int) -> Tones:
        """Frequencies and phases drawn from a seed."""
        rng = np.random.default_rng(seed)
        return cls(rng.uniform(low_hz, high_hz, count), rng.uniform(0, 2 * np.pi, count), rms)

    def at(self, seconds: Floats) -> Floats:
        """The value at each instant, in bounded memory."""
        return self._sum(seconds, np.sin, np.ones_like(self.hz))

    def slope_at(self, seconds: Floats) -> Floats:
        """The derivative by time, per second."""
        return self._sum(seconds, np.cos, 2 * np.pi * self.hz)

    def _sum(self, seconds: Floats, wave: np.ufunc, gain: Floats) -> Floats:
        total = np.zeros(len(seconds))
        for hz, phase, g in zip(self.hz, self.phase, gain, strict=True):
            total += g * wave(2 * np.pi * hz * seconds + phase)
        return total * self.rms * np.sqrt(2 / len(self.hz))

    def delay_s(self, values: Floats, seconds: Floats, reach_s: float = 3.0) -> float:
        """How much later than in truth the values stand: least squares over gain and delay.

        The search begins at 0. Where that does not explain the values, it begins at the best of all lags
        within ``reach_s``, so that gross errors are told as they are.
        """
        delay = self._refined(values, seconds, 0.0)
        if self._explains(values, seconds - delay) < 0.5:
            delay = self._refined(values, seconds, self._coarse(values, seconds, reach_s))
        return delay

    def _refined(self, values: Floats, seconds: Floats, delay: float) -> float:
        for _ in range(60):
            step = self._step(values, seconds - delay)
            delay += step
            if abs(step) < 1e-10:
                break
        return delay

    def _step(self, values: Floats, seconds: Floats) -> float:
        basis = np.stack([self.at(seconds), -self.slope_at(seconds)], axis=1)
        (gain, moved), *_ = np.linalg.lstsq(basis, values, rcond=None)
        limit = 0.1 / float(self.hz.max())
        return float(np.clip(moved / gain if gain > 0 else limit, -limit, limit))

    def _explains(self, values: Floats, seconds: Floats) -> float:
        """The share of the values' power that the truth at these instants explains."""
        truth = self.at(seconds)
        return float((truth @ values) ** 2 / ((truth @ truth) * (values @ values) + 1e-300))

    def _coarse(self, values: Floats, seconds: Floats, reach_s: float) -> float:
        parts = np.array([np.exp(-2j * np.pi * hz * seconds) @ values for hz in self.hz])
        parts *= np.exp(-1j * (self.phase - np.pi / 2))
        lags = np.arange(-reach_s, reach_s, 0.1 / float(self.hz.max()))
        score = sum(np.real(p * np.exp(2j * np.pi * hz * lags)) for p, hz in zip(parts, self.hz, strict=True))
        return float(lags[int(np.argmax(score))])


SOUND = Tones.drawn(300, 3_400, 40, rms=0.15, seed=1)
MOTION = tuple(Tones.drawn(0.5, 12, 12, rms=1.0, seed=10 + axis) for axis in range(6))
"""Six axes; gravity is added to the last."""


def picture(number: int) -> NDArray[np.uint8]:
    """Planar YUV 4:2:0, uint8 [height · 3 / 2, width]: the number's bits, then their complement, as bars."""
    bits = [(number >> i) & 1 for i in range(BITS)]
    bars = np.repeat(np.array([*bits, *(1 - b for b in bits)], np.uint8) * 219 + 16, BAR)
    frame = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    frame[:HEIGHT] = bars
    return frame


def number_in(pixels: NDArray[np.uint8]) -> int | None:
    """The number that a picture [height, width, …] shows; None where it cannot be read."""
    rows = pixels.reshape(pixels.shape[0], 2 * BITS, BAR, -1)[4:-4, :, 2:-2]
    bars = rows.mean(axis=(0, 2, 3)) > 127
    if (bars[:BITS] == bars[BITS:]).any():
        return None
    return int((bars[:BITS] << np.arange(BITS)).sum())
