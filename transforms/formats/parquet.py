"""Rows as a Parquet file: row groups that a reader can hold, media stored as they are."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from align.schemas.columns import ROWS
from align.schemas.features import arrow_schema
from align.transforms.store.publish import Sink

ROW_GROUP_BYTES = 64_000_000
"""Uncompressed bytes at which a row group ends. The Hub's viewer reads groups of up to 100 MB."""

_BATCH = 16


class ParquetShard:
    """A Parquet file, written as a stream. Equal rows in equal order give equal bytes.

    Encoded media do not compress, and a sensor's values hardly repeat: no codec for the former, no
    dictionary for either. Statistics only where a filter may ask for them: the least JPEG serves nobody.

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
        leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
        media = {path for path, dtype in leaves if pa.types.is_binary(dtype)}
        series = {path for field in schema if field.type == ROWS for path, _ in _leaves(field.name, ROWS)}
        self._schema = schema
        self._limit = row_group_bytes
        self._pending: list[pa.RecordBatch] = []
        self._bytes = 0
        self._writer = pq.ParquetWriter(
            stream,
            schema,
            compression={path: "none" if path in media else "snappy" for path, _ in leaves},
            use_dictionary=[path for path, _ in leaves if path not in media | series],
            write_statistics=[field.name for field in schema if not pa.types.is_nested(field.type)],
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


def _leaves(prefix: str, dtype: pa.DataType) -> list[tuple[str, pa.DataType]]:
    """Dotted paths of a column's physical columns, as Parquet names them, and their types."""
    if pa.types.is_map(dtype):
        return [(f"{prefix}.key_value.key", dtype.key_type), (f"{prefix}.key_value.value", dtype.item_type)]
    if pa.types.is_list(dtype):
        return _leaves(f"{prefix}.list.element", dtype.value_type)
    if pa.types.is_struct(dtype):
        return [leaf for field in dtype for leaf in _leaves(f"{prefix}.{field.name}", field.type)]
    return [(prefix, dtype)]
