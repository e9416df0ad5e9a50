"""Side data: what it says, and that looking at it keeps no frame alive."""

import sys
from fractions import Fraction

import av
import pytest

from align.transforms.read.side_data import side_data


@pytest.mark.parametrize(
    "frame", [av.VideoFrame(64, 48, "yuv420p"), av.AudioFrame("flt", "mono", 1024)], ids=["video", "audio"]
)
def test_looking_at_side_data_keeps_no_frame_alive(frame):
    held = sys.getrefcount(frame)
    assert side_data(frame, "DISPLAYMATRIX") is None
    assert side_data(frame, "SKIP_SAMPLES") is None
    assert sys.getrefcount(frame) == held


def test_side_data_are_the_bytes_that_the_frame_bears():
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 64, 48, "yuv420p", Fraction(1, 25)
    packets = [*codec.encode(av.VideoFrame(64, 48, "yuv420p")), *codec.encode(None)]
    decoder = av.CodecContext.create("h264", "r")
    frames = [f for p in (*packets, None) for f in decoder.decode(p)]
    expected = bytes(frames[0].side_data["SEI_UNREGISTERED"])
    assert b"x264" in expected
    assert [side_data(frames[0], "SEI_UNREGISTERED") for _ in range(2)] == [expected, expected]
