"""IMU tables: every fault that was seen or can be thought of, and brute force."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.pipeline.sources.ego4d.imu import IMU_COLUMNS as EGO4D
from align.schemas.errors import AlignError
from align.schemas.plan import ImuRange
from align.schemas.recording import ImuColumns
from align.schemas.time import NS, ClockMap, ClockPiece, TimeSpan
from align.schemas.wire import from_plain, to_plain
from align.transforms.tables import rows as imu_rows
from align.transforms.tables.table import imu_range, read_imu, survey_imu

HEADER = (
    "component_idx,component_timestamp_ms,canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"
)
DATA = Path(__file__).parents[2] / "shared" / "data"
FOREVER = TimeSpan(-(10**17), 10**17)
SAME = ClockMap()
here = pytest.mark.skipif(not DATA.is_dir(), reason="the shared recordings are not here")


def line(ms, gyro=(0.1, 0.2, 0.3), accl=(0.0, 0.0, 9.8), component=0):
    return ",".join(map(str, (component, ms, ms, *gyro, *accl)))


def table(lines, header=HEADER, end="\n"):
    return "".join(x + end for x in (header, *lines)).encode()


def steady(n=20, scale=1.0, **values):
    return [line(k * 5 * scale, **values) for k in range(n)]


def survey(data, columns=EGO4D):
    return survey_imu(io.BytesIO(data), columns)


def read(data, span=FOREVER, clock=SAME, columns=EGO4D):
    found = survey(data, columns=columns)
    return read_imu(io.BytesIO(data), imu_range(found, span), clock, span, columns)


def accl_z(data):
    track = read(data)
    return dict(zip((track.accl_ns / 1e6).tolist(), track.accl[:, 2].tolist(), strict=True))


# -- What is wrong with a table, and what becomes of it ------------------------------------------------

NORMAL = steady()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "imu_empty"),
        (b" \n\n", "imu_empty"),
        (table([]), "imu_empty"),
        (HEADER.encode(), "imu_empty"),
        (table(["0,1,,0,0,0,0,0,9.8"] * 9), "imu_empty"),
        (table(["0,1,1e18,0,0,0,0,0,9.8"] * 9), "imu_empty"),
        (table(["a,b"] * 9), "imu_empty"),
        (table(NORMAL, HEADER.replace("gyro_y", "gyro_why")), "imu_columns"),
        (table(NORMAL, HEADER.removesuffix(",accl_z")), "imu_columns"),
        (table(NORMAL[1:], NORMAL[0]), "imu_columns"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 900, "imu_columns"),
        (table(NORMAL).decode().encode("utf-16"), "imu_columns"),
        (table(NORMAL, end="\r"), "imu_columns"),
        (table([line(k * 3.7e12) for k in range(9)]), "imu_rate"),
        (table(NORMAL) + b"7" * (3 << 20), "imu_lines"),
    ],
)
def test_a_useless_table_says_why(data, code):
    with pytest.raises(AlignError) as error:
        survey(data)
    assert error.value.code == code


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + table(NORMAL),
        table(NORMAL, end="\r\n"),
        table([x for y in NORMAL for x in (y, "")]),
        table(NORMAL).replace(b",", b";"),
        table(NORMAL).replace(b",", b"\t"),
        table(NORMAL).replace(b",", b";").replace(b".", b","),
        table(NORMAL).replace(b",", b", "),
        table(['"' + x.replace(",", '","') + '"' for x in NORMAL], '"' + HEADER.replace(",", '","') + '"'),
        table([x + ",extra" for x in NORMAL], HEADER + ",note"),
        table([x + "," + x for x in NORMAL], HEADER + "," + HEADER),
        table(reversed(NORMAL)),
        table(NORMAL + NORMAL),
        table(steady(scale=1e-3)),
        table(steady(scale=1e3)),
        table(steady(scale=1e6)),
        table(NORMAL) + b"0,100,100,0.1,0.2,0.3,0.0,0.0,2.",
        table([*NORMAL, "0,1,2", "0,42,nan,0,0,0,0,0,1", "0,42,inf,0,0,0,0,0,1", "0,42,soon,0,0,0,0,0,1"]),
        table([*NORMAL, "0,42,1e18,0,0,0,0,0,1", "0,42,-1e300,0,0,0,0,0,1", "0,42,1e999,0,0,0,0,0,1"]),
    ],
)
def test_a_faulty_table_reads_as_the_sound_one(data):
    sound, found = read(table(NORMAL)), read(data)
    np.testing.assert_array_equal(found.gyro_ns, sound.gyro_ns)
    np.testing.assert_array_equal(found.accl_ns, sound.accl_ns)
    np.testing.assert_array_equal(found.gyro, sound.gyro)
    np.testing.assert_array_equal(found.accl, sound.accl)
    assert found.gyro_rate_hz == found.accl_rate_hz == 200.0


def test_what_was_dropped_is_counted():
    rows = [
        *NORMAL,
        "0,1,2",
        "0,1,,0,0,0,0,0,1",
        "0,1,x,0,0,0,0,0,1",
        "0,1,1e18,0,0,0,0,0,1",
        line(90),
        line(95),
    ]
    found = survey(table(rows) + b"0,100,10")
    assert found.rejected == {"field_count": 1, "null_time": 2, "absurd_time": 1, "truncated": 1}
    assert (found.rows, found.non_monotonic, found.duplicates) == (27, 1, 2)
    assert found.notes == (
        "2 rows without a time, 1 absurd time, 1 row of another length, 1 row cut short dropped; "
        "1 row out of order, 2 duplicates",
    )


@pytest.mark.parametrize(
    "bad", ["", "nan", "NaN", "inf", "-inf", "null", "n/a", "2.5.1", "1,2", "0x10", "1e", "-", "９", "1e300"]
)
def test_what_is_no_number_costs_its_own_sensor_only(bad):
    rows = steady(20)
    rows[7] = f"0,35,35,0.1,0.2,0.3,0.0,0.0,{bad}"
    track = read(table(rows))
    assert 35_000_000 not in track.accl_ns
    if "," not in bad:
        assert 35_000_000 in track.gyro_ns
        assert survey(table(rows)).gaps_in_row == {"accl": 1}


def test_numbers_are_read_as_python_reads_them():
    texts = ["1", "-1.5", "+2.25", "1e-3", ".5", "5.", "1E2", "0.1234567890123456789", "  3.5  "]
    rows = [f"0,{k * 5},{k * 5},0,0,0,0,0,{x}" for k, x in enumerate(texts)]
    for slow in ([], ["0,999,999,0,0,0,0,0,text"]):
        assert list(accl_z(table(rows + slow)).values()) == [float(x) for x in texts]


def test_repeated_rows_are_dropped_and_differing_ones_averaged():
    rows = [*steady(20), line(50, accl=(0, 0, 1.0)), line(50, accl=(0, 0, 1.0)), line(50, accl=(0, 0, 1.6))]
    assert accl_z(table(rows))[50.0] == pytest.approx((9.8 + 1.0 + 1.6) / 3)
    assert accl_z(table(rows)) == accl_z(table(rows[::-1]))


@pytest.mark.parametrize(
    ("accl", "gyro", "scales", "said"),
    [
        ((0, 0, 9.9), (0.1, 0, 0), (1.0, 1.0), ""),
        ((0, 0, 1.01), (0.1, 0, 0), (9.80665, 1.0), "in g"),
        ((0, 0, 2.7), (0.1, 0, 0), (1.0, 1.0), "neither"),
        ((0, 0, 9.8), (150, 0, 0), (1.0, np.pi / 180), "°/s"),
        ((0, 0, 9.8), (30, 0, 0), (1.0, 1.0), "may be in °/s"),
        ((0, 0, 9.8), (8, 0, 0), (1.0, 1.0), ""),
        ((0, 0, 1.0), (20, 0, 0), (9.80665, np.pi / 180), "beside an accelerometer in g"),
        ((0, 0, 1.0), (0.1, 0, 0), (9.80665, 1.0), "may be in °/s"),
    ],
)
def test_units_are_converted_where_they_are_certain(accl, gyro, scales, said):
    data = table(steady(accl=accl, gyro=gyro))
    found = survey(data)
    assert (found.accl_scale, found.gyro_scale) == pytest.approx(scales)
    assert said in " ".join(found.notes)
    assert bool(found.notes) == bool(said)
    np.testing.assert_allclose(read(data).accl[0], np.array(accl) * scales[0])
    np.testing.assert_allclose(read(data).gyro[0], np.array(gyro) * scales[1])


@pytest.mark.parametrize(
    ("row", "missing", "said"),
    [
        ("0,{0},{0},0.1,0.2,0.3,,,", "not_recorded", "accelerometer"),
        ("0,{0},{0},,,,0,0,9.8", "not_recorded", "gyroscope"),
        ("0,{0},{0},0.1,0.2,0.3,0,0,0", "invalid", "gravity"),
    ],
)
def test_a_silent_sensor_is_said(row, missing, said):
    found = survey(table([row.format(k * 5) for k in range(20)]))
    where = imu_range(found, FOREVER)
    assert where.missing == found.missing == missing
    assert said in where.detail


def test_the_unit_of_time_is_said_where_the_name_is_wrong():
    assert "times are in s" in survey(table(steady(scale=1e-3))).notes[0]
    assert survey(table(steady(scale=1e3))).time_scale_ns == 1e3


def test_a_slow_imu_keeps_the_unit_that_its_column_names():
    found = survey(table(steady(scale=40)))
    assert (found.time_scale_ns, found.gyro_rate_hz, found.notes) == (1e6, 5.0, ())


def test_other_names_are_a_parameter():
    columns = ImuColumns("t", ("a", "b", "c"), ("d", "e", "f"), time_scale_ns=1e9)
    track = read(table([f"{k / 100},1,2,3,0,0,9.8" for k in range(9)], "t,a,b,c,d,e,f"), columns=columns)
    assert track.gyro_rate_hz == pytest.approx(100)
    np.testing.assert_array_equal(track.gyro[0], [1, 2, 3])


def test_rows_are_brought_to_the_recording_clock():
    clock = ClockMap((ClockPiece(0, 7_000_000, 100.0),))
    data = table(steady(2_000))
    span = TimeSpan(5 * NS, 6 * NS)
    track = read(data, span, clock)
    every = clock.to_recording(np.arange(2_000, dtype=np.int64) * 5_000_000)
    np.testing.assert_array_equal(track.gyro_ns, every[(every >= span.start_ns) & (every < span.end_ns)])


@pytest.mark.parametrize("hz", [104.0, 198.625, 199.99, 201.923, 397.5])
@pytest.mark.parametrize("jitter_ms", [0.0, 0.5, 1.0])
def test_the_rate_is_measured(hz, jitter_ms):
    rng = np.random.default_rng(0)
    times = np.arange(30_000) / hz * 1e3 + rng.uniform(-jitter_ms, jitter_ms, 30_000)
    times = times[(times < 20_000) | (times > 23_000)]
    found = survey(table([line(f"{t:.4f}") for t in times]))
    assert found.gyro_rate_hz == pytest.approx(hz, rel=1e-4)


# -- Components and gaps -------------------------------------------------------------------------------


def joined(*parts):
    """Rows of ``(component, times in ms)``, whose gyro_x is the component's number and one."""
    return [line(ms, (c + 1.0, 0, 0), component=c) for c, times in parts for ms in times]


