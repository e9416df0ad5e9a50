"""Resampling of a window's sound, against closed forms and soxr."""

import io
from fractions import Fraction

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from align.schemas.media import AudioTrack
from align.schemas.time import NS, TimeSpan, count_in
from align.transforms.align.audio import encode_flac, resampled, window_audio
from align.transforms.align.margins import AUDIO_MARGIN_NS

RATES = [
    (48_000, 16_000),
    (44_100, 16_000),
    (32_000, 16_000),
    (8_000, 16_000),
    (48_000, 44_100),
    (44_100, 22_050),
]
STARTS = [0, 123_456_789, 35_999 * NS + 1]  # on a source sample, between two, after ten hours


def tone_track(rate, hz, window):
    """A sine by its closed form around a window; phase 0 at the window's start."""
    start = Fraction(window.start_ns // NS * NS - NS // 2)
    n = int(rate * (window.length_ns / NS + 2))
    t = float(start - window.start_ns) / NS + np.arange(n) / rate
    return AudioTrack(rate, start, np.sin(2 * np.pi * hz * t))  # float64: float32 alone is worth -150 dB


def level_db(signal):
    return 20 * np.log10(np.abs(signal).max() + 1e-30)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("source", "target"), RATES)
def test_in_band_error_is_below_minus_130_db(source, target, start):
    window = TimeSpan(start, start + 2 * NS)
    t = np.arange(2 * target) / target
    for hz in (37.0, 0.2 * min(source, target), 0.45 * min(source, target)):
        sound = resampled(tone_track(source, hz, window), window, target)
        assert level_db(sound - np.sin(2 * np.pi * hz * t)) < -130


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("source", "target"), [r for r in RATES if r[0] > r[1]])
def test_aliasing_is_below_minus_120_db(source, target, start):
    window = TimeSpan(start, start + 2 * NS)
    for hz in (0.5 * target + 1, 0.6 * target, 0.49 * source):
        if 0.5 * target < hz < 0.5 * source:
            assert level_db(resampled(tone_track(source, hz, window), window, target)) < -120


@pytest.mark.parametrize(("source", "target"), [*RATES, (16_000, 16_000)])
@pytest.mark.parametrize("start", STARTS)
def test_an_impulse_stays_within_a_microsecond_of_its_place(source, target, start):
    window = TimeSpan(start, start + NS)
    samples = np.zeros(3 * source)
    samples[source + source // 2 + 7] = 1.0
    track = AudioTrack(source, Fraction(start - NS), samples)
    sound = resampled(track, window, target)
    truth, t = 0.5 + 7 / source, np.arange(target) / target
    if source != target:  # at equal rates there is no low-pass, and a sinc's centroid does not converge
        assert abs((sound * t).sum() / sound.sum() - truth) < 1e-6
    delay = np.angle(np.sum(sound * np.exp(-2j * np.pi * 100 * (t - truth)))) / (2 * np.pi * 100)
    assert abs(delay) < 1e-6


@pytest.mark.parametrize(("source", "target"), [(48_000, 16_000), (32_000, 16_000), (96_000, 16_000)])
def test_agrees_with_soxr_where_the_ratio_is_an_integer(source, target):
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, 4 * source)
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(noise), 1 / source) > 0.44 * target] = 0
    noise = np.fft.irfft(spectrum)
    window = TimeSpan(NS, 3 * NS)
    ours = resampled(AudioTrack(source, Fraction(0), noise), window, target)
    theirs = soxr.resample(noise, source, target, quality="VHQ")[target : 3 * target]
    assert level_db(ours - theirs) < -130


def noise_track(rate=44_100, seconds=4.0, start_ns=Fraction(0), seed=0):
    rng = np.random.default_rng(seed)
    return AudioTrack(rate, start_ns, rng.uniform(-0.9, 0.9, int(rate * seconds)).astype(np.float32))


