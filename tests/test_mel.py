"""Log-mels against kaldi-native-fbank, an independent implementation of Kaldi's filter bank."""

import numpy as np
import pytest

from align.transforms.views.mel import fbank, log_mel


def kaldi(samples, rate=16_000, mels=128, low=20.0, high=0.0):
    knf = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is the reference")
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = rate
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = mels
    options.mel_opts.low_freq = low
    options.mel_opts.high_freq = high
    options.htk_compat = True
    options.use_energy = False
    computer = knf.OnlineFbank(options)
    computer.accept_waveform(rate, samples.tolist())
    computer.input_finished()
    return np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)])


def assert_heard_alike(ours, reference):
    """Within 1e-3 down to 70 dB under each frame's loudest filter: below lies float32's own noise."""
    assert ours.shape == reference.shape
    heard = reference > reference.max(axis=1, keepdims=True) - 16
    assert np.abs(ours - reference)[heard].max() < 1e-3


def signals(rate, seconds=2.0):
    rng = np.random.default_rng(3)
    t = np.arange(int(rate * seconds)) / rate
    return {
        "noise": rng.normal(0, 0.1, len(t)),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * t),
        "chirp": 0.8 * np.sin(2 * np.pi * (50 + 1500 * t) * t),
        "offset": 0.05 + 0.01 * rng.normal(size=len(t)),
        "clicks": (np.arange(len(t)) % 4000 == 7).astype(float),
    }


@pytest.mark.parametrize(("rate", "mels"), [(16_000, 80), (8_000, 40), (48_000, 128)])
@pytest.mark.parametrize("name", ["noise", "tone", "chirp", "offset", "clicks"])
def test_fbank_equals_kaldi(rate, mels, name):
    samples = signals(rate)[name].astype(np.float32)
    assert_heard_alike(fbank(samples, rate, mels), kaldi(samples, rate, mels))


@pytest.mark.parametrize("name", ["noise", "tone", "chirp", "offset", "clicks"])
def test_imagebinds_128_filters_equal_kaldis(name):
    """The fourth of them lies between two bins: the reference refuses it, so its two sides are compared."""
    samples = signals(16_000)[name].astype(np.float32)
    ours = fbank(samples)
    mel = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(8000 / 700), 130)
    edges = 700 * np.expm1(mel / 1127)
    low = kaldi(samples, mels=3, low=edges[0], high=edges[4])
    high = kaldi(samples, mels=124, low=edges[4], high=edges[129])
    assert_heard_alike(np.delete(ours, 3, axis=1), np.hstack([low, high]))
    np.testing.assert_allclose(ours[:, 3], np.log(np.finfo(np.float32).eps), atol=1e-5)


def test_silence_stands_at_kaldis_floor():
    silence = np.zeros(16_000, np.float32)
    np.testing.assert_allclose(fbank(silence, mels=80), kaldi(silence, mels=80), atol=1e-5)


@pytest.mark.parametrize(("seconds", "filled"), [(2.0, 198), (1.0, 98), (0.0, 0), (0.024, 0), (5.0, 204)])
def test_log_mel_has_204_frames_and_zeros_after_the_clip(seconds, filled):
    samples = np.random.default_rng(0).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    mel = log_mel(samples)
    assert mel.shape == (128, 204)
    assert mel.dtype == np.float32
    assert (mel[:, :filled] != 0).all()
    assert (mel[:, filled:] == 0).all()


def test_log_mel_ignores_a_constant_offset():
    samples = np.random.default_rng(1).normal(0, 0.1, 32_000).astype(np.float32)
    np.testing.assert_allclose(log_mel(samples), log_mel(samples + np.float32(0.25)), atol=2e-2)