def every_5_ms(start, n):
    return [round(start + 5 * k, 1) for k in range(n)]


@pytest.mark.parametrize(
    ("parts", "own_ms", "overlap"),
    [
        ([(0, every_5_ms(0, 100))], [], ""),
        ([(0, every_5_ms(0, 100)), (1, every_5_ms(500, 50))], [(0, 0, 495), (1, 500, 745)], ""),
        (
            [(0, every_5_ms(0, 100)), (1, every_5_ms(400.3, 50))],
            [(0, 0, 495), (1, 495.000001, 645.3)],
            "0.095 s",
        ),
        (
            [(1, every_5_ms(400.3, 50)), (0, every_5_ms(0, 100))],
            [(0, 0, 495), (1, 495.000001, 645.3)],
            "0.095 s",
        ),
        ([(0, every_5_ms(0, 100)), (1, every_5_ms(100.3, 9))], [(0, 0, 495)], "0.040 s"),
        ([(0, [*every_5_ms(0, 100), 9e6]), (1, every_5_ms(500, 50))], [(0, 0, 495), (1, 500, 745)], ""),
    ],
)
@pytest.mark.parametrize("block", [700, 1 << 20])
def test_where_components_overlap_the_earlier_ones_rows_stand(monkeypatch, parts, own_ms, overlap, block):
    monkeypatch.setattr(imu_rows, "BLOCK_BYTES", block)
    data = table(joined(*parts))
    found = survey(data)
    assert [(c, s.start_ns / 1e6, (s.end_ns - 1) / 1e6) for c, s in found.components] == own_ms
    assert overlap in " ".join(found.notes)
    assert ("overlap" in " ".join(found.notes)) == bool(overlap)
    track = read(data)
    rows = {(ms, c) for c, times in parts for ms in times}
    held = {(ms, c) for ms, c in rows for other, a, e in own_ms if a <= ms <= e and other != c}
    assert list(zip(track.gyro_ns / 1e6, track.gyro[:, 0] - 1, strict=True)) == sorted(rows - held)
    assert track.joints_ns == tuple(s.start_ns for _, s in found.components)


