"""The options on which a window's bytes depend."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from align.schemas.modality import DEFAULT
from align.schemas.option import option, seconds, settle
from align.schemas.time import NS

MODALITIES = tuple(m.name for m in DEFAULT)
ANCHORS = ("grid", "narration", "keyframe")
MAX_AGE_NS = 10**9 * NS
MAX_FRAMES = 1000
_RENAMED = {
    "window": "window_ns",
    "stride": "stride_ns",
    "joints": "cross_joints",
    "max_image_age": "max_image_age_ns",
}

MaxAge = float | Literal["auto", "off"]


def max_age(given: Any) -> MaxAge:
    """Seconds, or ``auto`` or ``off``.

    Raises:
        ValueError: neither.
    """
    word = str(given).strip().lower()
    if word == "auto":
        return "auto"
    if word in ("off", "inf", "none"):
        return "off"
    return seconds(given)


@dataclass(frozen=True, slots=True)
class AlignOptions:
    """What a window is and what is taken from it; checks itself when it is made.

    Each field is an option of ``align run`` and takes its value in any form; see
    :mod:`align.schemas.option`. Their order is that of the manifest. Without a ``stride`` it is the window's
    length.
    """

    window: float = option(
        5.0, "Length of a window.", seconds, metavar="SECONDS", low=0.01, high=3600, unit="seconds"
    )
    stride: float | None = option(
        None,
        "From one window's start to the next.",
        seconds,
        metavar="SECONDS",
        low=0.001,
        unit="seconds",
        typed="the window",
    )
    anchor: str = option(
        "grid",
        "Where windows stand: on a grid, centred on each narration, or on keyframes (cheapest).",
        choices=ANCHORS,
    )
    joints: str = option("skip", "Windows across camera files.", choices=("skip", "keep"))
    redacted: str = option("skip", "Windows in redacted parts.", choices=("skip", "keep"))
    stereo: str = option("skip", "Side-by-side video.", choices=("skip", "crop-left"))
    unsynced: str = option(
        "null",
        "Where the IMU was refuted: null IMU, drop the window, or keep both.",
        choices=("null", "drop", "keep"),
    )
    frames: int = option(1, "Pictures per window, beside the anchor.", low=1, high=MAX_FRAMES)
    image_size: int = option(256, "Short side of a picture.", low=16, high=8192, unit="pixels")
    jpeg_quality: int = option(90, "Of a picture.", low=1, high=100)
    audio_rate: int = option(
        16_000, "Samples of sound a second.", metavar="HZ", low=1000, high=192_000, unit="Hz"
    )
    imu_rate: int = option(200, "IMU rows a second.", metavar="HZ", low=1, high=8000, unit="Hz")
    min_coverage: float = option(
        0.9, "Below this measured share, sound or IMU is null with a reason.", low=0, high=1
    )
    require: tuple[str, ...] = option(
        ("image",),
        f"Skip windows that lack one of these: {', '.join(MODALITIES)}.",
        metavar="NAME,…",
        choices=MODALITIES,
    )
    max_pixels: int = option(64_000_000, "Larger pictures are refused.", low=1, unit="pixels")
    max_image_age: MaxAge = option(
        "auto",
        "No picture older than this stands for an instant. auto: 1 s, or 3 frame periods where that is "
        "more; off: any age, for recordings of a screen that stands still.",
        max_age,
        metavar="SECONDS|auto|off",
        low=0.001,
        high=1e9,
        unit="seconds, auto or off",
    )

    def __post_init__(self) -> None:
        settle(self)

    @property
    def window_ns(self) -> int:
        """Length of a window, ns."""
        return round(self.window * NS)

    @property
    def stride_ns(self) -> int:
        """Distance of the starts of neighbouring grid windows, least distance of keyframe windows, ns."""
        return self.window_ns if self.stride is None else round(self.stride * NS)

    @property
    def cross_joints(self) -> bool:
        """Whether windows that cross a joint between camera files are kept."""
        return self.joints == "keep"

    @property
    def max_image_age_ns(self) -> int | None:
        """A picture stands only for instants less than this after it, ns.

        0 is the recording's own bound (``VideoInfo.max_age_ns``), None no bound.
        """
        if isinstance(self.max_image_age, str):
            return 0 if self.max_image_age == "auto" else None
        return round(self.max_image_age * NS)

    def as_dict(self) -> dict[str, object]:
        """The options as plain JSON values, under the names of the manifest."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        exact = {new: getattr(self, new) for new in _RENAMED.values()}
        renamed = {_RENAMED.get(name, name): value for name, value in plain.items()}
        return renamed | exact
