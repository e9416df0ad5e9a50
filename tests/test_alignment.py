"""Alignment against brute force: decode everything, then pick; and the known defects of others, not ours.

The recordings are those of the proof (``benchmarks/proof``): pictures that show their number, sound and
motion whose value at any instant is known in closed form. All goes through planning and reading as in a run.
"""

import csv
import io
from bisect import bisect_right
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import plan_recording
from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
from align.schemas.media import AudioTrack, ImuTrack
from align.schemas.options import AlignOptions
from align.schemas.recording import Narration, Recording, Stream
from align.schemas.time import NS, TimeSpan
from align.transforms.align.audio import encode_flac, window_audio
from align.transforms.align.image import encode_jpeg, upright_picture
from align.transforms.align.imu import window_imu
from align.transforms.align.segment import align_segment
from benchmarks.proof.imu_rows import GRAVITY, Table, sparse_video
from benchmarks.proof.media import Recipe, write
from benchmarks.proof.truth import SOUND, Tones, number_in

FPS, RATE = Fraction(30_000, 1_001), 48_000
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-g", "24", "-bf", "3")
FINE = ("-movie_timescale", "240000", "-video_track_timescale", "30000")
AAC = ("-c:a", "aac", "-aac_pns", "0")  # with noise substitution, no two decoders agree
FLAC = ("-c:a", "flac", "-strict", "-2")
STEADY = tuple(Fraction(10 + i) / FPS for i in range(110))
UNEVEN = tuple(Fraction(int(t), 30_000) for t in np.cumsum(np.random.default_rng(1).integers(300, 3_000, 80)))
DROPPED = STEADY[:30] + STEADY[55:80] + STEADY[83:]


def recipe(name, frames, codecs, audio_start=0.0, **changes):
    start, end = round(audio_start * RATE), 4 * RATE
    return Recipe(
        name, changes.pop("suffix", ".mp4"), frames, frames[-1] + 1 / FPS, start, end, codecs, **changes
    )


