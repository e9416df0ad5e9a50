"""Turns a decoded frame into an upright RGB picture of a given size, and that into a JPEG.

Colour follows what the stream says: matrix (BT.601, 709, 2020) and range (limited, full). Where it says
nothing, FFmpeg's own convention holds: BT.601 matrix, limited range (full for ``yuvj`` formats). HDR (PQ or
HLG) is brought to SDR; it is scaled first, so that only the small picture is computed in floating point.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, ColorTrc, Interpolation
from numpy.typing import NDArray

from align.schemas.errors import AlignError
from align.schemas.media import Picture
from align.schemas.time import round_ties_up
from align.transforms.align.tone import hlg_to_nits, pq_to_nits, sdr_from_nits
from align.transforms.read.side_data import side_data

# One thread: more save no CPU here, and a child forked from a process that started them would hang.
cv2.setNumThreads(1)

MAX_LONG_SIDE = 16_384
"""Pixels; a picture so much longer than it is wide is no picture."""

_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT

_DEEP = "gbrp16le"
"""libswscale writes this with vector instructions and ``rgb24`` without: 0.7 ms a 1080p frame against 1.9."""

_DEEP_WHITE = 255 << 8
_HDR = {ColorTrc.SMPTE2084.value: pq_to_nits, ColorTrc.ARIB_STD_B67.value: hlg_to_nits}


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pixels become upright ones: transpose first, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Upright pixels, [height, width, …]."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(pixels[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])


def orientation_of(matrix: bytes | None) -> Orientation:
    """The right-angled part of a display matrix, reflection included.

    Args:
        matrix: nine native int32 (a b u c d v x y w): a stored point (p, q) is shown at
            (a·p + c·q, b·p + d·q) (libavutil/display.h, ISO/IEC 14496-12, 6.2.2); None: as stored.
    """
    if matrix is None or len(matrix) < 36:
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
    return Orientation(mirror_x=a < 0, mirror_y=d < 0)


def scaled_size(width: int, height: int, sample_aspect: Fraction, size: int) -> tuple[int, int]:
    """Width and height with square pixels, the short side ``size`` long.

    Raises:
        AlignError: ``invalid_picture`` where the longer side would exceed ``MAX_LONG_SIDE``.
    """
    shape = Fraction(width, height) * (sample_aspect if sample_aspect > 0 else 1)
    long_side = round_ties_up(size * max(shape, 1 / shape))
    if long_side > max(MAX_LONG_SIDE, size):
        raise AlignError(
            "invalid_picture", f"a picture of {width}×{height} pixels is too long", stage="align"
        )
    return (long_side, size) if shape >= 1 else (size, long_side)


def upright_picture(
    frame: VideoFrame,
    time_ns: int,
    *,
    size: int,
    stereo_left: bool = False,
    sample_aspect: Fraction = Fraction(1),
    crop: tuple[int, int, int, int] | None = None,
) -> Picture:
    """A frame as it is meant to be seen, scaled so that its short side is ``size`` pixels.

    Shrinks by area averaging, enlarges bicubically. Anamorphic pixels are squared; the display matrix is
    applied, after the crop; nothing else is cropped but the right half of a stereo pair.

    Args:
        frame: as decoded, of any pixel format that libswscale reads.
        time_ns: presentation time, recording clock.
        size: pixels.
        stereo_left: the frame holds two pictures side by side; take the left one.
        sample_aspect: width of a pixel over its height.
        crop: left, top, width and height of what is to be seen, in pixels as stored; None: all.

    Raises:
        AlignError: ``invalid_picture`` where the frame cannot be converted.
    """
    to_nits, matrix = _HDR.get(frame.color_trc), side_data(frame, "DISPLAYMATRIX")
    is_rgb = frame.format.is_rgb and to_nits is None  # where nothing is to be scaled, its values stay
    pixel_format = "rgb24" if is_rgb else _DEEP
    if crop is not None:
        frame = _cropped(frame, crop, pixel_format)
    views = 2 if stereo_left else 1
    if frame.width < views or frame.height < 1:
        raise AlignError(
            "invalid_picture", f"a picture of {frame.width}×{frame.height} pixels", stage="align"
        )
    view_aspect = Fraction(frame.width, views * frame.height)
    width, height = scaled_size(view_aspect.numerator, view_aspect.denominator, sample_aspect, size)
    stored = _scale(frame, views * width, height, pixel_format).to_ndarray()[:, :width]
    if to_nits is not None:
        signal = np.minimum(np.asarray(stored, np.float32) / np.float32(_DEEP_WHITE), np.float32(1))
        pixels = sdr_from_nits(to_nits(signal))
    elif is_rgb:
        pixels = np.asarray(stored, np.uint8)
    else:
        pixels = np.asarray(cv2.convertScaleAbs(stored, alpha=255 / _DEEP_WHITE), np.uint8)
    return Picture(time_ns, orientation_of(matrix).apply(pixels), to_nits is not None)


def _cropped(frame: VideoFrame, crop: tuple[int, int, int, int], pixel_format: str) -> VideoFrame:
    """A part of a picture, as RGB: there its edges need not lie between samples of colour."""
    left, top, width, height = crop
    pixels = _scale(frame, frame.width, frame.height, pixel_format).to_ndarray()
    part = np.ascontiguousarray(pixels[top : top + height, left : left + width], np.dtype(pixels.dtype.name))
    cut = VideoFrame.from_ndarray(part, format=pixel_format)
    cut.color_range = ColorRange.JPEG
    return cut


def _scale(frame: VideoFrame, width: int, height: int, pixel_format: str) -> VideoFrame:
    shrinks = width <= frame.width and height <= frame.height
    try:
        return frame.reformat(
            width,
            height,
            pixel_format,
            interpolation=(Interpolation.AREA if shrinks else Interpolation.BICUBIC) | _EXACT,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
    except (av.error.FFmpegError, ValueError) as e:
        detail = f"a {frame.format.name} picture cannot be converted to RGB"
        raise AlignError("invalid_picture", detail, stage="align") from e


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """Encode a picture as JPEG (4:2:0, deterministic).

    Args:
        picture: RGB.
        quality: 1 to 100.
    """
    bgr = cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)
