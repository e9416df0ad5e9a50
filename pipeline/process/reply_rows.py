"""Whether an Arrow record batch from a child is the row of the window that it was asked for.

Bytes that a hostile program wrote may claim anything: offsets beyond their buffer, which Arrow reads unless
it is told to check them, or compressed buffers, which Arrow would unpack to any size.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from align.schemas.errors import Reason
from align.schemas.options import MODALITIES, AlignOptions
from align.schemas.time import TimeSpan, count_in

_REASONS = frozenset(Reason)
_TYPE, _HEADER, _RECORD_BATCH, _COMPRESSION = 1, 2, 3, 3
"""Arrow's ``Message.fbs``: numbers of two fields of a message, of a type, of a field of a ``RecordBatch``."""

_ROUNDING = 1e-5
_FLAC_INFO = 42
_JPEG_PLAIN = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length (ITU-T T.81, B.1.1.3)
_JPEG_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def refuse(wrong: bool, what: str) -> None:
    """Refuse what is wrong.

    Raises:
        ValueError: it is, in words.
    """
    if wrong:
        raise ValueError(what)


def read_batch(payload: bytes, schema: pa.Schema) -> pa.RecordBatch:
    """A batch of one row, safe to read.

    Raises:
        ValueError, pa.ArrowException, struct.error, OSError: it is none.
    """
    refuse(is_compressed(payload), "a compressed batch")
    batch = pa.ipc.read_record_batch(pa.py_buffer(payload), schema)
    batch.validate(full=True)
    refuse(batch.num_rows != 1, f"{batch.num_rows} rows")
    return batch


def is_compressed(message: bytes) -> bool:
    """Whether the buffers of an encapsulated Arrow message are compressed.

    Source: Arrow's format/Message.fbs, and FlatBuffers' binary format: a table starts with the distance back
    to its vtable, which holds 16-bit places of its fields, 0 for one that is not there.

    Raises:
        ValueError, struct.error: it is no record batch.
    """
    marker, size = struct.unpack_from("<iI", message)
    refuse(marker != -1, "no Arrow message")
    metadata = message[8 : 8 + size]
    (root,) = struct.unpack_from("<I", metadata)
    kind, header = _field(metadata, root, _TYPE), _field(metadata, root, _HEADER)
    refuse(not kind or not header or metadata[kind] != _RECORD_BATCH, "no record batch")
    (batch,) = struct.unpack_from("<I", metadata, header)
    return bool(_field(metadata, header + batch, _COMPRESSION))


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where a table's field stands; 0 where it has none."""
    (back,) = struct.unpack_from("<i", metadata, table)
    vtable = table - back
    refuse(vtable < 0, "a table outside its message")
    (size,) = struct.unpack_from("<H", metadata, vtable)
    if 4 + 2 * number + 2 > size:
        return 0
    (at,) = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)
    return table + at if at else 0


def check_row(batch: pa.RecordBatch, known: dict[str, Any], window: TimeSpan, options: AlignOptions) -> None:
    """Whether a row is that of a window.

    Args:
        batch: one row of the output schema, safe to read.
        known: columns whose values are known beforehand.
        window: recording clock.
        options: of the request.

    Raises:
        ValueError: it is not; the column is named.
    """
    for name, value in known.items():
        refuse(_value(batch, name) != value, f"the {name} of another sample")
    missing = _missing(batch, options)
    _check_pictures(batch, known["key"], window, options, "image" in missing)
    _check_sound(batch, known["key"], window, options, "audio" in missing)
    _check_imu(batch, window, options, "imu" in missing)
    refuse((_value(batch, "text") is None) != ("text" in missing), "text that is there and missing")
    for name, value in _value(batch, "quality").items():
        if name.endswith("_coverage") and value is not None:
            refuse(not -_ROUNDING <= value <= 1 + _ROUNDING, f"a {name} of {value}")
        refuse(isinstance(value, float) and not math.isfinite(value), f"a {name} of {value}")


def _value(batch: pa.RecordBatch, name: str) -> Any:
    return batch.column(name)[0].as_py()


def _missing(batch: pa.RecordBatch, options: AlignOptions) -> dict[str, str]:
    pairs = _value(batch, "missing")
    missing = dict(pairs)
    refuse(len(missing) != len(pairs) or not missing.keys() <= {*MODALITIES}, "reasons for no modality")
    refuse(not _REASONS.issuperset(missing.values()), "a reason that is none")
    said = {name: reason for name, reason in _value(batch, "missing_reason").items() if reason is not None}
    refuse(said != missing, "two different reasons")
    refuse(not missing.keys().isdisjoint(options.require), "a sample without what is required")
    return missing


