"""The options on which a window's bytes depend. Each checks itself when it is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from align.schemas.errors import UsageError
from align.schemas.modality import DEFAULT
from align.schemas.time import NS

Anchor = Literal["grid", "narration", "keyframe"]
MODALITIES = tuple(m.name for m in DEFAULT)
MAX_AGE_NS = 10**9 * NS
MAX_FRAMES = 1000


def _check(good: bool, detail: str) -> None:
    if not good:
        raise UsageError(detail)


@dataclass(frozen=True, slots=True)
class AlignOptions:
    """What a window is and what is taken from it.

    Attributes:
        window_ns: length of a window.
        stride_ns: distance of the starts of neighbouring grid windows; least distance of keyframe windows;
            0 stands for the window's length.
        anchor: where windows stand: on a grid, centred on narrations, or centred on keyframes.
        cross_joints: keep windows that cross a joint between camera files.
        redacted: ``skip`` windows that touch a redacted span, or ``keep`` them.
        stereo: ``skip`` side-by-side videos, or ``crop-left``.
        unsynced: where the IMU was measured not to be the picture's: ``null`` IMU, ``drop`` the window, or
            ``keep`` both.
        frames: pictures per window.
        image_size: short side in pixels.
        jpeg_quality: 1 to 100.
        audio_rate: Hz.
        imu_rate: Hz.
        min_coverage: least measured share of audio or IMU in a window; below it the modality is null.
        require: modalities without which a window is not written.
        max_pixels: largest picture that is decoded at all.
        max_image_age_ns: a picture stands only for instants less than this after it; 0 for the recording's
            own bound (``VideoInfo.max_age_ns``), None for no bound.
    """

    window_ns: int = 5 * NS
    stride_ns: int = 0
    anchor: Anchor = "grid"
    cross_joints: bool = False
    redacted: Literal["skip", "keep"] = "skip"
    stereo: Literal["skip", "crop-left"] = "skip"
    unsynced: Literal["keep", "drop", "null"] = "null"
    frames: int = 1
    image_size: int = 256
    jpeg_quality: int = 90
    audio_rate: int = 16_000
    imu_rate: int = 200
    min_coverage: float = 0.9
    require: tuple[str, ...] = ("image",)
    max_pixels: int = 64_000_000
    max_image_age_ns: int | None = 0

    def __post_init__(self) -> None:
        if not self.stride_ns:
            object.__setattr__(self, "stride_ns", self.window_ns)
        _check(10_000_000 <= self.window_ns <= 3600 * NS, "--window must be between 0.01 and 3600 seconds")
        _check(self.stride_ns >= 1_000_000, "--stride must be at least 0.001 seconds")
        _check(self.anchor in ("grid", "narration", "keyframe"), f"unknown --anchor {self.anchor!r}")
        _check(self.redacted in ("skip", "keep"), "--redacted is skip or keep")
        _check(self.stereo in ("skip", "crop-left"), "--stereo is skip or crop-left")
        _check(self.unsynced in ("keep", "drop", "null"), "--unsynced is keep, drop or null")
        _check(1 <= self.frames <= MAX_FRAMES, "--frames must be between 1 and 1000")
        _check(16 <= self.image_size <= 8192, "--image-size must be between 16 and 8192 pixels")
        _check(1 <= self.jpeg_quality <= 100, "--jpeg-quality must be between 1 and 100")
        _check(1_000 <= self.audio_rate <= 192_000, "--audio-rate must be between 1000 and 192000 Hz")
        _check(1 <= self.imu_rate <= 8_000, "--imu-rate must be between 1 and 8000 Hz")
        _check(0.0 <= self.min_coverage <= 1.0, "--min-coverage must be between 0 and 1")
        unknown = sorted(set(self.require) - set(MODALITIES))
        _check(not unknown, f"--require knows {', '.join(MODALITIES)}; not {', '.join(unknown)}")
        _check(self.max_pixels >= 1, "--max-pixels must be positive")
        age = self.max_image_age_ns
        _check(
            not age or 1_000_000 <= age <= MAX_AGE_NS, "--max-image-age must be between 0.001 and 1e9 seconds"
        )

    def as_dict(self) -> dict[str, object]:
        """The options as plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
