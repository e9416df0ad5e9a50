"""Rows of a Parquet row group as bytes and numpy arrays, in any order, without a Python list of numbers."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


class Rows:
    """Random access to the rows of one table that was read whole.

    Args:
        table: some columns of the output schema.
    """

    def __init__(self, table: pa.Table) -> None:
        self._columns = {name: table.column(name).combine_chunks() for name in table.column_names}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row: media as bytes, ``imu`` float32 [6, n], ``imu_mask`` bool [n], the rest plain."""
        return {name: _value(name, column, index) for name, column in self._columns.items()}


def _value(name: str, column: pa.Array, index: int) -> Any:
    scalar = column[index]
    if not scalar.is_valid:
        return None
    if name in ("image", "audio"):
        return scalar["bytes"].as_py()
    if name == "frames":
        return scalar.values.field("bytes").to_pylist()
    if name == "imu":
        return scalar.values.flatten().to_numpy().reshape(len(scalar.values), -1)
    if name == "imu_mask":
        return scalar.values.to_numpy(zero_copy_only=False)
    return scalar.as_py()
