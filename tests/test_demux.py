"""One pass over a file gives every window the frames and audio packets it would get alone."""

import random
import subprocess
from bisect import bisect_right
from pathlib import Path

import av
import imageio_ffmpeg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.schemas.errors import AlignError
from align.schemas.media import AudioInfo, MediaInfo
from align.schemas.time import NS, TimeSpan, ticks_to_ns
from align.transforms import stages
from align.transforms.read.audio_packets import PREROLL_NS, PREROLL_PACKETS, AudioPackets, audio_range
from align.transforms.read.demux import (
    WindowRequest,
    read_media,
)
from align.transforms.read.guard import open_media
from align.transforms.read.probe import probe_media

X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-bf", "2"]
VP9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"]
CONTAINERS = {
    "long.mp4": [*X264, "-g", "50", "-c:a", "aac"],
    "faststart.mp4": [*X264, "-g", "50", "-c:a", "aac", "-movflags", "+faststart"],
    "long.mkv": [*X264, "-g", "50", "-c:a", "libopus"],
    "long.webm": [*VP9, "-g", "50", "-c:a", "libopus"],
    "long.ts": [*X264, "-g", "50", "-c:a", "aac"],
    "fragmented.mp4": [*X264, "-g", "50", "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"],
    "pcm.mov": [*X264, "-g", "50", "-c:a", "pcm_s16le"],
    "mp3.avi": ["-c:v", "mpeg4", "-g", "50", "-bf", "0", "-c:a", "libmp3lame"],
    "flac.mkv": [*X264, "-g", "600", "-c:a", "flac"],
    "audio_ends_early.mp4": [*X264, "-g", "50", "-c:a", "aac", "-af", "atrim=0:20"],
    "audio_hole.mp4": [*X264, "-g", "25", "-c:a", "aac", "-af", r"aselect=not(between(t\,20\,38))"],
    "short_groups.mp4": [*X264, "-g", "10", "-c:a", "aac"],
    "chunked.mp4": [*X264, "-g", "20", "-c:a", "aac", "-chunk_duration", "1000000"],
}  # fmt: skip
SECONDS = 70


def run_ffmpeg(*args):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, args)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def record(path, *encoder, seconds=SECONDS):
    picture = f"testsrc2=size=64x48:rate=25:duration={seconds}"
    sound = f"sine=frequency=440:sample_rate=48000:duration={seconds}"
    run_ffmpeg(
        "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, *encoder, "-pix_fmt", "yuv420p", path
    )
    return str(path)


@pytest.fixture(scope="session", params=CONTAINERS)
def recording(request, tmp_path_factory):
    return record(tmp_path_factory.mktemp("demux") / request.param, *CONTAINERS[request.param])


@pytest.fixture(scope="session")
def short(tmp_path_factory):
    return record(tmp_path_factory.mktemp("demux") / "short.mp4", *X264, "-g", "25", "-c:a", "aac", seconds=8)


@pytest.fixture(scope="session")
def truth(recording):
    """All frames and all audio packets, from a plain pass: times in ns on the recording clock."""
    offset = probe_media(recording).video.clock_offset_ns
    frames, sound = {}, []
    with av.open(recording) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        for packet in container.demux(video, audio):
            if packet.stream is audio and packet.pts is not None:
                start = ticks_to_ns(packet.pts, audio.time_base) - offset
                length = min(ticks_to_ns(packet.duration, audio.time_base), NS)  # longer: a hole
                sound.append((start, start + length, bytes(packet)))
            elif packet.stream is video:
                for frame in packet.decode():
                    time = ticks_to_ns(frame.pts, video.time_base) - offset
                    frames[time] = frame.to_ndarray().tobytes()
    return frames, sorted(sound, key=lambda p: p[0])


def read(path, requests, media=None):
    with open_media(path) as container:
        return [summary(m) for m in read_media(container, media or probe_media(path), requests)]


def summary(media):
    frames = [f and (f.time_ns, f.frame.to_ndarray().tobytes()) for f in media.frames]
    return frames, [(p.pts, bytes(p)) for p in media.audio_packets], media.frame_error


def request_at(start_s, length_s=2.0, offsets=(0.5,), margin_s=0.1):
    window = TimeSpan(int(start_s * NS), int((start_s + length_s) * NS))
    targets = tuple(window.start_ns + int(o * window.length_ns) for o in offsets)
    return WindowRequest(window, targets, window.widened(int(margin_s * NS)))


def expected_frames(frames, targets):
    times = sorted(frames)
    picked = (times[max(bisect_right(times, t) - 1, 0)] for t in targets)
    return [(t, frames[t]) for t in picked]


REQUESTS = [request_at(s, offsets=(0.5, 0.1, 0.9)) for s in (0.2, 1.1, 3, 18.5, 19, 21, 40.04, 55, 55.5, 66)]


