"""Which files of an output are ours: those that its manifest, reports or ledger list. No other is removed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from align.pipeline.storage.files import is_remote
from align.pipeline.storage.lock import LOCK
from align.schemas.errors import AlignError, UsageError
from align.transforms.store.publish import Store, publish_json, read_json
from align.transforms.write.card import CARD, WEBDATASET_CARD
from align.transforms.write.manifest import FAILURES, MANIFEST, listed
from align.transforms.write.names import FOLDERS, LEDGER, has_our_form, our_leftovers
from align.transforms.write.shard import REPORTS
from align.transforms.write.stats import STATS

STARTED = "_work/run.json"
COMMITTED = "committed"
"""Key in ``run.json``: what the commit wrote beside shards."""
DESCRIBING = (CARD, WEBDATASET_CARD, STATS, FAILURES)
"""What the commit writes beside shards and indexes."""

_MALFORMED = (OSError, AlignError, LookupError, TypeError, ValueError, AttributeError)


def read_or_none(target: Store, path: str) -> Any:
    """A small JSON file; None where there is none, or it is damaged."""
    try:
        return read_json(target, path)
    except (OSError, AlignError):
        return None


def holds_our_data_set(target: Store) -> bool:
    """Whether a manifest of ours, a run that has begun, or what is left of either lies in an output."""
    if _is_manifest(read_or_none(target, MANIFEST)):
        return True
    started = read_or_none(target, STARTED)
    return isinstance(started, dict) and {"config", "inputs"} <= started.keys()


def _is_manifest(content: Any) -> bool:
    return isinstance(content, dict) and {"schema_version", "align_version", "shards"} <= content.keys()


def owned(target: Store, names: Iterable[str]) -> set[str]:
    """Among the files of an output, those that are ours."""
    names = set(names)
    found = of_commits(target)
    found |= {STARTED} if isinstance(read_or_none(target, STARTED), dict) else set()
    for path in reports_in(names):
        found |= {path, *files_of_report(target, path)}
    found |= {LEDGER, *(name for name in names if name.startswith(LOCK))}
    return {name for name in found & names if has_our_form(name)}


def reports_in(names: Iterable[str]) -> list[str]:
    """The reports of shards among the files of an output."""
    return sorted(name for name in names if name.startswith(f"{REPORTS}/") and has_our_form(name))


def files_of_report(target: Store, path: str) -> set[str]:
    """The files that a report lists; none where it is damaged."""
    with suppress(*_MALFORMED):
        return {file["path"] for file in read_json(target, path)["files"]}
    return set()


def of_commits(target: Store) -> set[str]:
    """Files of commits: one that holds, one under way, and one whose manifest was damaged or removed."""
    found = set(_of_ledger(target)) | _of_manifest(target)
    with suppress(*_MALFORMED):
        found |= {name for name in read_json(target, STARTED)[COMMITTED] if isinstance(name, str)}
    return found


def _of_manifest(target: Store) -> set[str]:
    with suppress(*_MALFORMED):
        manifest = read_json(target, MANIFEST)
        if not _is_manifest(manifest):
            return set()
        described = () if "files" in manifest else DESCRIBING  # version 0.1 did not list them
        return {MANIFEST, *described, *(file["path"] for file in listed(manifest))}
    return set()


def _of_ledger(target: Store) -> list[str]:
    with suppress(*_MALFORMED):
        return [name for name in read_json(target, LEDGER)["names"] if isinstance(name, str)]
    return []


def remember(target: Store, names: Iterable[str]) -> None:
    """Keep names in the ledger before what lists them is withdrawn, or before they are first written."""
    every = {*_of_ledger(target), *names}
    publish_json(target, LEDGER, {"names": sorted(every)})


def former(target: Store, kept: Iterable[str], reports: Iterable[str]) -> Iterator[str]:
    """Files of earlier attempts beside ``_work``: the ledger's, and those of reports not of this run.

    Args:
        target: the output.
        kept: what the data set is going to list.
        reports: those of its shards.
    """
    names = set(target.names())
    found = set(_of_ledger(target))
    for path in set(reports_in(names)) - set(reports):
        found |= files_of_report(target, path)
    gone = (name for name in (found & names) - {MANIFEST, *kept} if not name.startswith("_work/"))
    yield from sorted(filter(has_our_form, gone))


def foreign_in_the_way(target: Store, names: Iterable[str]) -> list[str]:
    """Files that are not ours, under names that a run may need; files in place of our folders among them."""
    names = list(names)
    others = set(names) - owned(target, names) - set(our_leftovers(names))
    return sorted(name for name in others if has_our_form(name) or name in FOLDERS)


def foreign_to_commit(target: Store, names: Iterable[str]) -> list[str]:
    """Files that no commit of ours wrote, under names that the next one is going to write.

    These are card, statistics and the like, and the indexes of shards that have reports. Shards are left out:
    where a report was damaged, no list names them, and they are written again.
    """
    names = set(names)
    shards = {report.rpartition("/")[2].partition("-of-")[0] for report in reports_in(names)}
    others = {name for name in names if has_our_form(name) and _is_in_the_way(name, shards)}
    return sorted(others - of_commits(target)) if others else []


def _is_in_the_way(name: str, shards: set[str]) -> bool:
    """Whether a commit writes a file of this name, given the shards that have reports, as ``train-00002``."""
    if name.startswith(("data/", "_work/")) or name.endswith(".tar"):
        return False
    if not name.endswith((".idx", ".parquet")):
        return True
    split, _, number = name.rpartition("/")[2].partition(".")[0].partition("-")
    return f"{split}-{int(number.partition('-')[0]):05d}" in shards


def remove_data_set(target: Store) -> None:
    """Remove what is ours, but for ``run.json`` and the ledger: they show whose the rest is.

    The manifest goes first: from then on readers see an unfinished run.
    """
    ours = owned(target, target.names())
    remember(target, ours)
    target.remove(MANIFEST)
    for name in sorted(ours - {MANIFEST, STARTED, LEDGER, LOCK}):
        target.remove(name)


def refuse_links(output: str) -> None:
    """Refuse an output of which a folder or file of ours is a link: what lies behind it is not ours to write.

    Raises:
        UsageError: names the first one. The output itself may be a link.
    """
    if is_remote(output):
        return
    for folder in ("", *FOLDERS):
        try:
            entries = sorted(os.scandir(os.path.join(output, folder)), key=lambda e: e.name)
        except OSError:
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}".lstrip("/")
            if entry.is_symlink() and (path in FOLDERS or has_our_form(path)):
                detail = f"{os.path.join(output, path)} is a link; move what it leads to here, or let"
                raise UsageError(f"{detail} {output} itself be a link to another disk")
