"""Resampling of IMU rows, against closed forms and brute force."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import firwin, kaiser_beta

from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
from align.schemas.media import ImuTrack
from align.schemas.time import NS, ClockMap, ClockPiece, TimeSpan
from align.transforms.align import imu
from align.transforms.align.imu import window_imu
from align.transforms.align.margins import IMU_MARGIN_NS
from align.transforms.tables.table import imu_range, read_imu, survey_imu

TABLES = Path(__file__).parents[2] / "shared" / "data" / "ego4d" / "v2" / "imu"
HOURS_10 = 36_000 * NS
WINDOW = TimeSpan(HOURS_10 + 123_456_789, HOURS_10 + 123_456_789 + 5 * NS)


def track_of(seconds, signal, hz=200.0):
    """Both sensors sample ``signal`` (a function of s since ten hours) at the given instants."""
    ns = np.unique(np.round(np.asarray(seconds) * NS).astype(np.int64))
    values = np.repeat(signal(ns / NS)[:, None], 3, axis=1)
    return ImuTrack(ns + HOURS_10, values, ns + HOURS_10, values, hz, hz)


def grid(rate):
    return 0.123456789 + np.arange(5 * rate) / rate


def band_limited(highest_hz, seed=0, tones=60):
    rng = np.random.default_rng(seed)
    hz, phase = rng.uniform(0.1, highest_hz, tones), rng.uniform(0, 2 * np.pi, tones)
    return lambda t: np.sin(2 * np.pi * np.outer(t, hz) + phase).sum(axis=1) / np.sqrt(tones / 2)


def db(error, signal):
    return 10 * np.log10(np.mean(np.square(error)) / np.mean(np.square(signal)) + 1e-30)


def jittered(kind, ms, seed=0):
    rng = np.random.default_rng(seed)
    n = 2_000
    offset = rng.uniform(-1, 1, n) if kind == "uniform" else rng.normal(0, 1, n)
    return np.arange(n) / 200 - 2 + offset * ms / 1e3


@pytest.mark.parametrize("rate", [50, 100, 200, 400])
@pytest.mark.parametrize(
    ("kind", "ms", "least_db"),
    [("uniform", 0, 110), ("uniform", 0.5, 100), ("uniform", 2, 90), ("normal", 0.5, 90), ("normal", 2, 70)],
)
def test_a_band_limited_signal_survives_jitter(rate, kind, ms, least_db):
    signal = band_limited(0.2 * min(rate, 200))
    out = window_imu(track_of(jittered(kind, ms), signal), WINDOW, rate)
    truth = signal(grid(rate))
    assert out.imu.mask.all()
    for axis in out.imu.values:
        assert db(axis - truth, truth) < -least_db


@pytest.mark.parametrize(("rate", "hz"), [(50, 25.5), (50, 60), (50, 95), (100, 51), (100, 90), (150, 80)])
def test_vibration_beyond_the_target_rate_does_not_alias(rate, hz):
    out = window_imu(track_of(jittered("uniform", 0), lambda t: np.sin(2 * np.pi * hz * t)), WINDOW, rate)
    assert db(out.imu.values, np.sqrt(0.5)) < -100


def test_a_60_hz_vibration_jittered_by_half_a_millisecond_does_not_alias_into_50_hz():
    out = window_imu(track_of(jittered("uniform", 0.5), lambda t: np.sin(2 * np.pi * 60 * t)), WINDOW, 50)
    assert db(out.imu.values, np.sqrt(0.5)) < -80


@pytest.mark.parametrize("hz", [198.625, 199.99, 201.923, 201.923 * (1 + 500e-6), 397.5])
@pytest.mark.parametrize("rate", [50, 200, 400])
def test_time_itself_is_reproduced_to_a_microsecond_after_ten_hours(hz, rate):
    out = window_imu(track_of(np.arange(int(10 * hz)) / hz - 2, lambda t: t, hz), WINDOW, rate)
    assert np.abs(out.imu.values[0] - grid(rate)).max() < 1e-6


def test_each_sensor_is_resampled_from_its_own_instants():
    gyro, accl = np.arange(4_000) / 397.5 - 2, np.arange(2_000) / 198.8 - 2.003
    signal = band_limited(35)
    both = [
        (np.round(t * NS).astype(np.int64) + HOURS_10, np.repeat(signal(t)[:, None], 3, 1))
        for t in (gyro, accl)
    ]
    out = window_imu(ImuTrack(*both[0], *both[1], 397.5, 198.8), WINDOW, 200)
    truth = signal(grid(200))
    assert db(out.imu.values[:3] - truth, truth) < -90
    assert db(out.imu.values[3:] - truth, truth) < -90


@pytest.mark.parametrize("rate", [50, 200, 400])
def test_nothing_is_interpolated_across_a_gap_of_three_seconds(rate):
    t = np.arange(2_000) / 200 - 2
    t = t[(t < 1) | (t >= 4)]
    out = window_imu(track_of(t, lambda t: 1 + 0 * t), WINDOW, rate)
    times = grid(rate)
    expected = (times <= t[t < 1][-1]) | (times >= 4)
    np.testing.assert_array_equal(out.imu.mask, expected)
    np.testing.assert_allclose(out.imu.values, np.where(expected, 1.0, 0.0) * np.ones((6, 1)), atol=1e-6)
    assert out.coverage == expected.mean()
    assert out.max_gap_ns == 3_005_000_000


@pytest.mark.parametrize("rate", [50, 200, 400])
def test_nothing_is_interpolated_across_a_joint(rate):
    t = np.arange(2_000) / 200 - 2 + 0.0021
    track = track_of(t, lambda t: np.where(t < 2.5, 1.0, -1.0))
    joint = int(track.gyro_ns[np.searchsorted(t, 2.5)])
    out = window_imu(replace(track, joints_ns=(0, joint, 2 * joint)), WINDOW, rate)
    last, first = t[t < 2.5][-1], t[t >= 2.5][0]
    times = grid(rate)
    np.testing.assert_array_equal(out.imu.mask, (times <= last) | (times >= first))
    np.testing.assert_allclose(
        out.imu.values[0], np.where(times <= last, 1.0, np.where(times >= first, -1.0, 0.0)), atol=1e-6
    )


def test_two_instruments_that_overlap_are_not_mixed(tmp_path):
    rows = ["component_idx,canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"]
    rows += [f"0,{k * 5.0},1,1,1,0,0,9.8" for k in range(1_000)]
    rows += [f"1,{4_800.3 + k * 5.0},-1,-1,-1,0,0,9.8" for k in range(1_000)]
    path = tmp_path / "imu.csv"
    path.write_text("\n".join(rows) + "\n")
    survey = survey_imu(path, IMU_COLUMNS)
    for window in (TimeSpan(0, 5 * NS), TimeSpan(4 * NS, 6 * NS), TimeSpan(5 * NS, 9 * NS)):
        reach = window.widened(IMU_MARGIN_NS)
        out = window_imu(
            read_imu(path, imu_range(survey, reach), ClockMap(), reach, IMU_COLUMNS), window, 200
        )
        at = window.start_ns / NS + np.arange(len(out.imu.mask)) / 200
        assert out.imu.mask.all()
        np.testing.assert_allclose(out.imu.values[0], np.where(at <= 4.995, 1.0, -1.0), atol=1e-6)


@pytest.mark.parametrize(("periods", "measured"), [(2.99, True), (3.01, False)])
def test_a_gap_is_more_than_three_periods(periods, measured):
    t = np.arange(2_000) / 200 - 2
    t = np.where(t > 2, t + (periods - 1) / 200, t)
    out = window_imu(track_of(t, lambda t: t), WINDOW, 400)
    assert out.imu.mask.all() == measured


@settings(max_examples=80, deadline=None)
@given(
    gyro=st.lists(st.integers(-1_500, 2_500), min_size=0, max_size=60, unique=True),
    accl=st.lists(st.integers(-1_500, 2_500), min_size=0, max_size=60, unique=True),
    hz=st.sampled_from([10.0, 40.0]),
    rate=st.sampled_from([7, 50, 100]),
)
def test_the_mask_and_the_gap_equal_brute_force(gyro, accl, hz, rate):
    ms = 1_000_000
    g, a = (np.array(sorted(x), np.int64) * ms for x in (gyro, accl))
    track = ImuTrack(g, np.ones((len(g), 3)), a, np.ones((len(a), 3)), hz, hz)
    window = TimeSpan(0, NS)
    out = window_imu(track, window, rate)

    def measured(rows, at):
        rows = [r for r in rows if -IMU_MARGIN_NS <= r < NS + IMU_MARGIN_NS]
        before = [r for r in rows if r <= at]
        after = [r for r in rows if r >= at]
        if not before or not after:
            return False
        if before[-1] != after[0]:
            return after[0] - before[-1] <= 3 * NS / hz
        here = rows.index(at)  # on a row: a run of one row measures nothing
        near = [abs(rows[i] - at) for i in (here - 1, here + 1) if 0 <= i < len(rows)]
        return any(n <= 3 * NS / hz for n in near)

    expected = [
        all(measured([int(r) for r in rows], Fraction(k * NS, rate)) for rows in (g, a)) for k in range(rate)
    ]
    assert out.imu.mask.tolist() == expected
    np.testing.assert_allclose(out.imu.values, np.array(expected) * np.ones((6, 1)), atol=1e-5)
    longest = 0
    for rows in (g, a):
        marks = [0, *(int(r) for r in rows if 0 <= r < NS), NS]
        longest = max(longest, *(y - x for x, y in pairwise(marks)))
    assert out.max_gap_ns == longest


@pytest.mark.parametrize("rate", [50, 200, 400])
def test_a_window_depends_on_the_rows_of_its_margins_and_no_further(rate):
    rng = np.random.default_rng(0)
    t = jittered("normal", 2)
    track = track_of(t, lambda t: rng.normal(size=len(t)))
    reach = WINDOW.widened(IMU_MARGIN_NS)
    near = (track.gyro_ns >= reach.start_ns) & (track.gyro_ns < reach.end_ns)
    cut = ImuTrack(track.gyro_ns[near], track.gyro[near], track.accl_ns[near], track.accl[near], 200.0, 200.0)
    whole, part = window_imu(track, WINDOW, rate), window_imu(cut, WINDOW, rate)
    assert whole.imu.values.tobytes() == part.imu.values.tobytes()
    assert whole.max_gap_ns == part.max_gap_ns


def test_rows_almost_at_one_instant_do_not_blow_up_their_noise():
    rng = np.random.default_rng(5)
    t = np.sort(np.concatenate([np.arange(2_000) / 200 - 2, np.arange(0, 2_000, 10) / 200 - 2 + 2e-6]))
    out = window_imu(track_of(t, lambda t: rng.normal(size=len(t))), WINDOW, 200)
    assert np.abs(out.imu.values).max() < 6


def test_noise_does_not_grow_at_the_ends_of_a_run():
    rng = np.random.default_rng(6)
    worst = [
        np.abs(
            window_imu(
                track_of(np.arange(400) / 200 + 1, lambda t: rng.normal(size=len(t))), WINDOW, 400
            ).imu.values
        )
        for _ in range(20)
    ]
    assert np.max(worst) < 6


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("rate", [50, 200, 1000])
def test_short_runs_are_interpolated_within_their_ends(rows, rate):
    t = 1 + np.arange(rows) / 200
    out = window_imu(track_of(t, lambda t: 2 * t), WINDOW, rate)
    times = grid(rate)
    inside = (times >= 1) & (times <= t[-1]) if rows > 1 else np.zeros(len(times), bool)
    np.testing.assert_array_equal(out.imu.mask, inside)
    np.testing.assert_allclose(out.imu.values[0][inside], 2 * times[inside], atol=1e-5)


def test_one_sensor_alone_measures_nothing():
    full = track_of(jittered("uniform", 0), lambda t: t)
    none = np.empty(0, np.int64)
    out = window_imu(ImuTrack(full.gyro_ns, full.gyro, none, np.empty((0, 3)), 200.0, 0.0), WINDOW, 200)
    assert not out.imu.mask.any()
    assert not out.imu.values.any()
    assert (out.coverage, out.max_gap_ns) == (0.0, 5 * NS)


def test_without_a_known_rate_the_rows_spacing_decides():
    t = jittered("uniform", 0.5)
    signal = band_limited(40)
    out = window_imu(track_of(t, signal, hz=0.0), WINDOW, 200)
    assert db(out.imu.values[0] - signal(grid(200)), 1.0) < -90


@pytest.mark.skipif(not TABLES.is_dir(), reason="the shared recordings are not here")
@pytest.mark.parametrize("rate", [50, 200, 400])
@pytest.mark.parametrize(
    "uid", ["3c8d5a26-d617-55aa-8147-3ea634376062", "80187c7e-4c38-5b6c-8891-d6e23814f7c2"]
)
def test_a_real_window_is_the_same_whatever_was_read_with_it(uid, rate, monkeypatch):
    monkeypatch.setattr("align.transforms.tables.rows.BLOCK_BYTES", 4_096)
    path, clock = TABLES / f"{uid}.csv", ClockMap((ClockPiece(0, 12_345_678, 300.0),))
    survey = survey_imu(path, IMU_COLUMNS)

    def rows(span):
        reach = span.widened(IMU_MARGIN_NS)
        where = imu_range(survey, TimeSpan(clock.to_stream(reach.start_ns), clock.to_stream(reach.end_ns)))
        return read_imu(path, where, clock, reach, IMU_COLUMNS)

    whole = rows(TimeSpan(0, 11 * NS))
    for k in range(10):
        window = TimeSpan(k * NS, k * NS + NS)
        alone, together = window_imu(rows(window), window, rate), window_imu(whole, window, rate)
        assert alone.imu.values.tobytes() == together.imu.values.tobytes()
        assert alone.imu.mask.tobytes() == together.imu.mask.tobytes()
        assert (alone.coverage, alone.max_gap_ns) == (together.coverage, together.max_gap_ns)


@pytest.mark.skipif(not TABLES.is_dir(), reason="the shared recordings are not here")
def test_a_real_walk_passes_through_its_rows():
    path = TABLES / "80187c7e-4c38-5b6c-8891-d6e23814f7c2.csv"
    survey = survey_imu(path, IMU_COLUMNS)
    track = read_imu(path, imu_range(survey, survey.span), ClockMap(), survey.span, IMU_COLUMNS)
    window = TimeSpan(2 * NS, 8 * NS)
    out = window_imu(track, window, 4_000)
    inside = (track.accl_ns >= window.start_ns) & (track.accl_ns < window.end_ns - NS // 100)
    at = (track.accl_ns[inside] - window.start_ns) / NS
    back = np.interp(at, np.arange(24_000) / 4_000, out.imu.values[5])
    assert db(back - track.accl[inside][:, 2], track.accl[inside][:, 2] - 9.8) < -30


@pytest.mark.parametrize(("rate", "factor"), [(200, 3), (50, 8), (100, 4), (20, 20)])
def test_the_low_pass_is_the_one_that_scipy_designs(rate, factor):
    taps = imu._low_pass(rate, factor)
    width = (100.0 - 7.95) / (2.285 * 2 * np.pi * (len(taps) - 1) / factor)  # Kaiser's formula
    cutoff = max(0.5 - width / 2, 0.25)
    designed = firwin(len(taps), cutoff, window=("kaiser", kaiser_beta(100.0)), fs=factor)
    np.testing.assert_allclose(taps, designed, rtol=0, atol=1e-15)