def test_numbers_of_more_components_than_files_are_not_used():
    found = survey(table([line(5 * k, component=k) for k in range(1_200)]))
    assert (found.components, "components" in found.notes[0]) == ((), True)


def test_components_are_read_as_part_of_a_range():
    found = survey(table(joined((0, every_5_ms(0, 100)), (1, every_5_ms(480.3, 500)))))
    where = imu_range(found, TimeSpan(NS, 2 * NS))
    assert [c for c, _ in where.components] == [1]
    where = imu_range(found, TimeSpan(0, NS))
    assert [c for c, _ in where.components] == [0, 1]
    assert from_plain(ImuRange, to_plain(where)) == where


@pytest.mark.parametrize("number", ["", "x", "0.5", "nan"])
def test_rows_of_an_unknown_component_stand(number):
    rows = joined((0, every_5_ms(0, 100)), (1, every_5_ms(500, 100)))
    unknown = [number + row[1:] if k % 7 == 0 else row for k, row in enumerate(rows)]
    np.testing.assert_array_equal(read(table(unknown)).gyro, read(table(rows)).gyro)


@pytest.mark.parametrize("block", [700, 1 << 20])
def test_gaps_are_more_than_three_periods_apart(monkeypatch, block):
    monkeypatch.setattr(imu_rows, "BLOCK_BYTES", block)
    times = [t for t in every_5_ms(0, 1_000) if not (500 < t < 512 or 1_000 < t < 1_020 or 2_000 < t < 4_000)]
    found = survey(table([line(t) for t in times]))
    assert found.gaps == (TimeSpan(NS, NS + 20_000_000), TimeSpan(2 * NS, 4 * NS))


