"""Concurrent recordings from end to end: five cameras of one event, three of which heard it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import align
from align.pipeline.cli.sync_command import sync
from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings
from align.pipeline.sync.run import SyncConfig, run_sync, sync_set
from align.pipeline.sync.sound import ConcurrentSet, concurrent_sets, measure_set
from align.schemas.errors import AlignError
from align.schemas.recording import Concurrent, Recording, Stream
from align.schemas.time import NS, ClockMap, ClockPiece, TimeSpan
from align.transforms.sync.clocks import ClockRow, read_clocks, shared_clock, with_clock, write_clocks
from align.transforms.sync.gcc_phat import Sound
from align.transforms.sync.report import page, set_section
from align.transforms.sync.sound import Listener, MeasuredSound, measure_sound
from align.transforms.sync.verdict import SyncOptions
from align.transforms.synth.event import event_clock, scene
from align.transforms.synth.options import SynthOptions
from align.transforms.synth.truth import read_truth

EVENT = {
    "count": 5,
    "duration_s": 36.0,
    "width": 64,
    "height": 48,
    "fps": 5,
    "motion": "static",
    "no_imu": (0, 1, 2, 3, 4),
    "event_offsets_s": (0.0, 3.217, -2.4, 0.6, 1.0),
    "event_drifts_ppm": (0.0, 80.0, -100.0, 0.0, 0.0),
    "event_snr_db": 0.0,
}

ALONE = {"count": 1, "no_imu": (0,), "event_offsets_s": (0.0,), "event_drifts_ppm": ()}


def with_sound(video: Path, *source: str) -> None:
    """Give a video another sound; the picture is copied."""
    draft = video.with_suffix(".new.mp4")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(video), *source]
    command += ["-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", "-shortest", str(draft)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    draft.replace(video)


@pytest.fixture(scope="module")
def event(synth_folder, tmp_path_factory):
    """The folder, and its truth: the two recordings whose ids come first are foreign and silent."""
    made = synth_folder(**EVENT)
    folder = tmp_path_factory.mktemp("event") / "in"
    shutil.copytree(made, folder)
    truth = sorted(read_truth(folder).recordings, key=lambda r: r.recording_id)
    foreign, silent = (folder / "v2/full_scale" / f"{r.recording_id}.mp4" for r in truth[:2])
    other = synth_folder(**{**EVENT, "seed": 1, **ALONE})
    (video,) = (other / "v2/full_scale").glob("*.mp4")
    with_sound(foreign, "-i", str(video))
    with_sound(silent, "-f", "lavfi", "-i", "anullsrc=r=48000:cl=mono")
    return folder, truth


@pytest.fixture(scope="module")
def synced(event):
    folder, _ = event
    out = folder.parent
    arguments = ["--source", "ego4d", "--input", str(folder), "--output", str(out / "clocks.parquet")]
    ran = CliRunner().invoke(sync, [*arguments, "--report", str(out / "sync.html")])
    assert ran.exit_code == 0, ran.output
    return out, {r.recording_id: r for r in read_clocks(out / "clocks.parquet") if r.stream == "audio"}


def test_those_who_heard_the_event_share_a_clock_to_a_tenth_of_a_millisecond(event, synced):
    _, truth = event
    out, rows = synced
    reference, *others = truth[2:]
    assert reference.recording_id not in rows
    table = align.read_clocks(out / "clocks.parquet")
    for own in others:
        row = rows[own.recording_id]
        assert row.status == "corrected"  # the metadata states whole seconds
        assert row.reference == reference.recording_id
        shared = align.shared_clock(table, own.recording_id)
        for t in np.linspace(0, 36 * NS, 12).astype(np.int64):
            error = shared.clock.at(int(t)) - reference.event_clock.to_stream(own.event_clock.at(int(t)))
            assert abs(error) < 100_000
            assert abs(error) < 3 * shared.sigma_ns
    assert align.shared_clock(table, reference.recording_id).clock.is_identity


def test_a_foreign_sound_and_silence_are_not_verified(event, synced):
    _, truth = event
    _, rows = synced
    foreign, silent = (rows[r.recording_id] for r in truth[:2])
    assert foreign.status == "refuted"
    assert foreign.offset_ns is None
    assert truth[2].recording_id in foreign.reason
    assert (silent.status, silent.reason) == ("unobservable", "the recording is silent")
    with pytest.raises(AlignError, match="silent"):
        shared_clock(rows.values(), silent.recording_id)


def test_the_page_shows_each_set_with_its_offsets(synced, event):
    out, _ = synced
    _, truth = event
    text = (out / "sync.html").read_text(encoding="utf-8")
    section = text[text.index('<section id="set-1">') :]
    assert f"the clock of {truth[2].recording_id}" in section
    assert section.count("<svg") == 3  # none of silence


def test_names_on_the_page_are_escaped():
    row = ClockRow("<i>", "audio", 0, NS, "refuted", None, None, None, 0, 0, "<b>&", "<u>")
    text = page([set_section("<s>", "<u>", [MeasuredSound((row,))])], [row])
    assert not [tag for tag in ("<i>", "<b>", "<u>", "<s>") if tag in text]


def test_a_run_takes_no_clock_of_sounds_for_that_of_an_imu(synced, event, align_run):
    out, rows = synced
    folder, truth = event
    uid = truth[3].recording_id
    assert rows[uid].offset_ns
    written = align_run(folder, clocks=str(out / "clocks.parquet"), recordings=(uid,))
    for file in written.glob("data/*.parquet"):
        for sample in pq.read_table(file).to_pylist():
            assert sample["quality"]["sync_status"] is None
    imu = Stream("imu", "r.csv", "r.csv")
    recording = Recording("test", uid, "g", Stream("video", "r.mp4", "r.mp4"), imu=imu)
    assert with_clock(recording, rows.values()) == recording


def test_a_broken_file_costs_only_its_own_recording(event, tmp_path):
    folder, truth = event
    shutil.copytree(folder, tmp_path / "in")
    heard = [r.recording_id for r in truth[2:]]
    broken = tmp_path / "in/v2/full_scale" / f"{heard[0]}.mp4"
    broken.write_bytes(broken.read_bytes()[:5000])
    run = RunConfig(source="ego4d", input=str(tmp_path / "in"), recordings=tuple(heard))
    result = run_sync(SyncConfig(run, str(tmp_path / "c.parquet")))
    rows = {r.recording_id: r for r in result.rows if r.stream == "audio"}
    assert [uid for uid, _ in result.failures] == heard[:1]
    assert "cannot be read" in rows[heard[0]].reason
    assert rows[heard[2]].status == "corrected"
    assert rows[heard[2]].reference == heard[1]


def test_a_decoder_that_crashes_costs_only_what_it_decodes(event, monkeypatch, tmp_path):
    folder, truth = event
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr("align.pipeline.process.isolation.COMMAND", (sys.executable, "-c", crash))
    run = RunConfig(source="ego4d", input=str(folder))
    (item,) = concurrent_sets(r for r in list_recordings(run) if isinstance(r, Recording))
    found = measure_set(item, SyncOptions(), run)
    assert len(found.failures) == len(truth)
    assert {one.rows[0].status for one in found.found} == {"unobservable"}
    assert "crashed" in found.found[0].rows[0].reason or "does not start" in found.found[0].rows[0].reason


def test_what_is_heard_is_the_same_in_a_child_process_and_without(event):
    folder, truth = event
    chosen = tuple(r.recording_id for r in truth[3:])
    run = RunConfig(source="ego4d", input=str(folder), recordings=chosen)
    (item,) = concurrent_sets(r for r in list_recordings(run) if isinstance(r, Recording))
    found = [measure_set(item, SyncOptions(), run.but(isolate=i)) for i in (True, False)]
    assert [one.rows for one in found[0].found] == [one.rows for one in found[1].found]


def test_a_recording_that_is_listed_alone_has_nobody_to_share_a_clock_with(event, tmp_path):
    folder, truth = event
    uid = truth[2].recording_id
    run = RunConfig(source="ego4d", input=str(folder), recordings=(uid,))
    (row,) = (r for r in run_sync(SyncConfig(run, str(tmp_path / "c.parquet"))).rows if r.stream == "audio")
    assert row.status == "unobservable"
    assert "no other recording of set 1" in row.reason


def test_a_set_that_was_compared_is_not_compared_again(event, tmp_path):
    folder, truth = event
    run = RunConfig(
        source="ego4d", input=str(folder), recordings=(truth[1].recording_id,), resume=True, isolate=False
    )
    config = SyncConfig(run, str(tmp_path / "c.parquet"))
    config.parts.mkdir()
    (item,) = concurrent_sets(r for r in list_recordings(run) if isinstance(r, Recording))
    sync_set(item, config)
    (part,) = config.parts.iterdir()
    kept = json.loads(part.read_text())
    kept["rows"][0]["reason"] = "from the first run"
    part.write_text(json.dumps(kept))
    assert "from the first run" in {r.reason for r in run_sync(config).rows}


# -- Sets ----------------------------------------------------------------------------------------------


def member(uid, seconds, set_id="1", offset_ns=0):
    span = TimeSpan(0, seconds * NS)
    place = set_id and Concurrent(set_id, offset_ns)
    return Recording("test", uid, "g", Stream("video", "v", "v"), span=span, concurrent=place or None)


def test_the_longest_of_a_set_is_asked_for_its_clock_first_whatever_the_order():
    members = [member("b", 9), member("a", 9), member("c", 20), member("x", 5, "2"), member("y", 5, "")]
    for order in (members, members[::-1]):
        sets = concurrent_sets(order)
        assert {s.set_id: [m.recording_id for m in s.members] for s in sets} == {
            "1": ["c", "a", "b"],
            "2": ["x"],
        }


def test_recordings_without_sound_are_told_in_their_own_words():
    deaf = replace(member("a", 9), absent={"audio": "the metadata gives none"})
    run = RunConfig(source="test", input=".")
    found = measure_set(ConcurrentSet("1", (deaf, member("b", 9))), SyncOptions(), run)
    assert [one.rows[0].reason for one in found.found] == [
        "the metadata gives none",
        "the recording has no sound",
    ]
    assert not found.failures


# -- Long recordings, joints, clocks ---------------------------------------------------------------------


class Ear:
    """Hears a synthetic event without a file, and counts what it was asked for."""

    def __init__(self, options, index, leap_at=None, leap_s=0.0):
        self.heard_s, self._scene = 0.0, scene(options, index)
        self._leap_at, self._leap_ns = leap_at, round(leap_s * NS)

    def __call__(self, spans, rate):
        for span in spans:
            self.heard_s += span.length_ns / NS
            count = span.length_ns * rate // NS
            times = span.start_ns + (np.arange(count) * (NS / rate)).astype(np.int64)
            late = times >= self._leap_at if self._leap_at is not None else np.zeros(count, bool)
            yield Sound(rate, span.start_ns / NS, self._scene.at(times + late * self._leap_ns))


def pair(seconds, drift_ppm, offset_s, **leap):
    options = SynthOptions(
        count=2,
        duration_s=seconds,
        audio_rate=16_000,
        event_offsets_s=(0.0, offset_s),
        event_drifts_ppm=(0.0, drift_ppm),
        event_snr_db=6.0,
    )
    span, joints = TimeSpan(0, round(seconds * NS)), tuple(v for k, v in leap.items() if k == "leap_at")
    ears = Ear(options, 0), Ear(options, 1, **leap)
    reference = Listener("reference", span, (), ears[0])
    return Listener("own", span, joints, ears[1]), reference, event_clock(options, 1), ears


def test_of_a_long_recording_pieces_are_measured_and_only_windows_heard(monkeypatch):
    monkeypatch.setattr("align.transforms.sync.sound._PIECE_NS", 100 * NS)
    monkeypatch.setattr("align.transforms.sync.sound_match._MOST_WINDOWS", 8)
    own, reference, clock, ears = pair(180, 90.0, 2.2)
    found = measure_sound(own, reference, 2 * NS, SyncOptions(reach_s=1.0))
    assert [r.status for r in found.rows] == ["corrected"] * 2
    shared = shared_clock(found.rows, "own").clock
    for row in found.rows:
        assert abs(row.drift_ppm - 90.0) < 1
    for t in (0, 85 * NS, 95 * NS, 179 * NS):
        assert abs(shared.at(t) - clock.at(t)) < 100_000
    coarse_s, fine_s = 4 + 4 + 2 * 1.0, 4 + 4
    assert sum(ear.heard_s for ear in ears) < 2 * 8 * (coarse_s + fine_s + 0.1)


def test_a_leap_at_a_joint_gives_each_side_its_own_clock():
    own, reference, clock, _ = pair(48, 20.0, 0.7, leap_at=24 * NS, leap_s=0.3)
    found = measure_sound(own, reference, 0, SyncOptions(reach_s=2.0))
    assert [(r.start_ns, r.status) for r in found.rows] == [(0, "corrected"), (24 * NS, "corrected")]
    shared = shared_clock(found.rows, "own").clock
    assert abs(shared.at(10 * NS) - clock.at(10 * NS)) < 100_000
    assert abs(shared.at(40 * NS) - clock.at(40 * NS) - 3 * NS // 10) < 100_000


def test_an_offset_that_the_metadata_states_the_other_way_round_is_found_and_corrected():
    own, reference, *_ = pair(30, 0.0, 40.0)
    reference = replace(reference, span=TimeSpan(30 * NS, 90 * NS))
    (row,) = measure_sound(own, reference, -40 * NS, SyncOptions(reach_s=2.0)).rows
    assert row.status == "corrected"
    assert abs(row.offset_ns - 40 * NS) < 100_000


def test_an_offset_as_stated_is_verified():
    own, reference, _, _ = pair(24, 0.0, 3.0)
    assert measure_sound(own, reference, 3 * NS, SyncOptions(reach_s=1.0)).rows[0].status == "verified"


def test_recordings_that_do_not_overlap_are_unobservable():
    own, reference, _, ears = pair(24, 0.0, 3.0)
    found = measure_sound(own, reference, 100 * NS, SyncOptions())
    assert [(r.status, r.windows) for r in found.rows] == [("unobservable", 0)]
    assert "do not overlap" in found.rows[0].reason
    assert ears[0].heard_s == 0


def audio_row(uid, start_ns, offset_ns, drift_ppm, reference="z"):
    end_ns = start_ns + 10 * NS
    return ClockRow(uid, "audio", start_ns, end_ns, "verified", offset_ns, drift_ppm, 9, 5, 5, "", reference)


instants = st.integers(-(10**13), 10**13)


@given(
    pieces=st.lists(
        st.tuples(instants, st.integers(-(10**10), 10**10), st.floats(-500, 500)), min_size=1, max_size=4
    ),
    time_ns=instants,
)
def test_the_shared_clock_is_what_the_rows_say(pieces, time_ns):
    pieces = sorted({start: (start, offset, drift) for start, offset, drift in pieces}.values())
    rows = [audio_row("a", *piece) for piece in pieces]
    shared = shared_clock(
        [*rows, audio_row("b", 0, 5, 0.0), replace(rows[0], stream="imu", status="refuted")], "a"
    )
    held = [piece for piece in pieces if piece[0] <= time_ns]
    start, offset, drift = held[-1] if held else pieces[0]
    assert shared.reference == "z"
    assert abs(shared.clock.at(time_ns) - (time_ns + offset + drift * 1e-6 * (time_ns - start))) < 2


def test_a_clock_that_was_not_proven_is_refused():
    unknown = replace(audio_row("a", 0, 0, 0.0), status="refuted", offset_ns=None)
    for rows, uid, told in (([unknown], "a", "refuted"), ([], "a", "no other recording")):
        with pytest.raises(AlignError, match=told) as error:
            shared_clock(rows, uid)
        assert error.value.code == "no_shared_clock"


def test_a_table_from_before_sounds_were_compared_can_be_read(tmp_path):
    rows = [replace(audio_row("a", 0, 5, 1.0), stream="imu", reference=None)]
    write_clocks(tmp_path / "c.parquet", rows)
    table = pq.read_table(tmp_path / "c.parquet").drop_columns(["reference"])
    pq.write_table(table, tmp_path / "old.parquet")
    assert read_clocks(tmp_path / "old.parquet") == tuple(rows)


def test_the_truth_states_the_clock_of_the_event(event):
    folder, _ = event
    clocks = [r.event_clock for r in read_truth(folder).recordings]
    assert clocks[1] == ClockMap((ClockPiece(0, 3_217_000_000, 80.0),))
    (told,) = json.loads((folder / "v2/ego4d.json").read_text())["concurrent_video_sets"]
    assert [v["video_start_offset_sec"] for v in told["videos"]] == [0.0, 3.0, -2.0, 1.0, 1.0]