def test_sparse_overlapping_windows_equal_a_plain_pass(recording, truth):
    frames, sound = truth
    results = read(recording, REQUESTS)
    for request, (got, packets, error) in zip(REQUESTS, results, strict=True):
        assert error == ""
        assert got == expected_frames(frames, request.targets_ns)
        starts, ends, data = zip(*sound, strict=True)
        assert [p for _, p in packets] == list(data[audio_range(starts, ends.__getitem__, request.audio)])


def test_what_a_window_gets_does_not_depend_on_its_neighbours(recording):
    whole = read(recording, REQUESTS)
    assert [read(recording, [r])[0] for r in REQUESTS] == whole
    assert read(recording, REQUESTS[:4]) + read(recording, REQUESTS[4:]) == whole
    chosen = sorted(random.Random(3).sample(range(len(REQUESTS)), 5))
    assert read(recording, [REQUESTS[i] for i in chosen]) == [whole[i] for i in chosen]


@pytest.mark.parametrize("offsets", [(0.5,), (0.02, 0.3, 0.98)])
def test_a_contiguous_grid_equals_a_plain_pass(recording, truth, offsets):
    frames, sound = truth
    requests = [request_at(s, 5.0, offsets) for s in range(0, SECONDS, 5)]
    starts, ends, data = zip(*sound, strict=True)
    for request, (got, packets, error) in zip(requests, read(recording, requests), strict=True):
        assert error == ""
        assert got == expected_frames(frames, request.targets_ns)
        assert [p for _, p in packets] == list(data[audio_range(starts, ends.__getitem__, request.audio)])


@pytest.mark.parametrize("recording", ["short_groups.mp4"], indirect=True)
def test_video_between_the_targets_of_an_mp4_is_stepped_over(recording):
    media = probe_media(recording)
    requests = [request_at(s, 5.0) for s in range(0, SECONDS, 5)]
    stages.take()
    got = read(recording, requests, media)
    video = stages.take()["read.elements"] - len({pts for _, packets, _ in got for pts, _ in packets})
    assert video < 0.6 * 25 * SECONDS


def test_a_contiguous_grid_is_covered_to_the_end(short):
    results = read(short, [request_at(s, 1.0) for s in range(8)])
    assert [frames[0][0] for frames, _, _ in results] == [s * NS + NS // 2 - NS // 50 for s in range(8)]
    assert all(packets for _, packets, _ in results)


def test_targets_outside_the_video_are_no_coverage(short):
    media = probe_media(short)
    edge = media.video.span.end_ns + media.video.frame_ns
    targets = (-media.video.frame_ns, -media.video.frame_ns + 1, edge - 1, edge, 100 * NS)
    ((frames, _, error),) = read(short, [WindowRequest(TimeSpan(0, NS), targets)])
    assert [f and f[0] for f in frames] == [
        None,
        0,
        media.video.span.end_ns - media.video.frame_ns,
        None,
        None,
    ]
    assert error == ""


def test_a_window_without_audio_gets_no_packets(short):
    ((_, packets, _),) = read(short, [WindowRequest(TimeSpan(0, NS), (0,))])
    assert packets == []


def test_audio_only_and_video_only_requests_work_alone(short):
    media = probe_media(short)
    request = request_at(2)
    ((frames, packets, _),) = read(short, [request])
    only_audio = MediaInfo(media.format, None, media.audio)
    only_video = MediaInfo(media.format, media.video, None)
    assert read(short, [request], only_audio) == [([None], packets, "")]
    assert read(short, [request], only_video) == [(frames, [], "")]


def test_streams_that_are_not_there_are_refused(short):
    media = probe_media(short)
    gone = AudioInfo(7, "aac", 48_000, 1, media.audio.time_base, media.audio.span)
    with pytest.raises(AlignError) as caught:
        read(short, [request_at(1)], MediaInfo(media.format, media.video, gone))
    assert caught.value.code == "no_such_stream"


def test_a_file_cut_short_yields_what_decodes_and_says_what_does_not(tmp_path):
    whole = record(tmp_path / "w.mp4", *X264, "-g", "25", "-c:a", "aac", "-movflags", "+faststart", seconds=8)
    data = Path(whole).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(len(data) * 0.6)])
    requests = [request_at(s, 1.0) for s in range(8)]
    sound = read(whole, requests)
    got = read(str(cut), requests)
    assert got[:3] == sound[:3]
    assert got[-1][0] == [None]
    assert "ends before" in got[-1][2]
    assert all(g[0] == s[0] or g[0] == [None] or g[2] for g, s in zip(got, sound, strict=True))


def damage(path, out, frame_times):
    """Overwrite the payload of the packets shown at the given times, sparing the first bytes."""
    data = bytearray(Path(path).read_bytes())
    with av.open(path) as container:
        for packet in container.demux(video=0):
            if packet.pts is not None and ticks_to_ns(packet.pts, packet.time_base) in frame_times:
                begin, end = packet.pos + packet.size // 4, packet.pos + packet.size
                data[begin:end] = random.Random(1).randbytes(end - begin)
    out.write_bytes(data)
    return str(out)


