"""IMU rows that share timestamps in batches: spread where they are regular, refused where they are not."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
from align.schemas.time import NS, ClockMap, ClockPiece, TimeSpan
from align.transforms.align.imu import window_imu
from align.transforms.tables import rows as imu_rows
from align.transforms.tables.batches import spread
from align.transforms.tables.table import imu_range, read_imu, survey_imu

NAMES = "canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"
SHARED = Path(__file__).parents[2] / "shared" / "data"
MS = 1_000_000


def motion(t):
    """Six axes at instants (s): [n, 6]."""
    hz = np.array([0.7, 1.0, 1.3, 0.9, 1.1, 0.5])
    return np.sin(2 * np.pi * np.outer(t, hz) + np.arange(6)) * 2 + [0, 0, 0, 0, 0, 9.8]


def batched(seconds=20, hz=200, every_ms=100, jitter_ms=0.0, keep=lambda k: True, scale=1.0):
    """A table whose rows stand at k / hz but carry the time of the last delivery."""
    k = np.array([k for k in range(int(seconds * hz)) if keep(k)])
    true = k / hz
    stamps = np.floor(true * 1e3 / every_ms + 1e-9) * every_ms
    late = np.random.default_rng(5).uniform(0, jitter_ms or 1e-12, int(stamps.max() / every_ms) + 1)
    stamps = stamps + np.round(late[(stamps / every_ms).astype(int)], 4)
    lines = [
        f"{s * scale:.6f}," + ",".join(f"{v:.6f}" for v in row)
        for s, row in zip(stamps, motion(true), strict=True)
    ]
    return "\n".join([NAMES, *lines, ""]).encode()


WINDOW = TimeSpan(5 * NS, 10 * NS)


def window_of(data, window=WINDOW, clock=None):
    found = survey_imu(io.BytesIO(data), IMU_COLUMNS)
    clock = clock or ClockMap()
    reach = window.widened(NS)
    where = imu_range(found, clock.span_on_stream(reach))
    track = read_imu(io.BytesIO(data), where, clock, reach, IMU_COLUMNS)
    return found, track, window_imu(track, window, 200)


@pytest.mark.parametrize(
    ("hz", "every_ms"), [(200, 100), (200, 10), (100, 500), (400, 50), (104, 250), (52, 1000)]
)
def test_regular_batches_are_spread_to_their_rows_instants(hz, every_ms):
    found, track, out = window_of(batched(hz=hz, every_ms=every_ms))
    assert found.missing is None
    assert found.gyro_rate_hz == pytest.approx(hz, rel=0.01)
    assert track.is_spread
    assert out.coverage == 1.0
    truth = motion(5 + np.arange(1_000) / 200).T
    late = 2.5 / hz if hz * every_ms % 1_000 else 1e-3  # batches of alternating size are off by a row or two
    assert np.abs(out.imu.values - truth).max() < 2 * 2 * np.pi * 1.3 * late + 5e-3
    assert any("share timestamps" in note for note in found.notes)
    assert not any("duplicate" in note for note in found.notes)


def test_late_deliveries_cost_no_more_than_they_are_late():
    _, track, out = window_of(batched(jitter_ms=8))
    assert track.is_spread
    assert (np.diff(track.gyro_ns) > 0).all()
    assert out.coverage > 0.99
    truth = motion(5 + np.arange(1_000) / 200).T[:, out.imu.mask]
    assert np.abs(out.imu.values[:, out.imu.mask] - truth).max() < 2 * 2 * np.pi * 1.3 * 0.013


def test_a_lost_batch_is_a_gap():
    data = batched(keep=lambda k: not 1_400 <= k < 1_460)  # 300 ms from 7.0 s on
    _, _, out = window_of(data)
    assert out.coverage == pytest.approx(1 - 0.3 / 5, abs=0.003)
    assert not out.imu.mask[402:458].any()


def test_irregular_batches_are_refused_and_never_called_covered():
    rng = np.random.default_rng(6)
    kept = rng.random(40_000) < np.repeat(rng.uniform(0.05, 1, 2_000), 20)
    found, _, _ = window_of(batched(keep=lambda k: kept[k]))
    assert found.missing == "invalid"
    assert "do not fit one rate" in " ".join(found.notes)
    assert imu_range(found, found.span).missing == "invalid"


def test_a_few_duplicates_and_doubled_rows_are_what_they_were():
    head, *lines = batched(every_ms=5).decode().splitlines()
    some = [line for k, line in enumerate(lines) for line in [line] * (2 if k % 25 == 0 else 1)]
    twice = [line for line in lines for _ in range(2)]
    plain = window_of("\n".join([head, *lines, ""]).encode())
    for rows in (some, twice):
        found, track, out = window_of("\n".join([head, *rows, ""]).encode())
        assert not track.is_spread
        assert found.gyro_rate_hz == plain[0].gyro_rate_hz
        np.testing.assert_array_equal(out.imu.values, plain[2].imu.values)


@pytest.mark.parametrize("block", [1_000, 7_777, 1 << 20])
@pytest.mark.parametrize("offset_ns", [0, -1_234_567])
def test_a_windows_rows_do_not_depend_on_what_is_read_around_them(monkeypatch, block, offset_ns):
    monkeypatch.setattr(imu_rows, "BLOCK_BYTES", block)
    data, clock = batched(jitter_ms=20), ClockMap((ClockPiece(0, offset_ns, 30.0),))
    found = survey_imu(io.BytesIO(data), IMU_COLUMNS)
    whole = read_imu(io.BytesIO(data), imu_range(found, found.span), clock, TimeSpan(0, 30 * NS), IMU_COLUMNS)
    for start in range(3_000, 9_000, 733):
        span = TimeSpan(start * MS, (start + 1_500) * MS)
        part = read_imu(
            io.BytesIO(data), imu_range(found, clock.span_on_stream(span)), clock, span, IMU_COLUMNS
        )
        inside = (whole.gyro_ns >= span.start_ns) & (whole.gyro_ns < span.end_ns)
        np.testing.assert_array_equal(part.gyro_ns, whole.gyro_ns[inside])
        np.testing.assert_array_equal(part.gyro, whole.gyro[inside])


@settings(max_examples=200, deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 30)), min_size=1, max_size=30),
    row_ns=st.floats(0.5, 20.0),
)
def test_spreading_keeps_the_order_and_each_batch_in_its_time(groups, row_ns):
    steps, counts = np.array(groups).T
    stamps = np.cumsum(steps) * 1_000
    placed = spread(np.repeat(stamps, counts), row_ns * 1_000)
    first = np.cumsum(counts) - counts
    assert (placed[first] == stamps).all()
    for k, start in enumerate(first):
        mine = placed[start : start + counts[k]]
        expected = stamps[k] + np.arange(counts[k]) * row_ns * 1_000
        assert (mine <= expected + 0.5).all()
        if k + 1 < len(stamps):
            assert mine[-1] <= stamps[k + 1]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared recordings are not here")
def test_a_real_table_of_batches_of_100_ms_is_spread():
    data = (SHARED / "awkward/imu_times_in_100ms_blocks.csv").read_bytes()
    found, track, out = window_of(data, TimeSpan(0, 2 * NS))
    assert found.gyro_rate_hz == pytest.approx(200, rel=1e-3)
    assert (track.is_spread, out.coverage) == (True, 1.0)
    truth = 0.5 * np.sin(2 * np.pi * np.arange(400) / 200)  # its gyro_x
    assert np.abs(out.imu.values[0] - truth).max() < 1e-3


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared recordings are not here")
def test_real_tables_keep_their_own_times():
    tables = sorted((SHARED / "ego4d/v2/imu").glob("*-*.csv"))
    assert tables
    for path in tables:
        assert survey_imu(path, IMU_COLUMNS).batch_ns == 0
