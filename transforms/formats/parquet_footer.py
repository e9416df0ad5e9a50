"""A Parquet file's footer, looked at before a library that trusts it opens the file.

The footer is a Thrift structure in compact encoding (apache/thrift, ``doc/specs/thrift-compact-protocol.md``;
fields: apache/parquet-format, ``parquet.thrift``). A schema nested 20,000 deep ends a process that reads it,
a page of another codec may unfold a thousandfold. Ours are shallow, and stored plain or with Snappy, which
unfolds less than 25 times: what may be allocated then follows from the size of the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import SEEK_END
from typing import IO, Any

from align.schemas.errors import AlignError

_MAGIC = b"PAR1"
_MOST_BYTES = 32 << 20
_MOST_VALUES = 2_000_000
_MOST_DEEP, _MOST_ELEMENTS, _MOST_NESTED = 16, 1000, 16
_CODECS = (0, 1)  # UNCOMPRESSED, SNAPPY
_UNFOLDS = 25
_BOOLS, _I8, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_SHARED = 1 << 20


@dataclass(frozen=True, slots=True)
class Footer:
    """What a footer says: rows of each row group."""

    rows: tuple[int, ...]


def check_footer(stream: IO[bytes], rows: int | None = None) -> Footer:
    """Read and check the footer; the stream stands at its start afterwards.

    Args:
        stream: the file, seekable.
        rows: how many it is said to hold; None where that is not known.

    Raises:
        AlignError: ``bad_shard``: no Parquet file, or none that could be ours.
    """
    size = stream.seek(0, SEEK_END)
    data = _tail(stream, size)
    try:
        content = _Reader(data).struct()
        found = _checked(content, size)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, struct.error) as error:
        raise _bad(f"its footer cannot be read ({error!r:.80})") from None
    if rows is not None and sum(found.rows) != rows:
        raise _bad(f"it holds {sum(found.rows)} rows, the manifest says {rows}")
    stream.seek(0)
    return found


def _tail(stream: IO[bytes], size: int) -> bytes:
    if size < 12:
        raise _bad("it is too short")
    stream.seek(size - 8)
    length, magic = struct.unpack("<I4s", stream.read(8))
    if magic != _MAGIC or length > min(size - 12, _MOST_BYTES):
        raise _bad("it does not end with a footer of Parquet")
    stream.seek(size - 8 - length)
    return stream.read(length)


def _checked(content: dict[int, Any], size: int) -> Footer:
    """FileMetaData: 2 schema, 3 num_rows, 4 row_groups."""
    _check_schema(content[2])
    rows = []
    for group in content[4]:  # RowGroup: 1 columns, 3 num_rows
        rows.append(group[3])
        stored = sum(_stored(column[3], size) for column in group[1])
        # A key is stored for each row and does not repeat: more rows than bytes cannot be.
        if not 0 <= group[3] <= stored * _UNFOLDS:
            raise _bad(f"a row group of {stored} bytes claims {group[3]} rows")
    if sum(rows) != content[3]:
        raise _bad(f"its row groups hold {sum(rows)} rows, its footer says {content[3]}")
    return Footer(tuple(rows))


def _check_schema(elements: list[dict[int, Any]]) -> None:
    """SchemaElement: 5 num_children; the list is the tree, depth first."""
    if len(elements) > _MOST_ELEMENTS:
        raise _bad(f"its schema has {len(elements)} elements")
    open_nodes = [1]
    for element in elements:
        if not open_nodes:
            raise ValueError("elements after the schema's end")
        open_nodes[-1] -= 1
        open_nodes.append(element.get(5, 0))
        if len(open_nodes) > _MOST_DEEP:
            raise _bad("its schema is nested too deeply")
        while open_nodes and open_nodes[-1] <= 0:
            open_nodes.pop()


def _stored(column: dict[int, Any], size: int) -> int:
    """Bytes of a column chunk.

    ColumnMetaData: 4 codec, 6 and 7 total size unfolded and stored, 9 and 11 offsets of data and dictionary.
    """
    stored, start = column[7], column.get(11) or column[9]
    if column[4] not in _CODECS:
        raise _bad(f"a column is compressed with codec {column[4]}; ours are plain or Snappy")
    if not 0 <= stored <= size or not 0 < start <= size - stored:
        raise _bad("a column lies outside the file")
    if column[6] > stored * _UNFOLDS + _SHARED:
        raise _bad(f"a column of {stored} bytes claims to unfold to {column[6]}")
    return int(stored)


def _bad(detail: str) -> AlignError:
    return AlignError("bad_shard", f"is no Parquet file of ours: {detail}", stage="verify")


class _Reader:
    """Thrift's compact encoding: structures as dicts by field number, within bounds of depth and number."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._left, self._depth = data, 0, _MOST_VALUES, 0

    def struct(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        number = 0
        self._depth += 1
        if self._depth > _MOST_NESTED:
            raise ValueError("nested too deeply")
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            kind = head & 15
            found[number] = kind == 1 if kind in _BOOLS else self._value(kind)
        self._depth -= 1
        return found

    def _value(self, kind: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many values")
        if kind in _INTEGERS:
            return self._whole()
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self.struct()
        if kind in _LISTS:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15) for _ in range(count)]
        if kind in _BOOLS or kind == _I8:
            return self._byte()
        if kind == _DOUBLE:
            return self._take(8)
        raise ValueError(f"type {kind}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, length: int) -> bytes:
        self._at += length
        if self._at > len(self._data):
            raise IndexError("beyond the end")
        return self._data[self._at - length : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _whole(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
