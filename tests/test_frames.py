"""Frames chosen by the plan are those of a full decode, bit for bit, whatever the codec and its structure."""

import random
import subprocess
from bisect import bisect_right

import av
import imageio_ffmpeg
import pytest

from align.schemas.time import TimeSpan, ticks_to_ns
from align.transforms.read.demux import WindowRequest, read_media
from align.transforms.read.frames import RunAssembler, RunDecoder, on_screen
from align.transforms.read.guard import open_media
from align.transforms.read.nal import entry_test
from align.transforms.read.probe import probe_media

X264 = ["-c:v", "libx264", "-preset", "veryfast", "-threads", "1"]
X265 = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params"]
VP9 = ["-c:v", "libvpx-vp9", "-b:v", "150k"]
QUIET = "log-level=error:pools=1"
STRUCTURES = {
    "h264_closed.mp4": [*X264, "-g", "30", "-bf", "3"],
    "h264_pyramid.mp4": [*X264, "-g", "40", "-bf", "5", "-x264-params", "b-pyramid=normal:b-adapt=0"],
    "h264_open.mp4": [*X264, "-g", "24", "-bf", "3", "-x264-params", "open-gop=1:b-adapt=0:scenecut=0"],
    "h264_open.mkv": [*X264, "-g", "24", "-bf", "3", "-x264-params", "open-gop=1:b-adapt=0:scenecut=0"],
    "h264_open.ts": [*X264, "-g", "24", "-bf", "3", "-x264-params", "open-gop=1:b-adapt=0:scenecut=0"],
    "h264_no_b.mp4": [*X264, "-g", "30", "-bf", "0"],
    "h264_one_gop.mp4": [*X264, "-g", "1000", "-bf", "3", "-sc_threshold", "0"],
    "h264_intra.mov": [*X264, "-g", "1"],
    "h264_intra_refresh.mp4": [*X264, "-g", "30", "-x264-params", "intra-refresh=1"],
    "h264_intra_refresh.mkv": [*X264, "-g", "30", "-x264-params", "intra-refresh=1"],
    "h264_intra_refresh.ts": [*X264, "-g", "30", "-x264-params", "intra-refresh=1"],
    "h264_fragmented.mp4": [*X264, "-g", "30", "-bf", "2", "-movflags", "frag_keyframe+empty_moov"],
    "h264_interlaced.mp4": [*X264, "-g", "24", "-flags", "+ilme+ildct", "-x264-params", "tff=1:bframes=2"],
    "hevc_closed.mp4": [*X265, f"keyint=30:bframes=4:open-gop=0:{QUIET}"],
    "hevc_open.mp4": [*X265, f"keyint=24:bframes=4:open-gop=1:scenecut=0:{QUIET}"],
    "hevc_layers.mp4": [*X265, f"keyint=30:bframes=4:b-pyramid=1:temporal-layers=3:{QUIET}"],
    "vp9.webm": [*VP9, "-deadline", "realtime", "-cpu-used", "8", "-g", "40", "-auto-alt-ref", "1"],
    "vp9_alt_ref.mkv": [*VP9, "-cpu-used", "5", "-g", "30", "-lag-in-frames", "25", "-auto-alt-ref", "6"],
    "vp8.webm": ["-c:v", "libvpx", "-cpu-used", "8", "-g", "30", "-auto-alt-ref", "1", "-lag-in-frames", "10",
                 "-b:v", "200k"],
    "av1.mp4": ["-c:v", "libaom-av1", "-cpu-used", "8", "-g", "30", "-usage", "realtime", "-b:v", "200k"],
    "mjpeg.mov": ["-c:v", "mjpeg", "-q:v", "4"],
    "mpeg4.avi": ["-c:v", "mpeg4", "-g", "20", "-bf", "0"],
    "mpeg4_b.mp4": ["-c:v", "mpeg4", "-g", "20", "-bf", "2"],
    "mpeg2.ts": ["-c:v", "mpeg2video", "-g", "18", "-bf", "2"],
}  # fmt: skip
FRAMES = 130


def run_ffmpeg(*args):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, args)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def planes(frame):
    """The picture's bytes without the padding of lines."""
    return frame.to_ndarray().tobytes()


