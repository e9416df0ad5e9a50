"""Streams that change or wrap in mid-file, and padded sound: against closed form, or against ffmpeg."""

import io
import subprocess
from dataclasses import replace

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
from align.schemas.time import NS
from align.transforms.align.segment import align_segment
from align.transforms.read.kept_file import KeptFile
from align.transforms.read.probe import probe_media
from benchmarks.proof.media import ffmpeg
from benchmarks.proof.odd_media import RATE, X264, numbered, two_entries
from benchmarks.proof.truth import HEIGHT, SOUND, WIDTH, number_in

GRID = AlignOptions(
    window=0.1,
    stride=0.1,
    image_size=HEIGHT,
    audio_rate=RATE,
    require=(),
    min_coverage=0.0,
)


def windows(path, segment_s=1e4, file=None, **changes):
    options = replace(GRID, require=(), **changes)
    stream = Stream("video", str(path), path.name)
    recording = Recording("odd", "x", "x", stream, audio=Stream("audio", str(path), path.name))
    config = RunConfig(
        source="odd", input=str(path.parent), output="", sample=options, segment=segment_s, isolate=False
    )
    plan = plan_recording(recording, config)
    items = [i for s in plan.segments for i in align_segment(s, options, "0" * 64, file=file)]
    return plan, items


def delay_of(pcm, start_s):
    """How much later than in truth a second of sound stands: by a quarter of it."""
    part = slice(16_000, 28_000)
    return SOUND.delay_s(pcm[part], start_s + np.arange(RATE)[part] / RATE, reach_s=0.1)


def pixels_of(sample):
    return cv2.imdecode(np.frombuffer(sample.image.data, np.uint8), 1)


# -- Two sample entries ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """240 frames; from the 120th on they are twice as wide, and only the sample table says so."""
    return two_entries(tmp_path_factory.mktemp("entries") / "entries.mp4", 120, 240)


def assert_shown_rightly(samples):
    for sample in samples:
        frame = round(sample.image.time_ns * 30 / NS)
        wide = 1 + (frame >= 120)
        pixels = pixels_of(sample)
        assert pixels.shape == (HEIGHT, wide * WIDTH, 3)
        assert number_in(np.ascontiguousarray(pixels[:, ::wide])) == frame


@pytest.mark.parametrize("stride_ms", [100, 650, 700, 900, 1300, 3900])
@pytest.mark.parametrize("segment_s", [1e4, 1.0])
def test_each_picture_is_decoded_with_the_parameters_of_its_entry(entries, stride_ms, segment_s):
    """Also where the packet that brings them is one that no window needs."""
    _, found = windows(entries, segment_s, stride=stride_ms / 1000)
    assert probe_media(str(entries)).video.is_reconfigured
    assert len(found) == -(-7_901 // stride_ms)
    assert_shown_rightly(found)


def test_parameters_do_not_pass_from_one_segment_to_the_next(entries):
    kept = KeptFile()
    _, found = windows(entries, 1.0, kept, stride=0.65)
    assert_shown_rightly(found)
    assert_shown_rightly(reversed(windows(entries, 1.0, kept, stride=0.65)[1]))
    kept.close()


def test_pictures_that_change_size_inside_the_stream(tmp_path):
    """MPEG-TS repeats the parameters before each keyframe."""
    parts = []
    for n, scale in enumerate((1, 2)):
        whole, part = tmp_path / f"{n}.mp4", tmp_path / f"{n}.ts"
        shape = ("-vf", f"scale={scale * WIDTH}:{HEIGHT}:flags=neighbor,setsar=1")
        numbered(whole, range(120 * n, 120 * n + 120), *X264, *shape, "-g", "15", "-bf", "0", sound=False)
        ffmpeg("-i", whole, "-c", "copy", "-muxdelay", "0", "-output_ts_offset", 4 * n, part)
        parts.append(part.read_bytes())
    path = tmp_path / "size.ts"
    path.write_bytes(b"".join(parts))
    for stride_ms in (100, 650, 900):
        assert_shown_rightly(windows(path, stride=stride_ms / 1000)[1])


# -- Clocks that wrap ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "wrap_s"),
    [(".ts", (1 << 33) / 90_000), (".flv", (1 << 24) / 1000), (".mp4", (1 << 32) / 15_360)],
)
def test_a_clock_that_runs_out_of_bits_goes_on(tmp_path, suffix, wrap_s):
    """33 bits of 90 kHz, 24 bits of a millisecond, 32 bits of a track's ticks: half-way through the file."""
    whole, path = tmp_path / "whole.mp4", tmp_path / f"wrap{suffix}"
    numbered(whole, range(240), *X264, "-g", "30", "-bf", "2", "-c:a", "aac")
    ffmpeg("-i", whole, "-c", "copy", "-copyts", "-output_ts_offset", f"{wrap_s - 4:.3f}", path)
    start = round(probe_media(str(path)).video.span.start_ns)
    _, found = windows(path, window=1, stride=0.5)
    assert len(found) >= 13
    for sample in found[::3]:
        assert number_in(pixels_of(sample)) == round((sample.image.time_ns - start) * 30 / NS)
        assert sample.quality.audio_coverage > 0.97
        pcm, _ = soundfile.read(io.BytesIO(sample.audio.data))
        late_s = delay_of(pcm, (sample.window.start_ns - start) / NS)
        assert abs(late_s) < 3e-3  # FLV counts in ms, and AAC is not exact


