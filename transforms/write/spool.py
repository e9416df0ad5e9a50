"""Encoded rows on local disk, in any order of arrival, to be read back in any other.

A shard's samples are shuffled before they are written. Held here, they cost memory only for an index.
"""

from __future__ import annotations

import tempfile
from types import TracebackType

import pyarrow as pa

from align.schemas.errors import AlignError


class Spool:
    """One-row record batches in an unnamed temporary file that dies with its process.

    The file lies in the system's temporary folder (``TMPDIR``).

    Args:
        schema: of every batch.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = tempfile.TemporaryFile(prefix="align-spool-")  # noqa: SIM115
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
        """Store a batch and return its index.

        Raises:
            AlignError: ``write_failed``, the disk is full.
        """
        data = batch.serialize()
        try:
            self._file.seek(self._end)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            detail = (
                f"cannot hold a shard's samples in {tempfile.gettempdir()}: {error.strerror}; free space "
                "there, point TMPDIR to a larger disk, or make shards smaller; then --resume"
            )
            raise AlignError("write_failed", detail, stage="write") from error
        self._places.append((self._end, data.size))
        self._end += data.size
        return len(self._places) - 1

    def __getitem__(self, index: int) -> pa.RecordBatch:
        start, size = self._places[index]
        # A row group's worth of these lives at once: in Arrow's memory, which can be given back.
        data = pa.allocate_buffer(size)
        self._file.seek(start)
        self._file.readinto(data)
        return pa.ipc.read_record_batch(data, self._schema)
