"""Normalisation by the statistics of the data set itself, where a model brings no constants of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.schemas.errors import UsageError
from align.schemas.features import IMU_CHANNELS
from align.transforms.views.views import Profile

Floats = NDArray[np.float32]
MeanStd = tuple[Floats, Floats]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and deviation: image [3] of pixels in [0, 1], audio [1], IMU [6] in the order it is written."""

    image: MeanStd
    audio: MeanStd
    imu: MeanStd


def normalisation(stats: Mapping[str, Any], split: str) -> Normalisation:
    """The statistics of a split, from the content of ``stats.json``.

    A modality that no window has is left as it is.

    Raises:
        UsageError: the statistics do not know the split.
    """
    if split not in stats["splits"]:
        raise UsageError(f"stats.json knows no split {split!r}; it has {', '.join(sorted(stats['splits']))}")
    found = stats["splits"][split]["normalisation"]
    return Normalisation(
        _mean_std([found["image"][c] for c in "rgb"]),
        _mean_std([found["audio"]]),
        _mean_std([found["imu"][c] for c in IMU_CHANNELS]),
    )


def normalise(made: Mapping[str, Any], profile: Profile, by: Normalisation) -> dict[str, Any]:
    """What a view made, with zero mean and unit deviation over the split; float32.

    The IMU always, zero again where it was not measured; waveforms, and pictures of a profile without
    constants of its own. What a profile normalises itself stays as it is.
    """
    done = dict(made)
    for name in ("image", "video"):
        if made.get(name) is not None and profile.pixels == "uint8":
            done[name] = _apply(made[name] * np.float32(1 / 255), by.image)
    if made.get("audio") is not None and profile.audio == "wave":
        done["audio"] = _apply(made["audio"][None], by.audio)[0]
    if made.get("imu") is not None:
        order = list(profile.imu_order)
        mean, std = by.imu
        done["imu"] = _apply(made["imu"], (mean[order], std[order])) * made["imu_mask"]
    return done


def _mean_std(values: list[Mapping[str, Any]]) -> MeanStd:
    mean = np.array([v["mean"] or 0.0 for v in values], np.float32)
    std = np.array([v["std"] or 1.0 for v in values], np.float32)
    return mean, std


def _apply(values: NDArray[Any], by: MeanStd) -> Floats:
    shape = (-1, *(1,) * (values.ndim - 1))
    return np.asarray((values - by[0].reshape(shape)) / by[1].reshape(shape), np.float32)