def test_the_longest_of_many_gaps_are_kept():
    times = [200 * k + 5 * j + (k > 70) * 300 for k in range(300) for j in range(10)]
    found = survey(table([line(t) for t in times]))
    assert len(found.gaps) == 100
    assert max(g.length_ns for g in found.gaps) == 455_000_000


# -- Size, order and place in the file -----------------------------------------------------------------

rows = st.lists(
    st.tuples(
        st.integers(-50, 400),
        st.sampled_from(["1.5", "2", "", "nan", "x"]),
        st.sampled_from(["9.5", "10", ""]),
    ),
    min_size=8,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(
    rows=rows,
    start=st.integers(-60, 410),
    length=st.integers(0, 300),
    block=st.sampled_from([120, 500, 1 << 20]),
)
def test_rows_equal_brute_force(rows, start, length, block):
    lines = [f"0,0,{ms * 5},{g},0,0,0,0,{a}" for ms, g, a in rows]
    data = table(lines)
    span = TimeSpan(start * 5_000_000, (start + length) * 5_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imu_rows, "BLOCK_BYTES", block)
        try:
            found = survey(data)
        except AlignError:
            return  # rows as few as these may have the spacing of no IMU
    if found.time_scale_ns != 1e6 or found.batch_ns:
        return
    track = read_imu(io.BytesIO(data), imu_range(found, span), ClockMap(), span, EGO4D)
    for times, values, column in ((track.gyro_ns, track.gyro[:, 0], 1), (track.accl_ns, track.accl[:, 2], 2)):
        expected = {}
        for row in rows:
            if start <= row[0] < start + length and row[column] not in ("", "nan", "x"):
                expected.setdefault(row[0] * 5_000_000, set()).add(float(row[column]))
        assert times.tolist() == sorted(expected)
        scale = found.accl_scale if column == 2 else found.gyro_scale
        assert values.tolist() == pytest.approx(
            [np.mean(list(expected[t])) * scale for t in sorted(expected)]
        )


def test_only_blocks_that_hold_the_span_are_read(monkeypatch):
    monkeypatch.setattr(imu_rows, "BLOCK_BYTES", 10_000)
    data = table(steady(20_000))
    found = survey(data)
    where = imu_range(found, TimeSpan(50 * NS, 51 * NS))
    assert len(found.blocks) > 50
    assert len(where.byte_ranges) == 1
    assert sum(b - a for a, b in where.byte_ranges) < 40_000
    assert imu_range(found, TimeSpan(500 * NS, 501 * NS)).byte_ranges == ()
    assert [b.start for b in found.blocks[1:]] == [b.end for b in found.blocks[:-1]]
    assert found.blocks[-1].end == len(data)


def test_a_table_without_end_is_surveyed_in_bounded_reads():
    class Endless(io.RawIOBase):
        """30 MB of rows, made as they are asked for."""

        def __init__(self):
            self.left, self.clock, self.pending = 30_000_000, 0, (HEADER + "\n").encode()

        def read(self, size=-1):
            assert 0 < size <= imu_rows.BLOCK_BYTES
            while len(self.pending) < size and self.left > 0:
                made = "".join(
                    f"0,0,{k * 5},.1,.2,.3,0,0,9.8\n" for k in range(self.clock, self.clock + 40_000)
                ).encode()
                self.clock, self.left, self.pending = (
                    self.clock + 40_000,
                    self.left - len(made),
                    self.pending + made,
                )
            out, self.pending = self.pending[:size], self.pending[size:]
            return out

    endless = Endless()
    found = survey_imu(endless, EGO4D)
    assert found.rows == endless.clock
    assert len(found.blocks) < 70
    assert found.gyro_rate_hz == 200.0


def test_a_table_of_a_hundred_million_rows_would_take_a_few_megabytes(monkeypatch):
    """Some 8 GB, so 8000 blocks: what is kept grows with their number alone, here of 2 kB instead of 1 MB."""
    monkeypatch.setattr(imu_rows, "BLOCK_BYTES", 2_000)
    survey(table(steady(2_000)))  # what is imported and cached at the first time stays out of it

    def kept(rows):
        data = table(steady(rows))
        tracemalloc.start()
        found = survey(data)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.rows == rows
        return len(found.blocks), held, peak

    (few, held_few, peak_few), (many, held_many, peak_many) = kept(2_000), kept(20_000)
    assert many > few + 300
    assert (held_many - held_few) / (many - few) < 1_000
    assert (peak_many - peak_few) / (many - few) < 2_000


def test_a_table_that_shrank_is_an_error():
    data = table(steady(100))
    where = imu_range(survey(data), FOREVER)
    with pytest.raises(AlignError) as error:
        read_imu(io.BytesIO(data[:500]), where, ClockMap(), FOREVER, EGO4D)
    assert error.value.code == "imu_changed"


def test_paths_go_through_the_opener(tmp_path):
    path = tmp_path / "imu.csv"
    path.write_bytes(table(NORMAL))
    opened = []

    def opener(uri):
        opened.append(uri)
        return open(uri, "rb")

    where = imu_range(survey_imu(str(path), EGO4D, opener=opener), FOREVER)
    assert len(read_imu(str(path), where, ClockMap(), FOREVER, EGO4D, opener=opener).gyro_ns) == 20
    assert opened == [str(path)] * 2
    assert survey_imu(path, EGO4D).rows == 20


@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=300), at=st.integers(0, 900))
def test_any_bytes_end_in_rows_or_a_reason(junk, at):
    data = table(NORMAL)
    for broken in (data[:at] + junk + data[at:], (HEADER + "\n").encode() + junk, junk):
        try:
            track = read(broken)
        except AlignError:
            continue
        assert np.isfinite(track.gyro).all()
        assert (np.diff(track.gyro_ns) > 0).all()


