"""Reading through file objects, as from a bucket: what is fetched is what windows need, not the file."""

import io
import os
import subprocess
from bisect import bisect_right
from itertools import pairwise

import av
import imageio_ffmpeg
import pytest

from align.schemas.time import NS, TimeSpan
from align.transforms.read.demux import WindowRequest, read_media
from align.transforms.read.guard import open_media
from align.transforms.read.probe import probe_media

SECONDS, GOP_S = 60, 4
SHORT_S = 30
READ_AHEAD = 1 << 15
"""What PyAV fetches at a time: a gap that is shorter is read, not skipped."""


class Counting(io.FileIO):
    """A local file that counts the bytes that are fetched from it."""

    fetched = 0

    def read(self, size=-1):
        data = super().read(size)
        Counting.fetched += len(data)
        return data


def run_ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *map(str, arguments)], check=True)


def noise(seconds):
    return "-f", "lavfi", "-i", f"nullsrc=s=320x240:r=25:d={seconds},geq=random(1)*255:128:128"


def x264(gop):
    fixed = ("-g", gop, "-keyint_min", gop, "-sc_threshold", "0", "-bf", "2")
    return "-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-b:v", "4M", *fixed


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranges") / "noise.mp4"
    run_ffmpeg(*noise(SECONDS), *x264(25 * GOP_S), path)
    return str(path)


@pytest.fixture(scope="module", params=[25, 250], ids="gop{}".format)
def with_sound(request, tmp_path_factory):
    """The same packets twice: interleaved one by one as FFmpeg does, and second by second as cameras do."""
    folder = tmp_path_factory.mktemp("ranges")
    close, chunked = folder / "close.mp4", folder / "chunked.mp4"
    sound = ("-f", "lavfi", "-i", f"anoisesrc=a=0.1:r=48000:d={SHORT_S}", "-c:a", "aac", "-b:a", "64k")
    run_ffmpeg(*noise(SHORT_S), *sound[:4], *x264(request.param), *sound[4:], close)
    run_ffmpeg("-i", close, "-c", "copy", "-chunk_duration", 1_000_000, chunked)
    return {"close": str(close), "chunked": str(chunked)}


def groups(path):
    """Bytes of each group of pictures, and of everything that is no packet: the index."""
    sizes = []
    with av.open(path) as container:
        for packet in container.demux(video=0):
            if packet.is_keyframe:
                sizes.append(0)
            if packet.size:
                sizes[-1] += packet.size
        return sizes, container.size - sum(sizes)


def fetched(path, requests):
    media = probe_media(path)
    Counting.fetched = 0
    with open_media(path, Counting) as container:
        frames = [m.frames[0] for m in read_media(container, media, requests)]
    assert all(frame is not None for frame in frames)
    return Counting.fetched


def needed(path, targets):
    """Bytes from which the targets and all sound can be decoded: index, packets, and gaps too short to skip.

    A group of pictures is needed from its keyframe to its last target.
    """
    with av.open(path) as container:
        video, base = container.streams.video[0], container.streams.video[0].time_base
        packets = [p for p in container.demux() if p.size]
        starts = [p.pts for p in packets if p.stream is video and p.is_keyframe]
        last = {bisect_right(starts, t / NS / base): t / NS / base for t in sorted(targets)}
        wanted, group, held = [], 0, 0
        for packet in packets:
            held += packet.size
            if packet.stream is video:
                group += packet.is_keyframe
            if packet.stream is not video or packet.dts <= last.get(group, -1):
                wanted.append((packet.pos, packet.pos + packet.size))
        wanted.sort()
        gaps = sum(g for (_, end), (start, _) in pairwise(wanted) if (g := start - end) < READ_AHEAD)
        return container.size - held + sum(end - start for start, end in wanted) + gaps


def test_sparse_windows_fetch_their_groups_and_the_index(recording):
    sizes, index = groups(recording)
    # a frame near the end of its group, so that the group is needed
    targets = [s * NS + (GOP_S * NS - NS // 25) for s in range(16, SECONDS - GOP_S, 16)]
    requests = [WindowRequest(TimeSpan(t - NS, t + NS), (t,)) for t in targets]
    needed = index + sum(sizes[t // (GOP_S * NS)] for t in targets)
    assert fetched(recording, requests) <= 1.1 * needed < 0.3 * sum(sizes)


@pytest.mark.parametrize("interleaved", ["close", "chunked"])
def test_a_contiguous_grid_with_sound_reads_a_file_once(with_sound, interleaved):
    path = with_sound[interleaved]
    size = os.path.getsize(path)
    got, least = contiguous(path)
    assert least <= got <= 1.01 * size


@pytest.mark.parametrize("with_sound", [250], indirect=True, ids=["gop250"])
def test_long_groups_are_read_to_their_last_target_where_sound_lies_apart(with_sound):
    got, least = contiguous(with_sound["chunked"])
    assert got <= 1.1 * least


@pytest.mark.parametrize("with_sound", [25], indirect=True, ids=["gop25"])
def test_groups_without_a_target_are_stepped_over_where_sound_lies_apart(with_sound):
    """Sound of a second in one piece leaves video in pieces that are worth skipping."""
    path = with_sound["chunked"]
    got, least = contiguous(path)
    # of each second's sound, 8 kB, what comes at once is fetched
    assert got <= 1.1 * (least + SHORT_S * (READ_AHEAD - 8_000)) < 0.25 * os.path.getsize(path)


@pytest.mark.parametrize("stride_s", [1, 5])
def test_windows_hold_the_same_however_packets_are_interleaved(with_sound, stride_s):
    """Where sound and video lie apart, the reader jumps to keyframes; nothing may get lost on the way."""
    requests = grid(range(0, SHORT_S - 5, stride_s))
    held = []
    for path in with_sound.values():
        media = probe_media(path)
        with open_media(path) as container:
            for window in read_media(container, media, requests):
                sound = [(p.pts, bytes(p)) for p in window.audio_packets]
                held.append(([f.time_ns for f in window.frames], sound))
    assert held[: len(requests)] == held[len(requests) :]
    assert all(len(sound) > 200 for _, sound in held)


def grid(starts_s):
    windows = [TimeSpan(s * NS, (s + 5) * NS) for s in starts_s]
    return [WindowRequest(w, (w.center_ns,), w.widened(NS // 10)) for w in windows]


def contiguous(path):
    """Bytes that a window each 5 s fetches, its sound included, and those that it needs."""
    requests = grid(range(0, SHORT_S, 5))
    return fetched(path, requests), needed(path, [t for r in requests for t in r.targets_ns])


def test_probing_fetches_little_of_a_long_file(recording):
    sizes, index = groups(recording)
    Counting.fetched = 0
    probe_media(recording, opener=Counting)
    assert Counting.fetched <= index + 0.1 * sum(sizes)
