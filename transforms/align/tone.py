"""Brings HDR pictures to SDR: PQ or HLG signal → light of a 1000 cd/m² display → BT.2390 → sRGB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SDR_WHITE_NITS = 203.0
"""Diffuse white of HDR programmes (ITU-R BT.2408): it becomes SDR's white."""

PEAK_NITS = 1000.0
"""Brightest light reproduced as a gradation; HLG's nominal display, and the usual PQ mastering display."""

# SMPTE ST 2084
_M1, _M2 = 2610 / 16384, 2523 / 32
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128
# ITU-R BT.2100, HLG
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
# ITU-R BT.2087: linear BT.2020 to linear BT.709
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def pq_to_nits(signal: Floats) -> Floats:
    """Light (cd/m²) of a PQ signal in [0, 1], any shape (SMPTE ST 2084)."""
    power = np.power(signal, np.float32(1 / _M2))
    return np.asarray(
        10_000 * np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), np.float32(1 / _M1)), np.float32
    )


def nits_to_pq(nits: Floats) -> Floats:
    """PQ signal in [0, 1] of light (cd/m²), any shape."""
    power = np.power(np.maximum(nits, 0) / 10_000, np.float32(_M1))
    return np.asarray(np.power((_C1 + _C2 * power) / (1 + _C3 * power), np.float32(_M2)), np.float32)


def hlg_to_nits(signal: Floats) -> Floats:
    """Light (cd/m²) that an HLG signal [height, width, 3] makes on the nominal display (ITU-R BT.2100)."""
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12)
    luma = np.maximum(scene @ _LUMA_2020, 1e-6)
    return np.asarray(PEAK_NITS * luma[..., None] ** 0.2 * scene, np.float32)


def sdr_from_nits(nits: Floats) -> NDArray[np.uint8]:
    """Pixels in sRGB of BT.2020 light, [height, width, 3].

    The brightest channel is compressed as ITU-R BT.2390 (5.4.1) says, the others in proportion, so that hues
    stay; below the knee, at some 90 cd/m², light is kept.
    """
    brightest = np.maximum(nits.max(axis=-1, keepdims=True), 1e-4)
    light = nits * (_compress(brightest) / brightest) / SDR_WHITE_NITS
    linear = np.clip(light @ _TO_709.T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055)
    return np.asarray(np.floor(255 * srgb + 0.5), np.uint8)


def _compress(nits: Floats) -> Floats:
    """The roll-off of BT.2390 from ``PEAK_NITS`` to ``SDR_WHITE_NITS``: a Hermite spline above a knee."""
    peak, white = nits_to_pq(np.array([PEAK_NITS, SDR_WHITE_NITS], np.float32))
    signal = np.minimum(nits_to_pq(nits) / peak, 1)
    top = white / peak
    knee = 1.5 * top - 0.5
    t = (signal - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * top
    )
    return pq_to_nits(np.where(signal < knee, signal, spline) * peak)
