"""An index beside the shards: what only a look at the whole data set can say of a window.

    index/<split>-00000-of-00008.parquet    one row per row of the shard, in its order
      key, group_id, pattern   from the shard
      weight                   float64: how often a balanced epoch draws the window
      duplicate_of             key of the window whose near-duplicate this is, or null
      text_hash                int64: equal for equal narrations, 0 without any
      phash                    uint64: perceptual hash of the anchor frame, or null

The first pass looks at each shard by itself, the second adds what all of them together say. Between the
two, memory holds some 16 bytes a window; the rest waits on local disk.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from align.schemas.errors import AlignError, UsageError
from align.schemas.manifest import place_of_index
from align.transforms.check.described import read_manifest
from align.transforms.index.duplicates import clusters, representatives
from align.transforms.index.negatives import identity
from align.transforms.index.scan import By, Looker, look
from align.transforms.index.weights import class_weights, tally, window_weight
from align.transforms.store.publish import Store, publish, publish_json
from align.transforms.write.manifest import MANIFEST


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How weights and near-duplicates are found.

    Attributes:
        by: what is balanced: the modality ``pattern`` of windows, or their ``scenario``.
        alpha: 1 leaves the classes as they are, 0 draws all alike.
        cap: most draws of one window in an epoch.
        distance: bits by which the hashes of near-duplicate pictures may differ.
    """

    by: By = "pattern"
    alpha: float = 0.5
    cap: float = 8.0
    distance: int = 4

    def __post_init__(self) -> None:
        checks = [
            (self.by in ("pattern", "scenario"), f"balance by pattern or scenario, not {self.by!r}"),
            (0 <= self.alpha <= 1, "alpha must be between 0 and 1"),
            (1 <= self.cap <= 1000, "the repeat cap must be between 1 and 1000"),
            (0 <= self.distance <= 16, "the distance of near-duplicates must be 0 to 16 bits"),
        ]
        for good, detail in checks:
            if not good:
                raise UsageError(detail)


def add_index(
    store: Store,
    options: IndexOptions = IndexOptions(),
    *,
    threads: int = 1,
    looker: Looker | None = None,
) -> dict[str, Any]:
    """Index a committed data set; its manifest then lists the index files. Repeating it changes nothing.

    Args:
        store: where the data set lies.
        options: how weights and near-duplicates are found.
        threads: shards that are looked at at a time.
        looker: looks at a shard, :func:`~align.transforms.index.scan.look` if None.

    Returns:
        What the manifest then says under ``balance``: the options; per split each class with its windows and
        weight; ``duplicates``, windows that are near-duplicates of another; ``across_splits``, how many of
        those have their like in another split.

    Raises:
        FileNotFoundError: there is no manifest.
        AlignError: ``bad_manifest``, ``bad_path``, ``bad_shard``: not a data set of ours.
        UsageError: the data set holds tar files only.
    """
    manifest = read_manifest(store)
    made = make_index(store, manifest["shards"], options, threads=threads, looker=looker)
    publish_json(store, MANIFEST, manifest | made)
    balance: dict[str, Any] = made["balance"]
    return balance


def make_index(
    store: Store,
    listed: Sequence[Mapping[str, Any]],
    options: IndexOptions = IndexOptions(),
    *,
    threads: int = 1,
    looker: Looker | None = None,
) -> dict[str, Any]:
    """Write the index files of finished shards.

    Args:
        store: where they lie.
        listed: the shards, as a manifest lists them; those that are not Parquet are passed over.
        options: how weights and near-duplicates are found.
        threads: shards that are looked at at a time.
        looker: looks at a shard, :func:`~align.transforms.index.scan.look` if None.

    Returns:
        What the manifest is to say of it: ``index``, the files; ``balance``, see :func:`add_index`.

    Raises:
        UsageError: there are tar files only.
    """
    shards = [s for s in listed if s["format"] == "parquet"]
    if listed and not shards:
        raise UsageError("an index needs Parquet shards; run with --format parquet,webdataset")
    found = looker or partial(look, store)
    with tempfile.TemporaryDirectory(prefix="align-index-") as folder:
        looks = [Path(folder, f"{number}.parquet") for number in range(len(shards))]

        def first_look(number: int) -> None:
            seen = found(shards[number]["path"], options.by)
            if len(seen) != shards[number]["samples"]:
                detail = f"{shards[number]['path']} does not hold as many samples as the manifest says"
                raise AlignError("bad_shard", detail, stage="verify")
            pq.write_table(seen, looks[number])

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(first_look, range(len(shards))))
        counts = _count(shards, looks)
        weights = {split: class_weights(n, options.alpha, options.cap) for split, n in counts.items()}
        same = _duplicates(shards, looks, options.distance)
        entries = [
            _write(store, shard, pq.read_table(path), weights[shard["split"]], same.keys)
            for shard, path in zip(shards, looks, strict=True)
        ]
    classes = {
        split: {label: {"windows": n, "weight": weights[split][label]} for label, n in sorted(found.items())}
        for split, found in sorted(counts.items())
    }
    balance = asdict(options) | {
        "classes": classes,
        "duplicates": len(same.keys),
        "across_splits": same.across_splits,
    }
    return {"index": entries, "balance": balance}


