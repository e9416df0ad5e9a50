"""Reading through file objects, as from a bucket: what is fetched is what windows need, not the file."""

import io
import subprocess

import av
import imageio_ffmpeg
import pytest

from align.schemas.time import NS, TimeSpan
from align.transforms.read.demux import WindowRequest, read_media
from align.transforms.read.guard import open_media
from align.transforms.read.probe import probe_media

SECONDS, GOP_S = 60, 4


class Counting(io.FileIO):
    """A local file that counts the bytes that are fetched from it."""

    fetched = 0

    def read(self, size=-1):
        data = super().read(size)
        Counting.fetched += len(data)
        return data


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranges") / "noise.mp4"
    picture = f"nullsrc=s=320x240:r=25:d={SECONDS},geq=random(1)*255:128:128"
    command = (
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", picture),
        *("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-b:v", "4M", "-g", str(25 * GOP_S)),
        *("-keyint_min", str(25 * GOP_S), "-sc_threshold", "0", "-bf", "2", str(path)),
    )
    subprocess.run(command, check=True)
    return str(path)


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


def test_sparse_windows_fetch_their_groups_and_the_index(recording):
    sizes, index = groups(recording)
    # a frame near the end of its group, so that the group is needed
    targets = [s * NS + (GOP_S * NS - NS // 25) for s in range(16, SECONDS - GOP_S, 16)]
    requests = [WindowRequest(TimeSpan(t - NS, t + NS), (t,)) for t in targets]
    needed = index + sum(sizes[t // (GOP_S * NS)] for t in targets)
    assert fetched(recording, requests) <= 1.1 * needed < 0.3 * sum(sizes)


def test_probing_fetches_little_of_a_long_file(recording):
    sizes, index = groups(recording)
    Counting.fetched = 0
    probe_media(recording, opener=Counting)
    assert Counting.fetched <= index + 0.1 * sum(sizes)
