"""Whether the manifest agrees with itself, and with the small files that it describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from align.schemas.wire import json_digest
from align.transforms.store.publish import Store
from align.transforms.store.whole import whole_file
from align.transforms.write.card import CARD, WEBDATASET_CARD
from align.transforms.write.manifest import FAILURES, MANIFEST, PROVENANCE, provenance_digest
from align.transforms.write.stats import STATS

_DESCRIBED = (CARD, WEBDATASET_CARD, STATS, FAILURES)

Told = Iterator[tuple[str, str, str]]
"""Path, code and detail of what does not hold."""


def check_description(store: Store, manifest: Mapping[str, Any]) -> Told:
    """Check what a manifest says of its own configuration, and the files that are neither shard nor index.

    A manifest of an older version, which lists no such files, is not held to what it does not say.

    Raises:
        LookupError, TypeError, AttributeError: the manifest is malformed.
    """
    if "config_sha256_of" in manifest:
        yield from _configuration(manifest)
    if "files" in manifest:
        yield from _files(store, manifest)


def _configuration(manifest: Mapping[str, Any]) -> Told:
    config, names = manifest["config"], manifest["config_sha256_of"]
    found = json_digest({name: config[name] for name in names})
    if found != manifest["config_sha256"]:
        detail = f"config_sha256 is {manifest['config_sha256']}, its config gives {found}: one was altered"
        yield MANIFEST, "config", detail
    for what, said, source in (
        ("source", manifest["source"], config["source"]),
        ("align_version", manifest["align_version"], manifest["versions"]["align"]),
    ):
        if said != source:
            yield MANIFEST, "config", f"{what} is {said!r} in one place, {source!r} in another"
            return
    if found == manifest["config_sha256"] and manifest.get(PROVENANCE) != provenance_digest(manifest):
        yield (
            MANIFEST,
            "config",
            f"{PROVENANCE} is not that of its source, options and versions: one was altered",
        )


def _files(store: Store, manifest: Mapping[str, Any]) -> Told:
    listed = {entry["path"]: (entry["bytes"], entry["sha256"]) for entry in manifest["files"]}
    tars = any(shard["format"] == "webdataset" for shard in manifest["shards"])
    for path in sorted({*_DESCRIBED} - {*listed} - (set() if tars else {WEBDATASET_CARD})):
        yield MANIFEST, "not_listed", f"does not list {path}"
    for path, said in listed.items():
        if path not in _DESCRIBED:
            yield MANIFEST, "bad_path", f"lists {path!r} among {', '.join(_DESCRIBED)}"
            continue
        if told := whole_file(store, path, *said):
            yield path, told[0], f"{told[1]}; run again with --resume"
