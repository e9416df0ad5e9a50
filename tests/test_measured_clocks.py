"""From ``align sync`` to ``align run --clocks``: taps come out where they were, foreign motion does not."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import align
from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.sync.run import SyncConfig, run_sync
from align.schemas.errors import UsageError
from align.schemas.media import MediaInfo, VideoInfo
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS, ClockMap, ClockPiece, TimeSpan
from align.schemas.wire import from_plain, to_plain
from align.transforms.plan.segments import plan_segments
from align.transforms.plan.windows import plan_windows
from align.transforms.sync.clocks import ClockRow, with_clock, write_clocks
from align.transforms.synth import sensors
from align.transforms.synth.truth import read_truth

WINDOW_NS = 4 * NS
OPTIONS = {"window": WINDOW_NS / NS, "stride": WINDOW_NS / NS}


@pytest.fixture(scope="module")
def recordings(synth_folder, tmp_path_factory):
    """The first has a clock that is 0.4 s off and drifts; the second has the first one's IMU table."""
    made = synth_folder(
        count=2, duration_s=30.0, width=320, height=180, imu_offset_s=0.4, imu_drift_ppm=150.0
    )
    folder = tmp_path_factory.mktemp("sync") / "in"
    shutil.copytree(made, folder)
    own, other = (r.recording_id for r in read_truth(made).recordings)
    shutil.copy(folder / "v2/imu" / f"{own}.csv", folder / "v2/imu" / f"{other}.csv")
    return folder


@pytest.fixture(scope="module")
def clocks(recordings):
    path = recordings.parent / "clocks.parquet"
    run_sync(SyncConfig(RunConfig(source="ego4d", input=str(recordings), workers=1), str(path)))
    return str(path)


@pytest.fixture(scope="module")
def synced(recordings, clocks, align_run):
    return align_run(recordings, options=OPTIONS, clocks=clocks)


def rows_of(out):
    return [row for file in sorted(out.glob("data/*.parquet")) for row in pq.read_table(file).to_pylist()]


