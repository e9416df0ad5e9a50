"""What the declarations give: columns, features, parts; the default ones give what readers know."""

import hashlib
import json

import pyarrow as pa

from align.schemas.columns import MEDIA, row_columns
from align.schemas.features import arrow_schema, schema_of
from align.schemas.modality import DEFAULT, Modality, Sensor

PUBLISHED = "ba266853613f5909a856db6d13f6d0f04ad2be0702c813e2738d88c7932b8659"
MAGNETOMETER = Modality("magnetometer", "series", (Sensor("mag", ("x", "y", "z"), "uT"),), 50)
DEPTH = Modality("depth", "picture", encoding="png", unit="mm")


def test_the_default_modalities_give_the_published_schema_byte_for_byte():
    assert hashlib.sha256(arrow_schema(16_000, 200).serialize().to_pybytes()).hexdigest() == PUBLISHED


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