RECIPES = {
    "AAC, a start each": recipe("aac", STEADY, (*X264, *AAC, *FINE), 1.2345),
    "gaps in FLAC": recipe("gaps", STEADY, (*X264, *FLAC, *FINE), lost=((1.0, 1.4), (2.5, 2.55))),
    "uneven frames": recipe("uneven", UNEVEN, (*X264, "-c:a", "pcm_s16le", *FINE), 0.1, suffix=".mov"),
    "dropped frames, fragmented": recipe(
        "dropped", DROPPED, (*X264, *FLAC, *FINE, "-movflags", "frag_keyframe+empty_moov+delay_moov")
    ),
}
TABLE = Table(199.3, ((0.0, 0.2, 40.0),), 0.002, gaps=((1.5, 1.7),), end_s=10)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Each recipe as a recording with an IMU; and its frames, sound and rows, read in the plainest way."""
    folder = tmp_path_factory.mktemp("alignment")
    table = folder / "imu.csv"
    TABLE.write(table)
    found = {}
    for title, made in RECIPES.items():
        path = write(made, folder).path
        recording = recording_of(path, table, TABLE)
        found[title] = (recording, all_frames(path), whole_sound(path), all_rows(table, TABLE))
    return found


def recording_of(video, table=None, clock=None, **changes):
    uri, name = str(video), video.name
    imu = Stream("imu", str(table), table.name, clock=clock.clock_map, columns=IMU_COLUMNS) if table else None
    return Recording(
        "proof",
        "one",
        "one",
        Stream("video", uri, name),
        audio=Stream("audio", uri, name),
        imu=imu,
        **changes,
    )


def aligned(recording, options, segment_s=300.0):
    """What a run would give: planned, cut into segments, read."""
    folder = recording.video.uri.rpartition("/")[0]
    config = RunConfig(source="proof", input=folder, sample=options, segment=segment_s, isolate=False)
    plan = plan_recording(recording, config)
    assert not [f for f in plan.faults if f.outcome == "failed"]
    return [s for segment in plan.segments for s in align_segment(segment, options, "0" * 64)]


def all_frames(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        return {round(f.pts * stream.time_base * NS): f for f in container.decode(stream)}


def whole_sound(path):
    """All of the sound on one time line from 0 on, block by block, each at its own time."""
    samples, filled = np.zeros(6 * RATE, np.float32), np.zeros(6 * RATE, bool)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            block = frame.to_ndarray().reshape(-1)
            if block.dtype.kind == "i":
                block = block / np.float32(-int(np.iinfo(block.dtype).min))
            at = round(frame.pts * frame.time_base * RATE)
            samples[max(at, 0) : at + len(block)] = block[max(-at, 0) :]
            filled[max(at, 0) : at + len(block)] = True
    return samples, filled


def all_rows(path, table):
    """Every row of a table on the recording clock, by its definition, row by row."""
    rows = []
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            own = Fraction(row["canonical_timestamp_ms"]) / 1_000
            start, offset, ppm = next(p for p in reversed(table.clock) if own >= p[0] or p is table.clock[0])
            time = own + Fraction(str(offset)) + (own - Fraction(str(start))) * Fraction(str(ppm)) / 1_000_000
            values = [float(row[f"{s}_{a}"]) for s in ("gyro", "accl") for a in "xyz"]
            rows.append((int(time * NS + Fraction(1, 2) // 1), *values))
    return np.array(rows)


# -- Brute force ---------------------------------------------------------------------------------------

SHAPES = st.fixed_dictionaries(
    {
        "window": st.integers(50_000_000, 1_500_000_000).map(lambda ns: ns / NS),
        "stride": st.integers(90_000_000, 900_000_000).map(lambda ns: ns / NS),
        "frames": st.integers(1, 5),
        "audio_rate": st.sampled_from([8_000, 16_000, 22_050, 48_000]),
        "imu_rate": st.sampled_from([50, 200, 400]),
    }
)


@pytest.mark.parametrize("title", RECIPES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, segment_s=st.sampled_from([1.0, 1.7, 300.0]))
def test_every_window_equals_decoding_everything_and_picking(recordings, title, shape, segment_s):
    recording, frames, (sound, filled), rows = recordings[title]
    options = AlignOptions(**shape, image_size=32, require=(), min_coverage=0.0)
    samples = aligned(recording, options, segment_s)
    times = sorted(frames)
    track = AudioTrack(RATE, Fraction(0), sound)
    for sample in samples:
        window = sample.window
        targets = [window.center_ns]
        if options.frames > 1:
            parts = (Fraction(2 * i + 1, 2 * options.frames) for i in range(options.frames))
            targets += [window.start_ns + int(window.length_ns * part + Fraction(1, 2)) for part in parts]
        got = [sample.image, *sample.frames]
        assert len(got) == len(targets)
        for image, target in zip(got, targets, strict=True):
            due = times[max(bisect_right(times, target) - 1, 0)]
            assert image.time_ns == due
            assert image.data == encode_jpeg(upright_picture(frames[due], due, size=32), options.jpeg_quality)
        assert_same_sound(sample, track, filled, options)
        assert_same_motion(sample, rows, options)


def assert_same_sound(sample, track, filled, options):
    window = sample.window
    first, end = (-(-t * RATE // NS) for t in (window.start_ns, window.end_ns))
    if not filled[first:end].any():
        assert sample.audio is None
        return
    expected = window_audio(replace(track, gaps=holes(filled, window)), window, options.audio_rate)
    assert sample.audio.data == encode_flac(expected.samples, options.audio_rate)
    assert sample.audio.gaps == expected.gaps
    assert sample.quality.audio_coverage == expected.coverage


def holes(filled, window):
    """Stretches around a window in which no sample was recorded."""
    low, high = max(window.start_ns - NS, 0) * RATE // NS, (window.end_ns + NS) * RATE // NS
    edges = np.flatnonzero(np.diff(np.concatenate(([True], filled[low:high], [True])).astype(int))) + low
    times = [(2 * int(n) * NS + RATE) // (2 * RATE) for n in edges]
    return tuple(TimeSpan(a, b) for a, b in zip(times[::2], times[1::2], strict=True))


def assert_same_motion(sample, rows, options):
    times, values = rows[:, 0].astype(np.int64), rows[:, 1:]
    rate = sample.quality.imu_rate_hz
    track = ImuTrack(times, values[:, :3], times, values[:, 3:], rate, rate)
    expected = window_imu(track, sample.window, options.imu_rate)
    if not expected.imu.mask.any():
        assert sample.imu is None
        return
    np.testing.assert_array_equal(sample.imu.mask, expected.imu.mask)
    # the clock map rounds to whole nanoseconds, as the reference does, but in other arithmetic
    np.testing.assert_allclose(sample.imu.values, expected.imu.values, atol=1e-5)
    assert sample.quality.imu_coverage == expected.coverage
    assert abs(sample.quality.imu_max_gap_ns - expected.max_gap_ns) <= 1


@pytest.mark.parametrize("title", ["gaps in FLAC", "uneven frames"])
def test_lossless_sound_on_the_sample_grid_comes_out_as_it_went_in(recordings, title):
    recording, _, (sound, filled), _ = recordings[title]
    options = AlignOptions(window=1, stride=1, audio_rate=RATE, require=(), min_coverage=0.0)
    recording = replace(recording, narrations=tuple(Narration(s * NS, "x") for s in (1, 2, 3)))
    for sample in aligned(recording, replace(options, anchor="narration")):
        pcm, _ = soundfile.read(io.BytesIO(sample.audio.data), dtype="int16")
        start = sample.window.start_ns * RATE // NS
        np.testing.assert_array_equal(pcm, (sound * 32_768)[start : start + RATE].astype(np.int16))
        truth = np.rint(SOUND.at(np.arange(start, start + RATE) / RATE) * 32_767)
        assert np.abs(pcm - truth)[filled[start : start + RATE]].max() <= 1


# -- Truth: what is paired belongs together, and the numbers that describe it are right ------------------


@pytest.mark.parametrize("title", RECIPES)
def test_picture_sound_and_motion_of_a_window_are_of_one_instant(recordings, title):
    """ImageBind samples clips of picture and of sound independently; here they are of the same window."""
    recording = recordings[title][0]
    times = [round(t * NS) for t in RECIPES[title].frames]
    options = AlignOptions(
        window=0.5,
        stride=(NS // 3) / NS,
        frames=4,
        image_size=32,
        jpeg_quality=95,
        require=(),
        min_coverage=0.5,
    )
    compared = 0
    for sample in aligned(recording, options):
        for image in (sample.image, *sample.frames):
            pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
            assert abs(times[number_in(pixels)] - image.time_ns) <= 1
            assert sample.window.start_ns - NS < image.time_ns < sample.window.end_ns
        seconds = sample.window.start_ns / NS + np.arange(8_000) / 16_000
        if sample.audio is not None and not sample.audio.gaps:
            pcm, _ = soundfile.read(io.BytesIO(sample.audio.data))
            assert abs(SOUND.delay_s(pcm, seconds)) < 1e-5
            compared += 1
        if sample.imu is not None:
            instants = sample.window.start_ns / NS + np.flatnonzero(sample.imu.mask) / 200
            turn = sample.imu.values[0][sample.imu.mask]
            sure = (instants < 1.45) | (instants > 1.75)  # at the ends of a run, rows lie on one side only
            np.testing.assert_allclose(turn[sure], TABLE.axes[0].at(instants)[sure], atol=1e-3)
    assert compared > 3


def test_quality_states_what_the_truth_is(recordings):
    recording, _, (_, filled), _ = recordings["gaps in FLAC"]
    made = RECIPES["gaps in FLAC"]
    options = AlignOptions(window=1, stride=0.25, require=(), min_coverage=0.0)
    frames_ns = [round(t * NS) for t in made.frames]
    for sample in aligned(recording, options):
        window, quality = sample.window, sample.quality
        due = frames_ns[bisect_right(frames_ns, window.center_ns) - 1]
        assert abs(quality.image_offset_ns - (due - window.center_ns)) <= 1
        assert -NS / FPS - 1 <= quality.image_offset_ns <= 0
        assert quality.imu_rate_hz == pytest.approx(199.3 / (1 + 40e-6), rel=2e-3)
        gap = TimeSpan(1_500_000_000, 1_700_000_000).cut_to(window)
        hole = gap.length_ns if gap else 0
        assert quality.imu_coverage == pytest.approx(1 - hole / NS, abs=0.015)  # two rows and their jitter
        if hole == 200_000_000:
            assert hole <= quality.imu_max_gap_ns <= hole + 20_000_000
        elif not hole:
            assert quality.imu_max_gap_ns < 12_000_000
        lost = sum(g.length_ns for g in sample.audio.gaps)
        assert quality.audio_coverage == pytest.approx(1 - lost / NS, abs=1e-12)
        first, end = (t * RATE // NS for t in (window.start_ns, window.end_ns))
        assert lost == pytest.approx((~filled[first:end]).sum() * NS / RATE, abs=NS / RATE)


# -- Known defects of imu2clip and ImageBind ---------------------------------------------------------------


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    """A function: an hour of picture with an IMU table as given, aligned at the given seconds."""
    folder = tmp_path_factory.mktemp("hour")
    video = sparse_video(folder / "hour.mp4", 3_660)

    def windows(table, *centres, edit=lambda text: text, **options):
        path = folder / f"imu-{len(list(folder.iterdir()))}.csv"
        table.write(path)
        path.write_text(edit(path.read_text()))
        narrations = tuple(Narration(round(c * NS), "x") for c in centres)
        given = AlignOptions(anchor="narration", image_size=32, require=(), **options)
        return aligned(recording_of(video, path, table, narrations=narrations), given)

    return windows


def motion_error_s(sample, table):
    instants = sample.window.start_ns / NS + np.flatnonzero(sample.imu.mask) / 200
    turn = sample.imu.values[0][sample.imu.mask].astype(np.float64)
    return abs(table.axes[0].delay_s(turn, instants))


def near(*centres):
    return tuple((c - 5.0, c + 5.0) for c in centres)


def test_a_rate_is_not_cut_to_a_whole_number(hour):
    """199.6 Hz read as ``int(1000 / mean(diff))`` = 199 Hz puts the end of an hour 10.8 s off."""
    table = Table(199.6, windows=near(5, 3_600), end_s=3_660)
    first, last = hour(table, 5, 3_600)
    for sample in (first, last):
        assert sample.quality.imu_rate_hz == pytest.approx(199.6, rel=1e-4)
        assert motion_error_s(sample, table) < 0.1 / 199.6


def test_what_follows_a_gap_is_not_shifted_by_it(hour):
    """Resampling as if rows were evenly spaced moves all that follows a gap by its length."""
    table = Table(200.0, gaps=((4.0, 7.0), (9.0, 9.5)), end_s=60)
    (sample,) = hour(table, 10, min_coverage=0.3)
    measured = sample.imu.mask
    seconds = 7.5 + np.arange(1_000) / 200
    inside = ((seconds > 7.01) & (seconds < 8.99)) | (seconds > 9.51)
    hole = (seconds > 9.0) & (seconds < 9.49)
    assert measured[inside].all()
    assert not measured[hole].any()
    assert motion_error_s(sample, table) < 0.1 / 200


def test_what_is_missing_is_never_zeros_that_pass_for_stillness(hour):
    """imu2clip fills missing channels, short windows and failed windows with zeros."""

    def without_accl(text):
        head, *lines = text.splitlines(keepends=True)
        cut = [
            x if not 20e3 <= float(x.split(",")[0]) < 21e3 else ",".join(x.split(",")[:4]) + ",,,\n"
            for x in lines
        ]
        return "".join([head, *cut])

    table = Table(200.0, end_s=60)
    whole, holed = hour(table, 10, 20, edit=without_accl, min_coverage=0.5)
    assert whole.imu.mask.all()
    seconds = 17.5 + np.arange(1_000) / 200
    np.testing.assert_array_equal(holed.imu.mask, (seconds < 20) | (seconds >= 21))
    assert not holed.imu.values[:, ~holed.imu.mask].any()
    assert (
        np.abs(
            holed.imu.values[5][holed.imu.mask] - GRAVITY - table.axes[5].at(seconds)[holed.imu.mask]
        ).max()
        < 1e-3
    )
    (null,) = hour(table, 20, edit=without_accl, min_coverage=0.9)
    assert null.imu is None
    assert null.missing["imu"] == "gap"
    assert null.quality.imu_coverage == pytest.approx(0.8, abs=1e-9)


@pytest.mark.parametrize("beyond", [0.1, 1.0, 3.9])
def test_no_window_borrows_rows_from_seconds_away(hour, beyond):
    """imu2clip takes a window whose nearest row is up to 4 s away."""
    table = Table(200.0, windows=((0.0, 25.0),), end_s=60)  # rows until 30 s
    (sample,) = hour(table, 30 + beyond + 2.5)
    assert sample.imu is None
    assert sample.missing["imu"] == "no_coverage"
    assert sample.quality.imu_coverage == 0.0


def test_windows_are_centred_on_the_instant_and_not_floored_to_seconds(hour):
    """imu2clip floors both ends to whole seconds and moves windows near the ends inwards."""
    table = Table(200.0, end_s=60)
    (sample,) = hour(table, 12.345678901)
    assert sample.window == TimeSpan(9_845_678_901, 14_845_678_901)
    assert motion_error_s(sample, table) < 0.1 / 200


def test_a_clock_map_of_the_table_is_honoured(hour):
    table = Table(201.923, ((0.0, 86.3, -500.0),), windows=near(90, 3_500), end_s=3_660)
    for sample in hour(table, 90, 3_500):
        assert motion_error_s(sample, table) < 0.1 / 201.923


# -- The proof's own instruments -----------------------------------------------------------------------


@pytest.mark.parametrize("late", [0.0, 1e-7, -3e-5, 2e-4, 0.021, -0.9, 2.4])
def test_the_proof_tells_how_late_a_sound_is(late):
    seconds = 7.0 + np.arange(16_000) / 16_000
    noise = np.random.default_rng(0).normal(0, 0.01, len(seconds))
    assert SOUND.delay_s(0.8 * SOUND.at(seconds - late) + noise, seconds) == pytest.approx(late, abs=1e-6)


@pytest.mark.parametrize("late", [0.0, 1e-4, -0.003, 0.4])
def test_the_proof_tells_how_late_a_motion_is(late):
    tones = Tones.drawn(0.5, 12, 12, 1.0, 10)
    seconds = 35_990 + np.arange(1_000) / 200
    assert tones.delay_s(tones.at(seconds - late), seconds) == pytest.approx(late, abs=1e-7)
