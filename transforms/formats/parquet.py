"""Rows as a Parquet file: row groups that a reader can hold, media stored as they are."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from align.schemas.features import arrow_schema
from align.transforms.store.publish import Sink

ROW_GROUP_BYTES = 64_000_000
"""Uncompressed bytes at which a row group ends. The Hub's viewer reads groups of up to 100 MB."""

_BATCH = 16
_MEDIA = ("image.bytes", "frames.list.element.bytes", "audio.bytes")
_FLOATS = ("imu.list.element.list.element",)
_INDEXED = ("key", "source", "recording_id", "group_id", "split", "start_ns", "end_ns", "image_time_ns")


class ParquetShard:
    """A Parquet file, written as a stream. Equal rows in equal order give equal bytes.

    JPEG and FLAC do not compress, and IMU values hardly repeat: no codec for the former, no dictionary
    for either. Statistics only where a filter may ask for them: the least JPEG serves nobody.

    Args:
        stream: where it goes; needs ``write`` and ``tell``.
        audio_rate: Hz, for the schema's metadata.
        imu_rate: Hz, for the schema's metadata.
        row_group_bytes: uncompressed size that a row group does not exceed (unless one row does).
    """

    def __init__(
        self, stream: Sink, audio_rate: int, imu_rate: int, row_group_bytes: int = ROW_GROUP_BYTES
    ) -> None:
        schema = arrow_schema(audio_rate, imu_rate)
        leaves = _leaves(schema)
        self._schema = schema
        self._limit = row_group_bytes
        self._pending: list[pa.RecordBatch] = []
        self._bytes = 0
        self._writer = pq.ParquetWriter(
            stream,
            schema,
            compression={leaf: "none" if leaf in _MEDIA else "snappy" for leaf in leaves},
            use_dictionary=[leaf for leaf in leaves if leaf not in _MEDIA + _FLOATS],
            write_statistics=list(_INDEXED),
            # A page is closed only between batches: by default one of 1024 rows, 100 MB of media that a
            # reader must hold beside what it decodes from them.
            write_batch_size=_BATCH,
        )

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch, whole, to the current row group or to the next one."""
        size = batch.nbytes
        if self._pending and self._bytes + size > self._limit:
            self._flush()
        self._pending.append(batch)
        self._bytes += size

    def close(self) -> None:
        """Write what is pending and the footer; the stream stays open."""
        if self._pending:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._pending, self._schema)
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._pending, self._bytes = [], 0


def _leaves(schema: pa.Schema) -> list[str]:
    """Dotted paths of the physical columns, as Parquet names them."""
    return [path for field in schema for path in _paths(field.name, field.type)]


def _paths(prefix: str, dtype: pa.DataType) -> list[str]:
    if pa.types.is_map(dtype):
        return [f"{prefix}.key_value.key", f"{prefix}.key_value.value"]
    if pa.types.is_list(dtype):
        return _paths(f"{prefix}.list.element", dtype.value_type)
    if pa.types.is_struct(dtype):
        return [p for field in dtype for p in _paths(f"{prefix}.{field.name}", field.type)]
    return [prefix]