# -- Real tables ---------------------------------------------------------------------------------------


@here
@pytest.mark.parametrize(
    ("clip", "uid", "hz"),
    [
        ("karma", "3c8d5a26-d617-55aa-8147-3ea634376062", 397.5),
        ("hero7", "80187c7e-4c38-5b6c-8891-d6e23814f7c2", 199.0),
    ],
)
def test_ego4d_tables_hold_what_the_camera_recorded(clip, uid, hz):
    path = DATA / "ego4d" / "v2" / "imu" / f"{uid}.csv"
    found = survey_imu(path, EGO4D)
    assert (found.rejected, found.non_monotonic, found.missing, found.accl_scale) == ({}, 0, None, 1.0)
    assert found.gyro_rate_hz == pytest.approx(hz, rel=0.01)
    track = read_imu(path, imu_range(found, FOREVER), ClockMap(), FOREVER, EGO4D)
    native = np.genfromtxt(DATA / "gopro" / clip / "gyro.csv", delimiter=",", names=True)
    np.testing.assert_allclose(track.gyro_ns / 1e6, native["t_video_ms"], atol=1e-6)
    np.testing.assert_allclose(track.gyro, np.stack([native[a] for a in "xyz"], axis=1), rtol=1e-8)


@here
def test_a_phones_jittered_clock_has_its_rate():
    folder = DATA / "comma2k19"
    times, gyro, accl = (
        np.load(folder / f"{n}.npy") for n in ("gyro_t", "gyro_value", "accelerometer_value")
    )
    n = min(len(gyro), len(accl))
    columns = ImuColumns("t", ("gx", "gy", "gz"), ("ax", "ay", "az"), time_scale_ns=1e9)
    lines = [",".join(f"{v!r}" for v in map(float, (times[i], *gyro[i], *accl[i]))) for i in range(n)]
    track = read(table(lines, "t,gx,gy,gz,ax,ay,az"), columns=columns)
    assert track.gyro_rate_hz == pytest.approx((n - 1) / (times[n - 1] - times[0]), rel=0.01)
    assert track.gyro_rate_hz == pytest.approx(104, rel=0.02)
