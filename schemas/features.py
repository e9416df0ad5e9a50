"""The output schema: Arrow types, and the Hugging Face features that describe them, from the declarations.

Media columns are Hugging Face ``Image`` / ``Audio`` structs ``{bytes, path}``; the ``huggingface`` key of
the schema metadata makes ``datasets.load_dataset`` understand them without a script
(format: ``datasets`` 5.2, ``Features.arrow_schema``).

``datasets`` 5.2 cannot read a map column, so the card selects every column but ``missing``, and
``missing_reason`` says the same as a struct.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import pyarrow as pa

from align.schemas.columns import Column, row_columns
from align.schemas.modality import DEFAULT, IMU, Modality, with_rates

SCHEMA_VERSION = 1

IMU_CHANNELS = IMU.channels
IMU_UNITS = IMU.units

COLUMNS: dict[str, pa.DataType] = {c.name: c.dtype for c in row_columns(DEFAULT)}
HUGGINGFACE_COLUMNS = tuple(name for name in COLUMNS if name != "missing")


def plain_feature(dtype: pa.DataType) -> object:
    """The feature of a column that is no medium."""
    if pa.types.is_list(dtype):
        return {"feature": plain_feature(dtype.value_type), "_type": "List"}
    if pa.types.is_struct(dtype):
        return {dtype.field(i).name: plain_feature(dtype.field(i).type) for i in range(dtype.num_fields)}
    return {"dtype": {"double": "float64", "float": "float32"}.get(str(dtype), str(dtype)), "_type": "Value"}


def huggingface_features(columns: Iterable[Column]) -> dict[str, object]:
    """The features of every column that ``datasets`` can read, as it writes them in JSON."""
    return {c.name: c.feature or plain_feature(c.dtype) for c in columns if c.name != "missing"}


def schema_of(modalities: Iterable[Modality]) -> pa.Schema:
    """The Arrow schema of a shard, with features, units, channel order and version in its metadata."""
    ms = tuple(modalities)
    columns = row_columns(ms)
    series = [m for m in ms if m.kind == "series"]
    sampled = [*series, *(m for m in ms if m.kind == "sound")]
    align = {
        "schema_version": SCHEMA_VERSION,
        **{f"{m.name}_channels": m.channels for m in series},
        **{f"{m.name}_units": m.units for m in series},
        **{f"{m.name}_rate_hz": m.rate_hz for m in sampled},
    }
    metadata = {
        "huggingface": json.dumps({"info": {"features": huggingface_features(columns)}}),
        "align": json.dumps(align),
    }
    return pa.schema([pa.field(c.name, c.dtype) for c in columns], metadata=metadata)


def arrow_schema(audio_rate: int, imu_rate: int) -> pa.Schema:
    """The schema of a data set of the default modalities."""
    return schema_of(with_rates(DEFAULT, audio=audio_rate, imu=imu_rate))