@settings(max_examples=30, deadline=None)
@given(
    source=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    target=st.sampled_from([16_000, 22_050]),
    start=st.integers(NS, 2 * NS),
    length=st.integers(1, NS),
)
def test_a_window_depends_on_its_margins_and_no_further(source, target, start, length):
    track = noise_track(source)
    window = TimeSpan(start, start + length)
    reach = window.widened(AUDIO_MARGIN_NS)
    low, high = -(-reach.start_ns * source // NS), -(-reach.end_ns * source // NS)
    cut = AudioTrack(source, Fraction(low * NS, source), track.samples[low:high])
    whole = window_audio(track, window, target)
    assert len(whole.samples) == count_in(length, target)
    np.testing.assert_array_equal(whole.samples, window_audio(cut, window, target).samples)


def test_adjoining_windows_continue_each_other():
    track = noise_track()
    whole = window_audio(track, TimeSpan(NS, 3 * NS), 16_000).samples.astype(int)
    halves = [window_audio(track, TimeSpan(a * NS, (a + 1) * NS), 16_000).samples for a in (1, 2)]
    assert np.abs(whole - np.concatenate(halves)).max() <= 1  # but for the rounding of a tie


def test_at_the_same_rate_16_bit_sound_comes_through_unchanged():
    pcm = np.random.default_rng(2).integers(-32768, 32768, 32_000, dtype=np.int16)
    track = AudioTrack(16_000, Fraction(0), pcm.astype(np.float32) / 32768)
    out = window_audio(track, TimeSpan(NS // 2, 3 * NS // 2), 16_000)
    np.testing.assert_array_equal(out.samples, pcm[8_000:24_000])
    assert out.coverage == 1.0


def test_loud_sound_clips_and_does_not_wrap():
    track = AudioTrack(16_000, Fraction(0), np.full(32_000, 1.5, np.float32))
    assert set(window_audio(track, TimeSpan(0, NS), 16_000).samples) == {32767}


def test_gaps_hold_zeros_and_lower_the_coverage():
    gap = TimeSpan(1_300_000_000, 1_500_000_000)
    track = noise_track(48_000)
    samples = track.samples.copy()
    samples[62_400:72_000] = 0
    track = AudioTrack(48_000, Fraction(0), samples, (gap, TimeSpan(5 * NS, 6 * NS)))
    out = window_audio(track, TimeSpan(NS, 2 * NS), 16_000)
    assert out.gaps == (gap,)
    assert out.coverage == pytest.approx(0.8)
    assert not out.samples[4_800:8_000].any()
    assert out.samples[4_799] != 0
    assert out.samples[8_000] != 0


@settings(max_examples=60, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(0, 900), st.integers(1, 300)), max_size=4),
    first=st.integers(0, 400),
    end=st.integers(500, 1000),
    start=st.integers(0, 500),
)
def test_gaps_and_coverage_equal_a_count_millisecond_by_millisecond(spans, first, end, start):
    ms = 1_000_000
    gaps = tuple(TimeSpan(a * ms, (a + n) * ms) for a, n in spans)
    track = AudioTrack(1_000, Fraction(first * ms), np.ones(end - first, np.float32), gaps)
    window = TimeSpan(start * ms, (start + 500) * ms)
    out = window_audio(track, window, 1_000)
    recorded = [
        first <= t < end and not any(a <= t < a + n for a, n in spans) for t in range(start, start + 500)
    ]
    assert out.coverage == pytest.approx(np.mean(recorded))
    listed = [not any(g.holds(t * ms) for g in out.gaps) for t in range(start, start + 500)]
    assert listed == recorded
    assert not out.samples[~np.array(recorded)].any()


def test_a_window_without_any_sound_is_one_gap():
    window = TimeSpan(9 * NS, 10 * NS)
    out = window_audio(noise_track(), window, 16_000)
    assert (out.gaps, out.coverage, out.samples.any()) == ((window,), 0.0, False)


def test_flac_is_lossless_and_reproducible():
    pcm = np.random.default_rng(3).integers(-32768, 32768, 16_000, dtype=np.int16)
    data = encode_flac(pcm, 16_000)
    assert data == encode_flac(pcm, 16_000)
    back, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == 16_000
    np.testing.assert_array_equal(back, pcm)


@pytest.mark.parametrize(("rate", "target"), [(16_000, 16_000), (48_000, 16_000)])
def test_rounding_to_16_bits_is_to_the_nearest_and_biases_nothing(rate, target):
    track, window = noise_track(rate), TimeSpan(NS, 2 * NS)
    left = window_audio(track, window, target).samples - resampled(track, window, target) * 32768
    assert np.abs(left).max() <= 0.5
    assert abs(left.mean()) < 0.02  # towards 0, or down, would be half a step for each sign
    for sign in (1, -1):
        part = left[sign * resampled(track, window, target) > 0]
        assert abs(part.mean()) < 0.02


def test_a_part_of_a_step_goes_to_the_nearer_one():
    steps = np.array([10.3, 10.7, -10.3, -10.7, 0.4, -0.4, 0.6, -0.6])
    track = AudioTrack(1_000, Fraction(0), np.tile(steps / 32768, 125))
    out = window_audio(track, TimeSpan(0, NS), 1_000)
    assert out.samples[:8].tolist() == [10, 11, -10, -11, 0, 0, 1, -1]
