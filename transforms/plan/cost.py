"""What reading and writing windows will cost: an estimate from header facts, for balance and for ``plan``.

The video's share dominates. A frame is decoded if it stands between the keyframe before a target and the
target, so the estimate counts those frames, GOP by GOP, as the reader will.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from align.schemas.media import MediaInfo, VideoInfo
from align.schemas.options import AlignOptions
from align.schemas.time import NS

# CPU time, on cores that decode an hour of 1080p30 H.264 in 835 s with one thread.
DECODE_S_PER_PIXEL = 835 / (3600 * 30 * 1920 * 1080)
"""Full decode; 480p at GOP 8 gives the same figure per pixel. Other codecs are taken as H.264's equals."""
SKIPPED_SHARE = 0.7
"""Of a GOP's decoding, what is left when frames that nothing refers to are skipped (400 of 566 s)."""
GOP_START_FRAMES = 8
"""A keyframe and a decoder's restart cost as much as this many further frames: with it the model
comes within 5 % of what a whole job was measured to take, at GOP 250 and at GOP 30."""
RESIZE_S_PER_PIXEL = 0.0016 / (1920 * 1080)
ENCODE_S_PER_PICTURE = 0.0005
AUDIO_S_PER_S = 8.1 / 3600
"""AAC decoding and resampling to 16 kHz."""
OTHER_S_PER_S = 3.0 / 3600
"""Demuxing, IMU, writing."""

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


def estimate(media: MediaInfo, starts_ns: Sequence[int], options: AlignOptions) -> Cost:
    """Estimate the cost of windows that are read together.

    Args:
        media: the probed file, keyframes included where its index lists them.
        starts_ns: starts of the windows, recording clock, in any order.
        options: window length, pictures per window, sizes and rates.
    """
    if not starts_ns or media.video is None:
        return Cost(0.0, 0, 0)
    starts = np.sort(np.asarray(starts_ns, np.int64))
    covered_s = _covered_ns(starts, options.window_ns) / NS
    video_s, needed_s = _video(media.video, starts, options)
    pictures = len(starts) * _pictures(options)
    cpu_s = video_s + pictures * ENCODE_S_PER_PICTURE + covered_s * OTHER_S_PER_S
    if media.audio is not None:
        cpu_s += covered_s * AUDIO_S_PER_S
    return Cost(
        float(cpu_s),
        int(max(needed_s, covered_s) * media.video.bytes_per_s),
        len(starts) * _window_bytes(media, options),
    )


def _video(video: VideoInfo, starts: NDArray[np.int64], options: AlignOptions) -> tuple[float, float]:
    """CPU seconds for the pictures, and seconds of video whose packets they need."""
    targets = _targets(starts, options)
    keyframes = _keyframes_before(video, targets)
    # Targets ascend, so the last one with a given keyframe is the furthest of its GOP.
    last = np.append(keyframes[1:] != keyframes[:-1], True)
    needed_s = float(np.maximum(targets[last] - keyframes[last], 0).sum()) / NS
    frames = needed_s * NS / max(video.frame_ns, 1) + (1 + GOP_START_FRAMES) * int(np.count_nonzero(last))
    pixels = video.width * video.height
    cpu_s = frames * pixels * DECODE_S_PER_PIXEL * SKIPPED_SHARE + len(targets) * pixels * RESIZE_S_PER_PIXEL
    return cpu_s, needed_s


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
