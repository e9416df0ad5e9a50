"""Reads objects of a store in ranges that follow how they are read.

Beam's readers fetch 16 MB at a time (2.77: ``s3io``, ``gcsio``), which is right for a file read from end to
end, and eight times too much for a group of pictures here and there. Here a fetch is small after a jump and
grows with what was read on from there, so that at most a tenth is fetched in vain.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

FIRST_BYTES = 128 << 10
MOST_BYTES = 8 << 20
_SHARE = 12  # of what was read on without a jump, the next fetch is one part in so many


class ReadAhead(io.BufferedIOBase):
    """A file read through ranges of its own choice.

    Args:
        stream: what Beam opened. What it buffers itself is got round.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream: Any = stream.detach() if isinstance(stream, io.BufferedReader) else stream
        if hasattr(self._stream, "_chunk_size"):  # google.cloud.storage.fileio.BlobReader fetches no less
            self._stream._chunk_size = FIRST_BYTES
        self._at = 0
        self._held, self._held_from = b"", 0
        self._run = 0  # bytes fetched since the last jump

    def readable(self) -> bool:
        """Always."""
        return True

    def writable(self) -> bool:
        """Never."""
        return False

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where it stands."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go somewhere; nothing is fetched."""
        if whence == io.SEEK_END:
            self._at = self._stream.seek(offset, whence)
        else:
            self._at = max(offset + (self._at if whence == io.SEEK_CUR else 0), 0)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, less only at the end; without a size, all that are left."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(MOST_BYTES), b""))
        parts, missing = [], size
        while missing:
            part = self._from_held(missing) or self._fetched(missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Let go of it."""
        super().close()
        self._held = b""
        self._stream.close()

    def _from_held(self, size: int) -> bytes:
        start = self._at - self._held_from
        part = self._held[start : start + size] if start >= 0 else b""
        self._at += len(part)
        return part

    def _fetched(self, size: int) -> bytes:
        """Fetch what is asked for and as much ahead as seems worth it; give what was asked for."""
        if self._at != self._held_from + len(self._held):
            self._run = 0
        ahead = min(max(FIRST_BYTES, self._run // _SHARE), MOST_BYTES)
        self._stream.seek(self._at)
        self._held, self._held_from = self._stream.read(max(size, ahead)) or b"", self._at
        self._run += len(self._held)
        return self._from_held(size)
