"""A sample as one row of the output schema, and as a one-row Arrow batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from align.schemas.columns import MASK, ROWS
from align.schemas.features import COLUMNS
from align.schemas.options import MODALITIES
from align.schemas.sample import EncodedAudio, EncodedImage, Sample


def to_row(sample: Sample) -> dict[str, Any]:
    """The row of a sample: exactly the columns of the output schema, in their order.

    ``imu`` is float32 [6, n] and ``imu_mask`` bool [n], as numpy arrays; everything else is plain.
    """
    row = {
        "key": sample.key,
        "source": sample.source,
        "recording_id": sample.recording_id,
        "group_id": sample.group_id,
        "split": sample.split,
        "start_ns": sample.window.start_ns,
        "end_ns": sample.window.end_ns,
        "image": _media(sample.image, f"{sample.key}.jpg"),
        "image_time_ns": sample.image.time_ns if sample.image else None,
        "frames": _frames(sample),
        "frame_times_ns": [f.time_ns for f in sample.frames] or None,
        "audio": _media(sample.audio, f"{sample.key}.flac"),
        "audio_gaps": [asdict(g) for g in sample.audio.gaps] if sample.audio else None,
        "imu": sample.imu.values if sample.imu else None,
        "imu_mask": sample.imu.mask if sample.imu else None,
        "text": _list(sample.text),
        "text_raw": _list(sample.text_raw),
        "text_times_ns": _list(sample.text_times_ns),
        "scenarios": list(sample.scenarios),
        "missing": dict(sorted(sample.missing.items())),
        "missing_reason": {m: sample.missing.get(m) for m in MODALITIES},
        "quality": asdict(sample.quality),
        "provenance": asdict(sample.provenance),
    }
    return {name: well_formed(value) for name, value in row.items()}


def to_batch(row: Mapping[str, Any], schema: pa.Schema) -> pa.RecordBatch:
    """A row as a record batch of length one."""
    return pa.RecordBatch.from_arrays([_column(row[f.name], f.type) for f in schema], schema=schema)


def from_batch(batch: pa.RecordBatch, index: int = 0) -> dict[str, Any]:
    """The row at ``index`` of a batch: what :func:`to_row` gave, null for null."""
    return {name: _value(batch.column(name)[index]) for name in COLUMNS if name in batch.schema.names}


def _media(piece: EncodedImage | EncodedAudio | None, path: str) -> dict[str, Any] | None:
    return None if piece is None else {"bytes": piece.data, "path": path}


def _frames(sample: Sample) -> list[dict[str, Any] | None] | None:
    return [_media(f, f"{sample.key}.f{i:02d}.jpg") for i, f in enumerate(sample.frames)] or None


def _list(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)


def well_formed(value: Any) -> Any:
    """Replace lone surrogates, which JSON can hold and UTF-8 (so Arrow) cannot, by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [well_formed(v) for v in value]
    if isinstance(value, dict):
        return {k: well_formed(v) for k, v in value.items()}
    return value


def _column(value: Any, dtype: pa.DataType) -> pa.Array:
    if isinstance(value, np.ndarray):
        return pa.array([list(value) if value.ndim == 2 else value], dtype)
    return pa.array([list(value.items()) if pa.types.is_map(dtype) else value], dtype)


def _value(scalar: pa.Scalar) -> Any:
    if not scalar.is_valid:
        return None
    if scalar.type == MASK:
        return scalar.values.to_numpy(zero_copy_only=False)
    if scalar.type == ROWS:
        return scalar.values.flatten().to_numpy().reshape(len(scalar.values), -1)
    value = scalar.as_py()
    return dict(value) if pa.types.is_map(scalar.type) else value
