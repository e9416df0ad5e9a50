"""The manifest, written last: a reader trusts only what it lists. And the list of what was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from align.schemas.errors import AlignError, Fault
from align.schemas.features import SCHEMA_VERSION
from align.schemas.wire import json_digest
from align.transforms.store.publish import Store, digest, publish, publish_json, strict_json
from align.transforms.write.shard import ShardFile, ShardReport, fault_order
from align.transforms.write.stats import Statistics, groups

MANIFEST = "manifest.json"
FAILURES = "failures.jsonl"
PROVENANCE = "provenance_sha256"
"""The manifest's key of :func:`provenance_digest`."""
_PROVENANCE_OF = ("align_version", "config", "config_sha256", "config_sha256_of", "source", "versions")


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the planned windows. Checks that none was lost.

    Attributes:
        recordings: how many the source offered after selection.
        windows_skipped: reason code -> windows left out by a rule.
        failed: windows lost to a fault.

    Raises:
        AlignError: ``lost_windows``, planned is not written + skipped + failed.
    """

    recordings: int
    windows_planned: int
    windows_written: int
    windows_skipped: Mapping[str, int]
    failed: int

    def __post_init__(self) -> None:
        accounted = self.windows_written + sum(self.windows_skipped.values()) + self.failed
        if accounted != self.windows_planned:
            detail = (
                f"{self.windows_planned} windows were planned, but {self.windows_written} written + "
                f"{dict(self.windows_skipped)} skipped + {self.failed} failed make {accounted}: "
                "this is a defect; nothing was committed"
            )
            raise AlignError("lost_windows", detail, stage="commit")


def count(
    recordings: int, windows_planned: int, reports: Iterable[ShardReport], faults: Iterable[Fault]
) -> Counts:
    """Account for every planned window.

    Args:
        recordings: how many were offered.
        windows_planned: how many the plan holds, those included that a rule skipped.
        reports: of all shards.
        faults: all of them: those of planning and those inside ``reports``.

    Raises:
        AlignError: ``lost_windows``.
    """
    skipped: dict[str, int] = {}
    failed = 0
    for fault in faults:
        if fault.outcome == "skipped":
            skipped[fault.code] = skipped.get(fault.code, 0) + fault.windows
        elif fault.outcome == "failed":
            failed += fault.windows
    written = sum(report.samples for report in reports)
    return Counts(recordings, windows_planned, written, dict(sorted(skipped.items())), failed)


def manifest(
    *,
    align_version: str,
    source: str,
    config: Mapping[str, Any],
    config_sha256: str,
    files: Iterable[ShardFile],
    counts: Counts,
    config_sha256_of: Iterable[str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The content of ``manifest.json``, shards sorted by path.

    Args:
        align_version: that wrote it.
        source: where the recordings come from.
        config: every option that the content depends on.
        config_sha256: digest of those that a sample's bytes depend on.
        files: the shards.
        counts: what became of the planned windows.
        config_sha256_of: the names in ``config`` that ``config_sha256`` is the digest of, see
            :func:`align.schemas.wire.json_digest`.
        versions: of the libraries that made the data.
    """
    more = {"config_sha256_of": config_sha256_of and sorted(config_sha256_of), "versions": versions}
    content = {
        "schema_version": SCHEMA_VERSION,
        "align_version": align_version,
        "source": source,
        "config": dict(config),
        "config_sha256": config_sha256,
        "shards": [asdict(file) for file in sorted(files, key=lambda file: file.path)],
        "counts": asdict(counts),
        **{name: value for name, value in more.items() if value is not None},
    }
    return content if versions is None else {**content, PROVENANCE: provenance_digest(content)}


def provenance_digest(content: Mapping[str, Any]) -> str:
    """Digest of what a manifest says of how its data was made; options that no sample depends on included."""
    return json_digest({name: content.get(name) for name in _PROVENANCE_OF})


def listed(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every file that a manifest lists: at least path, bytes and sha256 of each."""
    return [entry for kind in ("shards", "index", "loader_index", "files") for entry in content.get(kind, ())]


def described(store: Store, paths: Iterable[str]) -> list[dict[str, Any]]:
    """The manifest's ``files``: card, statistics, failures, as far as they are there; sorted by path."""
    return [
        {"path": path, "bytes": size, "sha256": sha256}
        for path in sorted(set(paths) & set(store.names()))
        for size, sha256 in [digest(store, path)]
    ]


def disjoint_splits(statistics: Statistics) -> dict[str, dict[str, int]]:
    """Windows and groups of each split, for the manifest's ``splits``: no group may be in two.

    Raises:
        AlignError: ``leak``, one is.
    """
    home: dict[str, str] = {}
    for split in sorted(statistics.sums):
        for group in groups(statistics, split):
            if home.setdefault(group, split) != split:
                detail = f"group {group} is in the splits {home[group]} and {split}; nothing was committed"
                raise AlignError("leak", detail, stage="commit")
    counts = Counter(home.values())
    return {
        split: {"windows": sums.get("windows", 0), "groups": counts[split]}
        for split, sums in sorted(statistics.sums.items())
    }


def write_manifest(store: Store, content: Mapping[str, Any]) -> None:
    """Publish the manifest. Everything it speaks of must lie there already."""
    publish_json(store, MANIFEST, content)


def write_failures(store: Store, faults: Iterable[Fault]) -> None:
    """Publish ``failures.jsonl``: one strict JSON object per line, sorted by recording and start."""
    with publish(store, FAILURES) as publication:
        for fault in sorted(faults, key=fault_order):
            publication.stream.write((strict_json(fault.as_dict()) + "\n").encode("ascii"))