def _check_pictures(
    batch: pa.RecordBatch, key: str, window: TimeSpan, options: AlignOptions, is_missing: bool
) -> None:
    time, offset = _value(batch, "image_time_ns"), _value(batch, "quality")["image_offset_ns"]
    picture = _media(batch.column("image")[0])
    refuse(
        any((x is None) != is_missing for x in (picture, time, offset)), "an image that is there and missing"
    )
    if picture is not None:
        refuse(time - offset != window.center_ns, "an image of another time")
        _check_picture(picture, f"{key}.jpg", options)
    frames, times = batch.column("frames")[0].values, _value(batch, "frame_times_ns")
    refuse(len(frames or ()) != len(times or ()), "frames without times")
    refuse(len(frames or ()) > (options.frames if options.frames > 1 else 0), "more frames than asked for")
    for number, frame in enumerate(frames or ()):
        _check_picture(_media(frame), f"{key}.f{number:02d}.jpg", options)


def _media(scalar: pa.StructScalar) -> tuple[pa.Buffer, str] | None:
    if not scalar.is_valid:
        return None
    data, path = scalar["bytes"], scalar["path"].as_py()
    refuse(not data.is_valid or path is None, "media without bytes or name")
    return data.as_buffer(), path


def _check_picture(picture: tuple[pa.Buffer, str] | None, path: str, options: AlignOptions) -> None:
    refuse(picture is None, "a frame without bytes")
    assert picture is not None
    refuse(picture[1] != path, "a picture's name")
    refuse(
        min(jpeg_size(memoryview(picture[0]).cast("B"))) != options.image_size, "a picture of another size"
    )


def jpeg_size(data: memoryview) -> tuple[int, int]:
    """Width and height that a JPEG's header claims (ITU-T T.81, B.2.2).

    Raises:
        ValueError, struct.error, IndexError: it is none.
    """
    refuse(bytes(data[:2]) != b"\xff\xd8", "a picture that is no JPEG")
    at = 2
    while True:
        refuse(data[at] != 0xFF, "a damaged JPEG")
        marker, at = data[at + 1], at + 2
        if marker in _JPEG_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
        at += 0 if marker in _JPEG_PLAIN else max(struct.unpack_from(">H", data, at)[0], 2)


def _check_sound(
    batch: pa.RecordBatch, key: str, window: TimeSpan, options: AlignOptions, is_missing: bool
) -> None:
    sound, gaps = _media(batch.column("audio")[0]), _value(batch, "audio_gaps")
    refuse((sound is None) != is_missing or (gaps is None) != is_missing, "audio that is there and missing")
    if sound is None:
        return
    claimed = flac_info(memoryview(sound[0]).cast("B"))
    wanted = (options.audio_rate, 1, 16, count_in(window.length_ns, options.audio_rate))
    refuse(sound[1] != f"{key}.flac" or claimed != wanted, f"audio of {claimed} instead of {wanted}")
    edges = [edge for gap in gaps for edge in (gap["start_ns"], gap["end_ns"])]
    refuse(None in edges, "a gap without ends")
    inside = [window.start_ns, *edges, window.end_ns]
    refuse(inside != sorted(inside), "gaps out of order, or outside the window")


def flac_info(data: memoryview) -> tuple[int, int, int, int]:
    """Rate, channels, bits and number of samples that a FLAC stream claims (RFC 9639, 8.2).

    Raises:
        ValueError: it is none.
    """
    refuse(
        len(data) < _FLAC_INFO or bytes(data[:4]) != b"fLaC" or data[4] & 127 != 0, "audio that is no FLAC"
    )
    bits = int.from_bytes(data[18:26], "big")
    return bits >> 44, (bits >> 41 & 7) + 1, (bits >> 36 & 31) + 1, bits & (1 << 36) - 1


def _check_imu(batch: pa.RecordBatch, window: TimeSpan, options: AlignOptions, is_missing: bool) -> None:
    values, mask = batch.column("imu")[0].values, batch.column("imu_mask")[0].values
    refuse((values is None) != is_missing or (mask is None) != is_missing, "IMU that is there and missing")
    if values is None or mask is None:
        return
    count = count_in(window.length_ns, options.imu_rate)
    lengths: Sequence[int | None] = values.value_lengths().to_pylist()
    holes = mask.null_count + values.null_count + values.flatten().null_count
    refuse(lengths != [count] * 6 or len(mask) != count or holes > 0, f"IMU that is not [6, {count}]")