def tap_errors(rows, taps_ns):
    """How far the taps of some windows stand from where they should, samples."""
    errors = []
    for row in rows:
        forward = np.array(row["imu"][5])
        rate = len(forward) * NS / WINDOW_NS
        for tap in (t for t in taps_ns if row["start_ns"] + NS // 10 < t < row["end_ns"] - NS // 10):
            late = np.arange(len(forward)) / rate - (tap - row["start_ns"]) / NS
            near = np.abs(late) < 0.1
            quiet = near & (np.abs(late) > 4 * sensors.TAP_SIGMA_S)
            pulse = forward - np.polyval(np.polyfit(late[quiet], forward[quiet], 2), late)
            weight = np.where(near & ~quiet, pulse, 0)
            errors.append(float((weight * late).sum() / weight.sum() * rate))
    return np.array(errors)


def test_taps_land_within_a_sample_with_the_measured_clock_and_only_with_it(recordings, synced, align_run):
    truth = read_truth(recordings).recordings[0]
    taps = [e.time_ns for e in truth.events if e.imu]
    rows = [r for r in rows_of(synced) if r["recording_id"] == truth.recording_id]
    errors = tap_errors([r for r in rows if r["imu"]], taps)
    assert len(errors) >= 3
    assert np.abs(errors).max() < 1
    left = rows_of(align_run(recordings, options=OPTIONS, recordings=(truth.recording_id,)))
    written = [truth.imu_clock.to_stream(t) for t in taps]  # where the file's own times put them
    assert np.abs(tap_errors([r for r in left if r["imu"]], written)).max() < 1
    assert min(abs(w - t) for w, t in zip(written, taps, strict=True)) > 0.3 * NS


def test_samples_say_what_is_known_of_the_clock_at_their_centre(recordings, synced):
    truth = read_truth(recordings).recordings[0]
    rows = [r for r in rows_of(synced) if r["recording_id"] == truth.recording_id]
    assert {r["quality"]["sync_status"] for r in rows} == {"corrected"}
    for row in rows:
        centre = (row["start_ns"] + row["end_ns"]) // 2
        added = centre - truth.imu_clock.to_stream(centre)
        error = abs(row["quality"]["sync_offset_ns"] - added)
        assert error < 1_000_000
        assert error < 4 * row["quality"]["sync_sigma_ns"]
        assert row["provenance"]["imu_clock"]


def test_the_imu_of_another_recording_is_null_with_the_reason(recordings, synced):
    foreign = read_truth(recordings).recordings[1].recording_id
    rows = [r for r in rows_of(synced) if r["recording_id"] == foreign]
    assert rows
    for row in rows:
        assert row["imu"] is None
        assert dict(row["missing"])["imu"] == "sync_refuted"
        assert row["quality"]["sync_status"] == "refuted"
        assert row["quality"]["sync_offset_ns"] is None


def test_refuted_windows_may_be_dropped_and_are_counted(recordings, clocks, synced, align_run):
    out = align_run(recordings, options={**OPTIONS, "unsynced": "drop"}, clocks=clocks)
    foreign = read_truth(recordings).recordings[1].recording_id
    lost = sum(r["recording_id"] == foreign for r in rows_of(synced))
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert counts["windows_skipped"] == {"sync_refuted": lost}
    assert foreign not in {r["recording_id"] for r in rows_of(out)}


def test_refuted_imu_may_be_kept(recordings, clocks, align_run):
    foreign = read_truth(recordings).recordings[1].recording_id
    options = {**OPTIONS, "unsynced": "keep"}
    out = align_run(recordings, options=options, clocks=clocks, recordings=(foreign,), isolate=False)
    kept = [r["quality"]["sync_status"] for r in rows_of(out) if r["imu"] is not None]
    assert set(kept) == {"refuted"}


def test_a_resumed_run_must_have_the_same_clocks(recordings, clocks, synced, tmp_path):
    def again(path):
        config = RunConfig(
            source="ego4d",
            input=str(recordings),
            output=str(synced),
            sample=AlignOptions(**OPTIONS),
            workers=1,
            resume=True,
            clocks=path,
        )
        return align.run(config)

    same = shutil.copy(clocks, tmp_path / "copy.parquet")
    assert again(str(same)).already
    table = pq.read_table(clocks)
    pq.write_table(table.slice(0, 1), tmp_path / "other.parquet")
    for path in (str(tmp_path / "other.parquet"), ""):
        with pytest.raises(UsageError, match="changed: clocks"):
            again(path)


def test_clocks_that_are_no_table_are_refused_before_any_work(recordings, tmp_path):
    def planned(path):
        return align.plan(RunConfig(source="ego4d", input=str(recordings), clocks=str(path)))

    with pytest.raises(UsageError, match=r"clocks .*No such file"):
        planned(tmp_path / "none.parquet")
    (tmp_path / "text").write_text("no table")
    with pytest.raises(UsageError, match="no table of clocks"):
        planned(tmp_path / "text")
    pq.write_table(pa.table({"recording_id": ["a"]}), tmp_path / "lacking.parquet")
    with pytest.raises(UsageError, match="lacks stream"):
        planned(tmp_path / "lacking.parquet")
    with pytest.raises(UsageError, match="unsynced"):
        AlignOptions(unsynced="zero")


def row(start_s, status="corrected", offset_ns=None, stream="imu", drift=0.0, recording_id="r"):
    known = offset_ns is not None
    start, end = start_s * NS, (start_s + 20) * NS
    figures = (offset_ns, drift, 100_000) if known else (None, None, None)
    return ClockRow(recording_id, stream, start, end, status, *figures, 5, 5, "so")


def recording(**changes):
    return Recording(
        "test",
        "r",
        "g",
        Stream("video", "r.mp4", "r.mp4"),
        imu=Stream("imu", "r.csv", "r.csv", clock=ClockMap((ClockPiece(0, 7),))),
        **changes,
    )


def test_pieces_of_a_clock_reach_the_windows_that_they_hold():
    rows = [row(0, offset_ns=NS // 2, drift=100.0), row(20, "refuted"), row(40, offset_ns=-NS // 5)]
    known = with_clock(recording(), rows)
    assert known.imu.clock.at(10 * NS) == 10 * NS + NS // 2 + 7 + 1_000_000
    assert known.imu.clock.at(30 * NS) == 30 * NS + 7
    assert known.imu_sync_at(-NS).status == "corrected"
    assert known.imu_sync_at(10 * NS).offset_at(10 * NS) == NS // 2 + 949_905
    assert known.imu_sync_at(30 * NS).status == "refuted"
    assert with_clock(recording(), []) == recording()
    options = AlignOptions(unsynced="drop")
    plan = plan_windows(known, TimeSpan(0, 60 * NS), (), options)
    assert [s // NS for s, *_ in plan.skipped] == [20, 25, 30, 35]
    video = VideoInfo(0, "h264", 64, 48, Fraction(1, 1000), TimeSpan(0, 60 * NS), NS // 30)
    (first, *_, last) = plan_segments(known, MediaInfo("mp4", video, None), plan, options, segment_s=5)
    assert [p.status for p in first.recording.imu_sync] == ["corrected"]
    assert [p.offset_ns for p in last.recording.imu_sync] == [-NS // 5]
    assert from_plain(Segment, json.loads(json.dumps(to_plain(first)))) == first


def test_a_recording_that_the_table_does_not_name_is_noted(recordings, tmp_path):
    write_clocks(tmp_path / "c.parquet", [row(0, offset_ns=0, recording_id="another")])
    config = RunConfig(source="ego4d", input=str(recordings), clocks=str(tmp_path / "c.parquet"))
    item = next(iter(list_recordings(config)))
    planned = plan_recording(item, config)
    assert [f.detail for f in planned.faults if f.code == "no_clock"] == [
        "the table of clocks does not name it"
    ]
    assert planned.segments[0].recording.imu_sync == ()
