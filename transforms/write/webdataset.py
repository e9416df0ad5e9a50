"""A row as the parts of a WebDataset sample, and tar files whose bytes depend on nothing else.

Names follow webdataset 1.0: the key ends at the first dot of the name, the rest is the part's name, the
parts of a sample stand together, and ``imu.npy`` decodes as ``npy``.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from align.schemas.features import COLUMNS, MEDIA_COLUMNS
from align.transforms.write.commit import Sink, strict_json

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
            data = row["frames"][int(kind[1:].partition(".")[0])]["bytes"]
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


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    npy.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()
