"""Encoded rows on local disk, in any order of arrival, to be read back in any other.

A shard's samples are shuffled before they are written. Held here, they cost memory only for an index.
"""

from __future__ import annotations

import tempfile
from types import TracebackType

import pyarrow as pa


class Spool:
    """One-row record batches in an unnamed temporary file that dies with its process.

    Args:
        schema: of every batch.
        folder: where the file lies; the system's default if None.
    """

    def __init__(self, schema: pa.Schema, folder: str | None = None) -> None:
        self._schema = schema
        self._file = tempfile.TemporaryFile(prefix="align-spool-", dir=folder)  # noqa: SIM115
        self._places: list[tuple[int, int]] = []
        self._end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def append(self, batch: pa.RecordBatch) -> int:
        """Store a batch and return its index."""
        data = batch.serialize()
        self._file.seek(self._end)
        self._file.write(data)
        self._places.append((self._end, data.size))
        self._end += data.size
        return len(self._places) - 1

    def __getitem__(self, index: int) -> pa.RecordBatch:
        start, size = self._places[index]
        self._file.seek(start)
        return pa.ipc.read_record_batch(pa.py_buffer(self._file.read(size)), self._schema)
