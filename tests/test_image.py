"""Pictures are upright, of the right shape, and of the colours that ffmpeg itself shows."""

import io
import struct
import subprocess
from fractions import Fraction

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from PIL import Image

from align.schemas.errors import AlignError
from align.schemas.media import Picture
from align.transforms.align.image import encode_jpeg, orientation_of, scaled_size, upright_picture
from align.transforms.align.tone import (
    PEAK_NITS,
    SDR_WHITE_NITS,
    hlg_to_nits,
    nits_to_pq,
    pq_to_nits,
    sdr_from_nits,
)


def run_ffmpeg(*args):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, args)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def first_frame(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def bars(path, *encoder, size="256x144", source="smptehdbars"):
    run_ffmpeg("-f", "lavfi", "-i", f"{source}=size={size}:rate=1:duration=1", *encoder, path)
    return path


COLOURS = {
    "bt601 limited": ["-colorspace", "smpte170m", "-color_range", "tv"],
    "bt709 limited": ["-colorspace", "bt709", "-color_range", "tv"],
    "bt709 full": ["-colorspace", "bt709", "-color_range", "pc"],
    "bt601 full": ["-colorspace", "bt470bg", "-color_range", "pc"],
    "bt2020 limited": ["-colorspace", "bt2020nc", "-color_range", "tv"],
    "unspecified": [],
}
FORMATS = ["yuv420p", "yuv444p", "yuv420p10le"]


@pytest.mark.parametrize("pixels", FORMATS)
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("size", [144, 72, 288])
def test_colour_bars_look_as_ffmpeg_shows_them(tmp_path, colour, pixels, size):
    clip = bars(tmp_path / "bars.mp4", "-c:v", "libx264", "-qp", "1", "-pix_fmt", pixels, *COLOURS[colour])
    width = size * 256 // 144
    flags = "bicubic" if size > 144 else "area"
    scale = f"scale={width}:{size}:flags={flags}+accurate_rnd+full_chroma_int+bitexact"
    raw = run_ffmpeg("-i", clip, "-vf", scale, "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    expected = np.frombuffer(raw, np.uint8).reshape(size, width, 3).astype(int)
    picture = upright_picture(first_frame(clip), 5, size=size)
    assert picture.time_ns == 5
    assert not picture.tone_mapped
    difference = np.abs(picture.pixels.astype(int) - expected).max(axis=-1)
    # At the bars' edges ffmpeg's scale filter shifts chroma by half a line, which libswscale itself does not.
    inside = away_from_edges(expected)
    assert inside.mean() > 0.3
    assert difference[inside].max() <= 3


def away_from_edges(pixels, reach=3):
    """Where nothing nearby is of another colour: bool [height, width]."""
    box = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    image = pixels.astype(np.uint8)
    return (cv2.dilate(image, box) - cv2.erode(image, box)).max(axis=-1) <= 2


@pytest.mark.parametrize(
    ("width", "height", "aspect", "size", "expected"),
    [
        (1920, 1080, Fraction(1), 256, (455, 256)),
        (1080, 1920, Fraction(1), 256, (256, 455)),
        (64, 64, Fraction(1), 256, (256, 256)),
        (720, 576, Fraction(16, 15), 576, (768, 576)),
        (720, 576, Fraction(1, 2), 360, (360, 576)),
        (101, 53, Fraction(1), 53, (101, 53)),
        (720, 576, Fraction(0), 576, (720, 576)),
        (3, 1, Fraction(1), 1, (3, 1)),
    ],
)
def test_the_short_side_is_the_size_asked_for(width, height, aspect, size, expected):
    assert scaled_size(width, height, aspect, size) == expected


def test_absurd_shapes_are_refused():
    with pytest.raises(AlignError) as caught:
        scaled_size(16_000, 1, Fraction(1), 256)
    assert caught.value.code == "invalid_picture"


def gradient(width, height):
    """Red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 60)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("shape", [(101, 53), (53, 101), (1, 1), (2, 7), (64, 64), (1919, 1079)])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "rgb24", "gray", "nv12", "yuv420p10le"])
def test_odd_sizes_are_scaled_whole(shape, pixels):
    source = VideoFrame.from_ndarray(gradient(*shape), format="rgb24")
    frame = source.reformat(format=pixels, threads=1)  # with more, odd sizes come out differently at times
    picture = upright_picture(frame, 0, size=32)
    assert min(picture.pixels.shape[:2]) == 32
    if min(shape) > 50 and pixels != "gray":
        red, green = picture.pixels[..., 0].astype(int), picture.pixels[..., 1].astype(int)
        assert red[:, 0].max() < 16
        assert red[:, -1].min() > 239
        assert green[0].max() < 16
        assert green[-1].min() > 239


def matrix(a, b, c, d):
    return struct.pack("=9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("a", [-1, 0, 1])
@pytest.mark.parametrize("b", [-1, 1])
@pytest.mark.parametrize("c", [-1, 1])
def test_the_eight_orientations_move_pixels_as_the_display_matrix_says(a, b, c):
    coefficients = (0, b, c, 0) if a == 0 else (b, 0, 0, c)
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    m11, m12, m21, m22 = coefficients
    places = {(m11 * x + m21 * y, m12 * x + m22 * y): stored[y, x] for y in range(2) for x in range(3)}
    left, top = min(p for p, _ in places), min(q for _, q in places)
    shown = orientation_of(matrix(*coefficients)).apply(stored)
    assert {(p - left, q - top): v for (p, q), v in places.items()} == {
        (x, y): shown[y, x] for y in range(shown.shape[0]) for x in range(shown.shape[1])
    }


@pytest.mark.parametrize("broken", [None, b"", b"\0" * 36, b"\0" * 20])
def test_a_display_matrix_that_says_nothing_leaves_the_picture_as_stored(broken):
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert (orientation_of(broken).apply(stored) == stored).all()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotated_clips_stand_as_ffmpeg_turns_them(tmp_path, rotation):
    stored = bars(tmp_path / "stored.mp4", "-c:v", "libx264", "-qp", "1", source="testsrc", size="96x64")
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", rotation, "-i", stored, "-c", "copy", turned)
    raw = run_ffmpeg("-i", turned, "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    height, width = (96, 64) if rotation % 180 else (64, 96)
    expected = np.frombuffer(raw, np.uint8).reshape(height, width, 3).astype(int)
    picture = upright_picture(first_frame(turned), 0, size=64)
    assert np.abs(picture.pixels.astype(int) - expected).mean() < 1.5


def test_stereo_pairs_show_their_left_picture():
    left, right = gradient(60, 40), np.full((40, 60, 3), 255, np.uint8)
    pair = VideoFrame.from_ndarray(np.hstack([left, right]), format="rgb24")
    picture = upright_picture(pair, 0, size=40, stereo_left=True)
    assert picture.pixels.shape == (40, 60, 3)
    assert np.abs(picture.pixels.astype(int) - left)[:, :-1].max() <= 1


def test_flat_colours_survive_shrinking_exactly():
    frame = VideoFrame.from_ndarray(np.full((480, 640, 3), (10, 200, 90), np.uint8), format="rgb24")
    assert (upright_picture(frame, 0, size=48).pixels == (10, 200, 90)).all()


def readable_formats():
    """Names of the pixel formats that libswscale reads and writes."""
    probe = VideoFrame(16, 16, "rgb24")
    for name in sorted(av.video.format.names):
        try:
            probe.reformat(16, 16, name)
            VideoFrame(16, 16, name).reformat(16, 16, "rgb24")
        except (ValueError, av.FFmpegError):
            continue
        yield name


@pytest.mark.parametrize("size", [96, 72, 150], ids=["same", "smaller", "larger"])
def test_pictures_of_every_pixel_format_are_what_rgb24_would_give(size):
    """They are computed in 16 bits, which is faster, and more exact by up to one level."""
    source = VideoFrame.from_ndarray(cv2.GaussianBlur(gradient(160, 96), (9, 9), 3), format="rgb24")
    seen = 0
    for name in readable_formats():
        frame = source.reformat(160, 96, name, threads=1)
        pixels = upright_picture(frame, 0, size=size).pixels.astype(int)
        kind = Interpolation.AREA if size <= 96 else Interpolation.BICUBIC
        exact = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
        shape = {"width": pixels.shape[1], "height": size, "format": "rgb24", "interpolation": kind | exact}
        direct = frame.reformat(**shape, dst_color_range=ColorRange.JPEG, threads=1).to_ndarray()
        assert np.abs(pixels - direct).max() <= 1, name
        seen += 1
    assert seen > 100


def test_jpeg_is_deterministic_upright_rgb_and_close():
    picture = Picture(0, cv2.GaussianBlur(gradient(96, 64), (9, 9), 3))
    data = encode_jpeg(picture, 90)
    assert data == encode_jpeg(picture, 90)
    decoded = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(decoded.astype(int) - picture.pixels).max() <= 8
    assert len(encode_jpeg(picture, 20)) < len(data)


# -- HDR -------------------------------------------------------------------------------------------------


def test_pq_follows_its_standard():
    # SMPTE ST 2084 / ITU-R BT.2408: 10 000 cd/m² is signal 1, 203 cd/m² is 58 %, 100 cd/m² is 51 %
    nits = pq_to_nits(np.array([1.0, 0.5806, 0.5081, 0.0], np.float32))
    assert nits == pytest.approx([10_000, 203, 100, 0], rel=2e-3, abs=1e-6)
    grid = np.linspace(0.01, 1, 50, dtype=np.float32)
    assert nits_to_pq(pq_to_nits(grid)) == pytest.approx(grid, abs=1e-4)


def test_hlg_follows_its_standard():
    # ITU-R BT.2408: diffuse white is HLG 75 %, 203 cd/m² on the 1000 cd/m² display; signal 1 is its peak
    grey = np.array([0.75, 1.0, 0.0], np.float32)[:, None, None] * np.ones((3, 1, 3), np.float32)
    assert hlg_to_nits(grey)[:, 0, 0] == pytest.approx([203, PEAK_NITS, 0], rel=2e-3, abs=1e-3)


def test_tone_mapping_keeps_greys_grey_and_order_and_reaches_white():
    nits = np.geomspace(0.05, 4000, 200, dtype=np.float32)[:, None, None] * np.ones((1, 1, 3), np.float32)
    levels = sdr_from_nits(nits).astype(int)[:, 0]
    assert (np.ptp(levels, axis=1) <= 1).all()
    assert (np.diff(levels[:, 1]) >= 0).all()
    assert levels[-1].min() == 255
    dim = sdr_from_nits(np.full((1, 1, 3), 0.2 * SDR_WHITE_NITS, np.float32))[0, 0]
    assert dim == pytest.approx([124] * 3, abs=1)  # sRGB of 0.2, untouched below the knee


@pytest.mark.parametrize("level", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_clips_are_tone_mapped_and_say_so(tmp_path, transfer, level):
    clip = tmp_path / "hdr.mp4"
    luma = int(64 + 876 * level)
    colour = [
        "-colorspace",
        "bt2020nc",
        "-color_primaries",
        "bt2020",
        "-color_trc",
        transfer,
        "-color_range",
        "tv",
    ]
    source = f"nullsrc=size=96x64:rate=1:duration=1,format=yuv420p10le,geq=lum={luma}:cb=512:cr=512"
    x265 = ["-c:v", "libx265", "-x265-params", "lossless=1:log-level=error"]
    run_ffmpeg("-f", "lavfi", "-i", source, *x265, *colour, clip)
    picture = upright_picture(first_frame(clip), 0, size=32)
    assert picture.tone_mapped
    signal = np.full((1, 1, 3), (luma - 64) / 876, np.float32)
    nits = pq_to_nits(signal) if transfer == "smpte2084" else hlg_to_nits(signal)
    assert picture.pixels.shape == (32, 48, 3)
    assert np.abs(picture.pixels.astype(int) - sdr_from_nits(nits)[0, 0]).max() <= 1
