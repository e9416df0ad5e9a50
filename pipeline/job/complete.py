"""Whether nothing is left to be done in an output, and what a retry does again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from align.pipeline.config import RunConfig
from align.pipeline.job.inputs import Inputs, changed_inputs, hold_times
from align.pipeline.job.owned import DESCRIBING, STARTED, reports_in
from align.pipeline.storage.stores import store
from align.schemas.errors import AlignError, Reason
from align.transforms.store.publish import Store, read_json
from align.transforms.store.publish import digest as digest_of
from align.transforms.write.card import WEBDATASET_CARD
from align.transforms.write.manifest import FAILURES, MANIFEST, listed
from align.transforms.write.names import LEDGER
from align.transforms.write.shard import REPORTS, ShardReport
from align.transforms.write.versions import library_versions


def already_complete(config: RunConfig, inputs: Inputs) -> bool:
    """Whether a finished data set lies there, whole by its checksums, and nothing is left to be done."""
    target = store(config.outputs.output)
    try:
        manifest, started = read_json(target, MANIFEST), read_json(target, STARTED)
        names = set(target.names())
        reports = {f"{REPORTS}/{name}.json" for name in _shards_of(manifest)}
        if hold_times(started["inputs"]) or LEDGER in names or not reports <= names:
            return False
        if not _says_what_was_asked(manifest, config):
            return False
        if config.execution.retry_failed and (manifest["counts"]["failed"] or _redo(target, started, inputs)):
            return False
        if config.execution.retry_failed and any(reports_to_redo(target, started, inputs)):
            return False
        whole = all(digest_of(target, f["path"]) == (f["bytes"], f["sha256"]) for f in listed(manifest))
        return whole and all(_trusted(target, path) for path in reports_in(names))
    except (OSError, AlignError, LookupError, TypeError, ValueError, AttributeError):
        return False


def _shards_of(manifest: Mapping[str, Any]) -> set[str]:
    """Names of the shards whose files a manifest lists; where there are only tar files, they are counted."""
    paths = [shard["path"] for shard in manifest["shards"]]
    parquet = {p.removeprefix("data/").removesuffix(".parquet") for p in paths if p.endswith(".parquet")}
    if parquet:
        return parquet
    totals = Counter(shard["split"] for shard in manifest["shards"])
    tars = (
        (shard["split"], shard["path"].rpartition("-")[2].removesuffix(".tar"))
        for shard in manifest["shards"]
    )
    return {f"{split}-{int(number):05d}-of-{totals[split]:05d}" for split, number in tars}


def _says_what_was_asked(manifest: Mapping[str, Any], config: RunConfig) -> bool:
    said = [manifest["config"], manifest["config_sha256"], manifest["source"], manifest["versions"]]
    asked = [config.as_manifest(), config.sample_sha256, config.inputs.source, library_versions()]
    described = {file["path"] for file in manifest["files"]}
    needed = {*DESCRIBING} - (set() if "webdataset" in config.outputs.format else {WEBDATASET_CARD})
    whole = needed <= described or not manifest["shards"]
    return whole and said == asked and config.outputs.index_kinds <= {*manifest.get("indexes", ())}


def _trusted(target: Store, path: str) -> ShardReport | None:
    with suppress(OSError, AlignError, LookupError, TypeError, ValueError, AttributeError):
        return ShardReport.from_dict(read_json(target, path))
    return None


def _redo(target: Store, started: Mapping[str, Any], inputs: Inputs) -> set[str]:
    """Recordings that are to be read again: their files or metadata changed, or a file was found faulty."""
    found = {name for name, _ in changed_inputs(started["inputs"], inputs.facts)}
    with suppress(FileNotFoundError), target.open(FAILURES) as lines:
        return found | {f["recording_id"] for f in map(json.loads, lines) if _may_be_mended(f)}
    return found


def _may_be_mended(fault: Mapping[str, Any]) -> bool:
    """Whether a fault may be gone once the file is read again: windows were lost, or a table was unreadable.

    Other notes say what metadata or file are like; they change only with those.
    """
    unreadable = fault["outcome"] == "noted" and fault["stage"] == "probe" and fault["code"] != "imu_note"
    return bool(fault["outcome"] == "failed" or unreadable)


def reports_to_redo(target: Store, started: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """Reports of shards that a retry writes again."""
    redo = _redo(target, started, inputs)
    for path in reports_in(target.names()):
        report = _trusted(target, path)
        if report is None or report.failed or redo & {*report.recordings} or _has_losses(report):
            yield path


def _has_losses(report: ShardReport) -> bool:
    """Whether windows lack a modality that could not be decoded."""
    ends = (f".missing:{Reason.DECODE_ERROR}", f".missing:{Reason.INVALID}")
    return any(key.endswith(ends) for sums in report.statistics.sums.values() for key in sums)
