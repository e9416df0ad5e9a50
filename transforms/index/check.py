"""Whether the indexes beside the shards are what the manifest says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from align.schemas.manifest import INDEX_PLACE, LOADER_PLACE
from align.transforms.store.publish import Store
from align.transforms.store.whole import whole_file

Told = Iterator[tuple[str, str, str]]
"""Path, code and detail of what does not hold."""


def check_listing(store: Store, manifest: Mapping[str, Any]) -> Told:
    """Check that ``index/`` holds no file that the manifest does not list, and none of an unknown shard."""
    known = {entry["path"] for entry in manifest.get("index", ())}
    shards = {entry["path"] for entry in manifest["shards"]}
    for entry in manifest.get("index", ()):
        if entry["shard"] not in shards:
            yield entry["path"], "index_keys", f"speaks of {entry['shard']!r}, which is not listed"
    for name in store.names():
        if name.startswith("index/") and name not in known and not name.endswith(".tmp"):
            yield name, "unlisted", "is not in the manifest; align index makes the index anew"


def check_entry(store: Store, entry: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Path, code and detail of what is off with a file of ``index`` or ``loader_index``, or None."""
    path, place = entry["path"], INDEX_PLACE if "shard" in entry else LOADER_PLACE
    if not place.fullmatch(path):
        detail = f"lists the index {path!r}, which lies outside index/ and webdataset/"
        return "manifest.json", "bad_path", detail
    if "shard" in entry and "index/" + entry["shard"].removeprefix("data/") != path:
        return path, "index_keys", f"does not have the keys of {entry['shard']!r}; run align index"
    if told := whole_file(store, path, entry["bytes"], entry["sha256"]):
        code = {"no_file": "no_index", "size": "checksum"}.get(told[0], told[0])
        return path, code, f"{told[1]}; align index makes it anew"
    return None
