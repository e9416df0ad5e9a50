"""Statistics of a data set as integer sums, so that they are exact and the same under any sharding.

Every figure is a sum of integers over samples: counts, nanoseconds, pixel values, 16-bit audio samples,
and IMU values in fixed point (2⁻¹⁶ of their unit, 1.5e-5 m/s²: below any sensor's noise). Addition of
integers is associative and commutative, so partial statistics may be merged in any order and any
grouping; means and deviations are formed once, at the end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.schemas.features import IMU_CHANNELS
from align.schemas.options import MODALITIES
from align.schemas.time import NS
from align.transforms.store.publish import Store, publish_json
from align.transforms.write.media_counts import AUDIO_STEP, LOUDEST, MediaCounts, media_counts
from align.transforms.write.quantiles import Histograms, quantiles

STATS = "stats.json"

_FIXED = 1 << 16
_IMU_STEP = 1 << 10
"""Of the quantiles: 1/64 rad/s and m/s². Pixels are counted one by one."""
_LABELS_SHOWN = 1000
_GROUP = "group:"
_BINS = 10


@dataclass(frozen=True, slots=True)
class Statistics:
    """Partial statistics: split -> name of a sum -> the sum. ``Statistics()`` is the neutral element."""

    sums: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def windows(self) -> int:
        """Samples counted, over all splits."""
        return sum(s.get("windows", 0) for s in self.sums.values())


def merge(a: Statistics, b: Statistics) -> Statistics:
    """The statistics of both together; associative and commutative."""
    total = {split: Counter(sums) for split, sums in a.sums.items()}
    for split, sums in b.sums.items():
        total.setdefault(split, Counter()).update(sums)
    return Statistics(total)


def merge_all(partials: Iterable[Statistics]) -> Statistics:
    """The statistics of all together."""
    total: dict[str, Counter[str]] = {}
    for partial in partials:
        for split, sums in partial.sums.items():
            total.setdefault(split, Counter()).update(sums)
    return Statistics(total)


class Collector:
    """Adds up one shard's statistics, row by row."""

    def __init__(self) -> None:
        self._sums: dict[str, Counter[str]] = {}
        self._histograms: dict[str, Histograms] = {}

    def add(self, row: Mapping[str, Any], counts: MediaCounts | None = None) -> None:
        """Count a row of the output schema.

        Args:
            row: the row.
            counts: of its media; None decodes them here.

        Raises:
            AlignError: ``bad_media``, its JPEG or FLAC cannot be decoded.
        """
        sums = self._sums.setdefault(row["split"], Counter())
        histograms = self._histograms.setdefault(row["split"], Histograms())
        media = _media_moments(media_counts(row) if counts is None else counts, histograms)
        sums.update(_sums(row) | media | _imu_moments(row, histograms))

    def result(self) -> Statistics:
        """What was collected."""
        return Statistics(
            {split: {**sums, **self._histograms[split].sums()} for split, sums in self._sums.items()}
        )


def pattern(row: Mapping[str, Any]) -> str:
    """The modalities a row holds, e.g. ``image+audio+imu``. An empty text list holds no text."""
    return "+".join(m for m in MODALITIES if _present(row, m)) or "none"


def groups(statistics: Statistics, split: str) -> Iterator[str]:
    """Every ``group_id`` of a split."""
    return (k.removeprefix(_GROUP) for k in statistics.sums.get(split, ()) if k.startswith(_GROUP))


def as_json(statistics: Statistics) -> dict[str, Any]:
    """The content of ``stats.json``: per split counts, hours, coverage and normalisation statistics.

    Mean and deviation are the population's. Image values are those of the anchors' decoded RGB pixels, 0
    to 1; audio values are recorded samples, -1 to 1 (gaps excluded); IMU values are measured ones (masked
    excluded), in the units of the schema. Quantiles are those of values rounded to multiples of ``step``.
    """
    return {"splits": {split: _split_json(sums) for split, sums in sorted(statistics.sums.items())}}


def write_stats(store: Store, statistics: Statistics) -> dict[str, Any]:
    """Publish ``stats.json`` and return its content."""
    content = as_json(statistics)
    publish_json(store, STATS, content)
    return content


def _present(row: Mapping[str, Any], modality: str) -> bool:
    return bool(row["text"]) if modality == "text" else row[modality] is not None


def _sums(row: Mapping[str, Any]) -> dict[str, int]:
    sums = {"windows": 1, "window_ns": row["end_ns"] - row["start_ns"], f"pattern:{pattern(row)}": 1}
    sums |= {f"{m}.present": 1 for m in MODALITIES if _present(row, m)}
    sums |= {f"{m}.missing:{reason}": 1 for m, reason in row["missing"].items()}
    if row["text"] is not None:
        sums |= {"text.empty": int(not row["text"]), "text.sentences": len(row["text"])}
    sums |= {f"scenario:{name}": 1 for name in set(row["scenarios"])}
    sums[f"{_GROUP}{row['group_id']}"] = 1
    for modality in ("audio", "imu"):
        coverage = row["quality"][f"{modality}_coverage"]
        if coverage is not None:
            sums[f"{modality}.coverage:{_bin(coverage)}"] = 1
    return sums


