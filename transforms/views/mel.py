"""Log-mel filter banks as Kaldi computes them, in numpy.

The constants are those of Kaldi's ``FbankOptions`` (``feat/feature-fbank.h``, ``mel-computations.h``) with
what ImageBind sets: 128 mels, Hann window, HTK's scale, no dither, no energy. ``librosa`` cannot take this
place: it pads and centres its frames, and it neither pre-emphasises nor removes the mean of each frame.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FRAME_S, SHIFT_S = 0.025, 0.010
PREEMPHASIS = 0.97
LOW_HZ = 20.0
FLOOR = float(np.finfo(np.float32).eps)  # Kaldi's floor under the logarithm


def _mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """HTK's mel scale."""
    return 1127.0 * np.log1p(np.asarray(hz, np.float64) / 700.0)


@cache
def _filters(rate: int, mels: int, fft: int) -> NDArray[np.float64]:
    """Triangles on the mel axis, float64 [fft // 2 + 1, mels]; the Nyquist bin takes part in none."""
    edges = np.linspace(_mel(LOW_HZ), _mel(rate / 2), mels + 2)
    bins = _mel(np.arange(fft // 2 + 1) * rate / fft)[:, None]
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    up, down = (bins - left) / (center - left), (right - bins) / (right - center)
    weights = np.maximum(0.0, np.minimum(up, down))
    weights[-1] = 0.0
    return np.asarray(weights, np.float64)


def fbank(samples: NDArray[np.float32], rate: int = 16_000, mels: int = 128) -> NDArray[np.float32]:
    """Kaldi's log-mel filter bank energies.

    Args:
        samples: float [n], mono, as they are (ImageBind feeds [-1, 1]).
        rate: Hz.
        mels: number of filters.

    Returns:
        float32 [frames, mels], natural logarithm of the power; frames that would reach past the end are
        left out (``snip_edges``), so two seconds at 16 kHz give 198.
    """
    length, shift = round(rate * FRAME_S), round(rate * SHIFT_S)
    if len(samples) < length:
        return np.zeros((0, mels), np.float32)
    frames = sliding_window_view(np.asarray(samples, np.float64), length)[::shift]
    frames = frames - frames.mean(axis=1, keepdims=True)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - PREEMPHASIS * previous) * np.hanning(length)
    fft = 1 << (length - 1).bit_length()
    power = np.abs(np.fft.rfft(frames, fft, axis=1)) ** 2
    return np.log(np.maximum(power @ _filters(rate, mels, fft), FLOOR)).astype(np.float32)


def log_mel(
    samples: NDArray[np.float32], rate: int = 16_000, mels: int = 128, frames: int = 204
) -> NDArray[np.float32]:
    """A clip as ImageBind's audio tower takes it, before normalisation.

    The clip's mean is removed; where the clip is too short for ``frames``, zeros follow, as in ImageBind's
    ``waveform2melspec`` (six of them after two seconds), and what is too long is cut.

    Returns:
        float32 [mels, frames].
    """
    clip = np.asarray(samples, np.float32)
    bank = fbank(clip - clip.mean() if len(clip) else clip, rate, mels)[:frames]
    return np.ascontiguousarray(np.pad(bank, ((0, frames - len(bank)), (0, 0))).T)