# -- Priming, padding, pre-skip --------------------------------------------------------------------------

SOUNDS = {
    "Opus in MP4": (".mp4", "libopus", 1e-5, 1e-3),
    "Opus in Matroska": (".mkv", "libopus", 1e-3, 1e-3),  # its clock of 1 ms; the pre-skip is 6.5 ms
    "Vorbis in Matroska": (".mkv", "libvorbis", 1e-3, 5e-3),
    "MP3 in MP4": (".mp4", "libmp3lame", 1e-5, 1e-3),
    "MP3 in Matroska": (".mkv", "libmp3lame", 1e-3, 1e-3),
    "MP3 in AVI, which has no word for priming": (".avi", "libmp3lame", 1e-5, 0.03),
    "AC-3 in MPEG-TS": (".ts", "ac3", 1e-5, 0.03),
}


@pytest.mark.parametrize("title", SOUNDS)
def test_padded_sound_stands_where_ffmpeg_puts_it(tmp_path, title):
    suffix, codec, apart, late = SOUNDS[title]
    path = numbered(tmp_path / f"x{suffix}", range(180), *X264, "-c:a", codec, "-b:a", "160k")
    media = probe_media(str(path))
    _, found = windows(path, window=1, stride=0.5)
    for sample in found[1:-2:6]:
        pcm, _ = soundfile.read(io.BytesIO(sample.audio.data))
        assert abs(delay_of(pcm, (sample.window.start_ns - media.video.span.start_ns) / NS)) < late
    if suffix != ".ts":  # the program that imageio-ffmpeg brings crashes on those
        first, samples = _by_ffmpeg(path)
        start = found[4].window.start_ns / NS
        at = round((start - first) * RATE)
        theirs = delay_of(samples[at : at + RATE], first + at / RATE)
        pcm, _ = soundfile.read(io.BytesIO(found[4].audio.data))
        assert abs(delay_of(pcm, start) - theirs) < apart


def _by_ffmpeg(path):
    """Time of the first decoded sample, and the samples, by the ffmpeg program."""
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-copyts", "-i", path, "-map", "0:a"]
    listed = subprocess.run([*program, "-f", "framecrc", "-"], capture_output=True, text=True, check=True)
    rows = [line for line in listed.stdout.splitlines() if not line.startswith("#")]
    base = next(line for line in listed.stdout.splitlines() if line.startswith("#tb")).split()[-1]
    over, under = map(int, base.split("/"))
    raw = subprocess.run([*program, "-f", "s16le", "-ac", "1", "-"], capture_output=True, check=True).stdout
    return int(rows[0].split(",")[2]) * over / under, np.frombuffer(raw, "<i2") / 32768


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_end_padding_is_no_sound(tmp_path, suffix):
    """Opus fills its last packet, and Matroska says by how much (RFC 9559, DiscardPadding)."""
    codecs = ("-c:v", "libvpx", "-c:a", "libopus")
    path = numbered(tmp_path / f"x{suffix}", range(91), *codecs)
    long, both = tmp_path / f"long{suffix}", tmp_path / f"both{suffix}"
    numbered(long, range(150), *codecs[:2], sound=False)
    ffmpeg("-i", long, "-i", path, "-map", "0:v", "-map", "1:a", "-c", "copy", both)
    _, samples = _by_ffmpeg(both)
    _, found = windows(both, window=1, stride=1, min_coverage=0.0)
    recorded = sum((s.quality.audio_coverage or 0.0) for s in found)
    assert recorded == pytest.approx(len(samples) / RATE, abs=2e-3)
    assert recorded == pytest.approx(91 / 30, abs=2e-3)


# -- Sound alone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".wav"])
def test_a_recording_of_sound_alone_ends_as_one_clear_reason(tmp_path, suffix):
    whole, path = tmp_path / "whole.mp4", tmp_path / f"sound{suffix}"
    numbered(whole, range(60), *X264, "-c:a", "aac")
    ffmpeg("-i", whole, "-vn", path)
    plan, found = windows(path)
    (fault,) = plan.faults
    assert (fault.code, fault.outcome, found) == ("no_video", "failed", [])
    assert not [f for f in plan.faults if isinstance(f, Fault) and not f.detail]
