"""Synthetic recordings hold what their truth says, judged by independent readers."""

import csv
import json
import math
import subprocess
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from align.pipeline.cli.synth_command import synth
from align.schemas.errors import AlignError, UsageError
from align.schemas.time import NS, TimeSpan
from align.transforms.synth import clock, media, motion, scene, sensors, story
from align.transforms.synth.layout import recording_uid, synthesize
from align.transforms.synth.options import SynthOptions
from align.transforms.synth.truth import read_truth

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

CASES = {
    "h264, late first frame": {"video_start_s": 0.0210286},
    "h264, 29.97 fps, frames dropped, many B-frames": {
        "fps": Fraction(30000, 1001),
        "vfr": 0.2,
        "bframes": 4,
    },
    "vp9, video late, sound later": {"codec": "vp9", "video_start_s": 1.25, "audio_start_s": 1.5},
    "sound starts after a while, 44.1 kHz": {"audio_start_s": 0.3333, "audio_rate": 44_100, "gop": 250},
    "a gap in the sound": {"audio_gaps": ((1.0, 0.5),), "duration_s": 6.0},
}
IMU_CASES = {
    "a true clock": {},
    "an odd rate, jitter, offset and drift": {
        "imu_rate_hz": 198.625, "imu_jitter_ms": 2.0, "imu_offset_s": -1.7, "imu_drift_ppm": 200.0,
    },
    "a leap at a joint, other axes": {"joints_s": (2.0,), "imu_jumps_s": (0.3,), "imu_axes": "yZx"},
    "a gap": {"imu_gaps": ((1.0, 1.0),), "imu_offset_s": 0.25},
}  # fmt: skip


def ffmpeg(*arguments):
    return subprocess.run(
        [FFMPEG, "-v", "error", *map(str, arguments)], capture_output=True, check=True
    ).stdout


_DECODED = ("-fps_mode", "passthrough", "-enc_time_base", "-1")


def decoded_times(path, kind):
    """(presentation time in s, duration in ticks) of each decoded frame, as the ffmpeg command sees them."""
    text = ffmpeg("-copyts", "-i", path, "-map", f"0:{kind}", *_DECODED, "-f", "framecrc", "-")
    lines = text.decode().splitlines()
    base = Fraction(next(line for line in lines if line.startswith("#tb")).split(": ")[1])
    rows = [line.split(",") for line in lines if not line.startswith("#")]
    return [(int(r[2]) * base, int(r[3])) for r in rows]


def only(folder):
    truth = read_truth(folder)
    recording = truth.recordings[0]
    return truth, recording, folder / "v2" / "full_scale" / f"{recording.recording_id}.mp4"


