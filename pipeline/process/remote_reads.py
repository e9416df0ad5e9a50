"""Files of an object store, read by the parent for its child, which has no keys and needs no network.

The child asks for pieces; the parent answers from its own file, with the ranges and the reading ahead of
:mod:`align.pipeline.storage.read_ahead`, and only for files that belong to the request.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import BinaryIO, cast

from align.pipeline.process.frames import BYTES, MOST_READ, OPEN, READ, REFUSED, SIZE, to_json
from align.pipeline.storage.files import open_binary
from align.schemas.errors import AlignError

MOST_URI = 16_000
_SMALLEST = 32 << 10  # what PyAV reads at a time
_TIMES, _FREE = 64, 1 << 30

Ask = Callable[[bytes, bytes], tuple[bytes, bytes]]
"""Sends a frame to the parent and gives its answer."""


class ServedFiles:
    """The parent's side: open files of the request that a child works on.

    Args:
        opener: opens a URI as a seekable binary file.
    """

    def __init__(self, opener: Callable[[str], BinaryIO] = open_binary) -> None:
        self._opener = opener
        self._open: dict[str, tuple[BinaryIO, int]] = {}
        self._allowed: frozenset[str] = frozenset()
        self._left = 0

    def begin(self, uris: Collection[str]) -> None:
        """Serve these files from now on, and no others; those that stayed open and are among them stay so."""
        self._allowed = frozenset(uris)
        for uri in self._open.keys() - self._allowed:
            self._close(uri)
        self._left = _FREE + sum(_TIMES * size for _, size in self._open.values())

    def close(self) -> None:
        """Close all."""
        for uri in [*self._open]:
            self._close(uri)

    def answer(self, kind: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """The answer to a frame of kind ``OPEN`` or ``READ``.

        Raises:
            ValueError: it asks for what is not its own, or for more than reading it could take.
        """
        told = json.loads(payload)
        uri, offset, length = (told, 0, 0) if kind == OPEN else told
        if uri not in self._allowed:
            raise ValueError("a file that does not belong to the request")
        if any(type(n) is not int or n < 0 for n in (offset, length)) or length > MOST_READ or offset >> 62:
            raise ValueError(f"{length} bytes at {offset}")
        self._left -= max(length, _SMALLEST)
        if self._left < 0:
            raise ValueError("more bytes than reading its files takes")
        try:
            if kind == OPEN:
                self._close(uri)
                return SIZE, self._opened(uri)[1].to_bytes(8, "big")
            stream = self._opened(uri)[0]
            stream.seek(offset)
            return BYTES, stream.read(length)
        except AlignError as error:
            return REFUSED, to_json(["align", error.code, error.detail, error.stage])
        except OSError as error:
            return REFUSED, to_json(["os", error.errno, error.strerror])

    def _opened(self, uri: str) -> tuple[BinaryIO, int]:
        if uri not in self._open:
            stream = self._opener(uri)
            try:
                size = stream.seek(0, io.SEEK_END)
            except BaseException:
                stream.close()
                raise
            self._open[uri] = stream, size
            self._left += _TIMES * size
        return self._open[uri]

    def _close(self, uri: str) -> None:
        if uri in self._open:
            with suppress(OSError):
                self._open.pop(uri)[0].close()


class RelayedFile(io.BufferedIOBase):
    """The child's side: a file that its parent reads.

    Args:
        uri: of the file.
        ask: reaches the parent.

    Raises:
        OSError: it cannot be opened.
        AlignError: ``unreadable_file``, from :meth:`read`.
    """

    def __init__(self, uri: str, ask: Ask) -> None:
        self._uri, self._ask, self._at = uri, ask, 0
        self._size = int.from_bytes(self._answer(OPEN, uri), "big")

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where it stands."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go somewhere; nothing is fetched."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, less only at the end; without a size, all that are left."""
        left = max(self._size - self._at, 0)
        left = left if size is None or size < 0 else min(size, left)
        parts = []
        while left > 0:
            part = self._answer(READ, [self._uri, self._at, min(left, MOST_READ)])
            if not part:
                break
            parts.append(part)
            self._at += len(part)
            left -= len(part)
        return b"".join(parts)

    def _answer(self, kind: bytes, question: object) -> bytes:
        answered, payload = self._ask(kind, to_json(question))
        if answered != REFUSED:
            return payload
        origin, *why = json.loads(payload)
        if origin == "os":
            raise OSError(*why)
        code, detail, stage = why
        raise AlignError(code, detail, stage=stage)


def relayed(ask: Ask) -> Callable[[str], BinaryIO]:
    """An opener of files that the parent reads."""
    return lambda uri: cast(BinaryIO, RelayedFile(uri, ask))
