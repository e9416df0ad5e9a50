"""Parquet shards: read by pyarrow, bounded row groups, media as they are, reproducible bytes."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align.schemas.features import COLUMNS, arrow_schema
from align.transforms.formats.parquet import ParquetShard
from align.transforms.write.row import to_batch, to_row

SCHEMA = arrow_schema(16_000, 200)
MEDIA = {"image.bytes", "frames.list.element.bytes", "audio.bytes"}


def written(samples, **options):
    stream = io.BytesIO()
    shard = ParquetShard(stream, 16_000, 200, **options)
    for sample in samples:
        shard.write(to_batch(to_row(sample), SCHEMA))
    shard.close()
    return stream.getvalue()


def test_pyarrow_reads_back_every_row_in_order(mixed_samples):
    table = pq.read_table(io.BytesIO(written(mixed_samples)))
    expected = pa.Table.from_batches([to_batch(to_row(s), SCHEMA) for s in mixed_samples])
    assert table.equals(expected)
    assert table.schema.metadata == SCHEMA.metadata


def test_metadata_holds_features_units_channels_and_version(make_sample):
    metadata = pq.read_schema(io.BytesIO(written([make_sample()]))).metadata
    said = json.loads(metadata[b"align"])
    assert said["schema_version"] == 1
    assert said["imu_channels"] == ["gyro_x", "gyro_y", "gyro_z", "accl_x", "accl_y", "accl_z"]
    assert said["imu_units"] == ["rad/s"] * 3 + ["m/s^2"] * 3
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["audio"] == {"sampling_rate": 16_000, "num_channels": 1, "_type": "Audio"}
    assert features.keys() == COLUMNS.keys() - {"missing"}


def test_media_are_plain_and_uncompressed_and_the_rest_is_snappy(make_sample):
    group = pq.ParquetFile(
        io.BytesIO(written([make_sample(i, frames=2) for i in range(4)]))
    ).metadata.row_group(0)
    columns = {(c := group.column(i)).path_in_schema: c for i in range(group.num_columns)}
    assert columns.keys() >= MEDIA
    for path, column in columns.items():
        assert column.compression == ("UNCOMPRESSED" if path in MEDIA else "SNAPPY")
        if path in MEDIA or path.startswith("imu.list"):
            assert not column.has_dictionary_page
    assert columns["recording_id"].has_dictionary_page
    assert columns["key"].statistics.has_min_max
    assert columns["image.bytes"].statistics is None


@pytest.mark.parametrize("limit", [1, 60_000, 200_000, 10**9])
def test_row_groups_stay_within_the_limit_unless_one_row_exceeds_it(make_sample, limit):
    samples = [make_sample(i) for i in range(12)]
    file = pq.ParquetFile(io.BytesIO(written(samples, row_group_bytes=limit)))
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    assert sum(g.num_rows for g in groups) == 12
    sizes = [to_batch(to_row(s), SCHEMA).nbytes for s in samples]
    for group in groups:
        assert group.num_rows == 1 or group.total_byte_size <= limit
    assert len(groups) <= max(1, 2 * sum(sizes) // limit)


def test_equal_rows_give_equal_bytes(mixed_samples):
    assert written(mixed_samples) == written(mixed_samples)


def test_no_rows_make_a_valid_empty_file():
    assert pq.read_table(io.BytesIO(written([]))).num_rows == 0
