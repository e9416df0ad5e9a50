"""Rows of a Parquet row group as bytes and numpy arrays, in any order, without a Python list of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from align.schemas.errors import AlignError

_BATCH = 8
_MOST_BYTES = 512 << 20


def read_rows(parquet: pq.ParquetFile, group: int, columns: Sequence[str]) -> Rows:
    """Read some columns of a row group, a few rows at a time: never twice in memory, raw and decoded.

    Raises:
        AlignError: ``bad_shard``, it unfolds to more than a row group of a run holds.
    """
    batches, held = [], 0
    for batch in parquet.iter_batches(_BATCH, row_groups=[group], columns=list(columns), use_threads=False):
        held += batch.nbytes
        if held > _MOST_BYTES:
            detail = f"row group {group} unfolds to more than {_MOST_BYTES >> 20} MB; run align verify"
            raise AlignError("bad_shard", detail, stage="verify")
        batches.append(batch)
    return Rows(batches, _BATCH)


class Rows:
    """Random access to the rows of batches.

    Args:
        batches: some columns of the output schema.
        size: rows in each batch but the last.
    """

    def __init__(self, batches: Sequence[pa.RecordBatch], size: int) -> None:
        self._batches, self._size = batches, size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row: media as bytes, ``imu`` float32 [6, n], ``imu_mask`` bool [n], the rest plain."""
        batch, place = self._batches[index // self._size], index % self._size
        return {name: _value(name, batch.column(name), place) for name in batch.schema.names}


def _value(name: str, column: pa.Array, index: int) -> Any:
    scalar = column[index]
    if not scalar.is_valid:
        return None
    if name in ("image", "audio"):
        return scalar["bytes"].as_py()
    if name == "frames":
        return scalar.values.field("bytes").to_pylist()
    if name == "imu":
        return np.from_dlpack(scalar.values.flatten()).reshape(len(scalar.values), -1)
    if name == "imu_mask":
        return _bools(scalar.values)
    return scalar.as_py()


def _bools(array: pa.BooleanArray) -> NDArray[np.bool_]:
    """The values of an array without nulls; ``to_numpy`` would load pandas, 40 MB a process."""
    first, end = array.offset, array.offset + len(array)
    packed = np.frombuffer(array.buffers()[1], np.uint8)[first // 8 : -(-end // 8)]
    return np.unpackbits(packed, bitorder="little")[first % 8 :][: len(array)].view(np.bool_)
