"""The shape of what describes a data set: ``manifest.json`` and ``stats.json``, checked before use.

Fields that are not named here are for later versions; nothing here reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from align.schemas.errors import AlignError
from align.schemas.features import IMU_CHANNELS
from align.schemas.options import MODALITIES
from align.schemas.shapes import Unfit, listing, mapping, maybe, number, record, text, whole
from align.schemas.time import NS

SHARD_PLACE = re.compile(r"(data/[a-z0-9_]+-\d{5,9}-of-\d{5,9}\.parquet|webdataset/[a-z0-9_]+-\d{6,9}\.tar)")
"""Where a shard may lie: the names that a run gives. Nothing else is read or written for one."""
INDEX_PLACE = re.compile(r"index/[a-z0-9_]+-\d{5,9}-of-\d{5,9}\.parquet")
LOADER_PLACE = re.compile(
    r"webdataset/([a-z0-9_]+-\d{6,9}(\.tar)?\.idx|[a-z0-9_]+\.wids\.json|\.nv-meta/[A-Za-z.][A-Za-z_.]*)"
)
MOST_REPEATS = 1000
"""The largest cap on a window's draws that an index may be made with."""

_SUM = text(r"[0-9a-f]{64}")
_FILE = {"path": text(), "bytes": whole(), "sha256": _SUM}
_SHARD = record({**_FILE, "format": text("parquet|webdataset"), "split": text(), "samples": whole()})
_WEIGHTS = ("weight", "distinct", "weight_distinct")
_INDEX = record({**_FILE, "shard": text(), "samples": whole()}, {w: number(0) for w in _WEIGHTS})
_CONFIG = record(
    {"window_ns": whole(1, 3600 * NS), "audio_rate": whole(1, 192_000), "imu_rate": whole(1, 8_000)},
    {"image_size": whole(1, 8192), "frames": whole(1, 1000), "max_pixels": whole(1)},
)
_COUNTS = {name: whole() for name in ("recordings", "windows_planned", "windows_written", "failed")}
_CLASS = record({"windows": whole(), "weight": number(0, MOST_REPEATS)})
_BALANCE = record(
    {"classes": mapping(mapping(_CLASS)), "duplicates": whole(), "across_splits": whole()},
)
_MANIFEST = record(
    {
        "schema_version": whole(),
        "align_version": text(most=200),
        "source": text(most=200),
        "config": _CONFIG,
        "shards": listing(_SHARD),
        "counts": record({**_COUNTS, "windows_skipped": mapping(whole())}),
    },
    {
        "config_sha256": text(most=200),
        "config_sha256_of": listing(text(most=200)),
        "versions": mapping(text(most=200)),
        "provenance_sha256": text(most=64),
        "files": listing(record(_FILE)),
        "index": listing(_INDEX),
        "loader_index": listing(record({**_FILE, "kind": text(most=40)})),
        "balance": _BALANCE,
        "splits": mapping(record({"windows": whole(), "groups": whole()})),
    },
)

_MODALITY = record({"present": whole(), "missing": mapping(whole())}, {"coverage_tenths": listing(whole())})
_LABELS = record({"distinct": whole(), "windows": mapping(whole()), "other_windows": whole()})
_NORMAL = record(
    {"n": whole(), "mean": maybe(number()), "std": maybe(number(0))},
    {"quantiles": maybe(mapping(maybe(number()))), "step": number()},
)
_SPLIT = record(
    {
        "windows": whole(),
        "window_hours": number(0),
        "patterns": mapping(whole()),
        "modalities": record(dict.fromkeys(MODALITIES, _MODALITY)),
        "scenarios": _LABELS,
        "groups": _LABELS,
        "normalisation": record(
            {
                "image": record(dict.fromkeys("rgb", _NORMAL)),
                "audio": _NORMAL,
                "imu": record(dict.fromkeys(IMU_CHANNELS, _NORMAL)),
            }
        ),
    }
)
_STATS = record({"splits": mapping(_SPLIT)})


def check_manifest(content: Any) -> dict[str, Any]:
    """The content of a manifest, if every field that is read has its type and range.

    Raises:
        AlignError: ``bad_manifest``, which field has not.
    """
    return _checked(_MANIFEST, content, "manifest.json", "bad_manifest")


def check_stats(content: Any) -> dict[str, Any]:
    """The content of ``stats.json``, likewise.

    Raises:
        AlignError: ``bad_stats``.
    """
    return _checked(_STATS, content, "stats.json", "bad_stats")


def check_places(manifest: Mapping[str, Any]) -> None:
    """Check that every file a manifest lists lies where a run puts it, and is listed once.

    Raises:
        AlignError: ``bad_path``; ``unreadable`` where the format contradicts the name.
    """
    for entry in manifest["shards"]:
        if why := misplaced(entry["path"], entry["format"]):
            raise AlignError(why[0], f"manifest.json {why[1]}", stage="verify")
    for entry in manifest.get("index", ()):
        if entry["path"] != place_of_index(entry["shard"]):
            raise AlignError("bad_path", f"manifest.json lists the index {entry['path']!r}", stage="verify")
    seen: set[str] = set()
    for kind in ("shards", "index", "loader_index"):
        for entry in manifest.get(kind, ()):
            if entry["path"].casefold() in seen:
                raise AlignError("bad_path", f"manifest.json lists {entry['path']!r} twice", stage="verify")
            seen.add(entry["path"].casefold())


def misplaced(path: str, fmt: str) -> tuple[str, str] | None:
    """Code and detail of why a shard of a format cannot lie at a path; None if it can."""
    if not SHARD_PLACE.fullmatch(path):
        return "bad_path", f"lists {path[:200]!r}, which is no place of a shard in data/ or webdataset/"
    if path.endswith(".parquet") != (fmt == "parquet"):
        return "unreadable", f"lists {path!r} as {fmt}, which its name contradicts"
    return None


def place_of_index(shard: str) -> str:
    """Where the index of a Parquet shard lies.

    Raises:
        AlignError: ``bad_path``, no Parquet shard can lie there.
    """
    place = "index/" + shard.removeprefix("data/")
    if not shard.startswith("data/") or not INDEX_PLACE.fullmatch(place):
        raise AlignError("bad_path", f"{shard[:200]!r} is no place of a Parquet shard", stage="verify")
    return place


def _checked(shape: Any, content: Any, name: str, code: str) -> dict[str, Any]:
    try:
        shape(name, content)
    except (Unfit, RecursionError) as error:
        raise AlignError(code, f"{error}; take the data set as align wrote it", stage="verify") from None
    found: dict[str, Any] = content
    return found
