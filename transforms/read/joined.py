"""Whole files that stand one behind the other in one file, as ``cat`` and some recorders join them.

Where a further one begins is read off the structure: headers alone, payload is stepped over. MPEG-TS and
MPEG-PS have no header of the file; there only the clock tells.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

Read = Callable[[int, int], bytes]
"""Bytes at an offset: ``read(at, size)``; fewer at the file's end."""


_MOST_LOOKS = 4_000_000
"""So many headers a file may have: ten hours of FLV have 3 million tags. Garbage may look like more."""


def file_starts(file: BinaryIO, size: int, format_name: str) -> tuple[int, ...]:
    """Where a further file begins, ascending; none in most files.

    Args:
        file: its read position is kept.
        size: of the file.
        format_name: of the demuxer.
    """
    found = next((walk for name, walk in _WALKS.items() if name in format_name.split(",")), None)
    if found is None:
        return ()
    kept, looks = file.tell(), iter(range(_MOST_LOOKS))

    def read(at: int, count: int) -> bytes:
        if next(looks, None) is None:
            return b""
        file.seek(at)
        return file.read(count)

    try:
        return tuple(at for at in found(read, size) if at)
    finally:
        file.seek(kept)


def boxes(read: Read, size: int, at: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Boxes of ISO/IEC 14496-12 from ``at`` to ``size``: type, where each begins, where it ends."""
    while at + 8 <= size:
        head = read(at, 16)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        end = size if length == 0 else at + length
        if end < at + 8:
            return
        yield kind, at, min(end, size)
        at = end


def _movies(read: Read, size: int) -> Iterator[int]:
    """A further ``ftyp`` after data, with a movie behind it."""
    begun, data = 0, False
    for kind, at, _ in boxes(read, size):
        if kind == b"ftyp" and data:
            begun, data = at, False
        elif kind == b"moov" and begun:
            yield begun
            begun = 0
        data |= kind in (b"mdat", b"moof")


_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675


def element(read: Read, at: int) -> tuple[int, int, int | None] | None:
    """An EBML element (RFC 8794): id, where its content begins, its size; None for an unknown size.

    None where there is no element.
    """
    head = read(at, 12)
    id_length = _length(head[:1])
    size_length = _length(head[id_length : id_length + 1])
    if not id_length or id_length > 4 or not size_length or len(head) < id_length + size_length:
        return None
    name = int.from_bytes(head[:id_length], "big")
    raw = int.from_bytes(head[id_length : id_length + size_length], "big")
    value = raw & ((1 << 7 * size_length) - 1)
    unknown = value == (1 << 7 * size_length) - 1
    return name, at + id_length + size_length, None if unknown else value


def _length(first: bytes) -> int:
    """Of a variable-size integer, by its first byte; 0 for none."""
    return 9 - first[0].bit_length() if first and first[0] else 0


def _segments(read: Read, size: int) -> Iterator[int]:
    """An EBML header after the first. Segments and clusters of unknown size are entered."""
    at = 0
    while at < size and (found := element(read, at)) is not None:
        name, content, length = found
        if name == _EBML:
            yield at
        at = content if length is None and name in (_SEGMENT, _CLUSTER) else content + (length or 0)


def _flv(read: Read, size: int) -> Iterator[int]:
    """A file header where a tag should begin (Video File Format Specification 10, E.2)."""
    at = 0
    while at + 13 <= size:
        head = read(at, 13)
        if head[:4] == b"FLV\x01":
            yield at
            at += int.from_bytes(head[5:9], "big") + 4
        elif head[0] & 0xC0 == 0:
            at += 15 + int.from_bytes(head[1:4], "big")
        else:
            return


def _ogg(read: Read, size: int) -> Iterator[int]:
    """A page that begins a logical stream after pages of others have come (RFC 3533, 4)."""
    at, data = 0, False
    while at + 27 <= size and len(head := read(at, 27)) == 27 and head[:4] == b"OggS":
        begins = bool(head[5] & 0x02)
        if begins and data:
            yield at
        data = not begins
        table = read(at + 27, head[26])
        at += 27 + len(table) + sum(table)


def _riffs(read: Read, size: int) -> Iterator[int]:
    """A further ``RIFF`` of type ``AVI ``; those of type ``AVIX`` go on with the first (OpenDML)."""
    at = 0
    while at + 12 <= size and len(head := read(at, 12)) == 12 and head[:4] == b"RIFF":
        if head[8:] == b"AVI ":
            yield at
        length = int.from_bytes(head[4:8], "little")
        at += 8 + length + (length & 1)


_WALKS: dict[str, Callable[[Read, int], Iterator[int]]] = {
    "mov": _movies,
    "matroska": _segments,
    "flv": _flv,
    "ogg": _ogg,
    "avi": _riffs,
}
