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

from align.schemas.errors import AlignError
from align.schemas.features import COLUMNS, MEDIA_COLUMNS, MISSING_REASON
from align.transforms.formats.tar_members import Member, content, members
from align.transforms.store.bounded import parse_bounded
from align.transforms.store.publish import Sink, strict_json

_NAME = re.compile(r"^(?P<key>[^./]+)[.](?P<kind>[^/]+)$")
_FRAME = re.compile(r"^f\d+[.]jpg$")
_MOST_PARTS, _MOST_BYTES = 1100, 256 << 20
_OWN_PART = (*MEDIA_COLUMNS, "imu", "imu_mask")
JSON_COLUMNS = tuple(name for name in COLUMNS if name not in (*_OWN_PART, "missing_reason"))
"""What ``KEY.json`` may hold. ``text`` is among them: in ``KEY.txt`` a line break may be a sentence's own."""


def kinds(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a row's parts without the key: ``("jpg", "flac", "imu.npy", …)``."""
    held = {
        "jpg": row["image"] is not None,
        **{f"f{i:02d}.jpg": True for i in range(len(row["frames"] or ()))},
        "flac": row["audio"] is not None,
        "imu.npy": row["imu"] is not None,
        "imu_mask.npy": row["imu"] is not None,
        "txt": bool(row["text"]),
        "json": True,
    }
    return tuple(kind for kind, present in held.items() if present)


def parts(row: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each part, in the order in which they are written.

    ``KEY.jpg``, ``KEY.f00.jpg`` …, ``KEY.flac``, ``KEY.imu.npy`` (float32 [6, n]),
    ``KEY.imu_mask.npy`` (bool [n]), ``KEY.txt`` (sentences, one per line), ``KEY.json`` (the rest).
    What a sample lacks has no part; neither has an empty text.
    """
    return ((f"{row['key']}.{kind}", _content(row, kind)) for kind in kinds(row))


def describe(row: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``KEY.json``: the columns that have no part of their own.

    What is null or empty is left out, and ``missing`` (always there) tells the two apart. Why: the
    WebDataset builder of ``datasets`` fixes each field's type from five samples, and a type it takes
    from a null or an empty list makes it fail on the first value.
    """
    return _filled({name: row[name] for name in JSON_COLUMNS}) | {"missing": dict(row["missing"])}


def _filled(value: dict[str, Any]) -> dict[str, Any]:
    inner = {k: _filled(v) if isinstance(v, dict) else v for k, v in value.items()}
    return {k: v for k, v in inner.items() if v is not None and v != [] and v != {}}


def _content(row: Mapping[str, Any], kind: str) -> bytes:
    match kind:
        case "jpg":
            data = row["image"]["bytes"]
        case "flac":
            data = row["audio"]["bytes"]
        case "imu.npy":
            data = _npy(np.asarray(row["imu"], np.float32))
        case "imu_mask.npy":
            data = _npy(np.asarray(row["imu_mask"], np.bool_))
        case "txt":
            data = "\n".join(row["text"]).encode()
        case "json":
            data = strict_json(describe(row)).encode("ascii")
        case _:
            data = row["frames"][_frame_number(kind)]["bytes"]
    return bytes(data)


class TarShard:
    """A tar file, written as a stream. Equal samples in equal order give equal bytes.

    Args:
        stream: where it goes; needs ``write`` and ``tell``.
    """

    def __init__(self, stream: Sink) -> None:
        # PAX is USTAR plus a header only where a name of more than 100 bytes needs one.
        self._tar = tarfile.open(fileobj=cast(IO[bytes], stream), mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def write(self, row: Mapping[str, Any]) -> None:
        """Append the parts of a row."""
        for name, data in parts(row):
            member = tarfile.TarInfo(name)  # owner 0, mtime 0, mode 0644: TarInfo's own defaults
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        """Write the end of the archive; the stream stays open."""
        self._tar.close()


def _frame_number(kind: str) -> int:
    return int(kind[1:].partition(".")[0])


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    npy.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read_rows(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The rows of a tar, in its order: what :func:`parts` was given, media paths included.

    Raises:
        AlignError: ``bad_shard``, it is no tar that a run writes, a member is no part of a sample, or a
            sample has no JSON of its own.
        ValueError: an array or a JSON cannot be read.
    """
    pieces = ((*_split_name(member), content(stream, member)) for member in members(stream))
    for key, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
        yield _row(key, _parts_of(key, group))


def _parts_of(key: str, pieces: Iterable[tuple[str, str, bytes]]) -> dict[str, bytes]:
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


def _row(key: str, found: Mapping[str, bytes]) -> dict[str, Any]:
    said = parse_bounded(found.get("json", b"{}"), f"{key}.json")
    if not isinstance(said, dict) or said.get("key") != key or not isinstance(said.get("missing", {}), dict):
        raise AlignError("bad_shard", f"sample {key} has no {key}.json that bears its key", stage="verify")
    missing = said.get("missing", {})
    frames = sorted((kind for kind in found if _FRAME.match(kind)), key=_frame_number)
    row = {name: _restored(said.get(name), COLUMNS[name]) for name in JSON_COLUMNS} | {
        "image": _media(key, found, "jpg"),
        "frames": [_media(key, found, kind) for kind in frames] or None,
        "audio": _media(key, found, "flac"),
        "imu": _array(found, "imu.npy"),
        "imu_mask": _array(found, "imu_mask.npy"),
        "missing": missing,
        "missing_reason": {field.name: missing.get(field.name) for field in MISSING_REASON},
    }
    lists = {"audio": ("audio_gaps",), "text": ("text", "text_raw", "text_times_ns")}
    null = {name for modality, names in lists.items() if modality in missing for name in names}
    if not frames:
        null.add("frame_times_ns")
    return {name: None if name in null else row[name] for name in COLUMNS}


def _restored(value: Any, dtype: pa.DataType) -> Any:
    """A value of ``KEY.json`` with what was left out of it put back."""
    if pa.types.is_struct(dtype):
        return {f.name: _restored((value or {}).get(f.name), f.type) for f in dtype}
    return [] if value is None and pa.types.is_list(dtype) else value


def _media(key: str, found: Mapping[str, bytes], kind: str) -> dict[str, Any] | None:
    return {"bytes": found[kind], "path": f"{key}.{kind}"} if kind in found else None


def _array(found: Mapping[str, bytes], kind: str) -> NDArray[Any] | None:
    """An array whose header claims no more than its part holds."""
    if kind not in found:
        return None
    stream = io.BytesIO(found[kind])
    npy.read_magic(stream)
    shape, _, dtype = npy.read_array_header_1_0(stream)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != len(found[kind]) - stream.tell():
        detail = f"{kind} claims {dtype}{shape} of {len(found[kind])} bytes"
        raise AlignError("bad_shard", detail, stage="verify")
    return npy.read_array(io.BytesIO(found[kind]), allow_pickle=False)
