"""What must hold of every row of a data set, told row by row."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from align.schemas.errors import AlignError, Reason
from align.schemas.options import MODALITIES
from align.schemas.time import NS, TimeSpan, count_in
from align.transforms.align.window import anchor_time, frame_times
from align.transforms.formats.media_heads import jpeg_size

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_REASONS = frozenset(Reason)
_UNCOVERED = (Reason.GAP, Reason.NO_COVERAGE)
_EARLY_NS = NS  # a first frame may stand this much after the target, at one frame a second


@dataclass(frozen=True, slots=True)
class Expected:
    """What the manifest says of a shard's rows; with ``deep``, all media are decoded.

    Attributes:
        max_image_age_ns: how old pictures may be; 0: each recording has a bound of its own; None: any age.
        frames: pictures asked for in a window.
        min_coverage: below it, audio and IMU are null.
    """

    split: str
    window_ns: int
    audio_rate: int
    imu_rate: int
    deep: bool = False
    min_coverage: float = 0.0
    max_image_age_ns: int | None = None
    frames: int = 1


Told = Iterator[tuple[str, str]]
"""Code and detail of what does not hold."""


def check_row(row: Mapping[str, Any], expected: Expected) -> Told:
    """Code and detail of everything in a row that does not hold.

    Args:
        row: as :func:`align.transforms.write.row.from_batch` gives it.
        expected: what it must agree with.
    """
    for check in _CHECKS:
        yield from check(row, expected)


def _identity(row: Mapping[str, Any], expected: Expected) -> Told:
    if not _KEY.fullmatch(row["key"] or ""):
        yield "bad_key", "a key holds letters, digits, _ and - only"
    if row["split"] != expected.split:
        yield "wrong_split", f"says split {row['split']!r} in a shard of {expected.split!r}"
    for name in ("source", "recording_id", "group_id"):
        if not row[name]:
            yield "empty_id", f"{name} is empty"


def _window(row: Mapping[str, Any], expected: Expected) -> Told:
    length = row["end_ns"] - row["start_ns"]
    if length <= 0:
        yield "bad_window", f"ends at {row['end_ns']} ns, not after its start {row['start_ns']} ns"
    elif length != expected.window_ns:
        yield "bad_window", f"is {length} ns long, not {expected.window_ns}"


def _reasons(row: Mapping[str, Any], expected: Expected) -> Told:
    missing = row["missing"] or {}
    for modality in MODALITIES:
        absent, reason = row[modality] is None, missing.get(modality)
        if absent and reason is None:
            yield "no_reason", f"{modality} is null without a reason"
        if reason is not None and not absent:
            yield "false_reason", f"{modality} is there, yet missing says {reason!r}"
        if reason is not None and reason not in _REASONS:
            yield "bad_reason", f"{modality}: unknown reason {reason!r}"
        if (row["missing_reason"] or {}).get(modality) != reason:
            yield "bad_reason", f"{modality}: missing and missing_reason disagree"


def _images(row: Mapping[str, Any], expected: Expected) -> Told:
    if (row["image"] is None) != (row["image_time_ns"] is None):
        yield "bad_image", "image and image_time_ns must both be there or both be null"
    elif row["image"] is not None:
        yield from _jpeg("image", row["image"], expected.deep)
        offset = (row["quality"] or {}).get("image_offset_ns")
        if offset is not None:
            target = row["image_time_ns"] - offset
            if offset > _EARLY_NS or not row["start_ns"] <= target <= row["end_ns"]:
                yield "bad_image_time", f"frame at {row['image_time_ns']} ns was meant for {target} ns"
    frames, times = row["frames"] or [], row["frame_times_ns"] or []
    if len(frames) != len(times) or any(a > b for a, b in pairwise(times)):
        yield "bad_frames", f"{len(frames)} frames with {len(times)} times, which must ascend"
    for i, frame in enumerate(frames):
        yield from _jpeg(f"frame {i}", frame, expected.deep)


def _ages(row: Mapping[str, Any], expected: Expected) -> Told:
    """No picture is older than the bound, which is the configuration's or, with it, the recording's own."""
    asked, said = expected.max_image_age_ns, (row["quality"] or {}).get("image_max_age_ns")
    times = [row["image_time_ns"], *(row["frame_times_ns"] or [])]
    if asked is None or times == [None]:
        return
    if said is None or (said != asked if asked else said < NS):
        yield "bad_image_age", f"image_max_age_ns is {said}, the configuration says {asked or 'at least 1 s'}"
        return
    window = TimeSpan(row["start_ns"], row["end_ns"])
    # The k-th frame stands for the k-th instant, or a later one where frames before it are left out.
    for time, target in zip(
        times, (anchor_time(window), *frame_times(window, expected.frames)), strict=False
    ):
        if time is not None and time <= target - said:
            late = f"{(target - time) / NS:.3f} s before {target} ns"
            yield "stale_image", f"a picture {late}, older than {said / NS:.3f} s"


def _jpeg(what: str, media: Mapping[str, Any], deep: bool) -> Told:
    data = media["bytes"] or b""
    try:
        jpeg_size(data)
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            if deep:
                picture.load()
    except (AlignError, UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        yield "bad_image", f"{what} is no whole JPEG: {error}"
        return
    if not data.endswith(b"\xff\xd9"):
        yield "bad_image", f"{what}: the JPEG does not end with its end marker"


def _audio(row: Mapping[str, Any], expected: Expected) -> Told:
    gaps = row["audio_gaps"]
    if (row["audio"] is None) != (gaps is None):
        yield "bad_audio_gaps", "audio and audio_gaps must both be there or both be null"
    yield from _coverage(row, "audio", expected)
    if row["audio"] is None:
        return
    yield from _flac(row, expected)
    edges = [edge for gap in gaps or () for edge in (gap["start_ns"], gap["end_ns"])]
    edges = [row["start_ns"], *edges, row["end_ns"]]
    if any(a > b for a, b in pairwise(edges)):
        yield "bad_audio_gaps", "gaps must ascend, be disjoint and lie inside the window"
    coverage = (row["quality"] or {}).get("audio_coverage")
    lost = sum(gap["end_ns"] - gap["start_ns"] for gap in gaps or ())
    length = row["end_ns"] - row["start_ns"]
    if coverage is not None and length > 0 and abs(coverage - (1 - lost / length)) > 1e-6:
        yield "bad_coverage", f"audio_coverage is {coverage:.6f}, the gaps say {1 - lost / length:.6f}"


def _flac(row: Mapping[str, Any], expected: Expected) -> Told:
    rate = expected.audio_rate
    want = ("FLAC", 1, rate, count_in(expected.window_ns, rate))
    try:
        with soundfile.SoundFile(io.BytesIO(row["audio"]["bytes"] or b"")) as sound:
            said = (sound.format, sound.channels, sound.samplerate, sound.frames)
            if said != want:  # nothing is decoded by a header that lies
                yield "bad_audio", f"format, channels, rate and samples are {said}, not {want}"
            elif expected.deep:
                yield from _samples(sound.read(dtype="int16"), row, sound.frames, rate)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        yield "bad_audio", f"the FLAC cannot be read: {error}"


def _samples(pcm: NDArray[np.int16], row: Mapping[str, Any], said: int, rate: int) -> Told:
    if len(pcm) != said:
        yield "bad_audio", f"{len(pcm)} samples can be decoded of {said}"
    for gap in row["audio_gaps"] or ():
        inside = ((gap[end] - row["start_ns"]) * rate for end in ("start_ns", "end_ns"))
        first, last = (max(ceil(Fraction(at, NS)), 0) for at in inside)
        if pcm[first:last].any():
            yield "bad_audio_gaps", f"there is sound in the gap from {gap['start_ns']} to {gap['end_ns']} ns"


def _imu(row: Mapping[str, Any], expected: Expected) -> Told:
    if (row["imu"] is None) != (row["imu_mask"] is None):
        yield "bad_imu", "imu and imu_mask must both be there or both be null"
        return
    yield from _coverage(row, "imu", expected)
    if row["imu"] is None:
        return
    values, mask = np.asarray(row["imu"]), np.asarray(row["imu_mask"])
    n = count_in(expected.window_ns, expected.imu_rate)
    if values.shape != (6, n) or mask.shape != (n,) or values.dtype != np.float32 or mask.dtype != np.bool_:
        yield "bad_imu", f"values {values.dtype}{values.shape}, mask {mask.dtype}{mask.shape}; n must be {n}"
        return
    if not np.isfinite(values).all():
        yield "bad_imu", "values that are not finite"
    if values[:, ~mask].any():
        yield "bad_imu", "values where the mask says nothing was measured"
    coverage = (row["quality"] or {}).get("imu_coverage")
    if n and coverage is not None and abs(coverage - mask.mean()) > 1e-6:
        yield "bad_coverage", f"imu_coverage is {coverage:.6f}, the mask says {mask.mean():.6f}"


def _coverage(row: Mapping[str, Any], modality: str, expected: Expected) -> Told:
    coverage = (row["quality"] or {}).get(f"{modality}_coverage")
    if coverage is None and row[modality] is not None:
        yield "bad_coverage", f"{modality} is there without {modality}_coverage"
    elif coverage is not None and not 0 <= coverage <= 1:
        yield "bad_coverage", f"{modality}_coverage is {coverage}, not within 0 and 1"
    elif coverage is not None:
        absent = row[modality] is None and (row["missing"] or {}).get(modality) in _UNCOVERED
        enough = coverage > 0 and coverage >= expected.min_coverage - 1e-6
        if absent and coverage > max(expected.min_coverage, 0) + 1e-6:
            yield "bad_coverage", f"{modality} is null for want of coverage, which is {coverage:.6f}"
        if row[modality] is not None and not enough:
            yield "bad_coverage", f"{modality} is there with a coverage of {coverage:.6f}"


def _text(row: Mapping[str, Any], expected: Expected) -> Told:
    columns = [row[name] for name in ("text", "text_raw", "text_times_ns")]
    if len({None if c is None else len(c) for c in columns}) != 1:
        yield "bad_text", "text, text_raw and text_times_ns must be of one length, or all null"
    times = row["text_times_ns"] or []
    if any(a > b for a, b in pairwise(times)):
        yield "bad_text", "text_times_ns must ascend"
    if any(not row["start_ns"] <= t < row["end_ns"] for t in times):
        yield "bad_text", "a sentence's time lies outside the window"


_CHECKS: tuple[Callable[[Mapping[str, Any], Expected], Told], ...] = (
    _identity, _window, _reasons, _images, _ages, _audio, _imu, _text,
)  # fmt: skip
