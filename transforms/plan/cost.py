"""What reading and writing windows will cost: an estimate from header facts, for balance and for ``plan``.

The video's share dominates. A frame is decoded if it stands between the keyframe before a target and the
target, so the estimate counts those frames, GOP by GOP, as the reader will.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from align.schemas.media import AudioInfo, MediaInfo, VideoInfo
from align.schemas.options import AlignOptions
from align.schemas.time import NS

# CPU time, on cores that decode an hour of 1080p30 H.264 of 6 Mbit/s in 580 s with one thread. Fitted to
# H.264 of 0.25, 2 and 6 Mbit/s at 240p and 1080p with keyframes each 30, 60 and 250 frames, and to VP9.
DECODE_S_PER_PIXEL = 1.45e-9
DECODE_S_PER_BYTE = 95e-9
"""Full decode of an average frame: its pixels, and the arithmetic decoder's work on its bytes."""
KEYFRAME_FRAMES = 2
"""A keyframe costs as much as so many average frames (1.3 to 3 were measured)."""
SKIPPED_SHARE = 0.62
"""Of the frames between a keyframe and a target, what is left when those that nothing refers to are skipped.
Without B-frames there are none such, which no header tells; then it is more."""
SKIPPING_CODECS = frozenset({"h264", "hevc"})
RESIZE_S_PER_PIXEL = 0.0007 / (1920 * 1080)
ENCODE_S_PER_PICTURE = 0.0012
"""JPEG, and handing the picture on."""
AUDIO_S_PER_S = 6.0 / 3600
"""AAC decoding and resampling to 16 kHz."""
SOUND_BYTES_PER_S = 16_000
"""Of compressed sound in a file of its own."""
READ_S_PER_BYTE = 1.5e-9
OTHER_S_PER_S = 7.0 / 3600
"""IMU, statistics, writing."""

# Bytes written.
JPEG_BYTES_PER_PIXEL = 0.25
"""Quality 90 at a short side of 256."""
FLAC_BYTES_PER_SAMPLE = 1.1
"""16 bit mono."""
IMU_BYTES_PER_SAMPLE = 25
"""Six float32 and a mask."""
ROW_BYTES = 1500
"""Text, times, provenance."""

ASSUMED_GOP_FRAMES = 250
"""Where a file has no index of keyframes: the default of x264."""


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate.

    Attributes:
        cpu_s: CPU seconds of one core.
        read_bytes: bytes fetched from the media file.
        output_bytes: bytes written, in one format.
    """

    cpu_s: float
    read_bytes: int
    output_bytes: int


def estimate(
    media: MediaInfo, starts_ns: Sequence[int], options: AlignOptions, *, apart: bool = False
) -> Cost:
    """Estimate the cost of windows that are read together.

    Args:
        media: the probed file, keyframes included where its index lists them.
        starts_ns: starts of the windows, recording clock, in any order.
        options: window length, pictures per window, sizes and rates.
        apart: the sound lies in a file of its own, whose bytes the video's do not count.
    """
    if not starts_ns or media.video is None:
        return Cost(0.0, 0, 0)
    starts = np.sort(np.asarray(starts_ns, np.int64))
    covered_s = _covered_ns(starts, options.window_ns) / NS
    video_s, needed_s = _video(media.video, starts, options)
    pictures = len(starts) * _pictures(options)
    read_bytes = max(needed_s, covered_s) * media.video.bytes_per_s
    if media.audio is not None and apart:
        read_bytes += covered_s * _sound_bytes_per_s(media.audio)
    cpu_s = video_s + pictures * ENCODE_S_PER_PICTURE
    cpu_s += covered_s * OTHER_S_PER_S + read_bytes * READ_S_PER_BYTE
    if media.audio is not None:
        cpu_s += covered_s * AUDIO_S_PER_S
    return Cost(
        float(cpu_s),
        int(read_bytes),
        len(starts) * _window_bytes(media, options),
    )


def _sound_bytes_per_s(audio: AudioInfo) -> float:
    """Of a file of sound: plain samples by their width, the rest as good compression makes them."""
    bits = re.search(r"pcm_[suf](\d+)", audio.codec)
    return audio.rate * audio.channels * int(bits[1]) / 8 if bits else SOUND_BYTES_PER_S


def _video(video: VideoInfo, starts: NDArray[np.int64], options: AlignOptions) -> tuple[float, float]:
    """CPU seconds for the pictures, and seconds of video whose packets they need."""
    targets = _targets(starts, options)
    keyframes = _keyframes_before(video, targets)
    # Targets ascend, so the last one with a given keyframe is the furthest of its GOP.
    last = np.append(keyframes[1:] != keyframes[:-1], True)
    needed_s = float(np.maximum(targets[last] - keyframes[last], 0).sum()) / NS
    share = SKIPPED_SHARE if video.codec in SKIPPING_CODECS else 1.0
    frames = KEYFRAME_FRAMES * int(np.count_nonzero(last)) + share * needed_s * NS / max(video.frame_ns, 1)
    resize_s = len(targets) * video.width * video.height * RESIZE_S_PER_PIXEL
    return frames * full_decode_s(video) + resize_s, needed_s


def full_decode_s(video: VideoInfo) -> float:
    """CPU seconds that an average frame takes to decode."""
    bytes_per_frame = video.bytes_per_s * video.frame_ns / NS
    return video.width * video.height * DECODE_S_PER_PIXEL + bytes_per_frame * DECODE_S_PER_BYTE


def _targets(starts: NDArray[np.int64], options: AlignOptions) -> NDArray[np.int64]:
    """Times of all pictures, ascending: the centre, and those of ``frames`` equal parts."""
    parts = 2 * np.arange(options.frames, dtype=np.int64) + 1
    offsets = np.unique(np.append(options.window_ns * parts // (2 * options.frames), options.window_ns // 2))
    return np.sort((starts[:, None] + offsets).ravel())


def _keyframes_before(video: VideoInfo, targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The keyframe from which each target is decoded."""
    if video.keyframes_ns:
        keyframes = np.sort(np.asarray(video.keyframes_ns, np.int64))
        return keyframes[np.maximum(np.searchsorted(keyframes, targets, side="right") - 1, 0)]
    gop_ns = ASSUMED_GOP_FRAMES * max(video.frame_ns, 1)
    return targets - (targets - video.span.start_ns) % gop_ns


def _covered_ns(starts: NDArray[np.int64], length: int) -> int:
    """Length of the windows' union: each counts up to the next one's start."""
    return int(np.minimum(np.diff(starts), length).sum()) + length


def _pictures(options: AlignOptions) -> int:
    return 1 if options.frames == 1 else options.frames + 1


def _window_bytes(media: MediaInfo, options: AlignOptions) -> int:
    video, length_s = media.video, options.window_ns / NS
    sides = sorted((video.width, video.height)) if video else [1, 1]
    picture = options.image_size**2 * sides[1] / max(sides[0], 1)
    total = ROW_BYTES + picture * _pictures(options) * JPEG_BYTES_PER_PIXEL
    total += options.imu_rate * length_s * IMU_BYTES_PER_SAMPLE
    if media.audio is not None:
        total += options.audio_rate * length_s * FLAC_BYTES_PER_SAMPLE
    return int(total)
