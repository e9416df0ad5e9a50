"""What a window may hold: modalities are declared here, the code for each kind of them is written once.

A *modality* is one line: its name, its kind, what it measures. A *kind* is how such a thing is surveyed,
aligned, encoded, checked, counted and viewed. A further magnetometer or camera is a further line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from align.schemas.time import NS

Kind = Literal["picture", "sound", "series", "sentences"]


@dataclass(frozen=True, slots=True)
class Sensor:
    """An instrument of a series: its channels share their instants.

    Attributes:
        name: prefixes its channels.
        axes: one entry a channel; a single "" is the sensor itself.
        unit: of the values, SI.
    """

    name: str
    axes: tuple[str, ...]
    unit: str

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of its channels, in order: ``gyro_x`` …, or the sensor's own name."""
        return tuple(f"{self.name}_{axis}" if axis else self.name for axis in self.axes)


@dataclass(frozen=True, slots=True)
class Modality:
    """What a window may hold of one source of data.

    Attributes:
        name: of its main column, its key in ``missing``, the prefix of its other columns and figures.
        kind: the code that handles it.
        sensors: of a series, instruments with instants of their own.
        rate_hz: of the output grid: samples of sound, rows of a series.
        margin_ns: what resampling sees on either side of a window: all that planning needs to know of it.
        encoding: of a picture: ``jpg`` (8 bit, colour) or ``png`` (lossless, up to 16 bit).
        unit: of a picture's values where they are a measurement, e.g. ``mm``.
        meaning: one line for the card, where the kind does not say it all.
        part: of the WebDataset sample: what follows the key in the name of the main member, without suffix.
    """

    name: str
    kind: Kind
    sensors: tuple[Sensor, ...] = ()
    rate_hz: int = 0
    margin_ns: int = 0
    encoding: Literal["jpg", "png"] = "jpg"
    unit: str = ""
    meaning: str = ""
    part: str | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of a series' channels, in the order of its rows."""
        return tuple(channel for sensor in self.sensors for channel in sensor.channels)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each channel."""
        return tuple(sensor.unit for sensor in self.sensors for _ in sensor.axes)

    def member(self, suffix: str) -> str:
        """Name of its member of a WebDataset sample, without the key: ``depth.png``; of ``image`` ``jpg``."""
        prefix = self.name if self.part is None else self.part
        return f"{prefix}.{suffix}" if prefix else suffix


_XYZ = ("x", "y", "z")

IMAGE = Modality(
    "image", "picture", part="", meaning="the anchor frame: the one on screen at the window's anchor, upright"
)
AUDIO = Modality("audio", "sound", rate_hz=16_000, margin_ns=NS // 10, part="")
IMU = Modality(
    "imu", "series", (Sensor("gyro", _XYZ, "rad/s"), Sensor("accl", _XYZ, "m/s^2")), 200, margin_ns=NS
)
TEXT = Modality("text", "sentences", part="")

DEFAULT = (IMAGE, AUDIO, IMU, TEXT)
"""What a run writes unless it is asked for other modalities, in the order of the columns."""


def with_rates(modalities: Iterable[Modality], **rates: int) -> tuple[Modality, ...]:
    """The declarations with the rates that a run asked for, by name."""
    return tuple(replace(m, rate_hz=rates.get(m.name, m.rate_hz)) for m in modalities)