def imu_table(folder, uid):
    with (folder / "v2" / "imu" / f"{uid}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(r[name]) for r in rows]) for name in rows[0]}


def written_ns(table):
    return np.array(
        [round(Fraction(repr(float(t))) * 10**6) for t in table["canonical_timestamp_ms"]], np.int64
    )


# -- Media ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_frames_stand_where_the_truth_says_and_flashes_are_in_the_frame_on_screen(synth_folder, case):
    truth, recording, path = only(synth_folder(**case))
    times = [math.floor(t * NS + Fraction(1, 2)) for t, _ in decoded_times(path, "v")]
    assert times == list(recording.frame_times_ns)
    options = truth.options
    raw = ffmpeg(
        "-i", path, "-map", "0:v", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "-"
    )
    frames = np.frombuffer(raw, np.uint8).reshape(-1, options.height, options.width)
    white = {times[k] for k in np.flatnonzero(frames.mean(axis=(1, 2)) > 200)}
    on_screen = {max(t for t in times if t <= e.time_ns) for e in recording.events}
    assert white == on_screen == {e.frame_ns for e in recording.events}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_clicks_are_centred_within_a_sample_of_the_truth(synth_folder, case):
    truth, recording, path = only(synth_folder(**case))
    rate = truth.options.audio_rate
    samples = np.frombuffer(ffmpeg("-i", path, "-map", "0:a", "-f", "f32le", "-"), np.float32)
    blocks = decoded_times(path, "a")
    first = blocks[0][0]
    place = np.concatenate([float(t - first) * rate + np.arange(n) for t, n in blocks])
    place = place[: len(samples)]
    heard = [e for e in recording.events if e.sound]
    assert heard
    for event in heard:
        at = (event.time_ns / NS - float(first)) * rate
        near = np.abs(place - at) < 0.04 * rate
        spectrum = np.fft.rfft(samples[: len(place)][near])
        frequency = np.fft.rfftfreq(int(near.sum()), 1 / rate)
        spectrum[(frequency < 2200) | (frequency > 5800)] = 0
        wave = np.fft.irfft(spectrum, int(near.sum()))
        weight = np.where(np.abs(place[near] - at) < 0.002 * rate, wave**2, 0)
        assert abs(float((weight * (place[near] - at)).sum() / weight.sum())) < 0.5


def test_a_gap_in_the_sound_is_no_packets_at_all_and_covers_what_was_asked(synth_folder):
    _, recording, path = only(synth_folder(**CASES["a gap in the sound"]))
    (gap,) = recording.audio_gaps
    assert gap.covers(TimeSpan(NS, 3 * NS // 2))
    assert gap.length_ns < 0.5 * NS + 3 * 1024 / 48_000 * NS
    with av.open(str(path)) as container:
        starts = [f.pts * f.time_base for f in container.decode(audio=0)]
    assert not any(gap.start_ns + 1000 < t * NS < gap.end_ns - 1000 for t in starts)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (((0.0, 0.5),), (0, 512_000_000)),
        (((3.5, 9.0),), (3_498_666_667, 4_000_000_000)),
        (((0.0, 9.0),), (21_333_333, 4_000_000_000)),
    ],
    ids=["at the start", "at the end", "all but the first packet"],
)
def test_gaps_at_the_ends_of_the_sound_are_stated_too(synth_folder, asked, expected):
    truth = read_truth(synth_folder(audio_gaps=asked))
    assert [(g.start_ns, g.end_ns) for g in truth.recordings[0].audio_gaps] == [expected]
    silent = TimeSpan(*expected)
    assert not any(e.sound for e in truth.recordings[0].events if silent.holds(e.time_ns))


def test_the_metadata_matches_what_pyav_reads(synth_folder):
    for case in CASES.values():
        folder = synth_folder(**case)
        _, recording, path = only(folder)
        (video,) = json.loads((folder / "v2" / "ego4d.json").read_text())["videos"]
        said = video["video_metadata"]
        with av.open(str(path)) as container:
            for kind in ("video", "audio"):
                stream = next(s for s in container.streams if s.type == kind)
                base = Fraction(said[f"{kind}_base_numerator"], said[f"{kind}_base_denominator"])
                assert base == stream.time_base
                assert said[f"{kind}_start_pts"] == stream.start_time
                assert said[f"{kind}_duration_pts"] == stream.duration
                assert said[f"{kind}_start_sec"] == float(stream.start_time * base)
            stream = container.streams.video[0]
            assert said["num_frames"] == stream.frames == len(recording.frame_times_ns)
            assert said["mp4_duration_sec"] == container.duration / av.time_base
            assert said["video_codec"] == stream.codec_context.name.removeprefix("libvpx-")
            assert (said["display_resolution_width"], said["display_resolution_height"]) == (160, 96)
        assert video["video_uid"] == path.stem
        assert video["duration_sec"] == recording.end_ns / NS


def test_the_codecs_and_the_gop_are_as_asked(synth_folder):
    _, _, path = only(synth_folder(codec="vp9", gop=15))
    with av.open(str(path)) as container:
        keys = [
            k for k, p in enumerate(p for p in container.demux(video=0) if p.pts is not None) if p.is_keyframe
        ]
        assert container.streams.video[0].codec_context.codec.canonical_name == "vp9"
    assert max(np.diff(keys)) <= 15


def test_redacted_picture_is_black_and_hides_flashes(synth_folder):
    folder = synth_folder(duration_s=6.0, redacted=((0.0, 6.0),), video_start_s=0.0)
    _, recording, path = only(folder)
    raw = ffmpeg("-i", path, "-map", "0:v", "-f", "rawvideo", "-pix_fmt", "gray", "-")
    assert np.frombuffer(raw, np.uint8).max() < 24
    assert all(e.frame_ns is None for e in recording.events)
    (video,) = json.loads((folder / "v2" / "ego4d.json").read_text())["videos"]
    assert video["has_redacted_regions"]
    assert video["redacted_intervals"] == [{"start_sec": 0, "end_sec": 6, "start_frame": 0, "end_frame": 180}]


def test_equal_options_give_equal_bytes_and_another_seed_others(tmp_path, synth_folder):
    options = {"no_narration": (1,), "count": 2, "vfr": 0.1, "gyro_noise": 0.01, "duration_s": 2.0}
    first = synth_folder(**options)
    again, other = tmp_path / "again", tmp_path / "other"
    synthesize(again, SynthOptions(width=160, height=96, **options))
    synthesize(other, SynthOptions(width=160, height=96, seed=1, **options))

    def files(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert files(first) == files(again)
    assert not set(files(first).values()) & set(files(other).values())


def test_a_failing_encoder_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(media.imageio_ffmpeg, "get_ffmpeg_exe", lambda: "false")
    with pytest.raises(AlignError, match="ffmpeg could not encode") as caught:
        synthesize(tmp_path / "x", SynthOptions(count=1, duration_s=2.0, width=64, height=48))
    assert caught.value.code == "encode_failed"
    assert list((tmp_path / "x").iterdir()) == []


# -- IMU --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", IMU_CASES.values(), ids=IMU_CASES)
def test_taps_are_centred_well_within_a_row_of_the_truth(synth_folder, case):
    truth, recording, _ = only(synth_folder(duration_s=12.0, fps=Fraction(5), **case))
    table = imu_table(synth_folder(duration_s=12.0, fps=Fraction(5), **case), recording.recording_id)
    times = recording.imu_clock.to_recording(written_ns(table))
    axes = truth.options.imu_axes
    column = "xyz"[axes.upper().index("Z")]
    forward = table[f"accl_{column}"] * (1 if "Z" in axes else -1)
    felt = [e for e in recording.events if e.imu]
    assert felt
    for event in felt:
        near = np.abs(times - event.time_ns) < 0.1 * NS
        since, values = (times[near] - event.time_ns) / NS, forward[near]
        quiet = np.abs(since) > 4 * sensors.TAP_SIGMA_S
        pulse = values - np.polyval(np.polyfit(since[quiet], values[quiet], 2), since)
        weight = np.gradient(since) * np.where(quiet, 0, pulse)
        assert abs((weight * since).sum() / weight.sum()) < 1e-3
        assert pulse.max() == pytest.approx(sensors.TAP_PEAK, rel=0.2)


@pytest.mark.parametrize("case", IMU_CASES.values(), ids=IMU_CASES)
def test_rows_are_the_closed_form_at_the_instants_that_the_clock_map_gives(synth_folder, case):
    folder = synth_folder(duration_s=12.0, fps=Fraction(5), **case)
    truth, recording, _ = only(folder)
    table = imu_table(folder, recording.recording_id)
    times = recording.imu_clock.to_recording(written_ns(table))
    told = story.tell(truth.options, 0)
    expected = motion.move(truth.options, 0, told).angular_velocity(times / NS)
    for k, axis in enumerate(truth.options.imu_axes):
        sign = 1 if axis.isupper() else -1
        wanted = sign * expected[:, "XYZ".index(axis.upper())]
        np.testing.assert_allclose(table[f"gyro_{'xyz'[k]}"], wanted, atol=1e-9)
    assert np.all(np.diff(times) > 0)
    assert times[0] <= recording.frame_times_ns[0]
    assert times[-1] >= recording.end_ns - NS // 100
    assert not any(g.holds(int(t)) for g in recording.imu_gaps for t in times)
    assert len(times) == recording.imu_rows


def test_components_restart_their_own_clock_at_each_joint(synth_folder):
    folder = synth_folder(duration_s=12.0, fps=Fraction(5), **IMU_CASES["a leap at a joint, other axes"])
    _, recording, _ = only(folder)
    table = imu_table(folder, recording.recording_id)
    second = table["component_idx"] == 1
    assert 0 <= table["component_timestamp_ms"][second][0] < 10
    assert table["canonical_timestamp_ms"][second][0] - table["canonical_timestamp_ms"][~second][-1] > 300
    (video,) = json.loads((folder / "v2" / "ego4d.json").read_text())["videos"]
    starts = [c["canonical_video_start_sec"] for c in video["video_components"]]
    ends = [c["canonical_video_end_sec"] for c in video["video_components"]]
    assert (starts, ends) == ([0, 2], [2, 12])


@given(
    rate=st.floats(20, 1000),
    jitter=st.floats(0, 0.49),
    offset=st.floats(-5, 5),
    drift=st.floats(-500, 500),
    leaps=st.lists(st.floats(0, 2), max_size=3),
)
@example(rate=24.953125, jitter=0.375, offset=0.0, drift=0.0, leaps=[0.78125, 0.1640625, 0.828125])
@settings(max_examples=60, deadline=None)
def test_the_clock_map_leads_from_written_to_true_times(rate, jitter, offset, drift, leaps):
    options = SynthOptions(
        duration_s=10, imu_rate_hz=rate, imu_jitter_ms=jitter * 1000 / rate, imu_offset_s=offset,
        imu_drift_ppm=drift, joints_s=tuple(2.0 + 2 * k for k in range(len(leaps))), imu_jumps_s=tuple(leaps),
    )  # fmt: skip
    rows = clock.imu_rows(options, 0, 0, 10 * NS)
    np.testing.assert_array_equal(clock.imu_clock(options).to_recording(rows.written_ns), rows.true_ns)
    assert np.all(np.diff(rows.true_ns) > 0)
    assert np.all(np.diff(rows.written_ns) > 0)
    # Nothing is lost but at the leaps. On either side of one, the last row kept and the first one lost may
    # each be off their places by the jitter: a period and twice the jitter.
    assert np.diff(rows.true_ns).max() < (2.0 + 4 * jitter + 0.001) * NS / rate + 2
    assert list(np.unique(rows.component)) == list(range(len(leaps) + 1))


def test_at_rest_the_accelerometer_reads_gravity_upwards():
    options = SynthOptions(motion="static", duration_s=1)
    told = story.tell(options, 0)
    times = np.array([0], np.int64)
    values = sensors.inertial(times, options, 0, told, motion.move(options, 0, told))
    np.testing.assert_allclose(values, [[0, 0, 0, 0, -sensors.GRAVITY, 0]], atol=1e-12)


def test_gravity_turns_with_the_camera():
    options = SynthOptions(motion="pan", duration_s=4)
    told = story.tell(options, 0)
    camera = motion.move(options, 0, told)
    times = np.arange(0, 4 * NS, NS // 100)
    times = times[np.abs(times - told.events_ns[0]) > NS // 10]
    force = sensors.inertial(times, options, 0, told, camera)[:, 3:]
    world = np.einsum("nij,nj->ni", camera.orientation(times / NS), force)
    np.testing.assert_allclose(world, np.tile([0, -sensors.GRAVITY, 0], (len(times), 1)), atol=1e-9)


# -- Motion and picture -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["walking", "pan", "static"])
def test_the_gyro_integrates_to_the_differences_of_orientation(kind):
    options = SynthOptions(motion=kind, duration_s=5, seed=3)
    camera = motion.move(options, 1, story.tell(options, 1))
    step = 1 / 2000
    starts = np.arange(0, 5, step)
    turns = Rotation.from_rotvec(camera.angular_velocity(starts + step / 2) * step)
    turned = Rotation.identity()
    for turn in turns:
        turned = turned * turn
    first, last = Rotation.from_matrix(camera.orientation(np.array([0.0, 5.0])))
    assert (turned.inv() * (first.inv() * last)).magnitude() < 1e-5


@pytest.mark.parametrize("sigma", [0.2, 1.0])
def test_a_steadied_path_lacks_of_each_swing_what_a_gaussian_takes(sigma):
    options = SynthOptions(motion="pan", duration_s=30)
    camera = motion.move(options, 0, story.tell(options, 0))
    seconds = np.arange(0, 30, 0.1)
    angles = [
        sum(
            a * math.exp(-((2 * math.pi * f * sigma) ** 2) / 2) * np.sin(2 * math.pi * f * seconds + p)
            for a, f, p in sines
        )
        for sines in camera.sines
    ]
    expected = Rotation.from_euler("YXZ", np.stack(angles, axis=1)).as_matrix()
    inner = slice(60, -60)  # the path ends with the picture, where a Gaussian has nothing to go on
    np.testing.assert_allclose(camera.steadied(seconds, sigma)[inner], expected[inner], atol=1e-3)


def test_a_pan_turns_at_20_degrees_per_second_rms():
    options = SynthOptions(motion="pan", duration_s=600)
    rates = motion.move(options, 0, story.tell(options, 0)).angular_velocity(np.arange(0, 600, 0.1))
    assert math.degrees(math.sqrt((rates**2).sum(axis=1).mean())) == pytest.approx(20, rel=0.05)


def test_the_picture_turns_as_the_orientation_says():
    options = SynthOptions(width=320, height=192, motion="walking", seed=5)
    world = scene.build(options, 0)
    camera = motion.move(options, 0, story.tell(options, 0))
    before, after = camera.orientation(np.array([3.0, 3.2]))
    luma = [world.render(r, 0.5, 1.0, 0.0)[:192].astype(float) for r in (before, after)]
    # Where each pixel of the first picture is seen in the second, by the pinhole model alone.
    across, down = np.meshgrid(np.arange(60, 260), np.arange(40, 150))
    rays = np.linalg.inv(world.camera) @ np.stack([across, down, np.ones_like(across)]).reshape(3, -1)
    seen = world.camera @ after.T @ before @ rays
    x, y = seen[:2] / seen[2]
    shift = np.hypot(x - across.ravel(), y - down.ravel()).mean()
    assert shift > 2
    whole_x, whole_y = np.floor(x).astype(int), np.floor(y).astype(int)
    part_x, part_y = x - whole_x, y - whole_y
    found = sum(
        weight * luma[1][whole_y + j, whole_x + i]
        for i, j, weight in (
            (0, 0, (1 - part_x) * (1 - part_y)), (1, 0, part_x * (1 - part_y)),
            (0, 1, (1 - part_x) * part_y), (1, 1, part_x * part_y),
        )
    )  # fmt: skip
    here = luma[0][40:150, 60:260].ravel()
    unmoved = luma[1][40:150, 60:260].ravel()
    assert np.corrcoef(here, found)[0, 1] > 0.97
    assert np.corrcoef(here, unmoved)[0, 1] < 0.6


def test_the_picture_has_no_cracks_wherever_the_camera_looks():
    world = scene.build(SynthOptions(width=160, height=96), 0)
    for yaw in np.arange(0, 360, 15):
        turn = Rotation.from_euler("YXZ", [yaw, 12, 8], degrees=True).as_matrix()
        assert world.render(turn, 0.5, 0.5, 0.0)[:96].min() > scene.BLACK


def test_something_moves_on_its_own_when_asked():
    worlds = [scene.build(SynthOptions(width=160, height=96, foreground=f), 0) for f in (False, True)]
    still = np.eye(3)
    frames = [[w.render(still, 0.5, 0.5, t)[:96].astype(int) for t in (0.0, 1.0)] for w in worlds]
    assert np.array_equal(*frames[0])
    assert 0.02 < np.mean(np.abs(frames[1][0] - frames[1][1]) > 8) < 0.5


# -- The link between the modalities ----------------------------------------------------------------------


def test_pitch_tint_and_steps_follow_the_same_latents():
    options = SynthOptions(duration_s=60, seed=2)
    told = story.tell(options, 0)
    camera, voice, world = motion.move(options, 0, told), sensors.voice(told), scene.build(options, 0)
    moments = np.arange(1.0, 59.0, 1.7)
    for t in moments:
        hue, pace = float(told.hue(t)), float(told.pace(t))
        assert 0 <= hue <= 1
        assert 0 <= pace <= 1
        _, blue, red = (
            int(v) for v in (0, *world.render(np.eye(3), hue, pace, t)[360:].reshape(2, -1)[:, 0])
        )
        tint = math.degrees(math.atan2(red - 128, blue - 128)) % 360
        assert abs((tint - (70 + 324 * hue) + 180) % 360 - 180) < 2
        pitch = (voice.pitch(t + 1e-4) - voice.pitch(t - 1e-4)) / (2 * math.pi * 2e-4)
        assert pitch == pytest.approx(220 + 660 * hue, abs=1)
        steps = (camera.phase(t + 1e-4) - camera.phase(t - 1e-4)) / (2 * math.pi * 2e-4)
        assert steps == pytest.approx(0.8 + 1.6 * pace, abs=0.01)


def test_narrations_name_the_activity_under_way(synth_dataset):
    truth = read_truth(synth_dataset)
    table = json.loads((synth_dataset / "v2" / "annotations" / "narration.json").read_text())
    for recording in truth.recordings[:3]:
        said = table[recording.recording_id]["narration_pass_1"]["narrations"]
        times = [round(n["timestamp_sec"] * NS) for n in said]
        assert [(t, n["narration_text"]) for t, n in zip(times, said, strict=True)] == list(
            recording.narrations
        )
        for t, sentence in recording.narrations:
            (now,) = [a for a in recording.activities if a["start_ns"] <= t < a["end_ns"]]
            assert now["name"] in sentence or t in {e.time_ns for e in recording.events}
    assert truth.recordings[3].recording_id not in table


def test_missing_streams_are_missing_everywhere(synth_dataset):
    truth = read_truth(synth_dataset)
    videos = json.loads((synth_dataset / "v2" / "ego4d.json").read_text())["videos"]
    assert [v["video_uid"] for v in videos] == [r.recording_id for r in truth.recordings]
    silent, still = videos[1], videos[2]
    assert silent["video_metadata"]["audio_start_sec"] is None
    assert silent["video_metadata"]["audio_base_denominator"] is None
    with av.open(str(synth_dataset / "v2" / "full_scale" / f"{silent['video_uid']}.mp4")) as container:
        assert not container.streams.audio
    assert not any(e.sound for e in truth.recordings[1].events)
    assert (still["has_imu"], still["imu_s3_path"]) == (False, None)
    assert not (synth_dataset / "v2" / "imu" / f"{still['video_uid']}.csv").exists()
    assert still["video_uid"] not in (synth_dataset / "v2" / "imu" / "manifest.csv").read_text()
    assert not any(e.imu for e in truth.recordings[2].events)


# -- Options, truth and the command -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"count": 0}, "--count"), ({"duration_s": 0.0}, "--duration"),
        ({"duration_s": math.nan}, "--duration"), ({"fps": Fraction(0)}, "--fps"),
        ({"width": 641}, "--size"), ({"codec": "mjpeg"}, "--codec"),
        ({"gop": 0}, "--gop"), ({"vfr": 1.0}, "--vfr"), ({"video_start_s": -1.0}, "--video-start"),
        ({"audio_start_s": 30.0}, "--audio-start"), ({"audio_rate": 8000}, "--audio-rate"),
        ({"imu_rate_hz": 1.0}, "--imu-rate"), ({"imu_jitter_ms": 3.0}, "--imu-jitter"),
        ({"imu_axes": "XXZ"}, "--imu-axes"), ({"joints_s": (25.0,)}, "--joint"),
        ({"imu_jumps_s": (0.3,)}, "--imu-jump"), ({"joints_s": (5.0,), "imu_jumps_s": (-0.3,)}, "--imu-jump"),
        ({"imu_gaps": ((1.0, 0.0),)}, "gap"), ({"redacted": ((2.0, 1.0),)}, "--redact"),
        ({"motion": "flying"}, "--motion"), ({"no_imu": (3,)}, "numbered 0 to 2"),
        ({"fps": Fraction("59.9401")}, "--fps"), ({"imu_gaps": ((math.nan, 1.0),)}, "finite"),
        ({"seed": -1}, "--seed"), ({"gyro_noise": -1.0}, "noise"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant_are_refused_by_name(change, word):
    with pytest.raises(UsageError, match=word):
        SynthOptions(**change)


def test_the_truth_survives_its_file(tmp_path):
    options = SynthOptions(
        count=1, duration_s=3.0, width=64, height=48, fps=Fraction(30000, 1001), joints_s=(1.0,),
        imu_jumps_s=(0.2,), audio_gaps=((1.0, 0.2),), imu_gaps=((0.5, 0.1),), redacted=((2.0, 2.5),),
    )  # fmt: skip
    told = []
    truth = synthesize(tmp_path / "a", options, progress=lambda done, total: told.append((done, total)))
    again = read_truth(tmp_path / "a")
    assert json.dumps(again.options.as_dict()) == json.dumps(truth.options.as_dict())
    assert again.options == options
    assert again.recordings[0].imu_clock == truth.recordings[0].imu_clock
    assert again.recordings[0].events == truth.recordings[0].events
    assert again.recordings[0].recording_id == recording_uid(options, 0)
    assert told == [(k + 1, 89) for k in range(89)]


def test_the_command_writes_and_says_what_to_type_next(tmp_path):
    folder = tmp_path / "demo"
    arguments = [str(folder), "--count", "1", "--duration", "2", "--size", "64x48", "--fps", "30000/1001"]
    first = CliRunner().invoke(synth, [*arguments, "--imu-gap", "0.5:0.25", "--no-audio", "0"])
    assert first.exit_code == 0, first.output
    assert f"align run --source ego4d --input {folder} --output" in first.output
    assert read_truth(folder).options.imu_gaps == ((0.5, 0.25),)
    again = CliRunner().invoke(synth, arguments)
    assert isinstance(again.exception, UsageError)
    assert "--force" in str(again.exception)
    assert CliRunner().invoke(synth, [*arguments, "--force"]).exit_code == 0
    assert read_truth(folder).options.imu_gaps == ()


def test_the_command_never_deletes_what_it_did_not_write(tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    (tmp_path / "v2").mkdir()
    caught = CliRunner().invoke(synth, [str(tmp_path), "--force"])
    assert isinstance(caught.exception, UsageError)
    (tmp_path / "truth.json").write_text('{"format": "align-synth"}')
    caught = CliRunner().invoke(synth, [str(tmp_path), "--force"])
    assert isinstance(caught.exception, UsageError)
    assert {p.name for p in tmp_path.iterdir()} == {"diary.txt", "v2", "truth.json"}


@pytest.mark.parametrize(
    "arguments", [["--size", "640"], ["--fps", "x"], ["--imu-gap", "3"], ["--codec", "av1"], ["--bogus"]]
)
def test_the_command_refuses_what_it_cannot_read(tmp_path, arguments):
    assert CliRunner().invoke(synth, [str(tmp_path / "x"), *arguments]).exit_code == 2
    assert not (tmp_path / "x").exists()
