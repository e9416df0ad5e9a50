"""Write the indexes that other loaders want beside the tar files of a committed data set."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.schemas.errors import UsageError
from align.transforms.check.described import read_manifest
from align.transforms.index import energon
from align.transforms.index.listings import dali_index, wids_index
from align.transforms.index.tars import TarSample, scan
from align.transforms.store.publish import Store, publish, publish_json
from align.transforms.write.manifest import MANIFEST

KINDS = ("energon", "dali", "wids")
_FOLDER = "webdataset"


@dataclass(frozen=True, slots=True)
class _Shard:
    """A tar file: its name in the folder, its split, its samples."""

    name: str
    split: str
    samples: Sequence[TarSample]


def write_loader_indexes(store: Store, kinds: Sequence[str] = KINDS) -> list[dict[str, Any]]:
    """Write indexes for other loaders, and list them in the manifest under ``loader_index``.

    ``energon``: ``webdataset/.nv-meta`` and a ``.tar.idx`` per shard; ``dali``: an ``.idx`` per shard;
    ``wids``: ``webdataset/<split>.wids.json``. Repeating it changes nothing; indexes of other kinds stay.

    Args:
        store: where a committed data set with tar files lies.
        kinds: which indexes.

    Returns:
        Of each file written: kind, path, bytes and sha256.

    Raises:
        FileNotFoundError: there is no manifest.
        UsageError: an unknown kind, or a data set without tar files.
    """
    manifest = read_manifest(store)
    entries = make_loader_indexes(store, manifest["shards"], kinds)
    kept = [e for e in manifest.get("loader_index", ()) if e["kind"] not in kinds]
    publish_json(store, MANIFEST, manifest | {"loader_index": kept + entries})
    return entries


def make_loader_indexes(
    store: Store, listed: Sequence[Mapping[str, Any]], kinds: Collection[str]
) -> list[dict[str, Any]]:
    """The same for finished shards, as a manifest lists them, without a manifest.

    Raises:
        UsageError: an unknown kind, or no tar files.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise UsageError(f"--index knows {', '.join(KINDS)}; not {', '.join(unknown)}")
    tars = [s for s in listed if s["format"] == "webdataset"]
    if not tars:
        raise UsageError("these indexes need tar files; run with --format parquet,webdataset")
    shards = [_scanned(store, tar) for tar in sorted(tars, key=lambda s: str(s["path"]))]
    files: list[tuple[str, str, bytes]] = []
    if "energon" in kinds:
        files += [("energon", name, data) for name, data in _energon(shards)]
    if "dali" in kinds:
        files += [("dali", s.name.replace(".tar", ".idx"), dali_index(s.samples).encode()) for s in shards]
    if "wids" in kinds:
        files += [("wids", f"{name}.wids.json", text.encode()) for name, text in _wids(store, tars).items()]
    return [_publish(store, kind, f"{_FOLDER}/{name}", data) for kind, name, data in sorted(files)]


def _scanned(store: Store, tar: Mapping[str, Any]) -> _Shard:
    with store.open(tar["path"]) as stream:
        return _Shard(tar["path"].removeprefix(f"{_FOLDER}/"), tar["split"], scan(stream))


def _energon(shards: Sequence[_Shard]) -> Iterator[tuple[str, bytes]]:
    for shard in shards:
        yield f"{shard.name}.idx", energon.tar_index(shard.samples)
    splits: dict[str, list[str]] = {}
    for shard in shards:
        splits.setdefault(shard.split, []).append(shard.name)
    for name, text in energon.texts({s.name: len(s.samples) for s in shards}, splits).items():
        yield f"{energon.FOLDER}/{name}", text.encode()
    with tempfile.TemporaryDirectory(prefix="align-index-") as folder:
        path = Path(folder, "index.sqlite")
        energon.sqlite_index([s.samples for s in shards], path)
        yield f"{energon.FOLDER}/index.sqlite", path.read_bytes()


def _wids(store: Store, tars: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    splits: dict[str, list[dict[str, Any]]] = {}
    for tar in tars:
        with store.open(tar["path"]) as stream:
            md5 = hashlib.file_digest(stream, "md5").hexdigest()  # type: ignore[arg-type]
        entry = {
            "url": tar["path"].removeprefix(f"{_FOLDER}/"),
            "md5sum": md5,
            "nsamples": tar["samples"],
            "filesize": tar["bytes"],
        }
        splits.setdefault(tar["split"], []).append(entry)
    return {name: wids_index(name, shards) for name, shards in sorted(splits.items())}


def _publish(store: Store, kind: str, path: str, data: bytes) -> dict[str, Any]:
    with publish(store, path) as publication:
        publication.stream.write(data)
    return {"kind": kind, "path": path, "bytes": publication.bytes, "sha256": publication.sha256}
