"""Every awkward real file ends in the right sample or the right reason: which, and why, file by file.

Windows of 50 ms, without a gap between them, cover each file. Their pictures are compared with a plain
decode of the whole file, their times with those that the ffmpeg program lists, their sound with where that
program puts it.
"""

import io
import subprocess
from bisect import bisect_right
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import plan_recording
from align.schemas.errors import Fault
from align.schemas.options import AlignOptions
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS, ticks_to_ns
from align.transforms.align.image import encode_jpeg, upright_picture
from align.transforms.align.segment import align_segment

MS = 1_000_000
OPTIONS = AlignOptions(
    window=0.05, stride=0.05, image_size=64, audio_rate=8_000, require=(), min_coverage=0.0
)


class Good(NamedTuple):
    """A file whose every window has its picture.

    windows: how many fit. first, last: times of the first and the last window's picture, in ms. size: of the
    pictures. sound: (from, to) in ms where sound was recorded; () for a file without.
    """

    windows: int
    first: float
    last: float
    size: tuple[int, int]
    sound: tuple[tuple[float, float], ...] = ()


class Bad(NamedTuple):
    """A file that ends in reasons. code: of the recording's fault or note; image, audio: of every window."""

    code: str | None
    windows: int = 0
    image: str | None = None
    audio: str | None = None


WIDE, FILM, TALL, SQUARE = (114, 64), (96, 64), (64, 96), (64, 64)
LATE_AAC = ((67.211, 1_088.889),)  # begins at 44 ms with an encoder's priming of 1024 samples at 44.1 kHz

FILES = {
    "av1_video.mkv": Good(100, 0, 4_960, WIDE),
    # starts at 10 s, and nothing moves it to 0
    "bbb_800x640_768kbps_30fps_avc_2b_firstpts_10_sec.mp4": Good(80, 10_000, 13_966.667, WIDE),
    "decord_unordered.mov": Good(2, 0, 62.5, SQUARE),  # frames in the file in another order than shown
    "decord_video_180.mov": Good(2, 0, 66.667, WIDE),
    "decord_video_90.mov": Good(2, 0, 66.667, (64, 114)),  # upright by its display matrix
    "discard_first_keyframe.mp4": Good(20, 0, 960, SQUARE),  # the edit list hides the first keyframe
    # four frames from 66.7 ms on; the sound has a hole between its first two packets
    "gopro_4_frames_no_telemetry.mp4": Good(2, 66.733, 133.467, WIDE, ((0, 21.333), (45.417, 216.083))),
    "h265_video.mp4": Good(20, 0, 900, SQUARE),
    # a data track; rotated; its sound, with the same hole, ends before the picture
    "h265_with_metadata_track.mp4": Good(2, 0, 66.711, (64, 114), ((0, 21.333), (38.063, 80.729))),
    "iibbibb_editlist_videoonly.mp4": Good(
        240, 0, 11_000, (78, 64)
    ),  # a frame a second; the first is edited out
    "mp4parse_chunk_out_of_range.mp4": Bad("bad_container"),
    # the pictures are garbage from the first keyframe on: ffmpeg shows grey smears, we show none
    "mp4parse_no_timescale.mp4": Bad(None, 120, "decode_error", "not_recorded"),
    # 41 s by its header, of which 80 ms are in the file, and those do not decode
    "mp4parse_zero_empty_stsc.mp4": Bad("shorter_than_header", 832, "decode_error", "gap"),
    "nasa_13013.mp4": Good(260, 0, 12_960, WIDE, ((0, 13_056),)),  # two of each track: the default ones
    "reproduce_seek_bug.wav": Bad("no_video"),
    "sample_android_slow_motion.mp4": Good(10, 0, 458.678, WIDE),  # a frame stands for 325 ms
    "sample_audio_only.mp4": Bad("no_video"),
    "sample_empty_track.mp4": Good(20, 0, 967.622, FILM, LATE_AAC),  # a track without samples
    "sample_h264.ts": Good(20, 0, 966.667, WIDE),
    "sample_mdat_too_long.mp4": Good(20, 0, 967.633, FILM, LATE_AAC),
    "sample_portrait.mp4": Good(20, 0, 967.633, TALL, ((42.993, 1_087.891),)),
    "sample_rotate_and_reflect.mp4": Good(20, 0, 967.633, TALL, LATE_AAC),
    "sample_video_only.mp4": Good(20, 0, 967.633, FILM),
    # subtitles; Matroska's clock rounds to 1 ms
    "sample_with_overlapping_srt.mkv": Good(20, 67, 1_034, FILM, ((128.4, 1_138.8),)),
    "sample_with_srt.mkv": Good(20, 0, 967, FILM, ((61.8, 1_072),)),
    "silent-black-10s.mp4": Good(200, 0, 9_966.667, (85, 64), ((0, 10_007.8),)),  # silence was recorded
    "sowt-with-video.mov": Good(40, 20, 1_960, WIDE, ((0, 2_000),)),  # PCM; 50 pictures a second
}
GOOD = [name for name, expected in FILES.items() if isinstance(expected, Good)]


