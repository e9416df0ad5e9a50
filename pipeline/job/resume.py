"""What a run left behind, and whether another may go on with it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from align.pipeline.config import RunConfig, digest
from align.pipeline.job.planning import list_recordings
from align.pipeline.job.workers import ALONE_BELOW_S, claimed_work_s
from align.pipeline.storage.files import exists, is_remote, join, sizes_and_stamps
from align.pipeline.storage.lock import LOCK, refuse_if_held
from align.pipeline.storage.stores import store
from align.schemas.errors import AlignError, UsageError
from align.schemas.recording import Recording
from align.schemas.wire import to_plain
from align.transforms.store.publish import Store, leftovers, publish_json, read_json
from align.transforms.store.publish import digest as digest_of
from align.transforms.write.manifest import FAILURES, MANIFEST, listed
from align.transforms.write.stats import STATS

README = "README.md"
STARTED = "_work/run.json"
_SHOWN = 5

Facts = dict[str, Any]
"""Of each recording: a hash of its metadata, and size and time of change of each of its files."""


@dataclass
class Inputs:
    """What a run is about to read.

    Attributes:
        facts: by recording id.
        work_s: CPU seconds that reading them should take, counted until one process is clearly too few.
        fault: the first fault of the source, in words.
    """

    facts: Facts = field(default_factory=dict)
    work_s: float = 0.0
    fault: str = ""


def look_at_inputs(config: RunConfig) -> Inputs:
    """List the recordings and their files; memory grows with recordings (some 200 bytes each).

    Raises:
        UsageError: there are none.
    """
    found, stamps = Inputs(), _Stamps()
    for item in list_recordings(config):
        if isinstance(item, Recording):
            found.facts[item.recording_id] = _facts(item, stamps)
            if found.work_s <= ALONE_BELOW_S:
                found.work_s += claimed_work_s(item, config)
        else:
            found.fault = found.fault or item.detail
    if not found.facts:
        why = f": {found.fault}" if found.fault else ""
        raise UsageError(f"no recordings to align in {config.input}{why}")
    return found


class _Stamps:
    """Sizes and times of change, listed folder by folder: a request per file would take minutes."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, tuple[int, str]]] = {}

    def of(self, uri: str) -> tuple[int, str] | None:
        folder, _, name = uri.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = sizes_and_stamps(folder)
        return self._folders[folder].get(name)


def _facts(recording: Recording, stamps: _Stamps) -> dict[str, Any]:
    streams = [s for s in (recording.video, recording.audio, recording.imu) if s is not None]
    files = {s.name: list(stamps.of(s.uri) or ()) for s in streams}
    plain = to_plain(recording)
    for kind in ("video", "audio", "imu"):
        plain[kind] = plain[kind] and {**plain[kind], "uri": ""}
    return {"metadata": digest(plain)[:16], "files": files}


def refuse_unfit(config: RunConfig, inputs: Inputs) -> None:
    """Check that the output may be written to: it is empty, or holds a run of the same config and input.

    Raises:
        UsageError: says what differs.
    """
    if not is_remote(config.output) and os.path.exists(config.output) and not os.path.isdir(config.output):
        raise UsageError(f"--output {config.output} is not a folder")
    target = store(config.output)
    names = set(target.names())
    if not names - {LOCK, *leftovers(target)}:
        return
    if not config.resume:
        raise UsageError(f"--output {config.output} is not empty; choose another, or add --resume to go on")
    if STARTED not in names:
        raise UsageError(f"--output {config.output} holds no run to resume; choose an empty folder")
    started = read_json(target, STARTED)
    changed = list(_changed_options(started["config"], config.as_manifest()))
    if changed:
        shown = ", ".join(changed)
        raise UsageError(f"--resume needs the options of the run it resumes; changed: {shown}")
    excused = _failed(target) if config.retry_failed else frozenset()
    changed = list(_changed_inputs(started["inputs"], inputs.facts, excused))
    if changed:
        more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        shown = ", ".join(changed[:_SHOWN]) + more
        raise UsageError(f"the input is not that of the run to resume: {shown}; choose an empty --output")


