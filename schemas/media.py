"""What a media file's header claims and what was measured, and the decoded pieces taken from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from align.schemas.errors import Reason
from align.schemas.time import NS, TimeSpan
from align.schemas.wire import OMIT_NONE


@dataclass(frozen=True, slots=True)
class Edit:
    """A stretch of a track's media, as it is shown.

    Attributes:
        span: when, recording clock.
        offset_ns: subtracted from media times to give recording times.
    """

    span: TimeSpan
    offset_ns: int


@dataclass(frozen=True, slots=True)
class Edits:
    """An edit list that is applied by us: the file is to be read by media time.

    Attributes:
        media: what the media hold, by media time.
        pieces: what is shown of them, ascending and disjoint on the recording clock.
    """

    media: TimeSpan
    pieces: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video stream, from its header and index.

    Attributes:
        span: from the first frame's presentation time to the end of the last one, on the recording clock.
        frame_ns: nominal duration of a frame.
        clock_offset_ns: what was subtracted from container times because the format's origin is
            arbitrary (MPEG-TS, FLV); 0 elsewhere.
        frames: frames the header claims; 0 where it does not say.
        keyframes_ns: presentation times of the keyframes the index lists; empty where it lists none.
        keyframe_delay_ns: a keyframe is shown at most so long after its decoding; None where no table of all
            packets says so, or says that some are shown before it.
        bytes_per_s: average, for the cost model.
        sample_aspect: width of a pixel over its height.
        shortfall_ns: how much of what the header promises, at its end, is not in the file; 0 where it does
            not say.
        crop: left, top, width and height of the part of the stored picture that is meant to be seen, where
            the container says so.
        is_nominal: the container gives pictures places on a grid, and no times of their own (AVI).
        is_reconfigured: packets refer to several sets of decoder parameters.
        has_layers: further views are coded beside the base view, which is what is decoded (MV-HEVC).
        slow_age_ns: three median distances of the recording's frames, where that is more than a second.
        edits: of several stretches; None where libavformat applies the edit list.
    """

    index: int
    codec: str
    width: int
    height: int
    time_base: Fraction
    span: TimeSpan
    frame_ns: int
    clock_offset_ns: int = 0
    frames: int = 0
    keyframes_ns: tuple[int, ...] = ()
    keyframe_delay_ns: int | None = None
    bytes_per_s: float = 0.0
    sample_aspect: Fraction = Fraction(1)
    shortfall_ns: int = 0
    crop: tuple[int, int, int, int] | None = field(default=None, metadata=OMIT_NONE)
    is_nominal: bool | None = field(default=None, metadata=OMIT_NONE)
    is_reconfigured: bool | None = field(default=None, metadata=OMIT_NONE)
    has_layers: bool | None = field(default=None, metadata=OMIT_NONE)
    slow_age_ns: int | None = field(default=None, metadata=OMIT_NONE)
    edits: Edits | None = field(default=None, metadata=OMIT_NONE)

    @property
    def max_age_ns(self) -> int:
        """How old a picture may be unless a bound is asked for: a second, or what a slow recording needs."""
        return max(NS, self.slow_age_ns or 0)


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """An audio stream, from its header. ``span`` is on the recording clock; ``edits`` as of a video."""

    index: int
    codec: str
    rate: int
    channels: int
    time_base: Fraction
    span: TimeSpan
    edits: Edits | None = field(default=None, metadata=OMIT_NONE)


@dataclass(frozen=True, slots=True)
class ClockRestart:
    """Where a file's clock begins again; nothing behind that is read.

    Attributes:
        byte: the first one that is not read.
        lost_bytes: from there on.
        lost_ns: how much they play, as far as that can be told.
    """

    byte: int
    lost_bytes: int
    lost_ns: int


@dataclass(frozen=True, slots=True)
class ClosedTrack:
    """A track of picture or sound (``kind``) that cannot be decoded, and why (a ``Reason`` value)."""

    index: int
    kind: str
    codec: str
    reason: str

    def __str__(self) -> str:
        what = f"{self.kind} stream {self.index}"
        if self.reason == Reason.ENCRYPTED:
            return f"{what} ({self.codec}) is encrypted; decrypt the file first"
        return f"{what} is of a codec not known here ({self.codec}); re-encode it, e.g. to H.264 or AAC"


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """A probed container: the streams that serve as video and audio, all in words, and the closed ones.

    Attributes:
        end_ns: when its longest stream ends by the header, recording clock; 0 where it does not say.
        restart: where the first timeline of the file ends, if more stands behind it.
    """

    format: str
    video: VideoInfo | None
    audio: AudioInfo | None
    streams: tuple[str, ...] = ()
    end_ns: int = 0
    closed: tuple[ClosedTrack, ...] | None = field(default=None, metadata=OMIT_NONE)
    restart: ClockRestart | None = field(default=None, metadata=OMIT_NONE)

    def closed_of(self, kind: str) -> ClosedTrack | None:
        """The first track of a kind that cannot be decoded."""
        return next((track for track in self.closed or () if track.kind == kind), None)

    @property
    def is_edited(self) -> bool:
        """Whether edit lists are applied by us, so that the file is to be opened without them."""
        return any(info is not None and info.edits is not None for info in (self.video, self.audio))


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded frame, upright, ready for JPEG.

    Attributes:
        time_ns: the frame's own presentation time on the recording clock.
        pixels: uint8 [height, width, 3], RGB, full range, BT.709/sRGB.
        tone_mapped: whether it was brought from HDR to SDR.
    """

    time_ns: int
    pixels: NDArray[np.uint8]
    tone_mapped: bool = False


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Decoded audio of one window and its margins, placed by presentation time.

    Attributes:
        rate: Hz; a Fraction where the timestamps say that the stream does not run at its nominal rate.
        start_ns: exact time of sample 0 as a Fraction of nanoseconds, recording clock.
        samples: float32 [n], mono, in [-1, 1]; where nothing was recorded, 0.
        gaps: spans without recorded samples, in no layer, recording clock.
        rate_ppm: by how much the rate is above the nominal one, relative, in millionths.
        layers: sound of the same span at other rates, each 0 where another one holds sound.
    """

    rate: int | Fraction
    start_ns: Fraction
    samples: NDArray[np.float32]
    gaps: tuple[TimeSpan, ...] = ()
    rate_ppm: float = 0.0
    layers: tuple[AudioTrack, ...] = ()


@dataclass(frozen=True, slots=True)
class ImuTrack:
    """Clean IMU rows: sorted, finite, without duplicates, recording clock.

    The gyroscope and the accelerometer keep instants of their own: on some devices they differ.

    Attributes:
        gyro_ns: int64 [n], strictly ascending.
        gyro: float64 [n, 3], rad/s.
        accl_ns: int64 [m], strictly ascending.
        accl: float64 [m, 3], m/s².
        gyro_rate_hz: rate measured over the recording, 0.0 where it cannot be.
        accl_rate_hz: rate measured over the recording, 0.0 where it cannot be.
        joints_ns: ascending instants between whose two sides nothing is interpolated: another instrument
            begins there.
        is_spread: rows shared timestamps and were spread evenly.
    """

    gyro_ns: NDArray[np.int64]
    gyro: NDArray[np.float64]
    accl_ns: NDArray[np.int64]
    accl: NDArray[np.float64]
    gyro_rate_hz: float
    accl_rate_hz: float
    joints_ns: tuple[int, ...] = ()
    is_spread: bool = False