def planned(path):
    """The plan of a file, as a source that hopes for sound would have it made."""
    stream = Stream("video", str(path), path.name)
    recording = Recording("edge", "x", "x", stream, audio=Stream("audio", str(path), path.name))
    config = RunConfig(source="edge", input=str(path.parent), sample=OPTIONS, segment=1e4, isolate=False)
    return plan_recording(recording, config)


@pytest.fixture(scope="module")
def samples(shared_data):
    """A file's samples, read once."""
    known = {}

    def read(name):
        if name not in known:
            (segment,) = planned(shared_data / "edge" / name).segments
            known[name] = (segment.media, list(align_segment(segment, OPTIONS, "0" * 64)))
        return known[name]

    return read


def test_the_table_names_every_file(shared_data):
    assert set(FILES) == {p.name for p in (shared_data / "edge").iterdir() if p.suffix != ".json"}


@pytest.mark.parametrize("name", [n for n in FILES if n not in GOOD])
def test_what_cannot_be_shown_says_why(shared_data, name):
    expected = FILES[name]
    plan = planned(shared_data / "edge" / name)
    assert [fault.code for fault in plan.faults] == ([expected.code] if expected.code else [])
    assert all("/" not in fault.detail for fault in plan.faults)  # names, no places
    items = [item for s in plan.segments for item in align_segment(s, OPTIONS, "0" * 64)]
    assert len(items) == expected.windows
    for item in items:
        assert not isinstance(item, Fault)
        assert (item.image, item.audio) == (None, None)
        assert (item.missing["image"], item.missing["audio"]) == (expected.image, expected.audio)


@pytest.mark.parametrize("name", GOOD)
def test_windows_pictures_and_sizes(samples, name):
    expected = FILES[name]
    _, items = samples(name)
    assert len(items) == expected.windows
    assert not [item for item in items if isinstance(item, Fault) or item.image is None]
    assert items[0].image.time_ns / MS == pytest.approx(expected.first, abs=1e-3)
    assert items[-1].image.time_ns / MS == pytest.approx(expected.last, abs=1e-3)
    height, width, _ = cv2.imdecode(np.frombuffer(items[0].image.data, np.uint8), cv2.IMREAD_COLOR).shape
    assert (width, height) == expected.size


@pytest.mark.parametrize("name", GOOD)
def test_pictures_are_those_of_a_plain_decode_of_the_whole_file(shared_data, samples, name):
    media, items = samples(name)
    frames = {}
    with av.open(str(shared_data / "edge" / name)) as container:
        stream = container.streams[media.video.index]
        stream.thread_count = 1
        for frame in container.decode(stream):
            assert not frame.is_corrupt
            frames[ticks_to_ns(frame.pts, stream.time_base) - media.video.clock_offset_ns] = frame
    times = sorted(frames)
    for item in items:
        due = times[max(bisect_right(times, item.window.center_ns) - 1, 0)]
        assert item.image.time_ns == due
        assert item.quality.image_offset_ns == due - item.window.center_ns
        picture = upright_picture(frames[due], due, size=64, sample_aspect=media.video.sample_aspect)
        assert item.image.data == encode_jpeg(picture, OPTIONS.jpeg_quality)