def _bin(coverage: float) -> int:
    """Tenths, rounded down; full coverage has a bin of its own. In float32, as the column is stored."""
    return int(np.clip(np.float32(coverage) * np.float32(_BINS), 0, _BINS))


def _media_moments(counts: MediaCounts, histograms: Histograms) -> dict[str, int]:
    found: dict[str, int] = {}
    for channel, levels in zip("rgb", () if counts.pixels is None else counts.pixels, strict=False):
        histograms.add_counts(f"image.{channel}", 0, levels)
        found |= _counted_moments(f"image.{channel}", levels)
    if (sound := counts.sound) is not None:
        histograms.add_steps("audio", sound.low, sound.counts)
        n = int(sound.counts.sum())
        found |= {"audio#n": n, "audio#sum": sound.total, "audio#squares": sound.squares}
    return found


def _imu_moments(row: Mapping[str, Any], histograms: Histograms) -> dict[str, int]:
    if row["imu"] is None:
        return {}
    measured = np.asarray(row["imu"], np.float64)[:, np.asarray(row["imu_mask"], np.bool_)]
    fixed = np.rint(measured * _FIXED).clip(-(2**31), 2**31 - 1).astype(np.int64)
    found: dict[str, int] = {}
    for channel, values in zip(IMU_CHANNELS, fixed, strict=True):
        histograms.add(f"imu.{channel}", values, _IMU_STEP)
        found |= _moments(f"imu.{channel}", values)
    return found


def _moments(name: str, values: NDArray[Any]) -> dict[str, int]:
    """Count, sum and sum of squares of integers below 2³² in magnitude, exactly."""
    wide = values.astype(np.int64)
    squares = wide * wide
    high, low = int((squares >> 32).sum()), int((squares & 0xFFFFFFFF).sum())
    return {f"{name}#n": wide.size, f"{name}#sum": int(wide.sum()), f"{name}#squares": (high << 32) + low}


def _counted_moments(name: str, counts: NDArray[np.int64]) -> dict[str, int]:
    """The same of 0, 1, … from how often each occurs (int64 [n]): three times as fast."""
    levels = np.arange(len(counts))
    squares = int(counts @ (levels * levels))
    return {f"{name}#n": int(counts.sum()), f"{name}#sum": int(counts @ levels), f"{name}#squares": squares}


def _split_json(sums: Mapping[str, int]) -> dict[str, Any]:
    get = Counter(sums)
    return {
        "windows": get["windows"],
        "window_hours": get["window_ns"] / (3600 * NS),
        "patterns": _group(sums, "pattern:"),
        "modalities": {m: _modality_json(sums, m) for m in MODALITIES},
        "scenarios": _most_common(_group(sums, "scenario:")),
        "groups": _most_common(_group(sums, _GROUP)),
        "normalisation": {
            "image": {c: _normal(sums, f"image.{c}", 255, 1) for c in "rgb"},
            "audio": _normal(sums, "audio", LOUDEST, AUDIO_STEP),
            "imu": {c: _normal(sums, f"imu.{c}", _FIXED, _IMU_STEP) for c in IMU_CHANNELS},
        },
    }


def _modality_json(sums: Mapping[str, int], modality: str) -> dict[str, Any]:
    get = Counter(sums)
    found: dict[str, Any] = {
        "present": get[f"{modality}.present"],
        "missing": _group(sums, f"{modality}.missing:"),
    }
    if modality == "text":
        return found | {"empty": get["text.empty"], "sentences": get["text.sentences"]}
    if modality in ("audio", "imu"):
        found["coverage_tenths"] = [get[f"{modality}.coverage:{i}"] for i in range(_BINS + 1)]
    return found


def _group(sums: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {k.removeprefix(prefix): v for k, v in sorted(sums.items()) if k.startswith(prefix)}


def _most_common(counts: Mapping[str, int]) -> dict[str, Any]:
    """The most frequent labels by name, and what the others add up to: bounded, however many there are."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = ranked[:_LABELS_SHOWN], ranked[_LABELS_SHOWN:]
    return {"distinct": len(ranked), "windows": dict(shown), "other_windows": sum(n for _, n in rest)}


def _normal(sums: Mapping[str, int], name: str, unit: int, step: int) -> dict[str, Any]:
    """Mean, deviation, quantiles of values counted in parts of ``1 / unit``; rational until the last step."""
    n = sums.get(f"{name}#n", 0)
    found = {"n": n, "step": step / unit, "quantiles": quantiles(sums, name, step / unit)}
    if not n:
        return found | {"mean": None, "std": None}
    mean = Fraction(sums[f"{name}#sum"], n)
    variance = Fraction(sums[f"{name}#squares"], n) - mean * mean
    return found | {"mean": float(mean / unit), "std": math.sqrt(variance / (unit * unit))}
