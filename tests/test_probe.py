"""What is probed is what is there: spans and keyframes from the header equal those of the decoded frames."""

import io
import json
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import pytest

from align.schemas.errors import AlignError
from align.schemas.time import NS, TimeSpan, ticks_to_ns
from align.transforms.read.demux import WindowRequest, read_media
from align.transforms.read.guard import open_media
from align.transforms.read.probe import probe_media

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-threads", "1"]

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")


def run_ffmpeg(*args):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, args)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def make(path, *output, seconds=4, inputs=()):
    picture = ["-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=25:duration={seconds}"]
    sound = ["-f", "lavfi", "-i", f"sine=sample_rate=48000:duration={seconds}"]
    run_ffmpeg(*inputs, *picture, *sound, *output, path)
    return str(path)


def decoded_times(path, index):
    """Presentation times of the sound frames of a plain decode, ns on the container's own clock."""
    times = []
    with av.open(path) as container:
        stream = container.streams[index]
        stream.thread_count = 1
        for packet in container.demux(stream):
            try:
                times += [ticks_to_ns(f.pts, stream.time_base) for f in packet.decode() if not f.is_corrupt]
            except av.error.FFmpegError:
                continue
    return sorted(times)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "flv"])
@pytest.mark.parametrize("offset", [0, 1.5, -0.5])
def test_spans_start_where_the_first_frame_stands(tmp_path, suffix, offset):
    plain = make(tmp_path / "plain.mkv", *X264, "-bf", "2", "-c:a", "aac")
    shifted = tmp_path / f"shifted.{suffix}"
    run_ffmpeg(
        "-itsoffset", offset, "-i", plain, "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", shifted
    )
    media = probe_media(str(shifted))
    video = media.video
    times = [t - video.clock_offset_ns for t in decoded_times(str(shifted), video.index)]
    assert video.span.start_ns == times[0]
    assert abs(video.span.end_ns - times[-1] - video.frame_ns) <= 1_000_000
    assert abs(video.frame_ns - NS // 25) <= 1_000_000
    starts = (video.span.start_ns, media.audio.span.start_ns)
    if suffix in ("ts", "flv"):
        assert min(starts) == 0
    else:
        assert video.clock_offset_ns == 0


@pytest.mark.parametrize("gop", [1, 10, 40])
@pytest.mark.parametrize("extra", [[], ["-x264-params", "open-gop=1:scenecut=0:b-adapt=0"]])
def test_keyframe_times_of_an_mp4_are_presentation_times(tmp_path, gop, extra):
    path = make(tmp_path / "k.mp4", *X264, "-g", gop, "-bf", "3", *extra, "-c:a", "aac")
    with av.open(path) as container:
        stream = container.streams.video[0]
        expected = [ticks_to_ns(p.pts, stream.time_base) for p in container.demux(stream) if p.is_keyframe]
    assert probe_media(path).video.keyframes_ns == tuple(sorted(expected))


def test_only_the_header_and_the_first_packets_of_an_mp4_are_read(tmp_path):
    path = make(tmp_path / "big.mp4", *X264, "-qp", "0", "-vf", "noise=alls=90:allf=t", "-an", seconds=20)
    read = 0

    class Counted(io.BytesIO):
        def read(self, size=-1):
            nonlocal read
            data = super().read(size)
            read += len(data)
            return data

    data = Path(path).read_bytes()
    assert probe_media("mem://x", opener=lambda _: Counted(data)) == probe_media(path)
    assert read < len(data) / 4


def test_vfr_gaps_leave_the_nominal_frame_alone(tmp_path):
    gap = "select='not(between(n,30,60))'"
    path = make(tmp_path / "vfr.mp4", *X264, "-vf", gap, "-fps_mode", "vfr", "-an")
    video = probe_media(path).video
    assert (video.frame_ns, video.span) == (NS // 25, TimeSpan(0, 4 * NS))


def test_anamorphic_pixels_are_told(tmp_path):
    path = make(tmp_path / "sar.mp4", *X264, "-vf", "setsar=16/15", "-an")
    assert probe_media(path).video.sample_aspect == Fraction(16, 15)


def test_streams_are_chosen_by_default_mark_then_by_index(tmp_path):
    picture = ["-f", "lavfi", "-i", "testsrc2=size=32x32:rate=25:duration=1"]
    maps = [
        "-map",
        "0:v",
        "-map",
        "1:v",
        "-map",
        "2:a",
        "-disposition:v:0",
        "0",
        "-disposition:v:1",
        "default",
    ]
    path = make(tmp_path / "two.mkv", *maps, *X264, "-c:a", "aac", seconds=1, inputs=picture)
    assert probe_media(path).video.index == 1
    assert probe_media(path, video_index=0).video.index == 0
    for wrong in ({"video_index": 2}, {"audio_index": 0}, {"video_index": 9}, {"audio_index": -1}):
        with pytest.raises(AlignError) as caught:
            probe_media(path, **wrong)
        assert caught.value.code == "no_such_stream"


def test_cover_pictures_are_no_video(tmp_path):
    sound, cover, song = tmp_path / "s.m4a", tmp_path / "c.jpg", tmp_path / "song.m4a"
    run_ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", sound)
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=32x32", "-frames:v", "1", cover)
    run_ffmpeg(
        "-i",
        sound,
        "-i",
        cover,
        "-map",
        "0",
        "-map",
        "1",
        "-c",
        "copy",
        "-disposition:v",
        "attached_pic",
        song,
    )
    media = probe_media(str(song))
    assert media.video is None
    assert media.audio.rate == 44_100


def test_a_file_cut_short_still_claims_what_its_header_says(tmp_path):
    path = make(tmp_path / "whole.mp4", *X264, "-c:a", "aac", "-movflags", "+faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size * 6 // 10])
    assert probe_media(str(cut)).video.span == probe_media(path).video.span


# -- Awkward real files: span of the video in ns, and whether the middle can be shown -----------------------

NO_VIDEO, SHOWN, BROKEN = "no video", "shown", "decode error"
EDGE = {
    "av1_video.mkv": ((0, 5 * NS), SHOWN),
    "bbb_800x640_768kbps_30fps_avc_2b_firstpts_10_sec.mp4": ((10 * NS, 14 * NS), SHOWN),
    "decord_unordered.mov": ((0, 125_000_000), SHOWN),
    "decord_video_180.mov": ((0, 100_000_000), SHOWN),
    "decord_video_90.mov": ((0, 100_000_000), SHOWN),
    "discard_first_keyframe.mp4": ((0, NS), SHOWN),
    "gopro_4_frames_no_telemetry.mp4": ((66_733_333, 200_200_000), SHOWN),
    "h265_video.mp4": ((0, NS), SHOWN),
    "h265_with_metadata_track.mp4": ((0, 100_066_667), SHOWN),
    "iibbibb_editlist_videoonly.mp4": ((0, 12 * NS), SHOWN),
    "mp4parse_chunk_out_of_range.mp4": ("bad_container", None),
    "mp4parse_no_timescale.mp4": ((66_400_000, 6_108_800_000), BROKEN),
    "mp4parse_zero_empty_stsc.mp4": ((0, 41_640_000_000), BROKEN),
    "nasa_13013.mp4": ((0, 13 * NS), SHOWN),
    "reproduce_seek_bug.wav": (None, NO_VIDEO),
    "sample_android_slow_motion.mp4": ((0, 525_344_444), SHOWN),
    "sample_audio_only.mp4": (None, NO_VIDEO),
    "sample_empty_track.mp4": ((0, 1_000_988_889), SHOWN),
    "sample_h264.ts": ((0, NS), SHOWN),
    "sample_mdat_too_long.mp4": ((0, 1_001_000_000), SHOWN),
    "sample_portrait.mp4": ((0, 1_001_000_000), SHOWN),
    "sample_rotate_and_reflect.mp4": ((0, 1_001_000_000), SHOWN),
    "sample_video_only.mp4": ((0, 1_001_000_000), SHOWN),
    "sample_with_overlapping_srt.mkv": ((67_000_000, 1_067_000_000), SHOWN),
    "sample_with_srt.mkv": ((0, NS), SHOWN),
    "silent-black-10s.mp4": ((0, 10 * NS), SHOWN),
    "sowt-with-video.mov": ((0, 2 * NS), SHOWN),
}


@needs_data
def test_the_table_of_awkward_files_is_complete():
    assert set(EDGE) == {p.name for p in (DATA / "edge").iterdir() if p.suffix != ".json"}


@needs_data
@pytest.mark.parametrize("name", EDGE)
def test_awkward_files_end_in_the_right_frame_or_the_right_reason(name):
    path = str(DATA / "edge" / name)
    span, outcome = EDGE[name]
    if isinstance(span, str):
        with pytest.raises(AlignError) as caught:
            probe_media(path)
        assert caught.value.code == span
        return
    media = probe_media(path)
    if outcome == NO_VIDEO:
        assert media.video is None
        assert media.audio is not None
        return
    assert media.video.span == TimeSpan(*span)
    target = media.video.span.center_ns
    with open_media(path) as container:
        (window,) = read_media(container, media, [WindowRequest(media.video.span, (target,))])
    if outcome == BROKEN:
        assert window.frames == (None,)
        assert window.frame_error
        return
    times = [t - media.video.clock_offset_ns for t in decoded_times(path, media.video.index)]
    assert times[0] == media.video.span.start_ns
    assert window.frames[0].time_ns == max(t for t in times if t <= target)
    assert window.frame_error == ""


@needs_data
@pytest.mark.parametrize("index", [0, 3])
def test_every_frame_of_the_nasa_clip_stands_where_others_decoded_it(index):
    path = str(DATA / "edge" / "nasa_13013.mp4")
    media = probe_media(path, video_index=index)
    with open_media(path) as container:
        span = media.video.span
        targets = tuple(range(span.start_ns, span.end_ns, media.video.frame_ns))
        (window,) = read_media(container, media, [WindowRequest(span, targets)])
    listed = DATA / "edge" / f"nasa_13013.mp4.stream{index}.all_frames_info.json"
    if not listed.exists():
        assert len({f.time_ns for f in window.frames}) == media.video.frames
        return
    seconds = {round(float(f["pts_time"]), 4) for f in json.loads(listed.read_text())}
    assert {round(f.time_ns / NS, 4) for f in window.frames} <= seconds


def test_a_group_of_pictures_hidden_by_an_edit_list_moves_nothing(synth_folder, tmp_path):
    whole = next(synth_folder(gop=90, duration_s=4.0).glob("v2/full_scale/*.mp4"))
    cut = tmp_path / "cut.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-ss", "1.5", "-i", str(whole), "-c", "copy"]
    subprocess.run([*command, "-avoid_negative_ts", "disabled", str(cut)], check=True)
    with av.open(str(cut)) as container:
        assert sum(p.is_discard for p in container.demux(video=0)) > 40
        container.seek(0)
        first = next(container.decode(video=0))
    start = round(first.pts * first.time_base * 10**9)
    assert probe_media(str(cut)).video.span.start_ns == start >= 0
