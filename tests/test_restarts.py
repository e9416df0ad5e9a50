"""A clock that begins again in a file: what stands behind it is never shown, never passed over in silence.

Files are joined of parts with numbered frames and a sound of the part's own, so that each window says by its
picture and its sound what it holds.
"""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import plan_recording
from align.schemas.errors import AlignError, Fault
from align.schemas.options import AlignOptions
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS
from align.transforms.align.segment import align_segment
from align.transforms.check.inspect import inspect_media
from align.transforms.read import probe, restarts
from align.transforms.read.joined import file_starts
from align.transforms.read.probe import probe_media
from align.transforms.read.timeline import Timeline, longest_jump_ns, tolerance_ns
from benchmarks.proof.numbered import CONTAINERS, FPS, Part, heard_part, write_parts
from benchmarks.proof.odd_media import numbered
from benchmarks.proof.truth import number_in

OPTIONS = AlignOptions(window=0.5, stride=0.5, image_size=32, jpeg_quality=95, require=(), min_coverage=0.05)
FIRST, SECOND = Part(0, 96, 0), Part(200, 72, 5)
STARTING_ANYWHERE = [name for name, c in CONTAINERS.items() if c.starts_anywhere]
WRAP_S = Fraction(1 << 33, 90_000)


# -- The rule ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "ends_at"),
    [
        ([0, 1, 2, 3, 4, 5, 6], None),
        ([0, 3, 1, 2, 6, 4, 5, 9, 7, 8], None),  # reordered
        ([0, 8, 4, 2, 1, 3, 6, 5, 7, 16, 12, 10, 9, 11, 14, 13, 15], None),  # in three layers
        ([0, 10, 20, 30, 40, 50, 0, 10, 20], 6),
        ([0, 10, 20, 30, 0, 40, 50], None),  # one damaged time
        ([0, 10, 20, 90, 30, 40, 50], None),
        ([0, 10, 20, 90, 95, 30, 40, 50], None),
        ([0, 10, 20, 30, 1000, 1010, 1020], None),
        ([0, 10, 20, 30, 40, 0, 10, 50, 60, 0, 10, 20], 9),
        ([50, 0, 1, 2, 3], None),  # the first time is damaged
        ([0, 1], None),
        ([], None),
    ],
)
def test_a_timeline_ends_where_three_times_in_a_row_have_stepped_back(times, ends_at):
    timeline, found = Timeline(tolerance=5), None
    for place, time in enumerate(times):
        if timeline.ends_before(time):
            found = place - timeline.behind + 1
            break
    assert found == ends_at


def test_a_clock_that_wraps_may_not_jump_by_half_of_its_range():
    half = longest_jump_ns("mpegts")
    assert half == (1 << 32) * NS // 90_000
    assert longest_jump_ns("matroska,webm") is None
    ahead = Timeline(tolerance_ns(), half)
    assert [ahead.ends_before(t) for t in (0, 1, 2, half, half + 1, half + 2)] == [False] * 6
    beyond = Timeline(tolerance_ns(), half)
    assert [beyond.ends_before(2 * half + t if t > 2 else t) for t in range(6)] == [False] * 5 + [True]


@pytest.mark.parametrize("name", [n for n in CONTAINERS if not n.startswith("MPEG")])
def test_a_further_file_is_found_by_its_header(tmp_path, name):
    container = CONTAINERS[name]
    one = write_parts([Part(0, 30)], container, tmp_path / "one").read_bytes()
    path = tmp_path / "three"
    path.write_bytes(one * 3)
    media = probe_media(str(path))
    with path.open("rb") as file:
        assert file_starts(file, path.stat().st_size, media.format) == (len(one), 2 * len(one))
        assert file_starts(file, len(one), media.format) == ()


def test_decoding_times_may_step_back_by_less_than_those_that_are_reordered():
    for tolerance, ends in ((None, [False] * 6), (5, [False] * 5 + [True])):
        timeline = Timeline(tolerance=20)
        assert [timeline.ends_before(t, tolerance) for t in (0, 10, 20, -8, -7, -6)] == ends


