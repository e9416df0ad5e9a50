"""The first look at a shard: what its rows say of themselves, without the rest of the data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from align.transforms.formats.parquet_footer import check_footer
from align.transforms.index.duplicates import picture_hash
from align.transforms.index.negatives import narration_id
from align.transforms.store.publish import Store
from align.transforms.write.stats import pattern

By = Literal["pattern", "scenario"]
Looker = Callable[[str, By], pa.Table]
"""Path of a shard and what labels are -> a table of the schema :data:`LOOK`."""
# Of the sound its name and of the IMU its mask are enough: they are null where the modality is.
_BATCH = 64
_READ = ("key", "group_id", "image.bytes", "audio.path", "imu_mask", "text", "scenarios")
LOOK = pa.schema(
    [
        ("key", pa.string()),
        ("group_id", pa.string()),
        ("pattern", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("text_hash", pa.int64()),
        ("phash", pa.uint64()),
    ]
)


def look(store: Store, path: str, by: By) -> pa.Table:
    """Keys, patterns, labels and hashes of one shard's rows, in its order; one row group in memory.

    Args:
        store: where the data set lies.
        path: the Parquet shard.
        by: what the labels are: the modality pattern, or the scenarios.

    Returns:
        A table of the schema :data:`LOOK`.

    Raises:
        AlignError: ``bad_shard``, ``bad_media``, ``bad_path``: no shard of ours.
    """
    with store.open(path) as stream:
        check_footer(stream)
        with pq.ParquetFile(stream) as parquet:
            groups = [
                pa.Table.from_pylist([_seen(row, by) for row in _rows(parquet, group)], LOOK)
                for group in range(parquet.num_row_groups)
            ]
    return pa.concat_tables(groups) if groups else LOOK.empty_table()


def _rows(parquet: pq.ParquetFile, group: int) -> Iterator[dict[str, Any]]:
    batches = parquet.iter_batches(_BATCH, row_groups=[group], columns=list(_READ), use_threads=False)
    for batch in batches:
        yield from batch.to_pylist()


def _seen(row: Mapping[str, Any], by: By) -> dict[str, Any]:
    kind = pattern({**row, "imu": row["imu_mask"]})
    return {
        "key": row["key"],
        "group_id": row["group_id"],
        "pattern": kind,
        "labels": [kind] if by == "pattern" else row["scenarios"],
        "text_hash": narration_id(row["text"]),
        "phash": picture_hash(row["image"]["bytes"]) if row["image"] else None,
    }
