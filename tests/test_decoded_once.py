"""However windows overlap, what they share is decoded once."""

import random
import subprocess
from collections import Counter

import av
import imageio_ffmpeg
import pytest

from align.schemas.time import NS, TimeSpan
from align.transforms.read.demux import WindowRequest, read_media
from align.transforms.read.frames import RunDecoder
from align.transforms.read.guard import open_media
from align.transforms.read.probe import probe_media

SECONDS = 20
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-bf", "2", "-sc_threshold", "0")
CLOSED = {
    "short_groups.mp4": (*X264, "-g", "12"),
    "long_groups.mp4": (*X264, "-g", "250"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "50", "-b:v", "100k"),
}
OPEN = (*X264, "-g", "24", "-x264-params", "open-gop=1:b-adapt=0")


def record(path, *encoder):
    picture = ("-f", "lavfi", "-i", f"testsrc2=s=64x48:r=25:d={SECONDS}")
    sound = ("-f", "lavfi", "-i", f"anoisesrc=a=0.1:r=48000:d={SECONDS}")
    command = (imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *picture, *sound, "-pix_fmt", "yuv420p")
    subprocess.run([*command, *encoder, str(path)], check=True)
    return str(path)


def centred_on_narrations():
    """Windows of 5 s around irregular instants, some 3 s apart, some less than a frame."""
    draw = random.Random(4)
    centres = sorted(draw.uniform(2.5, SECONDS - 2.5) for _ in range(12))
    for centre in [*centres, centres[-1] + 0.01]:
        window = TimeSpan(int((centre - 2.5) * NS), int((centre + 2.5) * NS))
        targets = (window.start_ns + NS // 2, window.center_ns, window.end_ns - NS // 2)
        yield WindowRequest(window, targets, window.widened(NS // 10))


@pytest.fixture
def fed(monkeypatch):
    """How often each packet, by its time, is handed to the decoder."""
    counts = Counter()

    def counting(self, packets, damaged, wanted=None, original=RunDecoder._feed):
        counts.update(p.pts for p in packets)
        return original(self, packets, damaged, wanted)

    monkeypatch.setattr(RunDecoder, "_feed", counting)
    return counts


def read(path):
    requests = sorted(centred_on_narrations(), key=lambda r: r.window)
    with open_media(path) as container:
        found = list(read_media(container, probe_media(path), requests))
    assert all(frame is not None for media in found for frame in media.frames)
    return found


@pytest.mark.parametrize("name", CLOSED)
def test_no_packet_is_decoded_twice_for_overlapping_windows(tmp_path, fed, name):
    found = read(record(tmp_path / name, *CLOSED[name]))
    assert fed
    assert set(fed.values()) == {1}
    shared = Counter(frame.time_ns for media in found for frame in media.frames)
    assert len(shared) < shared.total()


def test_of_open_groups_only_the_keyframe_between_two_is_decoded_for_both(tmp_path, fed):
    path = record(tmp_path / "open.mp4", *OPEN)
    read(path)
    with av.open(path) as container:
        keyframes = {p.pts for p in container.demux(video=0) if p.is_keyframe}
    again = {time for time, count in fed.items() if count > 1}
    assert leading(path)  # the groups are open indeed
    assert again <= keyframes | leading(path)
    assert max(fed.values()) <= 2


def leading(path):
    """Times of pictures that stand after a keyframe in the file and are shown before it."""
    found, keyframe = set(), None
    with av.open(path) as container:
        for packet in container.demux(video=0):
            keyframe = packet.pts if packet.is_keyframe else keyframe
            if packet.pts is not None and keyframe is not None and packet.pts < keyframe:
                found.add(packet.pts)
    return found
