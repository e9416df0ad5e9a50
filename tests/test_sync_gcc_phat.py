"""Sound against sound: known delay and drift, noise as loud as the sound, and two rooms."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from scipy.interpolate import CubicSpline
from scipy.signal import butter, fftconvolve, sosfilt

from align.transforms.sync.gcc_phat import Sound
from align.transforms.sync.sound_match import match_sounds

RATE = 16_000


def two_rooms(
    seed: int, seconds: float, offset: float, drift: float, loud_echo: float = 0.05
) -> tuple[Sound, Sound]:
    """One event in two recordings at 0 dB SNR; the other's time t stands at t + offset + drift·t."""
    rng = np.random.default_rng(seed)
    count = int((seconds + 14) * RATE)
    loud = np.repeat(rng.random(count // 1600 + 1) > 0.4, 1600)[:count]
    source = sosfilt(butter(2, [150, 5000], "band", fs=RATE, output="sos"), rng.standard_normal(count) * loud)

    def room(sound):
        length = int(0.4 * RATE)
        echo = loud_echo * rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
        echo[:40], echo[0] = 0, 1
        return fftconvolve(sound, echo)[: len(sound)]

    def noisy(sound):
        return sound + rng.standard_normal(len(sound)) * sound.std()

    own = np.arange(int(seconds * RATE)) / RATE
    heard = CubicSpline(np.arange(count), room(source))((own + offset + drift * own + 7) * RATE)
    here = room(source)[7 * RATE : 7 * RATE + len(own)]
    return Sound(RATE, 0.0, noisy(here)), Sound(RATE, 0.0, noisy(heard))


@pytest.mark.parametrize(
    ("seconds", "offset", "drift"), [(60, 0.731234, 50e-6), (60, -2.1, -200e-6), (30, 4.2, 20e-6)]
)
def test_offset_is_within_a_tenth_of_a_millisecond_at_0_db_with_reverberation(seconds, offset, drift):
    found = match_sounds(*two_rooms(1, seconds, offset, drift))
    assert found.line is not None, found.reason
    for t in (0.0, seconds / 2, float(seconds)):
        want = t - (t - offset) / (1 + drift)
        assert abs(found.line.offset_at(t) - want) < 1e-4


def test_drift_over_ten_minutes_is_within_one_ppm():
    found = match_sounds(*two_rooms(2, 600, 1.5, 100e-6))
    assert found.line is not None
    assert abs(found.line.drift - 100e-6 / (1 + 100e-6)) < 1e-6


@pytest.mark.parametrize(("seed", "offset", "loud_echo"), [(0, 0.7, 0.15), (6, 2.5, 0.3)])
def test_an_echo_that_misleads_all_windows_alike_is_not_taken_for_the_sound(seed, offset, loud_echo):
    found = match_sounds(*two_rooms(seed, 40, offset, 50e-6, loud_echo))
    assert found.agreeing >= 7  # on lines that are 5.2 and 4.1 ms wrong
    assert found.line is None
    assert "echoes" in found.reason


def test_silence_and_short_sounds_are_told():
    here, _ = two_rooms(5, 20, 0.0, 0.0)
    quiet = Sound(RATE, 0.0, np.zeros(20 * RATE))
    found = match_sounds(here, quiet)
    assert (found.status, found.line) == ("unobservable", None)
    assert "heard in 0 of 5" in found.reason
    assert "too short" in match_sounds(Sound(RATE, 0.0, here.samples[: 5 * RATE]), here).reason


def test_sounds_of_unequal_rates_are_compared():
    here, there = two_rooms(5, 30, 1.25, 0.0)
    slower = Sound(11_025, 0.0, soxr.resample(there.samples, RATE, 11_025, quality="VHQ"))
    found = match_sounds(here, slower)
    assert found.status == "verified"
    assert abs(found.line.offset_at(15.0) - 1.25) < 1e-4


def voices(rng, count):
    loud = np.repeat(rng.random(count // 1600 + 1) > 0.4, 1600)[:count]
    return sosfilt(butter(2, [150, 5000], "band", fs=RATE, output="sos"), rng.standard_normal(count) * loud)


def clicks(rng, count):
    sound = 0.003 * rng.standard_normal(count)
    sound[rng.integers(0, count, count // RATE)] = 1
    return sound


def mains(rng, count):
    time = np.arange(count) / RATE + rng.uniform(0, 5)
    lines = sum(np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 24))
    return 0.3 * lines + 0.05 * rng.standard_normal(count)


def melody(rng, count):
    """Each its own notes, of the same instrument, on the same beat."""
    sound, beat = 0.01 * rng.standard_normal(count), RATE // 2
    time = np.arange(beat) / RATE
    for start in range(0, count - beat, beat):
        pitch = 220 * 2 ** (rng.integers(0, 24) / 12)
        tone = sum(np.sin(2 * np.pi * pitch * h * time) / h for h in range(1, 8))
        sound[start : start + beat] += tone * np.exp(-4 * time)
    return sound


def drums(rng, count):
    """The same sample of a drum on the same beat."""
    hit = np.random.default_rng(5).standard_normal(1600) * np.exp(-np.arange(1600) / 300)
    sound = 0.01 * rng.standard_normal(count)
    for start in range(int(rng.integers(0, RATE // 2)), count - len(hit), RATE // 2):
        sound[start : start + len(hit)] += hit
    return sound


def tone(rng, count):
    return np.sin(2 * np.pi * 440 * np.arange(count) / RATE + rng.uniform(0, 6))


def tune(period):
    """The same loop, begun anywhere: it fits wherever it starts anew."""

    def play(rng, count):
        once = np.random.default_rng(7).standard_normal(int(period * RATE))
        loop = np.resize(np.roll(once, rng.integers(0, len(once))), count)
        return loop + 0.5 * rng.standard_normal(count)

    play.__name__ = f"loop of {period} s"
    return play


@pytest.mark.parametrize("sound", [voices, clicks, mains, melody, drums, tone, tune(1.7), tune(9.3)])
def test_sounds_of_different_events_are_never_verified(sound):
    for seed in range(13):  # eight kinds: 104 pairs
        rng = np.random.default_rng([seed, 1])
        count = (17, 18, 20)[seed % 3] * RATE
        one, other = (Sound(RATE, 0.0, 0.1 * sound(rng, count)) for _ in range(2))
        found = match_sounds(one, other, reach=2.5)
        assert found.status in ("refuted", "unobservable"), found.reason
        assert found.line is None


def test_unlike_voices_are_refuted():
    here, _ = two_rooms(3, 40, 0.0, 0.0)
    _, other = two_rooms(4, 40, 0.0, 0.0)
    assert match_sounds(here, other).status == "refuted"


def test_what_is_too_short_for_its_offset_is_not_refuted():
    here, there = two_rooms(4, 17, 4.9, 0.0)  # three windows coincide
    found = match_sounds(here, there)
    assert found.status == "unobservable", found.reason


def test_beyond_the_reach_nothing_is_verified():
    assert match_sounds(*two_rooms(6, 40, 4.0, 0.0), reach=2.0).line is None


def test_who_moves_and_speaks_by_turns_is_verified_with_an_error_that_allows_for_the_paths():
    here, there = two_rooms(7, 60, 0.8, 0.0)
    paths = np.random.default_rng(7).uniform(-4e-3, 4e-3, 16)  # up to 1.4 m more or less
    parts = [
        np.roll(p, round(d * RATE)) for p, d in zip(np.array_split(there.samples, 15), paths, strict=False)
    ]
    found = match_sounds(here, Sound(RATE, 0.0, np.concatenate(parts)))
    assert found.status == "verified", found.reason
    assert "paths" in found.reason
    error = max(abs(found.line.offset_at(t) - 0.8) for t in (0.0, 60.0))
    assert error < 2 * found.line.sigma_at(30.0)
    assert 4e-3 < found.line.sigma_at(30.0) < 10e-3