# -- Windows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "codec", "fps"), [("mkv", "libx264", 10), ("mkv", "mpeg4", 5), ("ts", "libx264", 25)]
)
def test_slow_pictures_without_sound_do_not_hide_a_step_back(tmp_path, suffix, codec, fps):
    starts = {0: 0, 1000: 5.6}
    pieces = [
        numbered(tmp_path / f"{n}.{suffix}", range(n, n + 6 * fps), "-c:v", codec, "-bf", "2",
                 "-output_ts_offset", str(start), fps=fps, sound=False).read_bytes()
        for n, start in starts.items()
    ]  # fmt: skip
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(b"".join(pieces))
    plan, items = read(path)
    (note,) = notes(plan)
    assert "6.000 s in" in note.detail
    assert len(items) == 12
    assert all(number_in(cv2.imdecode(np.frombuffer(i.image.data, np.uint8), 1)) < 1000 for i in items)


def test_a_loss_is_told_by_the_stream_that_shows_it(tmp_path):
    """Sound ends the timeline; the pictures alone, few a second, would not prove a step by 0.3 s."""
    pieces = [
        numbered(tmp_path / f"{n}.ts", range(n, n + 40), "-c:v", "libx264", "-c:a", "aac",
                 "-output_ts_offset", str(start), fps=8).read_bytes()
        for n, start in {0: 0, 1000: 4.7}.items()
    ]  # fmt: skip
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(pieces))
    assert probe_media(str(path)).restart.lost_ns == pytest.approx(5 * NS, abs=0.1 * NS)


def read(path, options=OPTIONS, segment_s=1e4):
    """A file's plan and what comes of its windows."""
    stream = Stream("video", str(path), path.name)
    recording = Recording("joined", "x", "x", stream, audio=Stream("audio", str(path), path.name))
    config = RunConfig(
        source="joined", input=str(path.parent), output="", sample=options, segment=segment_s, isolate=False
    )
    plan = plan_recording(recording, config)
    items = [i for s in plan.segments for i in align_segment(s, options, "0" * 64)]
    assert plan.windows == len(items) + sum(f.windows for f in plan.faults)
    return plan, items


def notes(plan):
    return [f for f in plan.faults if f.code == "clock_restarted"]


def judged(items, parts):
    """Seconds at which each part's first frame stands by the windows, by part; mixed windows are refused."""
    found = {}
    for item in items:
        if isinstance(item, Fault) or item.image is None:
            continue
        number = number_in(cv2.imdecode(np.frombuffer(item.image.data, np.uint8), cv2.IMREAD_COLOR))
        place = next(n for n, p in enumerate(parts) if p.first <= number < p.first + p.frames)
        at = item.image.time_ns / NS - (number - parts[place].first) / FPS
        assert at == pytest.approx(found.setdefault(place, at), abs=2e-3)
        shown_s = (number - parts[place].first) / FPS
        inside = 0.1 < shown_s < parts[place].seconds - 0.1 and item.quality.image_offset_ns > -2 * NS / FPS
        if item.audio is not None and inside and item.quality.audio_coverage > 0.999:
            pcm, rate = soundfile.read(io.BytesIO(item.audio.data))
            assert heard_part(pcm, rate, [p.seed for p in parts]) == parts[place].seed
    return found


def check_second_is_lost(path, container, second=SECOND):
    plan, items = read(path)
    assert judged(items, [FIRST, second]).keys() == {0}
    assert len(items) == FIRST.frames // (FPS // 2)
    assert not any(isinstance(i, Fault) or i.image is None for i in items)
    assert all(i.audio is not None for i in items[:-1])
    (note,) = notes(plan)
    assert (note.outcome, note.windows) == ("noted", 0)
    restart = probe_media(str(path)).restart
    assert restart.lost_ns == pytest.approx(second.seconds * NS, abs=0.04 * NS)
    assert restart.lost_bytes == path.stat().st_size - restart.byte
    assert f"{restart.lost_ns / NS:.3f} s in {restart.lost_bytes} bytes" in note.detail
    alone = write_parts([FIRST], container, path.with_name("alone")).stat().st_size
    assert alone * 0.97 < restart.byte < alone * 1.03