def listed(path, *options):
    """(start, end) in seconds of whatever the ffmpeg program decodes, after edit lists and priming."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-copyts",
        "-i",
        path,
        *options,
        "-f",
        "framecrc",
        "-",
    ]
    text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    base = Fraction(next(line for line in text.splitlines() if line.startswith("#tb")).split()[-1])
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    return sorted((int(r[2]) * base, (int(r[2]) + int(r[3])) * base) for r in rows)


@pytest.mark.parametrize("name", [n for n in GOOD if not n.endswith(".ts")])
def test_times_of_pictures_are_those_that_ffmpeg_lists(shared_data, samples, name):
    media, items = samples(name)
    options = ("-map", f"0:{media.video.index}", "-fps_mode", "passthrough", "-enc_time_base:v", "demux")
    times = [round(start * NS) for start, _ in listed(shared_data / "edge" / name, *options)]
    for item in items:
        due = times[max(bisect_right(times, item.window.center_ns) - 1, 0)]
        assert abs(item.image.time_ns - due) <= 1


@pytest.mark.parametrize("name", [n for n in GOOD if FILES[n].sound])
def test_sound_is_where_ffmpeg_puts_it_and_gaps_are_where_it_puts_none(shared_data, samples, name):
    media, items = samples(name)
    spans = []
    for start, end in listed(
        shared_data / "edge" / name, "-map", f"0:{media.audio.index}", "-c:a", "pcm_s16le"
    ):
        if spans and start - spans[-1][1] < Fraction(1, 500):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    assert spans == [
        (pytest.approx(a / 1e3, abs=1e-3), pytest.approx(b / 1e3, abs=1e-3)) for a, b in FILES[name].sound
    ]
    for item in items:
        window = item.window
        recorded = sum(max(min(b * NS, window.end_ns) - max(a * NS, window.start_ns), 0) for a, b in spans)
        coverage = float(recorded / window.length_ns)
        assert item.quality.audio_coverage == pytest.approx(coverage, abs=0.02)  # Matroska: 1 of 50 ms
        assert (item.audio is None) == (coverage == 0)
        if item.audio is None:
            assert item.missing["audio"] in ("no_coverage", "gap")
        else:
            filled = sum(gap.length_ns for gap in item.audio.gaps)
            assert filled == pytest.approx(window.length_ns * (1 - item.quality.audio_coverage), abs=1)


@pytest.mark.parametrize("name", [n for n in GOOD if not FILES[n].sound])
def test_sound_that_is_not_there_was_not_recorded(samples, name):
    _, items = samples(name)
    assert {(item.audio, item.missing["audio"]) for item in items} == {(None, "not_recorded")}


@pytest.mark.parametrize(("share", "format_"), [(0.6, "mp4"), (0.3, "mp4"), (0.5, "mkv")])
def test_a_file_cut_short_gives_what_decodes_and_reports_the_rest(tmp_path, share, format_):
    whole, cut = tmp_path / f"whole.{format_}", tmp_path / f"cut.{format_}"
    source = "testsrc2=size=64x64:rate=20:duration=6"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        source,
        "-g",
        "25",
        "-threads",
        "1",
    ]
    subprocess.run([*command, *(["-movflags", "+faststart"] if format_ == "mp4" else []), whole], check=True)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    plan, full = planned(cut), planned(whole)
    assert full.faults == ()
    notes = [f for f in plan.faults if f.code == "shorter_than_header"]
    assert [(n.outcome, n.windows) for n in notes] == [("noted", 0)]
    assert "cut" in notes[0].detail
    got, good = ([i for s in p.segments for i in align_segment(s, OPTIONS, "0" * 64)] for p in (plan, full))
    shown = {i.image.time_ns: i.image.data for i in good}  # each frame, for windows are as long as frames
    seen = [i for i in got if i.image is not None]
    assert share - 0.25 < len(seen) / len(good) < share + 0.25
    assert all(shown[i.image.time_ns] == i.image.data for i in seen)
    # a frame that is gone may have the one at most three frames before it stand in
    assert all(0 <= i.window.center_ns - i.image.time_ns < 200 * MS for i in seen)
    assert all(i.missing["image"] == "decode_error" for i in got if i.image is None)


def test_sound_that_begins_long_after_the_picture_is_found_and_placed(tmp_path):
    """In MPEG-TS, not even the rate of such a stream is known when the file is opened."""
    path = tmp_path / "late.ts"
    picture, sound = (
        "testsrc2=size=64x64:rate=10:duration=20",
        "sine=frequency=500:duration=8:sample_rate=44100",
    )
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        picture,
        "-itsoffset",
        "12",
    ]
    command += ["-f", "lavfi", "-i", sound, "-threads", "1", "-g", "20", path]
    subprocess.run(command, check=True)
    plan = planned(path)
    (segment,) = plan.segments
    segment = replace(segment, starts_ns=tuple(s * NS for s in (1, 5, 11, 13, 17)), window_ns=NS)
    samples = list(align_segment(segment, OPTIONS, "0" * 64))
    assert not [s for s in samples if isinstance(s, Fault)]
    assert [s.quality.audio_coverage for s in samples] == [0.0, 0.0, pytest.approx(0.02, abs=0.03), 1.0, 1.0]
    pcm, _ = soundfile.read(io.BytesIO(samples[-1].audio.data))
    spectrum = np.abs(np.fft.rfft(pcm))
    assert spectrum.argmax() == 500