@dataclass(frozen=True, slots=True)
class _Duplicates:
    """Key of a near-duplicate -> key of the window that stands for it."""

    keys: Mapping[str, str]
    across_splits: int


def _count(shards: Sequence[Mapping[str, Any]], looks: Sequence[Path]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for shard, path in zip(shards, looks, strict=True):
        labels = pq.read_table(path, columns=["labels"]).column("labels").to_pylist()
        counts.setdefault(shard["split"], Counter()).update(tally(labels))
    return counts


def _duplicates(shards: Sequence[Mapping[str, Any]], looks: Sequence[Path], distance: int) -> _Duplicates:
    """Near-duplicates of the whole data set; the same under any sharding."""
    rank, hashes, place = _hashes(looks)
    stands_for = representatives(clusters(hashes, distance), rank)
    like = np.flatnonzero(stands_for != np.arange(len(stands_for)))
    needed = np.union1d(like, stands_for[like])
    named: dict[int, tuple[str, str]] = {}
    for number, path in enumerate(looks):
        here = needed[place[needed, 0] == number] if len(needed) else needed
        if len(here):
            column = pq.read_table(path, columns=["key"]).column("key")
            keys = column.take(pa.array(place[here, 1])).to_pylist()
            named |= {i: (key, shards[number]["split"]) for i, key in zip(here.tolist(), keys, strict=True)}
    pairs = [(named[i], named[j]) for i, j in zip(like.tolist(), stands_for[like].tolist(), strict=True)]
    return _Duplicates({a[0]: b[0] for a, b in pairs}, sum(a[1] != b[1] for a, b in pairs))


def _hashes(looks: Sequence[Path]) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """Of every window with a picture: rank [n], hash [n], and place [n, 2] (number of the shard, row)."""
    ranks, hashes, places = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)], [np.zeros((0, 2), np.int64)]
    for number, path in enumerate(looks):
        table = pq.read_table(path, columns=["key", "phash"])
        rows = np.flatnonzero(table.column("phash").is_valid().to_numpy())
        seen = table.take(pa.array(rows))
        ranks.append(np.array([identity(key) for key in seen.column("key").to_pylist()], np.int64))
        hashes.append(seen.column("phash").to_numpy())
        places.append(np.column_stack([np.full(len(rows), number), rows]))
    return np.concatenate(ranks), np.concatenate(hashes), np.concatenate(places)


def _write(
    store: Store,
    shard: Mapping[str, Any],
    seen: pa.Table,
    weights: Mapping[str, float],
    duplicate_of: Mapping[str, str],
) -> dict[str, Any]:
    """Write one index file and return its entry of the manifest."""
    path = place_of_index(shard["path"])
    weight = np.array([window_weight(labels, weights) for labels in seen.column("labels").to_pylist()])
    like = [duplicate_of.get(key) for key in seen.column("key").to_pylist()]
    distinct = np.array([key is None for key in like], np.bool_)
    table = (
        seen.drop_columns("labels")
        .append_column("weight", pa.array(weight, pa.float64()))
        .append_column("duplicate_of", pa.array(like, pa.string()))
    )
    with publish(store, path) as publication:
        pq.write_table(table, publication.stream)
    return {
        "path": path,
        "shard": shard["path"],
        "samples": len(seen),
        "bytes": publication.bytes,
        "sha256": publication.sha256,
        "weight": float(weight.sum()),
        "distinct": int(distinct.sum()),
        "weight_distinct": float(weight[distinct].sum()),
    }
