"""A file whose payload need not be fetched."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from align.schemas.errors import AlignError
from align.transforms.read.file_part import Borrowed

_MOST_BOXES = 1000
"""At top level, until it is known whether an MP4 is fragmented: writers make a dozen."""


class Payload(io.RawIOBase, BinaryIO):
    """A file whose bytes may be replaced by zeros, once its header has been read.

    Demuxing an MP4 for the times of its packets then costs no input: they come from the sample tables. A
    truncated file seems whole then, so that what its header promises and no window finds is accounted for.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)
        self._at = file.seek(0)
        self.blank = False

    def read(self, size: int = -1) -> bytes:
        """So many bytes, or zeros in their place."""
        if self.blank:
            data = bytes(max(size, 0))
        else:
            self._file.seek(self._at)
            data = self._file.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is fetched."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = base + offset
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

    def part(self, begin: int, end: int | None) -> Borrowed:
        """Some of the file's own bytes, never blank."""
        return Borrowed(self._file, begin, end)

    def boxes(self) -> Iterator[bytes]:
        """Types of the MP4 boxes at top level; the read position is kept.

        Raises:
            AlignError: ``bad_container``: more boxes than any writer makes before its first fragment.
        """
        kept, at = self._at, 0
        try:
            for _ in range(_MOST_BOXES):
                if at + 8 > self.size:
                    return
                self.seek(at)
                size, kind = struct.unpack(">I4s", self.read(8))
                if size == 1:
                    size = struct.unpack(">Q", self.read(8).rjust(8, b"\0"))[0]
                yield kind
                if size < 8:
                    return
                at += size
            detail = f"it holds over {_MOST_BOXES} boxes and no fragment: it is damaged or made to be"
            raise AlignError("bad_container", detail, stage="probe")
        finally:
            self._at = kept

    @property
    def is_fragmented(self) -> bool:
        """Whether an MP4 keeps sample tables in fragments (ISO/IEC 14496-12: ``moof`` boxes at top level)."""
        return any(kind == b"moof" for kind in self.boxes())

    def close(self) -> None:
        """Close the file itself."""
        self._file.close()
        super().close()
