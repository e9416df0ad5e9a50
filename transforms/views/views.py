"""Profiles: what a run must write for a model, and how a written row becomes that model's input.

A run writes windows of one length. Where a model wants modalities of different lengths, as ImageBind does,
all stand on the window's centre: the view takes the central part of the sound and picks the frames.

Sources of the constants: ``facebookresearch/ImageBind`` (``imagebind/data.py``, ``imagebind_model.py``),
``facebookresearch/imu2clip`` (``dataset/ego4d``), ``open_clip`` (``constants.py``).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from align.schemas.errors import AlignError, UsageError
from align.schemas.time import NS, count_in
from align.transforms.views.mel import log_mel

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGEBIND_AUDIO_MEAN, IMAGEBIND_AUDIO_STD = -4.268, 9.138
GYRO_ACCL, ACCL_GYRO = (0, 1, 2, 3, 4, 5), (3, 4, 5, 0, 1, 2)


@dataclass(frozen=True, slots=True)
class Profile:
    """What one model takes of a window.

    Attributes:
        modalities: what the view yields, in this order.
        options: what a run must be given for it, names and values as the manifest has them.
        size: edge of the centre crop in pixels; None keeps ``image_size``.
        pixels: ``uint8`` [0, 255], ``unit`` [0, 1], or ``clip`` (CLIP's mean and deviation).
        frames: which of the written frames make the ``video``; empty for none.
        audio: ``wave``, or ``mel`` (ImageBind's normalised log-mel).
        audio_ns: length of the central part of the sound; None takes all of it.
        imu_order: rows of the written IMU in the order the model wants.
        declared: what the model's authors never published, and what is done here instead.
    """

    modalities: tuple[str, ...]
    options: Mapping[str, Any]
    size: int | None = None
    pixels: Literal["uint8", "unit", "clip"] = "uint8"
    frames: tuple[int, ...] = ()
    audio: Literal["wave", "mel"] = "wave"
    audio_ns: int | None = None
    imu_order: tuple[int, ...] = GYRO_ACCL
    declared: tuple[str, ...] = ()


PLAIN = Profile(("image", "audio", "imu", "text"), {})
"""Everything as it was written; pictures are cut to a square so that they make a batch."""

PROFILES: Mapping[str, Profile] = {
    # Frames at the centres of five equal parts stand at 0.5, 1.5, … 4.5 s: the second and the fourth are the
    # ends of the central 2 s, which are the two frames that UniformTemporalSubsample(2) takes of a 2 s clip.
    "imagebind": Profile(
        ("image", "video", "audio", "imu", "text"),
        {
            "window_ns": 5 * NS,
            "frames": 5,
            "image_size": 224,
            "audio_rate": 16_000,
            "imu_rate": 400,
        },
        size=224,
        pixels="clip",
        frames=(1, 3),
        audio="mel",
        audio_ns=2 * NS,
        imu_order=ACCL_GYRO,
        declared=(
            "imu order: accl x y z, gyro x y z, as the paper names them; the code does not say",
            "imu units: m/s^2 and rad/s, not normalised; not published",
            "imu 400 Hz from about 200 Hz: band-limited interpolation by timestamp; not published",
            "pictures: resized with an area filter before JPEG, where the original resizes bicubically",
        ),
    ),
    "imu2clip": Profile(
        ("image", "video", "audio", "imu", "text"),
        {
            "window_ns": 5 * NS,
            "frames": 10,
            "image_size": 224,
            "audio_rate": 16_000,
            "imu_rate": 200,
        },
        size=224,
        pixels="unit",
        frames=tuple(range(10)),
        imu_order=ACCL_GYRO,
        declared=(
            "frames: at the centres of ten equal parts; the original takes ten of 50 by linspace",
            "window: centred exactly; the original floors both ends to whole seconds",
            "imu: gaps stay masked; the original fills them with zeros",
        ),
    ),
    "clip": Profile(
        ("image", "text"),
        {"anchor": "narration", "frames": 1, "image_size": 224, "require": ("image", "text")},
        size=224,
        pixels="clip",
    ),
}


def profile_options(name: str) -> dict[str, Any]:
    """The ``AlignOptions`` that a run for a profile needs; what it does not name stays as it is.

    Raises:
        UsageError: there is no such profile.
    """
    options = dict(find_profile(name).options)
    length = options.pop("window_ns", None)
    return options if length is None else {"window": length / NS, **options}


def find_profile(name: str | None) -> Profile:
    """A profile by name; ``None`` gives :data:`PLAIN`.

    Raises:
        UsageError: there is no such profile.
    """
    if name is None:
        return PLAIN
    if name not in PROFILES:
        raise UsageError(f"there is no profile {name!r}; choose from {', '.join(sorted(PROFILES))}")
    return PROFILES[name]


def check_written(profile: Profile, modalities: Sequence[str], options: Mapping[str, object]) -> None:
    """Check that a data set was written with what a profile needs of some modalities.

    Args:
        profile: the model's.
        modalities: those that will be read.
        options: the ``AlignOptions`` of the run, as the manifest holds them.

    Raises:
        UsageError: it was not.
    """
    needs = {"video": ("window_ns", "frames"), "audio": ("audio_rate",), "imu": ("window_ns", "imu_rate")}
    for modality in (m for m in profile.modalities if m in modalities):
        for name in needs.get(modality, ()):
            want, have = profile.options.get(name), options.get(name)
            if want is not None and have != want:
                detail = f"its {modality} needs {name} {want}, the data set was written with {have}: "
                raise UsageError(detail + f"run it with --profile, or load it without {modality}")


def columns(profile: Profile, modalities: Sequence[str]) -> list[str]:
    """The Parquet columns that a view of some modalities has to read."""
    needed = {
        "image": ["image"],
        "video": ["frames"],
        "audio": ["audio"],
        "imu": ["imu", "imu_mask"],
        "text": ["text"],
    }
    return [c for m in profile.modalities if m in modalities for c in needed[m]]


def view(
    row: Mapping[str, Any], profile: Profile, modalities: Sequence[str], image_size: int
) -> dict[str, Any]:
    """What a model takes of one row; a modality that the row lacks is None.

    Args:
        row: columns as bytes, numpy arrays and lists: ``image`` and ``audio`` the encoded bytes, ``frames`` a
            list of them, ``imu`` float32 [6, n], ``imu_mask`` bool [n], ``text`` a list of sentences.
        profile: the model's.
        modalities: which of the profile's to make.
        image_size: edge of the centre crop in pixels where the profile names none.

    Returns:
        ``image`` [3, size, size], ``video`` [3, frames, size, size], ``audio`` float32 [n], or
        [1, 128, 204] as a mel, ``imu`` float32 [6, n] with ``imu_mask`` bool [n], ``text`` str.
    """
    size = profile.size or image_size
    made: dict[str, Any] = {}
    for modality in (m for m in profile.modalities if m in modalities):
        if modality == "image":
            made["image"] = None if row["image"] is None else picture(row["image"], size, profile.pixels)
        elif modality == "video":
            made["video"] = _video(row["frames"], profile, size)
        elif modality == "audio":
            made["audio"] = None if row["audio"] is None else sound(row["audio"], profile)
        elif modality == "imu":
            made |= _imu(row["imu"], row["imu_mask"], profile.imu_order)
        else:
            made["text"] = " ".join(row["text"]) if row["text"] else None
    return made


def picture(jpeg: bytes, size: int, pixels: str = "uint8") -> NDArray[Any]:
    """A JPEG as the centre square [3, size, size] of its short side, RGB."""
    data = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    if data is None:
        raise AlignError("bad_media", "a picture cannot be decoded; run align verify on the data set")
    square = _square(np.asarray(data, np.uint8), size)
    return _scaled(square, pixels).transpose(2, 0, 1)


def sound(flac: bytes, profile: Profile) -> Floats:
    """A FLAC as the profile's waveform [n], or its normalised log-mel [1, 128, 204]."""
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="float32")
    part = samples if profile.audio_ns is None else central(samples, rate, profile.audio_ns)
    if profile.audio == "wave":
        return part
    mel = (log_mel(part, rate) - IMAGEBIND_AUDIO_MEAN) / IMAGEBIND_AUDIO_STD
    return mel[None].astype(np.float32)


def central(samples: Floats, rate: int, length_ns: int) -> Floats:
    """The part of ``length_ns`` around the middle of a window, on the last axis."""
    count = min(count_in(length_ns, rate), samples.shape[-1])
    first = (samples.shape[-1] - count) // 2
    return samples[..., first : first + count]


def _square(data: Pixels, size: int) -> Pixels:
    """Centre crop to a square, resized to ``size`` where the picture is another size."""
    height, width = data.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    data = data[top : top + edge, left : left + edge]
    if edge == size:
        return data
    method = cv2.INTER_AREA if edge > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(data, (size, size), interpolation=method), np.uint8)


def _scaled(data: Pixels, pixels: str) -> NDArray[Any]:
    if pixels == "uint8":
        return data
    unit = data.astype(np.float32) * np.float32(1 / 255)
    if pixels == "unit":
        return unit
    return (unit - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)


def _video(frames: Sequence[bytes] | None, profile: Profile, size: int) -> NDArray[Any] | None:
    if not frames:
        return None
    return np.stack([picture(frames[i], size, profile.pixels) for i in profile.frames], axis=1)


def _imu(
    values: Floats | None, mask: NDArray[np.bool_] | None, order: tuple[int, ...]
) -> dict[str, NDArray[Any] | None]:
    if values is None:
        return {"imu": None, "imu_mask": None}
    return {"imu": values[list(order)], "imu_mask": mask}
