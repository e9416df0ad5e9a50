"""What a run left behind, and whether another may go on with it, or take its place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from align.pipeline.config import RunConfig
from align.pipeline.job.complete import already_complete, reports_to_redo
from align.pipeline.job.inputs import Inputs, changed_inputs, look_at_inputs, without_times
from align.pipeline.job.owned import (
    COMMITTED,
    STARTED,
    foreign_in_the_way,
    foreign_to_commit,
    holds_our_data_set,
    of_commits,
    owned,
    read_or_none,
    refuse_links,
    remember,
    remove_data_set,
    reports_in,
)
from align.pipeline.storage.files import exists, is_remote, join
from align.pipeline.storage.lock import LOCK, locked, refuse_if_held
from align.pipeline.storage.stores import store
from align.schemas.errors import UsageError
from align.transforms.store.publish import Store, publish_json, read_json
from align.transforms.write.manifest import MANIFEST, listed
from align.transforms.write.names import LEDGER, has_our_form, our_leftovers
from align.transforms.write.versions import library_versions

__all__ = [
    "Inputs",
    "already_complete",
    "begin",
    "clean",
    "is_committed",
    "keep_for_later",
    "look_at_inputs",
    "refuse_unfit",
]

_SHOWN = 5


def refuse_unfit(config: RunConfig, inputs: Inputs) -> None:
    """Check that the output is empty, or that what lies there may be gone on with or replaced.

    Raises:
        UsageError: says what differs, or what is in the way.
    """
    output = config.outputs.output
    if not is_remote(output) and os.path.exists(output) and not os.path.isdir(output):
        raise UsageError(f"--output {output} is not a folder")
    target = store(output)
    names = list(target.names())
    locks = {name for name in names if name.startswith(LOCK) and has_our_form(name)}
    if not {*names} - locks - {*our_leftovers(names)}:
        return
    if config.execution.overwrite:
        _refuse_to_replace(target, names, output)
        return
    if not config.execution.resume:
        raise UsageError(
            f"--output {output} is not empty; choose another, add --resume to go on, or --overwrite to "
            "replace a data set of align's"
        )
    if STARTED not in names:
        raise UsageError(f"--output {output} holds no run to resume; choose an empty folder")
    started = read_or_none(target, STARTED)
    try:
        _refuse_changed(config, inputs, started)
    except (LookupError, TypeError, AttributeError):
        detail = f"{output}/{STARTED} is damaged, so that what the run had read is not known"
        raise UsageError(f"{detail}; begin again with --overwrite") from None
    _refuse_foreign(output, foreign_to_commit(target, names), "the run there")


def _refuse_to_replace(target: Store, names: list[str], output: str) -> None:
    if not holds_our_data_set(target):
        raise UsageError(
            f"--output {output} holds no data set of align's, but other files, which --overwrite does not "
            "remove; choose another folder"
        )
    _refuse_foreign(output, foreign_in_the_way(target, names), "the data set there")


def _refuse_foreign(output: str, others: list[str], whose: str) -> None:
    if others:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise UsageError(
            f"{join(output, others[0])}{more} is not of {whose}, but has a name that a run may "
            "need; move it away, or choose another --output"
        )


def _refuse_changed(config: RunConfig, inputs: Inputs, started: Mapping[str, Any]) -> None:
    changed = list(_changed_options(started["config"], config.as_manifest()))
    if changed:
        raise UsageError(f"--resume needs the options of the run it resumes; changed: {', '.join(changed)}")
    then, now = started.get("versions") or {}, library_versions()
    changed = [f"{k} {then.get(k, 'unknown')} then, {v} now" for k, v in now.items() if then.get(k) != v]
    if changed:
        raise UsageError(
            f"--resume needs the libraries of the run it resumes, or its shards would not be alike: "
            f"{', '.join(changed)}; install those versions again, or begin again with --overwrite"
        )
    if config.execution.retry_failed:
        if not started["inputs"].keys() & inputs.facts.keys():
            detail = "shares no recording with that of the run to resume"
            raise UsageError(f"the input {config.inputs.input} {detail}; choose an empty --output")
        return
    changed = [what for _, what in changed_inputs(started["inputs"], inputs.facts)]
    if changed:
        more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        shown = ", ".join(changed[:_SHOWN]) + more
        raise UsageError(
            f"the input is not that of the run to resume: {shown}; --resume --retry-failed takes it in, or "
            "choose an empty --output"
        )


def _changed_options(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key, value in now.items():
        if then.get(key) != value:
            yield f"{key}: {then.get(key)!r} then, {value!r} now"


def is_committed(output: str) -> bool:
    """Whether the run under way has committed: :func:`begin` takes the manifest of an earlier one away."""
    with suppress(OSError):
        return exists(join(output, MANIFEST))
    return False


def begin(config: RunConfig, inputs: Inputs) -> None:
    """Note what the run reads, clean up after a dead one, and withdraw a manifest that will not hold.

    In this order, so that a run which dies between any two steps can be begun again: what lists our files is
    withdrawn only when the ledger has their names, and the facts of a new input replace the old ones only
    when the reports that do not hold for it are gone.
    """
    target = store(config.outputs.output)
    names = list(target.names())
    for name in our_leftovers(names):
        target.remove(name)
    if config.execution.overwrite and holds_our_data_set(target):
        remove_data_set(target)
    started = read_or_none(target, STARTED) if config.execution.retry_failed else None
    stale = list(reports_to_redo(target, started, inputs)) if started is not None else []
    if MANIFEST in names or stale or of_commits(target):
        remember(target, owned(target, names))
    target.remove(MANIFEST)
    for report in stale:
        target.remove(report)
    facts = {"config": config.as_manifest(), "versions": library_versions(), "inputs": inputs.facts}
    publish_json(target, STARTED, facts)
    if config.execution.overwrite:
        target.remove(LEDGER)


def keep_for_later(target: Store, reports: set[str]) -> None:
    """After the commit: keep of ``_work`` what a repair needs, without times: equal runs stay equal."""
    for name in set(reports_in(target.names())) - reports:
        target.remove(name)
    started, content = read_or_none(target, STARTED), read_or_none(target, MANIFEST)
    if started is not None and content is not None:  # else the graph was built by hand
        shards = {shard["path"] for shard in content["shards"]}
        committed = sorted({MANIFEST, *(file["path"] for file in listed(content))} - shards)
        kept = {**started, "inputs": without_times(started["inputs"]), COMMITTED: committed}
        publish_json(target, STARTED, kept)
    target.remove(LEDGER)


def clean(output: str) -> Counter[str]:
    """Remove what dead runs left in an output: temporary files, and shards that the manifest lists no more.

    The shards of an unfinished run are kept: ``--resume`` goes on with them. So is everything that no list of
    ours names.

    Returns:
        How many files of each kind were removed.

    Raises:
        UsageError: a run is writing there, or a file of ours is a link.
    """
    target = store(output)
    refuse_links(output)
    refuse_if_held(target, output)
    stale_lock = LOCK in set(target.names())
    if not stale_lock and not _to_clean(target):
        return Counter()
    with locked(target, output, lambda _: None):
        gone = _to_clean(target)
        for name in gone:
            target.remove(name)
    return Counter([*gone.values(), *(["locks of dead runs"] if stale_lock else [])])


def _to_clean(target: Store) -> dict[str, str]:
    names = list(target.names())
    gone = dict.fromkeys(our_leftovers(names), "temporary files")
    if MANIFEST in names:
        manifest = read_json(target, MANIFEST)
        known = {file["path"] for file in listed(manifest)}
        shards = {name for name in owned(target, names) if name.endswith((".parquet", ".tar"))}
        gone |= dict.fromkeys(shards - known, "unlisted shards")
    return gone
