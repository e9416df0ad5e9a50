"""Some bytes of a file, as a file of their own."""

from __future__ import annotations

import io
from typing import BinaryIO


class FilePart(io.RawIOBase, BinaryIO):
    """The bytes ``[begin, end)`` of a seekable file.

    Args:
        file: its read position is moved. Closed with this one.
        begin: first byte.
        end: the byte after the last; None for all that follow.
    """

    def __init__(self, file: BinaryIO, begin: int = 0, end: int | None = None) -> None:
        self._file, self._begin = file, begin
        whole = file.seek(0, io.SEEK_END)
        self._size = max((whole if end is None else min(end, whole)) - begin, 0)
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; all that are left where it is negative."""
        left = max(self._size - self._at, 0)
        self._file.seek(self._begin + self._at)
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is fetched."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Close the file itself."""
        self._file.close()
        super().close()


class Borrowed(FilePart):
    """The same, of a file that stays open."""

    def close(self) -> None:
        """Leave the file as it is."""
        io.RawIOBase.close(self)
