"""The output schema, version 1: Arrow types, and the Hugging Face features that describe them.

Media columns are Hugging Face ``Image`` / ``Audio`` structs ``{bytes, path}``; the ``huggingface`` key of
the schema metadata makes ``datasets.load_dataset`` understand them without a script
(format: ``datasets`` 5.2, ``Features.arrow_schema``).

``datasets`` 5.2 cannot read a map column, so the card selects every column but ``missing``, and
``missing_reason`` says the same as a struct.
"""

from __future__ import annotations

import json

import pyarrow as pa

SCHEMA_VERSION = 1

MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SPAN = pa.struct([("start_ns", pa.int64()), ("end_ns", pa.int64())])
IMU_CHANNELS = ("gyro_x", "gyro_y", "gyro_z", "accl_x", "accl_y", "accl_z")
IMU_UNITS = ("rad/s",) * 3 + ("m/s^2",) * 3

MISSING = pa.map_(pa.string(), pa.string())
MISSING_REASON = pa.struct([(m, pa.string()) for m in ("image", "audio", "imu", "text")])

QUALITY = pa.struct(
    [
        ("image_offset_ns", pa.int64()),
        ("image_max_age_ns", pa.int64()),
        ("image_time_quality", pa.string()),
        ("audio_coverage", pa.float32()),
        ("imu_coverage", pa.float32()),
        ("imu_max_gap_ns", pa.int64()),
        ("imu_rate_hz", pa.float64()),
        ("tone_mapped", pa.bool_()),
        ("sync_status", pa.string()),
        ("sync_offset_ns", pa.int64()),
        ("sync_sigma_ns", pa.int64()),
        ("audio_rate_hz", pa.float64()),
        ("audio_rate_ppm", pa.float64()),
        ("imu_time_quality", pa.string()),
    ]
)

PROVENANCE = pa.struct(
    [
        ("video", pa.string()),
        ("video_stream", pa.int32()),
        ("audio", pa.string()),
        ("audio_stream", pa.int32()),
        ("imu", pa.string()),
        ("clock_offset_ns", pa.int64()),
        ("imu_clock", pa.string()),
        ("config_sha256", pa.string()),
    ]
)

COLUMNS: dict[str, pa.DataType] = {
    "key": pa.string(),
    "source": pa.string(),
    "recording_id": pa.string(),
    "group_id": pa.string(),
    "split": pa.string(),
    "start_ns": pa.int64(),
    "end_ns": pa.int64(),
    "image": MEDIA,
    "image_time_ns": pa.int64(),
    "frames": pa.list_(MEDIA),
    "frame_times_ns": pa.list_(pa.int64()),
    "audio": MEDIA,
    "audio_gaps": pa.list_(SPAN),
    "imu": pa.list_(pa.list_(pa.float32())),
    "imu_mask": pa.list_(pa.bool_()),
    "text": pa.list_(pa.string()),
    "text_raw": pa.list_(pa.string()),
    "text_times_ns": pa.list_(pa.int64()),
    "scenarios": pa.list_(pa.string()),
    "missing": MISSING,
    "missing_reason": MISSING_REASON,
    "quality": QUALITY,
    "provenance": PROVENANCE,
}

MEDIA_COLUMNS = ("image", "frames", "audio")
HUGGINGFACE_COLUMNS = tuple(name for name in COLUMNS if name != "missing")


def _feature(name: str, dtype: pa.DataType, audio_rate: int) -> object:
    if name in ("image", "frames"):
        picture = {"_type": "Image"}
        return {"feature": picture, "_type": "List"} if name == "frames" else picture
    if name == "audio":
        return {"sampling_rate": audio_rate, "num_channels": 1, "_type": "Audio"}
    return _plain_feature(dtype)


def _plain_feature(dtype: pa.DataType) -> object:
    if pa.types.is_list(dtype):
        return {"feature": _plain_feature(dtype.value_type), "_type": "List"}
    if pa.types.is_struct(dtype):
        return {dtype.field(i).name: _plain_feature(dtype.field(i).type) for i in range(dtype.num_fields)}
    return {"dtype": {"double": "float64", "float": "float32"}.get(str(dtype), str(dtype)), "_type": "Value"}


def huggingface_features(audio_rate: int) -> dict[str, object]:
    """The features of every column that ``datasets`` can read, as it writes them in JSON."""
    return {name: _feature(name, COLUMNS[name], audio_rate) for name in HUGGINGFACE_COLUMNS}


def arrow_schema(audio_rate: int, imu_rate: int) -> pa.Schema:
    """The Arrow schema of a shard, with features, units, channel order and version in its metadata."""
    metadata = {
        "huggingface": json.dumps({"info": {"features": huggingface_features(audio_rate)}}),
        "align": json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "imu_channels": IMU_CHANNELS,
                "imu_units": IMU_UNITS,
                "imu_rate_hz": imu_rate,
                "audio_rate_hz": audio_rate,
            }
        ),
    }
    return pa.schema([pa.field(n, t) for n, t in COLUMNS.items()], metadata=metadata)