def _changed_options(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key, value in now.items():
        if then.get(key) != value:
            yield f"{key}: {then.get(key)!r} then, {value!r} now"


def _changed_inputs(then: Facts, now: Facts, excused: frozenset[str]) -> Iterator[str]:
    for name in sorted((then.keys() | now.keys()) - excused):
        old, new = then.get(name), now.get(name)
        if old is None or new is None:
            yield f"recording {name} {'is new' if old is None else 'is gone'}"
        else:
            yield from _changed_recording(name, old, new)


def _changed_recording(name: str, old: Facts, new: Facts) -> Iterator[str]:
    if old["metadata"] != new["metadata"]:
        yield f"metadata of {name}"
    for file in sorted(old["files"].keys() & new["files"].keys()):
        a, b = old["files"][file], new["files"][file]
        if a[:1] != b[:1]:
            yield f"{file}: {_size(a)} then, {_size(b)} now"
        elif a[: len(b)] != b[: len(a)]:  # a finished run keeps no times
            yield f"{file} was written anew"


def _size(facts: list[Any]) -> str:
    return f"{facts[0]} bytes" if facts else "not there"


def _failed(target: Store) -> frozenset[str]:
    """Recordings of which something failed, or was noted as missing."""
    try:
        with target.open(FAILURES) as stream:
            return frozenset(json.loads(line)["recording_id"] for line in stream)
    except FileNotFoundError:
        return frozenset()


def is_committed(output: str) -> bool:
    """Whether the run under way has committed: :func:`begin` takes the manifest of an earlier one away."""
    with suppress(OSError):
        return exists(join(output, MANIFEST))
    return False


def already_complete(config: RunConfig) -> bool:
    """Whether a finished data set lies there, whole by its checksums, and nothing is left to be done."""
    target = store(config.output)
    try:
        manifest = read_json(target, MANIFEST)
        if config.retry_failed and manifest["counts"]["failed"]:
            return False
        if not set(target.names()) >= {README, STATS, FAILURES}:
            return False
        if not config.index_kinds <= {*manifest.get("indexes", ())} or _holds_times(target):
            return False
        return all(digest_of(target, f["path"]) == (f["bytes"], f["sha256"]) for f in listed(manifest))
    except (OSError, AlignError, LookupError, TypeError):
        return False


def begin(config: RunConfig, inputs: Inputs) -> None:
    """Note what the run reads, clean up after a dead one, and withdraw a manifest that will not hold."""
    target = store(config.output)
    for name in leftovers(target):
        target.remove(name)
    target.remove(MANIFEST)
    publish_json(target, STARTED, {"config": config.as_manifest(), "inputs": inputs.facts})


def keep_for_later(target: Store, reports: set[str]) -> None:
    """After the commit: keep of ``_work`` what a repair needs, without times: equal runs stay equal."""
    try:
        started = read_json(target, STARTED)
    except FileNotFoundError:  # the graph was built by hand
        return
    for facts in started["inputs"].values():
        facts["files"] = {name: file[:1] for name, file in facts["files"].items()}
    publish_json(target, STARTED, started)
    for name in [n for n in target.names() if n.startswith("_work/reports/") and n not in reports]:
        target.remove(name)


def _holds_times(target: Store) -> bool:
    """Whether the run that committed died before :func:`keep_for_later` was done."""
    try:
        inputs = read_json(target, STARTED)["inputs"]
    except FileNotFoundError:
        return False
    return any(len(file) > 1 for facts in inputs.values() for file in facts["files"].values())


def clean(output: str) -> Counter[str]:
    """Remove what dead runs left in an output: temporary files, and shards that no manifest lists.

    The shards of an unfinished run are kept: ``--resume`` goes on with them.

    Returns:
        How many files of each kind were removed.

    Raises:
        UsageError: a run is writing there.
    """
    target = store(output)
    refuse_if_held(target, output)
    names = set(target.names())
    gone = dict.fromkeys(leftovers(target), "temporary files")
    if LOCK in names:
        gone[LOCK] = "locks of dead runs"
    if MANIFEST in names:
        known = {file["path"] for file in listed(read_json(target, MANIFEST))}
        shards = {name for name in names - gone.keys() if name.endswith((".parquet", ".tar"))}
        gone |= dict.fromkeys(shards - known, "unlisted shards")
    for name in gone:
        target.remove(name)
    return Counter(gone.values())