def test_damage_is_never_shown_and_harms_no_other_group_of_pictures(tmp_path):
    encoder = [
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-threads",
        "1",
        "-bf",
        "2",
        "-g",
        "25",
        "-c:a",
        "aac",
    ]
    whole = record(tmp_path / "whole.mp4", *encoder, seconds=6)
    frames = [t * NS // 25 for t in range(150)]
    broken = damage(whole, tmp_path / "broken.mp4", {frames[60]})
    requests = [WindowRequest(TimeSpan(t, t + 1), (t,)) for t in frames]
    good, bad = read(whole, requests), read(broken, requests)
    assert bad[:50] == good[:50]
    assert bad[75:] == good[75:]
    known = {f[0]: f[1] for (f,), _, _ in good}
    for (frame,), _, _ in bad[50:75]:
        assert frame is None or known[frame[0]] == frame[1]
    assert any(error for _, _, error in bad[50:75])
    assert [read(broken, [r])[0] for r in requests[50:75]] == bad[50:75]


JUMPS = {
    "chunks of 0.3 s": [*X264, "-g", "10", "-c:a", "aac", "-chunk_duration", "300000"],
    "chunks of 1 s": [*X264, "-g", "30", "-c:a", "aac", "-chunk_duration", "1000000"],
    "long groups": [*X264, "-g", "250", "-c:a", "aac", "-chunk_duration", "1000000"],
    "groups of one": [*X264, "-g", "1", "-bf", "0", "-c:a", "aac", "-chunk_duration", "500000"],
    "groups of any length": [*X264, "-force_key_frames", "0.04,0.12,3,3.2,7,20", "-c:a", "aac"],
    "packet by packet": [*X264, "-g", "20", "-c:a", "aac"],
    "hole in the sound": [*CONTAINERS["audio_hole.mp4"], "-chunk_duration", "1000000"],
    "mp3": [*X264, "-g", "20", "-c:a", "libmp3lame", "-chunk_duration", "1000000"],
}


@pytest.fixture(scope="module", params=JUMPS.values(), ids=JUMPS.keys())
def jumpy(request, tmp_path_factory):
    path = record(tmp_path_factory.mktemp("jumps") / "file.mp4", *request.param, seconds=45)
    return path, probe_media(path)


@settings(deadline=None, max_examples=15)
@given(
    starts=st.lists(st.integers(0, 440), min_size=1, max_size=12), share=st.sampled_from([0.02, 0.5, 0.97])
)
def test_jumping_to_keyframes_gives_what_reading_through_gives(jumpy, starts, share):
    path, media = jumpy
    requests = [request_at(s / 10, offsets=(share,)) for s in sorted(starts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align.transforms.read.sample_table._APART_BYTES", 0)
        jumped = read(path, requests, media)
        patch.setattr("align.transforms.read.sample_table._APART_BYTES", 1 << 62)
        assert read(path, requests, media) == jumped


def test_sound_that_comes_again_is_taken_once_and_what_is_left_out_is_noticed(short):
    info = probe_media(short).audio
    assert info is not None
    with av.open(short) as container:
        stream = container.streams.audio[0]
        packets = [p for p in container.demux(stream) if p.size][:20]
        span = TimeSpan(NS // 20, NS // 10)
        for go_on_at, is_torn in ((6, False), (9, False), (10, True), (12, True)):
            sound = AudioPackets(stream, info, [span])
            for packet in packets[:10]:
                sound.push(packet, ticks_to_ns(packet.pts, stream.time_base))
            sound.expect_again()
            for packet in packets[go_on_at:]:
                sound.push(packet, ticks_to_ns(packet.pts, stream.time_base))
            assert sound.is_torn == is_torn
            if not is_torn:
                taken = sound.take(span)
                assert [p.pts for p in taken] == [p.pts for p in packets[: len(taken)]]


SPANS = st.tuples(st.integers(0, 10 * NS), st.integers(1, 3 * NS))


@given(st.lists(st.integers(1, NS), min_size=1, max_size=60), SPANS)
def test_the_audio_range_covers_the_span_and_its_preroll(lengths, where):
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    starts = [0, *ends[:-1]]
    span = TimeSpan(where[0], sum(where))
    chosen = range(len(starts))[audio_range(starts, ends.__getitem__, span)]
    if not any(s < span.end_ns and e > span.start_ns for s, e in zip(starts, ends, strict=True)):
        assert not chosen
        return
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if start < span.end_ns and end > span.start_ns - PREROLL_NS:
            assert i in chosen
    before = [i for i in chosen if ends[i] <= span.start_ns]
    available = [i for i in range(len(ends)) if ends[i] <= span.start_ns]
    assert len(before) >= min(PREROLL_PACKETS, len(available))


def test_video_without_keyframes_is_refused_before_it_fills_the_memory(short, monkeypatch):
    monkeypatch.setattr("align.transforms.read.frames.MAX_RUN_BYTES", 3000)
    with pytest.raises(AlignError) as caught:
        read(short, [request_at(4.9)])  # its frame is late in its group
    assert caught.value.code == "no_keyframes"
