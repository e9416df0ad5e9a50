"""The names an output holds: by place and form, what may be ours. Whether it is, a list of ours must say."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from align.transforms.store.publish import Store

FOLDERS = ("data", "webdataset", "webdataset/.nv-meta", "index", "_work", "_work/reports")
LEDGER = "_work/former.json"
"""Names that this output holds or held beside those of its manifest and reports, until the commit."""

_ENERGON = (
    *(".info.json", "index.uuid", "split.yaml", "dataset.yaml", "crude.yaml", "sample_loader.py"),
    "index.sqlite",
)
_SHARD = r"[a-z0-9_]+-\d{5,}-of-\d{5,}"
_FORM = re.compile(
    r"(manifest|stats)\.json|failures\.jsonl|README\.md"
    rf"|(data|index)/{_SHARD}\.parquet"
    r"|webdataset/(README\.md|[a-z0-9_]+-\d{6,}\.(tar|tar\.idx|idx)|[a-z0-9_]+\.wids\.json)"
    rf"|webdataset/\.nv-meta/({'|'.join(map(re.escape, _ENERGON))})"
    rf"|_work/(run\.json|former\.json|lock(\.after-[0-9a-f]{{16}})?|reports/{_SHARD}\.json)"
)
_TEMP = re.compile(r"(?P<folder>([^\n]*/)?)\.(?P<name>[^/\n]+)\.[0-9a-f]{16}\.tmp")


def has_our_form(path: str) -> bool:
    """Whether a run of ours might write a file of this path, relative to its output."""
    return _FORM.fullmatch(path) is not None


def our_leftovers(names: list[str]) -> list[str]:
    """Among the files of an output, the temporary ones of runs on this output: not those of one inside it."""
    found = ((name, _TEMP.fullmatch(name)) for name in names)
    return [name for name, temp in found if temp and has_our_form(temp["folder"] + temp["name"])]


def leftovers_of(store: Store) -> list[str]:
    """The temporary files of runs on this output, sorted."""
    return our_leftovers(list(store.names()))


def index_names(shards: Iterable[Mapping[str, Any]], kinds: Collection[str]) -> Iterator[str]:
    """The index files of some kinds beside shards, as a manifest lists those."""
    for shard in shards:
        path = shard["path"]
        if shard["format"] == "parquet":
            if "balance" in kinds:
                yield path.replace("data/", "index/", 1)
            continue
        if "energon" in kinds:
            yield f"{path}.idx"
            yield from (f"webdataset/.nv-meta/{name}" for name in _ENERGON)
        if "dali" in kinds:
            yield path.removesuffix(".tar") + ".idx"
        if "wids" in kinds:
            yield f"webdataset/{shard['split']}.wids.json"
