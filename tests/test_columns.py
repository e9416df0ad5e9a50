"""What the declarations give: columns, features, parts; the default ones give what readers know."""

import hashlib
import json

import pyarrow as pa

from align.schemas.columns import MEDIA, row_columns
from align.schemas.features import arrow_schema, schema_of
from align.schemas.modality import DEFAULT, Modality, Sensor

PUBLISHED = "382b05eaa0927256450761aaa098acc658172eda28b4b621006f765973a457a5"
MAGNETOMETER = Modality("magnetometer", "series", (Sensor("mag", ("x", "y", "z"), "uT"),), 50)
DEPTH = Modality("depth", "picture", encoding="png", unit="mm")


def test_the_default_modalities_give_the_published_schema_byte_for_byte():
    assert hashlib.sha256(arrow_schema(16_000, 200).serialize().to_pybytes()).hexdigest() == PUBLISHED


def test_every_column_of_version_1_has_its_type():
    media, span = "struct<bytes: binary, path: string>", "struct<start_ns: int64, end_ns: int64>"
    first = {
        **dict.fromkeys(("key", "source", "recording_id", "group_id", "split"), "string"),
        **dict.fromkeys(("start_ns", "end_ns", "image_time_ns"), "int64"),
        **dict.fromkeys(("image", "audio"), media),
        "frames": f"list<item: {media}>",
        "frame_times_ns": "list<item: int64>",
        "audio_gaps": f"list<item: {span}>",
        "imu": "list<item: list<item: float>>",
        "imu_mask": "list<item: bool>",
        **dict.fromkeys(("text", "text_raw", "scenarios"), "list<item: string>"),
        "text_times_ns": "list<item: int64>",
        "missing": "map<string, string>",
        "missing_reason": "struct<image: string, audio: string, imu: string, text: string>",
    }
    schema = arrow_schema(16_000, 200)
    assert {name: str(schema.field(name).type) for name in first} == first
    figures = {f.name: str(f.type) for f in schema.field("quality").type}
    assert (
        figures.items()
        >= {
            "image_offset_ns": "int64",
            "audio_coverage": "float",
            "imu_coverage": "float",
            "imu_max_gap_ns": "int64",
            "imu_rate_hz": "double",
            "tone_mapped": "bool",
            "sync_status": "string",
            "sync_offset_ns": "int64",
            "sync_sigma_ns": "int64",
        }.items()
    )


def test_a_further_series_adds_its_columns_figures_reason_and_channels():
    more = schema_of((*DEFAULT, MAGNETOMETER))
    assert [n for n in more.names if n not in arrow_schema(16_000, 200).names] == [
        "magnetometer",
        "magnetometer_mask",
    ]
    assert {f.name for f in more.field("quality").type} >= {"magnetometer_coverage", "magnetometer_rate_hz"}
    assert "magnetometer" in [f.name for f in more.field("missing_reason").type]
    said = json.loads(more.metadata[b"align"])
    assert said["magnetometer_channels"] == ["mag_x", "mag_y", "mag_z"]
    assert (said["magnetometer_units"], said["magnetometer_rate_hz"]) == (["uT"] * 3, 50)


def test_a_further_picture_is_one_medium_with_its_time_in_a_part_of_its_name():
    (picture, time) = [c for c in row_columns((*DEFAULT, DEPTH)) if c.name.startswith("depth")]
    assert (picture.dtype, picture.unit, picture.part) == (MEDIA, "mm", "depth.png")
    assert (time.name, time.dtype) == ("depth_time_ns", pa.int64())


def test_names_of_columns_and_parts_are_unique_and_parts_end_in_a_known_decoder():
    columns = row_columns((*DEFAULT, MAGNETOMETER, DEPTH))
    parts = [c.part for c in columns if c.part]
    assert len({c.name for c in columns}) == len(columns)
    assert len(set(parts)) == len(parts)
    assert {part.rpartition(".")[2] for part in parts} <= {"jpg", "png", "flac", "npy", "txt"}