@pytest.fixture(scope="session", params=STRUCTURES)
def clip(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / request.param
    source = "testsrc2=size=112x80:rate=30,noise=alls=12:allf=t"
    size = ["-frames:v", str(FRAMES), "-pix_fmt", "yuvj420p" if "mjpeg" in request.param else "yuv420p"]
    run_ffmpeg("-f", "lavfi", "-i", source, *STRUCTURES[request.param], *size, path)
    return str(path)


@pytest.fixture(scope="session")
def reference(clip):
    """Every frame of a plain sequential decode by PyAV: [(time in ns, planes)], ascending."""
    offset = probe_media(clip).video.clock_offset_ns
    with av.open(clip) as container:
        stream = container.streams.video[0]
        frames = [
            (ticks_to_ns(f.pts, stream.time_base) - offset, planes(f)) for f in container.decode(stream)
        ]
    return sorted(frames)


def read(path, requests):
    media = probe_media(path)
    with open_media(path) as container:
        return list(read_media(container, media, requests))


def one_window(targets):
    return [WindowRequest(TimeSpan(min(targets), max(targets) + 1), tuple(targets))]


def test_a_full_decode_agrees_with_an_independent_ffmpeg_process(clip, reference):
    if "mpeg4" in clip or "mpeg2" in clip:
        pytest.skip("MPEG-2 and MPEG-4 part 2 leave the rounding of the inverse transform to the decoder")
    if clip.endswith(".ts"):
        pytest.skip("this ffmpeg binary crashes on any MPEG-TS file")
    raw = run_ffmpeg("-i", clip, "-fps_mode", "passthrough", "-f", "rawvideo", "-")
    assert raw == b"".join(data for _, data in reference)
    assert len(reference) == FRAMES


def test_the_probed_span_is_that_of_the_decoded_frames(clip, reference):
    video = probe_media(clip).video
    assert video.span.start_ns == reference[0][0]
    assert abs(video.span.end_ns - video.frame_ns - reference[-1][0]) <= 1_000_000


def test_random_targets_get_the_frame_on_screen_bit_for_bit(clip, reference):
    rng = random.Random(clip.rsplit("/", 1)[-1])
    times = [t for t, _ in reference]
    start, end = times[0], times[-1] + 33_000_000
    for count in (1, 1, 2, 3, 8, 40):
        targets = tuple(rng.randrange(start, end) for _ in range(count))
        (media,) = read(clip, one_window(targets))
        assert media.frame_error == ""
        for target, frame in zip(targets, media.frames, strict=True):
            time, data = reference[bisect_right(times, target) - 1]
            assert frame.time_ns == time
            assert planes(frame.frame) == data


def test_every_frame_is_reached_at_its_own_time(clip, reference):
    (media,) = read(clip, one_window([t for t, _ in reference]))
    assert [(f.time_ns, planes(f.frame)) for f in media.frames] == reference


def test_the_nanosecond_before_a_frame_belongs_to_the_one_before(clip, reference):
    targets = [t - 1 for t, _ in reference[1:]]
    (media,) = read(clip, one_window(targets))
    assert [f.time_ns for f in media.frames] == [t for t, _ in reference[:-1]]


def test_keyframe_targets_decode_one_packet_each(clip, reference, monkeypatch):
    media = probe_media(clip)
    if not media.video.keyframes_ns or "refresh" in clip:
        pytest.skip("the format keeps no index, or its keyframes are no entries")
    decoded = []

    def counted(self, packets, damaged, wanted=None, original=RunDecoder._feed):
        decoded.append(len(packets))
        return original(self, packets, damaged, wanted)

    monkeypatch.setattr(RunDecoder, "_feed", counted)
    (got,) = read(clip, one_window(media.video.keyframes_ns))
    known = dict(reference)
    assert [planes(f.frame) for f in got.frames] == [known[t] for t in media.video.keyframes_ns]
    assert decoded == [1] * len(decoded)


@pytest.mark.parametrize(
    ("times", "targets", "expected"),
    [
        ([0, 10, 20], [0, 9, 10, 25], {0: 0, 9: 0, 10: 10, 25: 20}),
        ([5], [4, 5], {5: 5}),
        ([], [1], {}),
        ([20, 0, 10], [15], {15: 10}),
    ],
)
def test_on_screen_is_the_latest_time_not_after_the_target(times, targets, expected):
    assert on_screen(times, targets) == expected


def test_runs_partition_the_shown_frames(clip):
    with open_media(clip) as container:
        assembler = RunAssembler(entry_test(container.streams.video[0]))
        packets = [p for p in container.demux(video=0) if p.size]
        runs = [r for p in packets for r in assembler.push(p)] + list(assembler.finish())
    shown = [time for run in runs for time in sorted(run.shown)]
    assert shown == sorted(p.pts for p in packets)
    assert all(run.packets[0].is_keyframe for run in runs)
