"""Edit lists of several stretches: every window shows and plays what the presentation does.

One recording of numbered frames and known sound is given one edit list after another, written by hand; what
is due at any instant is known in closed form.
"""

import io
import subprocess
from dataclasses import replace
from fractions import Fraction as F

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import plan_recording
from align.schemas.errors import Fault
from align.schemas.options import AlignOptions
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS
from align.transforms.align.segment import align_segment
from align.transforms.read.edit_lists import EditList
from align.transforms.read.probe import probe_media
from benchmarks.proof.edits import due, picture_due, with_edits
from benchmarks.proof.numbered import CONTAINERS, Part, sound_of, write_part
from benchmarks.proof.truth import number_in

PART = Part(0, 120, 3)
OPTIONS = AlignOptions(
    window=0.5, stride=(NS // 3) / NS, image_size=32, jpeg_quality=95, frames=3, audio_rate=48_000,
    require=(), min_coverage=0.05,
)  # fmt: skip
MP4, MOV = CONTAINERS["MP4"], CONTAINERS["MOV"]
SOURCES = {
    "no B-frames": replace(MP4, encoder={**MP4.encoder, "bf": "0"}),
    "B-frames": MP4,
    "PCM": MOV,
}
EDITS = {
    "two, at keyframes": [(F(8, 10), F(4, 10)), (F(12, 10), F(24, 10))],
    "two, off keyframes": [(F(1), F(1)), (F(1), F(27, 10))],
    "three": [(F(1), F(1, 2)), (F(7, 10), F(2)), (F(1), F(3))],
    "a repeat": [(F(12, 10), F(1)), (F(12, 10), F(1)), (F(1), F(5, 2))],
    "an earlier one later": [(F(1), F(5, 2)), (F(1), F(1, 2))],
    "nothing first": [(F(1, 2), None), (F(1), F(1)), (F(1), F(3))],
    "nothing between": [(F(1), F(1)), (F(7, 10), None), (F(1), F(3))],
    "within frames": [(F(783, 1000), F(61, 60)), (F(1), F(151, 60))],
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The recording with the edit list of its writer, in each form."""
    folder = tmp_path_factory.mktemp("plain")
    return {
        name: write_part(PART, c, folder / f"{n}{c.suffix}").read_bytes()
        for n, (name, c) in enumerate(SOURCES.items())
    }


def read(path, options=OPTIONS):
    stream = Stream("video", str(path), path.name)
    recording = Recording("edited", "x", "x", stream, audio=Stream("audio", str(path), path.name))
    plan = plan_recording(
        recording,
        RunConfig(source="edited", input="/", output="", sample=options, segment=1e4, isolate=False),
    )
    return plan, [i for s in plan.segments for i in align_segment(s, options, "0" * 64)]


def check_pictures(item, edits):
    targets = [item.window.center_ns] + [
        item.window.start_ns + round(item.window.length_ns * F(2 * i + 1, 6)) for i in range(3)
    ]
    dues = [[picture_due(edits, t + ns) for ns in (0, -2, 2)] for t in targets]  # either, at a frame's edge
    assert (item.image is None) == (dues[0][0] is None)
    if item.image is None:
        assert item.missing["image"] == "gap"
    expected = [d for d in dues if d[0] is not None]
    got = [p for p in (item.image, *item.frames) if p is not None]
    assert len(got) == len(expected)
    for picture, either in zip(got, expected, strict=True):
        number = number_in(cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR))
        meant = [time_ns for n, time_ns in (d for d in either if d is not None) if n == number]
        assert any(abs(picture.time_ns - time_ns) <= 2 for time_ns in meant)


def check_sound(item, edits):
    """Each side of a joint plays what its stretch does, and what is not presented is a gap."""
    start, length = item.window.start_ns, item.window.length_ns
    seconds = [F(start + k * length // 500, NS) for k in range(500)]
    silent = sum(due(edits, t) is None for t in seconds) / 500
    assert item.quality.audio_coverage == pytest.approx(1 - silent, abs=0.006)
    if item.audio is None:
        return
    assert sum(g.length_ns for g in item.audio.gaps) / length == pytest.approx(silent, abs=0.006)
    pcm, rate = soundfile.read(io.BytesIO(item.audio.data))
    times = start / NS + np.arange(len(pcm)) / rate
    for stretch in {due(edits, t) for t in seconds} - {None}:
        at, begin = stretch
        until = next(e for e in np.cumsum([float(d) for d, _ in edits]) if e > at)
        inside = (times > float(at) + 0.02) & (times < until - 0.02)
        if inside.sum() > rate // 10:
            late = sound_of(PART.seed).delay_s(pcm[inside], times[inside] - float(at - begin), reach_s=0.5)
            assert abs(late) < 0.02e-3


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("source", SOURCES)
def test_windows_show_and_play_what_the_edit_list_presents(tmp_path, plain, source, edits):
    path = tmp_path / "edited.mp4"
    path.write_bytes(with_edits(plain[source], edits, edits))
    plan, items = read(path)
    assert not plan.faults
    media = probe_media(str(path))
    assert media.is_edited
    shown = [(a, d) for a, d in zip(np.cumsum([0.0, *(float(d) for d, _ in edits)]), edits, strict=False)]
    first = next(a for a, (_, s) in shown if s is not None)
    assert media.video.span.start_ns == pytest.approx(first * NS, abs=34e6)
    assert media.video.span.end_ns == pytest.approx(float(sum(d for d, _ in edits)) * NS, abs=34e6)
    assert len(items) >= 4
    for item in items:
        assert not isinstance(item, Fault)
        check_pictures(item, edits)
        check_sound(item, edits)


def test_the_sound_may_be_edited_differently_from_the_picture(tmp_path, plain):
    path = tmp_path / "edited.mp4"
    whole = [(F(4), F(0))]
    for video, audio in (
        (EDITS["three"], whole),
        (whole, EDITS["three"]),
        (EDITS["three"], EDITS["a repeat"]),
    ):
        path.write_bytes(with_edits(plain["B-frames"], video, audio))
        _, items = read(path)
        assert items
        for item in items:
            check_pictures(item, video)
            check_sound(item, audio)


def test_a_window_does_not_depend_on_those_around_it(tmp_path, plain):
    path = tmp_path / "edited.mp4"
    path.write_bytes(with_edits(plain["B-frames"], EDITS["three"], EDITS["three"]))
    _, whole = read(path)
    stream = Stream("video", str(path), path.name)
    recording = Recording("edited", "x", "x", stream, audio=Stream("audio", str(path), path.name))
    config = RunConfig(source="edited", input="/", output="", sample=OPTIONS, segment=1.0, isolate=False)
    plan = plan_recording(recording, config)
    assert len(plan.segments) > 1
    pieces = [i for s in plan.segments for i in align_segment(s, OPTIONS, "0" * 64)]
    assert [(i.key, i.image, i.frames, i.audio) for i in pieces] == [
        (i.key, i.image, i.frames, i.audio) for i in whole
    ]


def test_a_list_of_one_stretch_is_left_to_the_demuxer(tmp_path, plain):
    path = tmp_path / "edited.mp4"
    for edits in ([(F(2), F(1))], [(F(1, 2), None), (F(2), F(1))], [(F(4), F(0)), (F(1), None)]):
        path.write_bytes(with_edits(plain["B-frames"], edits, edits))
        assert not probe_media(str(path)).is_edited


def test_pictures_stand_where_the_ffmpeg_program_puts_them(tmp_path, plain):
    """At keyframes and without B-frames it is exact; elsewhere it drops or delays the frame at a joint."""
    path = tmp_path / "edited.mp4"
    path.write_bytes(with_edits(plain["no B-frames"], EDITS["two, at keyframes"], EDITS["two, at keyframes"]))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-copyts", "-i", path, "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-enc_time_base:v", "demux", "-f", "framecrc", "-"]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    base = F(next(line for line in lines if line.startswith("#tb")).split()[-1])
    times = [int(line.split(",")[2]) * base * NS for line in lines if not line.startswith("#")]
    _, items = read(path)
    for item in items:
        before = max(t for t in times if t <= item.window.center_ns)
        assert abs(item.image.time_ns - before) <= 1


@pytest.mark.parametrize("rate", [b"\0\2\0\0", b"\0\0\0\0", b"\0\0\x80\0"])
def test_a_stretch_at_another_speed_is_refused(tmp_path, plain, rate):
    edits = EDITS["two, at keyframes"]
    data = with_edits(plain["B-frames"], edits, edits)
    at = data.rindex(b"moov")
    at = data.index(b"elst", at) + 12 + 8
    assert data[at : at + 4] == b"\0\1\0\0"
    path = tmp_path / "fast.mp4"
    path.write_bytes(data[:at] + rate + data[at + 4 :])
    plan, _ = read(path)
    assert [f.code for f in plan.faults] == ["edit_rate"]


@pytest.mark.parametrize(
    ("entries", "plain_"),
    [([], True), ([5], True), ([-1, 5], True), ([5, -1], True), ([5, 9], False), ([5, -1, 5], False)],
)
def test_which_lists_are_plain(entries, plain_):
    assert EditList(tuple((10, t, F(1)) for t in entries), 1000, 1000).is_plain == plain_


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    return tmp_path_factory.mktemp("edited") / "any.mp4"


_TENTHS = st.integers(2, 12).map(lambda n: F(n, 10))
_STRETCH = st.tuples(_TENTHS, st.one_of(st.none(), st.integers(0, 27).map(lambda n: F(n, 10))))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(edits=st.lists(_STRETCH, min_size=2, max_size=5), source=st.sampled_from(sorted(SOURCES)))
def test_any_edit_list_is_followed(edited, plain, edits, source):
    if sum(start is not None for _, start in edits) < 2:
        edits = [*edits, (F(1), F(1)), (F(6, 10), F(2))]
    edited.write_bytes(with_edits(plain[source], edits, edits))
    _, items = read(edited)
    for item in items:
        assert not isinstance(item, Fault)
        check_pictures(item, edits)
        check_sound(item, edits)
