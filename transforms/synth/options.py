"""What can be asked of synthetic recordings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Literal

from align.schemas.errors import UsageError

Codec = Literal["h264", "vp9"]
MotionKind = Literal["walking", "pan", "static"]
Pairs = tuple[tuple[float, float], ...]


def _check(good: bool, detail: str) -> None:
    if not good:
        raise UsageError(detail)


@dataclass(frozen=True, slots=True)
class SynthOptions:
    """Synthetic recordings; equal options give equal files, byte for byte.

    All instants are seconds on the recording clock.

    Attributes:
        count: recordings.
        duration_s: length of the video; the sound ends with it.
        fps: frames per second, exact.
        width: pixels, even.
        height: pixels, even.
        codec: of the video.
        gop: most frames from keyframe to keyframe.
        bframes: most consecutive B-frames (H.264 only).
        vfr: share of the frames that are dropped, in bursts; the others keep their times.
        video_start_s: presentation time of the first frame.
        audio_start_s: time of the first sound sample.
        audio_rate: Hz.
        audio_gaps: (start, length) of sound that was never recorded, widened to whole AAC packets.
        imu_rate_hz: rows per second of the IMU's own clock.
        imu_jitter_ms: rows stand up to this far from their even places; their times say so.
        imu_offset_s: what must be added to the written IMU times to stand on the recording clock, at the
            video's start.
        imu_drift_ppm: by how much the recording clock gains on the written times from there on.
        imu_jumps_s: per joint, how far the written times leap ahead there (at least 0).
        imu_gaps: (start, length) without IMU rows.
        imu_axes: which camera axis each written axis is, in GoPro's ``ORIN`` notation: upper case means
            the axis itself, lower case its negative; ``XYZ`` is x right, y down, z forward.
        gyro_noise: standard deviation of white noise, rad/s.
        gyro_bias: constant error per camera axis, rad/s.
        accl_noise: standard deviation of white noise, m/s².
        joints_s: where original camera files were joined.
        redacted: (start, end) of blanked picture.
        no_audio: indices of recordings without sound.
        no_imu: indices of recordings without IMU.
        no_narration: indices of recordings without narrations.
        motion: ``walking`` (the head sways with the steps), ``pan`` (20 °/s rms, mostly yaw), ``static``.
        foreground: an object moves on its own through the picture.
        stabilised_s: standard deviation in seconds of the Gaussian by which the camera's path is smoothed
            before it is shown, as electronic stabilisation does; the IMU holds the unsmoothed one.
        event_offsets_s: the recordings are of one event; where each one's time 0 stands on the event's clock.
            They all hear the event instead of a tone of their own. The metadata state the offsets in whole
            seconds.
        event_drifts_ppm: by how much the event's clock gains on each recording's; none for no drift.
        event_snr_db: how much louder the event is than each camera's own noise.
        seed: of everything that is drawn by lot.
    """

    count: int = 3
    duration_s: float = 20.0
    fps: Fraction = Fraction(30)
    width: int = 640
    height: int = 360
    codec: Codec = "h264"
    gop: int = 30
    bframes: int = 2
    vfr: float = 0.0
    video_start_s: float = 0.0
    audio_start_s: float = 0.0
    audio_rate: int = 48_000
    audio_gaps: Pairs = ()
    imu_rate_hz: float = 200.0
    imu_jitter_ms: float = 0.0
    imu_offset_s: float = 0.0
    imu_drift_ppm: float = 0.0
    imu_jumps_s: tuple[float, ...] = ()
    imu_gaps: Pairs = ()
    imu_axes: str = "XYZ"
    gyro_noise: float = 0.0
    gyro_bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    accl_noise: float = 0.0
    joints_s: tuple[float, ...] = ()
    redacted: Pairs = ()
    no_audio: tuple[int, ...] = ()
    no_imu: tuple[int, ...] = ()
    no_narration: tuple[int, ...] = ()
    motion: MotionKind = "walking"
    foreground: bool = False
    stabilised_s: float = 0.0
    event_offsets_s: tuple[float, ...] = ()
    event_drifts_ppm: tuple[float, ...] = ()
    event_snr_db: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check(1 <= self.count <= 100_000, "--count must be between 1 and 100000")
        _check(self.motion in ("walking", "pan", "static"), f"unknown --motion {self.motion!r}")
        _check(self.seed >= 0, "--seed must be 0 or more")
        lacking = self.no_audio + self.no_imu + self.no_narration
        numbered = all(0 <= i < self.count for i in lacking)
        _check(
            numbered, f"--no-audio, --no-imu, --no-narration: recordings are numbered 0 to {self.count - 1}"
        )
        self._check_event()
        self._check_media()
        self._check_imu()
        self._check_spans()

    def _check_event(self) -> None:
        each = len(self.event_offsets_s) in (0, self.count)
        _check(each, "--event-offset: none, or one for each recording")
        drifts = len(self.event_drifts_ppm) in (0, len(self.event_offsets_s))
        _check(drifts, "--event-drift: none, or one for each --event-offset")
        _check(
            all(abs(s) <= 3600 for s in self.event_offsets_s), "--event-offset must be within ±3600 seconds"
        )
        _check(all(abs(d) <= 1000 for d in self.event_drifts_ppm), "--event-drift must be within ±1000 ppm")
        _check(-30 <= self.event_snr_db <= 100, "--event-snr must be between -30 and 100 dB")

    def _check_media(self) -> None:
        _check(0.1 <= self.duration_s <= 86_400, "--duration must be between 0.1 and 86400 seconds")
        rates = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
        _check(self.audio_rate in rates, f"--audio-rate must be one of {', '.join(map(str, rates))} Hz")
        _check(Fraction(1, 10) <= self.fps <= 1000, "--fps must be between 0.1 and 1000")
        # The MP4 counts in the least common multiple of both rates, in 31 bits.
        fits = math.lcm(self.fps.numerator, self.audio_rate) < 2**31
        _check(fits, f"--fps {self.fps} is not a rate that cameras have: try 30000/1001")
        _check(self.frames >= 1, "--duration must hold at least one frame")
        even = all(32 <= s <= 4096 and s % 2 == 0 for s in (self.width, self.height))
        _check(even, "--size needs even sides from 32 to 4096 pixels")
        _check(self.codec in ("h264", "vp9"), f"unknown --codec {self.codec!r}: h264 or vp9")
        _check(1 <= self.gop <= 10_000, "--gop must be between 1 and 10000 frames")
        _check(0 <= self.bframes <= 16, "--bframes must be between 0 and 16")
        _check(0.0 <= self.vfr <= 0.9, "--vfr must be between 0 and 0.9")
        _check(0 <= self.stabilised_s <= 10, "--stabilised must be between 0 and 10 seconds")
        starts = all(0 <= s <= 3600 for s in (self.video_start_s, self.audio_start_s))
        _check(starts, "--video-start and --audio-start must be 0 to 3600 seconds")
        _check(self.audio_start_s < self.end_s, "--audio-start must lie before the end of the video")

    def _check_imu(self) -> None:
        _check(20 <= self.imu_rate_hz <= 8000, "--imu-rate must be between 20 and 8000 Hz")
        steady = 0 <= self.imu_jitter_ms < 500 / self.imu_rate_hz
        _check(steady, "--imu-jitter must be less than half an IMU period")
        _check(abs(self.imu_offset_s) <= 3600, "--imu-offset must be within ±3600 seconds")
        _check(abs(self.imu_drift_ppm) <= 10_000, "--imu-drift must be within ±10000 ppm")
        whole = sorted(self.imu_axes.upper()) == ["X", "Y", "Z"]
        _check(whole, "--imu-axes names X, Y and Z once each, e.g. yXZ")
        noises = (self.gyro_noise, self.accl_noise)
        _check(all(0 <= n < math.inf for n in noises), "--gyro-noise and --accl-noise cannot be negative")
        _check(all(map(math.isfinite, self.gyro_bias)), "--gyro-bias must be finite")
        _check(len(self.imu_jumps_s) in (0, len(self.joints_s)), "--imu-jump: none, or one for each --joint")
        ahead = all(0 <= j <= 3600 for j in self.imu_jumps_s)
        _check(ahead, "--imu-jump must be 0 to 3600 seconds: clocks leap ahead, not back")

    def _check_spans(self) -> None:
        gaps = self.audio_gaps + self.imu_gaps
        finite = all(math.isfinite(n) for pair in gaps + self.redacted for n in pair)
        _check(finite, "gaps and redactions must be finite numbers of seconds")
        _check(all(length > 0 for _, length in gaps), "a gap's length must be positive")
        ascending = all(start < end for start, end in self.redacted)
        _check(ascending, "--redact needs START:END with START before END")
        _check(list(self.redacted) == sorted(self.redacted), "--redact: in ascending order")
        inside = all(self.video_start_s < j < self.end_s for j in self.joints_s)
        distinct = list(self.joints_s) == sorted(set(self.joints_s))
        _check(inside and distinct, "--joint: in ascending order, inside the video")

    @property
    def end_s(self) -> float:
        """End of the video on the recording clock."""
        return self.video_start_s + self.duration_s

    @property
    def frames(self) -> int:
        """Frames per recording, before any are dropped."""
        return math.floor(Fraction(repr(float(self.duration_s))) * self.fps)

    def as_dict(self) -> dict[str, object]:
        """The options as plain JSON values."""
        return asdict(self) | {"fps": str(self.fps)}

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> SynthOptions:
        """The inverse of :meth:`as_dict`, through JSON and back."""

        def tuples(value: object) -> object:
            return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value

        plain = {name: tuples(value) for name, value in values.items()}
        return cls(**plain | {"fps": Fraction(str(values["fps"]))})  # type: ignore[arg-type]
