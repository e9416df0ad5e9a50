"""Whether the indexes beside the shards are what the manifest says, and speak of the shards' own windows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from align.transforms.store.publish import Store, digest

_PLACE = re.compile(r"^(index/[^/]+\.parquet|webdataset/(\.nv-meta/)?[^/]+)$")

Told = Iterator[tuple[str, str, str]]
"""Path, code and detail of what does not hold."""


def check_indexes(store: Store, manifest: Mapping[str, Any]) -> Told:
    """Check every file under ``index`` and ``loader_index``, and that ``index/`` holds no other.

    Raises:
        LookupError, TypeError, AttributeError: the manifest's lists are malformed.
    """
    index, loaders = manifest.get("index", ()), manifest.get("loader_index", ())
    for entry in [*index, *loaders]:
        yield from _file(store, entry)
    for entry in index:
        yield from _keys(store, entry)
    known = {entry["path"] for entry in index}
    for name in store.names():
        if name.startswith("index/") and name not in known and not name.endswith(".tmp"):
            yield name, "unlisted", "is not in the manifest; align index makes the index anew"


def _file(store: Store, entry: Mapping[str, Any]) -> Told:
    path = entry["path"]
    if not _PLACE.match(path) or path.endswith("/.."):
        yield (
            "manifest.json",
            "bad_path",
            f"lists the index {path!r}, which lies outside index/ and webdataset/",
        )
        return
    try:
        found = digest(store, path)
    except OSError as error:
        yield path, "no_index", f"cannot be read: {error.strerror or error}; align index makes it anew"
        return
    if found != (entry["bytes"], entry["sha256"]):
        yield path, "checksum", "is not what the manifest says; align index makes it anew"


def _keys(store: Store, entry: Mapping[str, Any]) -> Told:
    """The index has a row for each of its shard's, in its order. Unreadable files are told of elsewhere."""
    try:
        shard, index = (_key_column(store, entry[name]) for name in ("shard", "path"))
    except (OSError, pa.ArrowException, LookupError, ValueError):
        return
    if not index.equals(shard) or len(index) != entry["samples"]:
        yield entry["path"], "index_keys", f"does not have the keys of {entry['shard']}; run align index"


def _key_column(store: Store, path: str) -> pa.ChunkedArray:
    with store.open(path) as stream:
        return pq.read_table(stream, columns=["key"], use_threads=False).column("key")
