"""What metadata promises against what files hold: pure rules, and a run on such files."""

import io
import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

import align
from align.pipeline.job.promises import promise_notes, table_notes
from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
from align.schemas.media import AudioInfo, MediaInfo, VideoInfo
from align.schemas.recording import Narration, Recording, Stream
from align.schemas.time import NS, TimeSpan
from align.transforms.tables.table import survey_imu

SHARED = Path(__file__).parents[2] / "shared" / "data"


def notes(held_s, promised, narrations=(), audio_s=0.0, file_s=0.0):
    span = TimeSpan(0, round(held_s * NS))
    video = VideoInfo(0, "h264", 64, 64, Fraction(1, 90_000), span, NS // 30)
    audio = AudioInfo(1, "aac", 48_000, 1, Fraction(1, 48_000), TimeSpan(0, round(audio_s * NS)))
    media = MediaInfo("mp4", video, audio, end_ns=round(file_s * NS))
    recording = Recording(
        "s", "r", "r", Stream("video", "r.mp4", "r.mp4"),
        narrations=tuple(Narration(round(t * NS), "x") for t in narrations),
        promised={what: round(s * NS) for what, s in promised.items()},
    )  # fmt: skip
    return [(f.code, f.detail) for f in promise_notes(recording, media)]


@pytest.mark.parametrize(
    ("held_s", "promised", "more", "codes"),
    [
        (4.0, {"duration_sec": 8.0}, {}, ["shorter_than_metadata"]),
        (4.0, {"duration_sec": 4.0, "num_frames": 8.0}, {}, ["shorter_than_metadata"]),
        (4.0, {"video_components": 8.0}, {}, ["shorter_than_metadata"]),
        (59.0, {"video_duration": 60.0}, {}, ["shorter_than_metadata"]),
        (8.0, {"video_duration": 4.0}, {}, ["longer_than_metadata"]),
        (8.0, {"video_duration": 8.1, "num_frames": 7.97}, {}, []),  # three frames
        (3600.0, {"num_frames": 3603.6, "video_duration": 3600.0}, {}, []),  # 30 said of 29.97 fps
        (13.0, {"duration_sec": 16.57, "video_duration": 13.0}, {"file_s": 16.57}, []),  # subtitles
        (13.0, {"duration_sec": 14.0}, {"audio_s": 14.0}, []),
        (4.0, {}, {}, []),
    ],
)  # fmt: skip
def test_lengths_are_compared_within_a_few_frames(held_s, promised, more, codes):
    assert [code for code, _ in notes(held_s, promised, **more)] == codes


def test_both_amounts_and_the_fields_are_named():
    ((_, detail),) = notes(4.0, {"duration_sec": 8.0, "num_frames": 8.0})
    assert all(part in detail for part in ("4.000 s", "8.000 s", "duration_sec", "num_frames"))


def test_narrations_beyond_the_measured_end_are_counted():
    assert notes(4.0, {}, [1.0, 4.0, 4.05]) == []
    ((code, detail),) = notes(4.0, {}, [1.0, 5.0, 7.5])
    assert (code, detail[:18], "7.500 s" in detail) == ("narrations_beyond_end", "2 narrations lie a", True)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared recordings are not here")
def test_a_file_shorter_than_its_metadata_is_noted_in_a_run(tmp_path):
    given, root = SHARED / "awkward/metadata_longer_than_file", tmp_path / "in/v2"
    for source, target in (("ego4d.json", "ego4d.json"), ("narration.json", "annotations/narration.json")):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(given / source, root / target)
    uid = json.loads((root / "ego4d.json").read_text())["videos"][0]["video_uid"]
    (root / "full_scale").mkdir()
    shutil.copyfile(given / "4s.mp4", root / f"full_scale/{uid}.mp4")
    options = align.AlignOptions(window=2, stride=2)
    paths = {"input": str(root.parent), "output": str(tmp_path / "out")}
    align.run(align.RunConfig(source="ego4d", **paths, sample=options, isolate=False))
    told = [json.loads(line) for line in (tmp_path / "out/failures.jsonl").read_text().splitlines()]
    assert {f["code"]: f["outcome"] for f in told} == {
        "shorter_than_metadata": "noted", "narrations_beyond_end": "noted",
    }  # fmt: skip


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared recordings are not here")
def test_real_recordings_gain_no_such_note():
    from align.pipeline.job.planning import list_recordings, plan_recording

    config = align.RunConfig(source="ego4d", input=str(SHARED / "ego4d"), output="unused", isolate=False)
    found = [r for r in list_recordings(config) if isinstance(r, Recording)]
    assert len(found) == 3
    assert all(r.promised for r in found)
    codes = {f.code for r in found for f in plan_recording(r, config).faults}
    assert codes.isdisjoint({"shorter_than_metadata", "longer_than_metadata", "narrations_beyond_end"})


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])  # ms, s and µs since 1970
def test_a_table_with_times_since_1970_says_where_they_lie(scale):
    times = [(1_600_000_000_000 + 5 * k) * scale for k in range(2_000)]
    lines = ["canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"]
    survey = survey_imu(
        io.BytesIO("\n".join([*lines, *(f"{t!r},0,0,0,0,0,9.8" for t in times), ""]).encode()),
        IMU_COLUMNS,
    )
    imu = Stream("imu", "r.csv", "r.csv")
    recording = Recording("s", "r", "r", Stream("video", "r.mp4", "r.mp4"), imu=imu)
    video = VideoInfo(0, "h264", 64, 64, Fraction(1, 90_000), TimeSpan(0, 60 * NS), NS // 30)
    (fault,) = table_notes(recording, survey, video)
    assert (fault.code, fault.outcome) == ("imu_elsewhere", "noted")
    assert all(part in fault.detail for part in ("1600000000.000 s", "2020-09-13", "60.000 s"))
    late = replace(video, span=TimeSpan(survey.span.start_ns, survey.span.end_ns))
    assert list(table_notes(recording, survey, late)) == []
