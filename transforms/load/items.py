"""From a row to what a training step takes: arrays, zeros and a False where a modality is missing.

Batches are stacked as arrays and only then become tensors: ``torch.stack`` starts threads for what is a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from align.schemas.time import count_in
from align.transforms.formats.media_heads import check_heads
from align.transforms.index.negatives import identity, narration_id
from align.transforms.views.normalise import Normalisation, normalise
from align.transforms.views.views import Profile, view

Item = dict[str, Any]
ALWAYS = ("key", "group_id", "text")
"""Columns that an item needs whatever its modalities."""


def make_item(
    row: Mapping[str, Any],
    profile: Profile,
    modalities: Sequence[str],
    options: Mapping[str, Any],
    duplicate_of: str | None = None,
    by: Normalisation | None = None,
) -> Item:
    """One window as a dict of arrays, numbers and strings; see :func:`align.load`.

    Args:
        row: as :class:`align.transforms.load.rows.Rows` gives it.
        profile: the model's.
        modalities: which of the profile's.
        options: the ``AlignOptions`` that the data set was written with.
        duplicate_of: key of the window of which this one is a near-duplicate.
        by: the statistics to normalise with; None leaves values as they are.

    Raises:
        AlignError: ``bad_media``: a part cannot be decoded, or claims more than the run wrote.
    """
    check_heads(row, options)
    made = view(row, profile, modalities, options["image_size"])
    made = made if by is None else normalise(made, profile, by)
    item: Item = {name: _filled(name, value, profile, options, by) for name, value in made.items()}
    item["present"] = {m: made[m] is not None for m in modalities}
    item["key"] = row["key"]
    item["ids"] = {
        "sample": identity(row["key"]),
        "picture": identity(duplicate_of or row["key"]),
        "narration": narration_id(row["text"]),
        "group": identity(row["group_id"]),
    }
    return item


def stack(items: Sequence[Item]) -> Item:
    """Items as one batch: arrays stacked, numbers made arrays, strings listed."""
    first = items[0]
    return {name: _stacked([item[name] for item in items]) for name in first}


def _stacked(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return stack(values)
    return list(values) if isinstance(first, str) else np.stack(values)


def _filled(
    name: str, value: Any, profile: Profile, options: Mapping[str, Any], by: Normalisation | None
) -> Any:
    if name == "text":
        return value or ""
    if value is not None:
        return value
    return np.zeros(_shape(name, profile, options), _dtype(name, profile, by is not None))


def _dtype(name: str, profile: Profile, normalised: bool) -> DTypeLike:
    if name == "imu_mask":
        return np.bool_
    raw = name in ("image", "video") and profile.pixels == "uint8" and not normalised
    return np.uint8 if raw else np.float32


def _shape(name: str, profile: Profile, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of a modality in every window of a data set, present or not."""
    size = profile.size or options["image_size"]
    window = options["window_ns"]
    if name == "image":
        return (3, size, size)
    if name == "video":
        return (3, len(profile.frames), size, size)
    if name == "audio":
        heard = count_in(min(profile.audio_ns or window, window), options["audio_rate"])
        return (1, 128, 204) if profile.audio == "mel" else (heard,)
    measured = count_in(window, options["imu_rate"])
    return (measured,) if name == "imu_mask" else (6, measured)