@pytest.mark.parametrize("name", [n for n in CONTAINERS if n != "AVI"])
def test_of_two_joined_files_the_second_is_reported_lost(tmp_path, name):
    path = write_parts([FIRST, SECOND], CONTAINERS[name], tmp_path / "joined")
    check_second_is_lost(path, CONTAINERS[name])


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_second_file_of_other_parameters_is_reported_lost(tmp_path, name):
    other = Part(200, 45, 5, scale=2)
    path = write_parts([FIRST, other], CONTAINERS[name], tmp_path / "joined")
    check_second_is_lost(path, CONTAINERS[name], other)


@pytest.mark.parametrize("name", STARTING_ANYWHERE)
def test_a_clock_that_steps_back_a_second_is_noticed(tmp_path, name):
    back = Part(200, 72, 5, start_s=FIRST.seconds - 1)
    path = write_parts([FIRST, back], CONTAINERS[name], tmp_path / "back")
    check_second_is_lost(path, CONTAINERS[name], back)


@pytest.mark.parametrize("ahead_s", [60, 1000])
@pytest.mark.parametrize("name", STARTING_ANYWHERE)
def test_a_clock_that_jumps_ahead_is_followed(tmp_path, name, ahead_s):
    later = Part(200, 72, 5, start_s=FIRST.seconds + ahead_s)
    path = write_parts([FIRST, later], CONTAINERS[name], tmp_path / "ahead")
    # one window in twenty stands in the second part, well inside of it
    plan, items = read(path, replace(OPTIONS, stride=(int((later.start_s + 1) * NS) // 20) / NS))
    assert len(items) == 21
    assert not notes(plan)
    found = judged(items, [FIRST, later])
    assert found.keys() == {0, 1}
    shift = 0.6 if name == "MPEG-PS" else 0.1  # its muxer, and that of FLV, move what would begin before 0
    assert found[1] - found[0] == pytest.approx(later.start_s, abs=shift)


@pytest.mark.parametrize("name", ["MPEG-TS", "MPEG-PS", "MKV", "WebM", "fragmented MP4"])
def test_a_window_that_is_reached_by_seeking_is_of_the_first_part(tmp_path, name):
    parts = [Part(0, 500, 0), Part(600, 500, 5)]
    path = write_parts(parts, CONTAINERS[name], tmp_path / "long")
    stream = Stream("video", str(path), path.name)
    recording = Recording("joined", "x", "x", stream, audio=Stream("audio", str(path), path.name))
    config = RunConfig(
        source="joined", input=str(path.parent), output="", sample=OPTIONS, segment=1e4, isolate=False
    )
    (segment,) = plan_recording(recording, config).segments
    far = replace(segment, starts_ns=segment.starts_ns[26:30:3])
    (first, second) = align_segment(far, OPTIONS, "0" * 64)
    assert judged([first, second], parts).keys() == {0}


def test_avi_has_no_clock_of_its_own_and_goes_on_in_a_second_file(tmp_path):
    path = write_parts([FIRST, SECOND], CONTAINERS["AVI"], tmp_path / "joined")
    plan, items = read(path)
    assert not notes(plan)
    assert len(items) == (FIRST.frames + SECOND.frames) // (FPS // 2)
    assert judged(items, [FIRST, SECOND]) == pytest.approx({0: 0.0, 1: float(FIRST.seconds)}, abs=1e-6)


@pytest.mark.parametrize("name", ["MPEG-TS", "MPEG-PS"])
def test_a_clock_that_wraps_goes_on(tmp_path, name):
    part = Part(0, 120, 0, start_s=WRAP_S - 2)
    path = write_parts([part], CONTAINERS[name], tmp_path / "wraps")
    plan, items = read(path)
    assert not notes(plan)
    assert len(items) == 8
    assert judged(items, [part]).keys() == {0}


def test_a_clock_that_begins_again_long_before_its_start_is_no_wrap(tmp_path):
    late = Part(0, 96, 0, start_s=Fraction(7200))
    path = write_parts([late, SECOND], CONTAINERS["MPEG-TS"], tmp_path / "late")
    assert probe_media(str(path)).restart is not None
    check_second_is_lost(path, CONTAINERS["MPEG-TS"])


def test_three_parts_are_one_recording_and_two_lost_ones(tmp_path):
    parts = [FIRST, SECOND, Part(400, 33, 7)]
    for name in ("MPEG-TS", "WebM", "MP4", "Ogg"):
        restart = probe_media(str(write_parts(parts, CONTAINERS[name], tmp_path / name))).restart
        assert restart.lost_ns == pytest.approx((72 + 33) / FPS * NS, abs=0.05 * NS)


@pytest.fixture
def remote_and_large(monkeypatch):
    """Every file counts as remote, and as too large to be read through."""

    def survey(*given, **named):
        return restarts.survey_clocks(*given, **{**named, "remote": True})

    monkeypatch.setattr(restarts, "SCAN_BYTES", 0)
    monkeypatch.setattr(probe, "survey_clocks", survey)


def test_a_large_file_at_hand_is_read_through(tmp_path, monkeypatch):
    monkeypatch.setattr(restarts, "SCAN_BYTES", 0)
    back = Part(200, 72, 5, start_s=FIRST.seconds - 1)
    path = write_parts([FIRST, back], CONTAINERS["FLV"], tmp_path / "back")
    check_second_is_lost(path, CONTAINERS["FLV"], back)


@pytest.mark.usefixtures("remote_and_large")
@pytest.mark.parametrize("name", ["MPEG-TS", "MPEG-PS", "FLV"])
def test_in_a_file_too_large_to_be_read_through_it_is_noticed_while_reading(tmp_path, name, monkeypatch):
    monkeypatch.setattr(restarts._File, "seems_ascending", lambda self: True)
    back = Part(200, 72, 5, start_s=FIRST.seconds - 1)
    path = write_parts([FIRST, back], CONTAINERS[name], tmp_path / "back")
    plan, items = read(path)
    assert not notes(plan)
    assert judged(items, [FIRST, back]).keys() == {0}
    failed = [i for i in items if isinstance(i, Fault)]
    assert {f.code for f in failed} == {"clock_restarted"}
    assert len(items) - len(failed) >= 4
    assert not any(isinstance(i, Fault) for i in items[: len(items) - len(failed)])


@pytest.mark.usefixtures("remote_and_large")
@pytest.mark.parametrize("name", ["MPEG-TS", "MPEG-PS"])
def test_times_sampled_in_a_large_file_give_a_restart_away(tmp_path, name, monkeypatch):
    path = write_parts([FIRST, SECOND], CONTAINERS[name], tmp_path / "joined")
    check_second_is_lost(path, CONTAINERS[name])
    alone = write_parts([FIRST], CONTAINERS[name], tmp_path / "one")
    reads = []
    monkeypatch.setattr(restarts._File, "scan", lambda *_: reads.append(1))
    assert probe_media(str(alone)).restart is None
    assert not reads


def test_one_damaged_timestamp_costs_nothing_else(tmp_path):
    """A PES header that claims a time long gone, in mid-file (ISO/IEC 13818-1, 2.4.3.6)."""
    path = write_parts([FIRST], CONTAINERS["MPEG-TS"], tmp_path / "damaged")
    data = bytearray(path.read_bytes())
    headers = []
    for at in range(0, len(data), 188):
        body = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        if data[at + 1] & 0x40 and data[body : body + 3] == b"\0\0\1" and data[body + 3] & 0xF0 == 0xE0:
            headers.append(body + 9)
    hurt = headers[len(headers) // 2]
    data[hurt + 1 : hurt + 5] = bytes([0, 1, 0, 1])
    path.write_bytes(data)
    plan, items = read(path)
    assert not notes(plan)
    assert len(items) == FIRST.frames // (FPS // 2)


@pytest.mark.parametrize(
    "name", ["mpegts_restarted.ts.mp4", "webm_chunks_concatenated.webm.mp4", "mp4_concatenated.mp4"]
)
def test_known_files_show_their_first_part_alone(shared_data, name):
    plan, items = read(shared_data / "awkward" / name)
    (note,) = notes(plan)
    assert "4.000 s in" in note.detail
    numbers = []
    for item in items:
        pixels = cv2.imdecode(np.frombuffer(item.image.data, np.uint8), cv2.IMREAD_GRAYSCALE)
        bits = pixels[2, 2::4][:16:2] > 127  # eight blocks in its top rows
        numbers.append(int((bits << np.arange(8)).sum()))
    assert numbers == [7 + 15 * n for n in range(8)]


def test_a_segment_of_any_length_gives_the_same(tmp_path):
    back = Part(200, 72, 5, start_s=FIRST.seconds - 1)
    path = write_parts([FIRST, back], CONTAINERS["MPEG-TS"], tmp_path / "back")
    _, whole = read(path)
    _, pieces = read(path, segment_s=1.0)
    assert [(i.key, i.image, i.audio) for i in whole] == [(i.key, i.image, i.audio) for i in pieces]


# -- Any joining ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(CONTAINERS)),
    frames=st.lists(st.integers(20, 60), min_size=1, max_size=3),
    steps=st.lists(
        st.sampled_from([None, Fraction(-1, 2), Fraction(2), Fraction(13)]), min_size=3, max_size=3
    ),
)
def test_windows_of_any_joining_hold_one_timeline_and_every_lost_second_is_told(folder, name, frames, steps):
    container = CONTAINERS[name]
    parts, at = [], Fraction(0)
    for n, (count, step) in enumerate(zip(frames, steps, strict=False)):
        follows = n > 0 and step is not None and container.starts_anywhere
        start = max(at + step, Fraction(0)) if follows else Fraction(0)
        parts.append(Part(200 * n, count, n, start_s=start))
        at = start + parts[-1].seconds
    path = write_parts(parts, container, Path(folder) / "file")
    kept = 1
    while kept < len(parts) and (
        name == "AVI" or parts[kept].start_s > parts[kept - 1].start_s + parts[kept - 1].seconds
    ):
        kept += 1
    _, items = read(path)
    assert not any(isinstance(i, Fault) for i in items)
    found = judged(items, parts)
    assert found.keys() <= set(range(kept))
    restart = probe_media(str(path)).restart
    assert (restart is None) == (kept == len(parts))
    if restart is not None:
        lost = sum(p.seconds for p in parts[kept:])
        assert restart.lost_ns == pytest.approx(lost * NS, abs=0.04 * NS * (len(parts) - kept))
    shown = set().union(*(range(p.first, p.first + p.frames) for p in parts[:kept]))
    assert shown
    for place, start in found.items():
        assert start - found[0] == pytest.approx(
            float(parts[place].start_s) if name != "AVI" else sum(frames[:place]) / FPS,
            abs=0.6 if name == "MPEG-PS" else 0.1,
        )


def test_a_missing_file_is_still_a_fault(tmp_path):
    with pytest.raises(AlignError):
        probe_media(str(tmp_path / "none.ts"))


def test_inspect_says_that_a_clock_restarts(tmp_path):
    path = write_parts([FIRST, SECOND], CONTAINERS["MPEG-TS"], tmp_path / "joined")
    assert all(
        "clock restarts: 1; only what precedes the first is used" in v.faults
        for v in inspect_media(str(path))
    )
    alone = write_parts([FIRST], CONTAINERS["MPEG-TS"], tmp_path / "alone")
    assert not any("clock" in fault for view in inspect_media(str(alone)) for fault in view.faults)
