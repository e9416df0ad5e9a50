"""A row as the parts of a WebDataset sample, and tar files whose bytes depend on nothing else.

Names follow webdataset 1.0: the key ends at the first dot of the name, the rest is the part's name, the
parts of a sample stand together, and ``imu.npy`` decodes as ``npy``.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from align.schemas.columns import (
    MASK,
    MEDIA,
    MEDIA_LIST,
    ROWS,
    SENTENCES,
    Column,
    modality_columns,
    row_columns,
)
from align.schemas.errors import AlignError
from align.schemas.modality import DEFAULT, Modality
from align.transforms.formats.tar_members import Member, content, members
from align.transforms.store.bounded import parse_bounded
from align.transforms.store.publish import Sink, strict_json

_NAME = re.compile(r"^(?P<key>[^./]+)[.](?P<kind>[^/]+)$")
_MOST_PARTS, _MOST_BYTES = 1100, 256 << 20
_ARRAYS: dict[pa.DataType, type[np.generic]] = {ROWS: np.float32, MASK: np.bool_}


class Parts:
    """How rows of some modalities are cut into parts, and put together again.

    ``KEY.jpg``, ``KEY.f00.jpg`` …, ``KEY.flac``, ``KEY.imu.npy`` (float32 [6, n]), ``KEY.imu_mask.npy`` (bool
    [n]), ``KEY.txt`` (sentences, one per line), ``KEY.json`` (the rest): each column names its own. What a
    sample lacks has no part; neither has an empty text.
    """

    def __init__(self, modalities: Iterable[Modality] = DEFAULT) -> None:
        self._modalities = tuple(modalities)
        self._columns = row_columns(self._modalities)
        self._own = [c for c in self._columns if c.part]
        self._json = [c for c in self._columns if c.is_in_json and c.name != "missing_reason"]

    def kinds(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of a row's parts without the key: ``("jpg", "flac", "imu.npy", …)``."""
        own = (part for column in self._own for part in _parts_of(column, row[column.name]))
        return (*own, "json")

    def of(self, row: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        """Name and content of each part, in the order in which they are written."""
        for column in self._own:
            for place, part in enumerate(_parts_of(column, row[column.name])):
                yield f"{row['key']}.{part}", _content(column, row[column.name], place)
        yield f"{row['key']}.json", strict_json(self.describe(row)).encode("ascii")

    def describe(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The content of ``KEY.json``: the columns that no other part carries whole.

        What is null or empty is left out, and ``missing`` (always there) tells the two apart. Why: the
        WebDataset builder of ``datasets`` fixes each field's type from five samples, and a type it takes
        from a null or an empty list makes it fail on the first value.
        """
        return _filled({c.name: row[c.name] for c in self._json}) | {"missing": dict(row["missing"])}

    def row(self, key: str, found: Mapping[str, bytes]) -> dict[str, Any]:
        """The row that was cut into these parts, media paths included.

        Raises:
            AlignError: ``bad_shard``, there is no JSON of this key.
            ValueError: an array or the JSON cannot be read.
        """
        said = parse_bounded(found.get("json", b"{}"), f"{key}.json")
        if (
            not isinstance(said, dict)
            or said.get("key") != key
            or not isinstance(said.get("missing", {}), dict)
        ):
            raise AlignError("bad_shard", f"sample {key} has no {key}.json with its key", stage="verify")
        missing = said.get("missing", {})
        row = {c.name: _restored(said.get(c.name), c.dtype) for c in self._json}
        row |= {c.name: _read(c, key, found) for c in self._own if not c.is_in_json}
        row["missing"] = missing
        row["missing_reason"] = {m.name: missing.get(m.name) for m in self._modalities}
        return {c.name: None if c.name in self._null(row) else row[c.name] for c in self._columns}

    def _null(self, row: Mapping[str, Any]) -> set[str]:
        """Lists that are null, not empty: of a missing modality; the times of frames that are not there."""
        lacks = [m for m in self._modalities if m.name in row["missing"] and m.kind != "picture"]
        null = {c.name for m in lacks for c in modality_columns(m)}
        return null if row.get("frames") else null | {"frame_times_ns"}


DEFAULT_PARTS = Parts()


def _filled(value: dict[str, Any]) -> dict[str, Any]:
    inner = {k: _filled(v) if isinstance(v, dict) else v for k, v in value.items()}
    return {k: v for k, v in inner.items() if v is not None and v != [] and v != {}}


def _parts_of(column: Column, value: Any) -> list[str]:
    """The members that carry a value: none for null, one for each picture of a list."""
    if value is None or (column.dtype == SENTENCES and not value):
        return []
    return [column.part.format(i) for i in range(len(value))] if column.dtype == MEDIA_LIST else [column.part]


def _content(column: Column, value: Any, place: int) -> bytes:
    if column.dtype == SENTENCES:
        return "\n".join(value).encode()
    if column.dtype in _ARRAYS:
        return _npy(np.asarray(value, _ARRAYS[column.dtype]))
    media = value[place] if column.dtype == MEDIA_LIST else value
    return bytes(media["bytes"])


class TarShard:
    """A tar file, written as a stream. Equal samples in equal order give equal bytes.

    Args:
        stream: where it goes; needs ``write`` and ``tell``.
        parts: how a row is cut.
    """

    def __init__(self, stream: Sink, parts: Parts = DEFAULT_PARTS) -> None:
        # PAX is USTAR plus a header only where a name of more than 100 bytes needs one.
        self._tar = tarfile.open(fileobj=cast(IO[bytes], stream), mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._parts = parts

    def write(self, row: Mapping[str, Any]) -> None:
        """Append the parts of a row."""
        for name, data in self._parts.of(row):
            member = tarfile.TarInfo(name)  # owner 0, mtime 0, mode 0644: TarInfo's own defaults
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        """Write the end of the archive; the stream stays open."""
        self._tar.close()


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    npy.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read_rows(stream: IO[bytes], parts: Parts = DEFAULT_PARTS) -> Iterator[dict[str, Any]]:
    """The rows of a tar, in its order: what :meth:`Parts.of` was given.

    Raises:
        AlignError: ``bad_shard``, it is no tar that a run writes, a member is no part of a sample, or a
            sample has no JSON of its own.
        ValueError: an array or a JSON cannot be read.
    """
    pieces = ((*_split_name(member), content(stream, member)) for member in members(stream))
    for key, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
        yield parts.row(key, _gathered(key, group))


def _gathered(key: str, pieces: Iterable[tuple[str, str, bytes]]) -> dict[str, bytes]:
    """The parts of one sample by kind, within what a sample can hold."""
    found: dict[str, bytes] = {}
    held = 0
    for _, kind, data in pieces:
        held += len(data)
        if kind in found or len(found) >= _MOST_PARTS or held > _MOST_BYTES:
            detail = f"sample {key} has {kind} twice, or more parts than a sample can"
            raise AlignError("bad_shard", detail, stage="verify")
        found[kind] = data
    return found


def _split_name(member: Member) -> tuple[str, str]:
    match = _NAME.match(member.name)
    if match is None:
        raise AlignError("bad_shard", f"tar member {member.name!r} is no part of a sample", stage="verify")
    return match["key"], match["kind"]


def _restored(value: Any, dtype: pa.DataType) -> Any:
    """A value of ``KEY.json`` with what was left out of it put back."""
    if pa.types.is_struct(dtype):
        return {f.name: _restored((value or {}).get(f.name), f.type) for f in dtype}
    return [] if value is None and pa.types.is_list(dtype) else value


def _read(column: Column, key: str, found: Mapping[str, bytes]) -> Any:
    """The value that some members carry; None where there are none."""
    if column.dtype == MEDIA_LIST:
        numbers = itertools.takewhile(lambda i: column.part.format(i) in found, itertools.count())
        return [_media(key, found, column.part.format(i)) for i in numbers] or None
    if column.part not in found:
        return None
    if column.dtype == MEDIA:
        return _media(key, found, column.part)
    return _array(found[column.part], column.part)


def _media(key: str, found: Mapping[str, bytes], part: str) -> dict[str, Any]:
    return {"bytes": found[part], "path": f"{key}.{part}"}


def _array(data: bytes, part: str) -> NDArray[Any]:
    """An array whose header claims no more than its part holds."""
    stream = io.BytesIO(data)
    npy.read_magic(stream)
    shape, _, dtype = npy.read_array_header_1_0(stream)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        detail = f"{part} claims {dtype}{shape} of {len(data)} bytes"
        raise AlignError("bad_shard", detail, stage="verify")
    return npy.read_array(io.BytesIO(data), allow_pickle=False)
