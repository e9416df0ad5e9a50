"""Audio resampling in dB, before the one rounding to 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from align import TimeSpan
from align.schemas.media import AudioTrack
from align.transforms.align.audio import resampled
from benchmarks.proof.job import Result
from benchmarks.proof.truth import Floats

NS = 1_000_000_000
_PAIRS = [(48_000, 16_000), (44_100, 16_000), (32_000, 16_000), (48_000, 44_100), (16_000, 48_000)]
_STARTS_NS = (NS, 123_456_789, 35_999 * NS + 1)  # on a source sample, between two, after ten hours


def rows(folder: Path) -> Iterator[Result]:
    """A row for each pair of rates; ``folder`` is not used."""
    for source, target in _PAIRS:
        lower = min(source, target)
        in_band = max(_left(source, target, hz, keep=True) for hz in lower * np.linspace(0.003, 0.45, 12))
        beyond = lower * np.array([0.5001, 0.53, 0.6, 0.75, 0.9, 1.0, 1.2, 1.45])
        alias = [_left(source, target, hz, keep=False) for hz in beyond if hz < 0.4999 * source]
        apart = max(_centroid_us(source, target, start) for start in _STARTS_NS)
        yield Result(
            f"audio resampling: {source / 1e3:g} → {target / 1e3:g} kHz",
            "≥ 130 dB, alias ≤ -120 dB, ≤ 1 µs",
            f"{-in_band:.0f} dB, alias {f'{max(alias):.0f} dB' if alias else 'none'}, {apart:.0e} µs",
            in_band <= -130 and max(alias, default=-300) <= -120 and apart <= 1,
        )


def _track(source: int, start_ns: int, wave: Floats | None, hz: float) -> AudioTrack:
    """Three seconds around a window that starts at ``start_ns``, on the source's own grid."""
    start = Fraction(start_ns // NS * NS - NS // 2)
    seconds = float(start - start_ns) / NS + np.arange(3 * source) / source
    samples = np.sin(2 * np.pi * hz * seconds) if wave is None else wave
    return AudioTrack(source, start, samples.astype(np.float32))


def _left(source: int, target: int, hz: float, *, keep: bool) -> float:
    """Peak error of a full-scale sine in dB: against itself, or against silence."""
    worst = 0.0
    for start in _STARTS_NS:
        sound = resampled(_track(source, start, None, hz), TimeSpan(start, start + NS), target)
        truth = np.sin(2 * np.pi * hz * np.arange(target) / target) if keep else 0.0
        worst = max(worst, float(np.abs(sound - truth).max()))
    return float(20 * np.log10(worst + 1e-15))


def _centroid_us(source: int, target: int, start_ns: int) -> float:
    """How far the centroid of an impulse moves."""
    impulse = np.zeros(3 * source)
    impulse[source] = 1.0
    track = _track(source, start_ns, impulse, 0)
    sound = resampled(track, TimeSpan(start_ns, start_ns + NS), target)
    truth = float(track.start_ns + NS - start_ns) / NS
    seconds = np.arange(target) / target
    return abs(float((sound * seconds).sum() / sound.sum()) - truth) * 1e6
