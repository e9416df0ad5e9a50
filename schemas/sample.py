"""One aligned window, as it is written: encoded media, times, masks and reasons."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from align.schemas.time import TimeSpan


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A JPEG and the presentation time of its frame (ns, recording clock)."""

    data: bytes
    time_ns: int


@dataclass(frozen=True, slots=True)
class EncodedAudio:
    """A FLAC stream: mono, 16 bit, exactly rate · length samples; ``gaps`` are filled, not recorded.

    Attributes:
        samples: int16 [n], what the stream was made of; None where that is not at hand.
        rate: of the samples, Hz.
    """

    data: bytes
    gaps: tuple[TimeSpan, ...] = ()
    samples: NDArray[np.int16] | None = field(default=None, compare=False, repr=False)
    rate: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ImuWindow:
    """IMU on a regular grid from the window's start.

    Attributes:
        values: float32 [6, n]; gyro x, y, z (rad/s), then accl x, y, z (m/s²); 0 where not measured.
        mask: bool [n]; True where both sensors were measured.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.values.shape != (6, len(self.mask)):
            raise ValueError(f"IMU is [6, n] with a mask of n; got {self.values.shape}, {self.mask.shape}")


@dataclass(frozen=True, slots=True)
class Quality:
    """Numbers that describe how well a window is covered. None where the modality does not exist.

    Attributes:
        image_offset_ns: anchor frame's time minus the target time.
        image_time_quality: ``nominal`` where the file gives pictures places on a grid, no times; else None.
        image_max_age_ns: a picture serves only instants less than this after it; None without a bound.
        audio_coverage: recorded share of the window, 0 to 1.
        imu_coverage: measured share of the window, 0 to 1.
        imu_max_gap_ns: longest stretch of the window without a measured row.
        imu_rate_hz: rate of the gyroscope's rows, measured over the recording.
        tone_mapped: the picture was brought from HDR to SDR.
        sync_status: verdict on the IMU's clock, where one was given.
        audio_rate_hz: rate of the sound's samples by their timestamps; the nominal one where that explains
            them.
        audio_rate_ppm: by how much that is above the nominal rate, relative, in millionths.
        imu_time_quality: ``measured`` where rows have timestamps of their own, ``spread`` where rows shared
            one and were spread evenly up to the next.
    """

    image_offset_ns: int | None = None
    image_max_age_ns: int | None = None
    image_time_quality: str | None = None
    audio_coverage: float | None = None
    imu_coverage: float | None = None
    imu_max_gap_ns: int | None = None
    imu_rate_hz: float | None = None
    tone_mapped: bool = False
    sync_status: str | None = None
    sync_offset_ns: int | None = None
    sync_sigma_ns: int | None = None
    audio_rate_hz: float | None = None
    audio_rate_ppm: float | None = None
    imu_time_quality: str | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made a sample. Names are relative to the input folder: no host, no secret."""

    video: str
    video_stream: int
    audio: str | None
    audio_stream: int | None
    imu: str | None
    clock_offset_ns: int
    imu_clock: str | None
    config_sha256: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One window of one recording.

    Attributes:
        key: unique over the data set, stable under re-runs, only ``[A-Za-z0-9_-]``.
        image: the anchor frame; None with a reason in ``missing``.
        frames: further frames where more than one per window was asked for, else empty.
        text: narrations inside the window without tags; None where the recording has none.
        text_raw: the same sentences as written.
        missing: modality -> reason code.
    """

    key: str
    source: str
    recording_id: str
    group_id: str
    split: str
    window: TimeSpan
    image: EncodedImage | None
    audio: EncodedAudio | None
    imu: ImuWindow | None
    text: tuple[str, ...] | None
    text_raw: tuple[str, ...] | None
    text_times_ns: tuple[int, ...] | None
    quality: Quality
    provenance: Provenance
    frames: tuple[EncodedImage, ...] = ()
    scenarios: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
