"""Which frames are decoded for synchronisation, against videos whose frame types are forced."""

from __future__ import annotations

import subprocess
from fractions import Fraction

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from align.schemas.time import NS, TimeSpan
from align.transforms.read.probe import probe_media
from align.transforms.sync.picture import look


@pytest.fixture
def steps_ms(tmp_path):
    """Milliseconds between the frames that are looked at, of a moving test card with given B-frames."""

    def looked(bframes: int, *, scroll: float = 0.0005, fps: int = 30):
        path = tmp_path / "card.mp4"
        card = f"testsrc2=size=320x180:rate={fps}:duration=4,scroll=horizontal={scroll}"
        coding = f"bframes={bframes}:b-adapt=0:b-pyramid=none:keyint=30:scenecut=0:threads=1"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", card]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-bf", str(bframes)]
        subprocess.run([*command, "-x264-params", coding, str(path)], check=True)
        video = probe_media(str(path)).video
        windows = [TimeSpan(0, 2 * NS), TimeSpan(2 * NS, 4 * NS)]
        flows = look(str(path), video, windows)
        assert [len(f) > 10 for f in flows] == [True, True]
        return [np.median([f.end_ns - f.start_ns for f in flow]) / 1e6 for flow in flows]

    return looked


def test_frames_that_no_other_refers_to_are_passed_over(steps_ms):
    assert steps_ms(1) == pytest.approx([66.7, 66.7], abs=0.1)


def test_every_frame_is_looked_at_where_too_little_would_be_left(steps_ms):
    assert steps_ms(3) == pytest.approx([33.3, 33.3], abs=0.1)


def test_every_frame_is_looked_at_where_the_picture_moves_fast(steps_ms):
    assert steps_ms(1, scroll=0.06) == pytest.approx([33.3, 33.3], abs=0.1)


def test_pictures_larger_than_allowed_are_not_decoded_whatever_the_header_says(tmp_path):
    path = tmp_path / "swells.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for frame in range(40):
            size = (48, 64) if frame < 12 else (480, 640)
            packet = av.Packet(cv2.imencode(".png", np.zeros(size, np.uint8))[1].tobytes())
            packet.stream, packet.pts, packet.dts, packet.duration = stream, frame, frame, 1
            packet.time_base, packet.is_keyframe = Fraction(1, 10), True
            container.mux(packet)
    video = probe_media(str(path)).video
    for max_pixels, seen in ((640 * 480, 39), (100_000, 11)):
        (flows,) = look(str(path), video, [TimeSpan(0, 4 * NS)], max_pixels=max_pixels)
        assert len(flows) == seen
