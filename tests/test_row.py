"""Samples as rows: exactly the schema's columns, null where a modality is missing, exact round trips."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.schemas.errors import AlignError
from align.schemas.features import COLUMNS, arrow_schema
from align.transforms.write.row import from_batch, to_batch, to_row
from align.transforms.write.spool import Spool

SCHEMA = arrow_schema(16_000, 200)


def same(a, b):
    """Whether two rows are equal; float32 columns as they are stored."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, float) and isinstance(b, float):
        return np.float32(a) == np.float32(b)
    return a == b and type(a) is type(b)


def test_row_has_exactly_the_columns_of_the_schema(mixed_samples):
    for sample in mixed_samples:
        assert list(to_row(sample)) == list(COLUMNS)


def test_row_survives_arrow(mixed_samples):
    for sample in mixed_samples:
        row = to_row(sample)
        batch = to_batch(row, SCHEMA)
        assert batch.schema.equals(SCHEMA, check_metadata=True)
        back = from_batch(batch)
        assert [name for name in COLUMNS if not same(row[name], back[name])] == []


def test_from_batch_reads_any_row_of_a_batch(mixed_samples):
    batches = [to_batch(to_row(s), SCHEMA) for s in mixed_samples]
    joined = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    for index, batch in enumerate(batches):
        one, many = from_batch(batch), from_batch(joined, index)
        assert all(same(one[name], many[name]) for name in COLUMNS)


def test_media_paths_name_the_format(make_sample):
    row = to_row(make_sample(frames=2))
    key = row["key"]
    assert row["image"]["path"] == f"{key}.jpg"
    assert row["audio"]["path"] == f"{key}.flac"
    assert [f["path"] for f in row["frames"]] == [f"{key}.f00.jpg", f"{key}.f01.jpg"]


def test_missing_modalities_are_null_with_their_reason_said_twice(make_sample):
    lacks = {"imu": "not_recorded", "audio": "gap", "text": "not_recorded"}
    row = to_row(make_sample(lacks=lacks))
    nulls = ("audio", "audio_gaps", "imu", "imu_mask", "text", "text_raw", "text_times_ns", "frames")
    assert [row[name] for name in nulls] == [None] * len(nulls)
    assert row["missing"] == lacks
    assert row["missing_reason"] == {"image": None, **lacks}


def test_no_narration_in_the_window_is_an_empty_list_not_null(make_sample):
    row = to_row(make_sample(text=()))
    assert (row["text"], row["text_raw"], row["text_times_ns"]) == ([], [], [])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udfff", "\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("naïve 東京 🚪", "naïve 東京 🚪"),
    ],
)
def test_lone_surrogates_become_replacement_characters(make_sample, given, kept):
    row = to_row(make_sample(text=(given,), scenarios=(given,)))
    assert row["text"] == row["scenarios"] == [kept]
    json.dumps(from_batch(to_batch(row, SCHEMA))["text"], ensure_ascii=False).encode()


def test_full_spool_disk_is_one_readable_line(make_sample):
    with Spool(SCHEMA) as spool, open("/dev/full", "r+b", buffering=0) as full:
        spool._file.close()
        spool._file = full
        with pytest.raises(AlignError, match="TMPDIR"):
            spool.append(to_batch(to_row(make_sample()), SCHEMA))


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)))
def test_spool_gives_back_any_batch_at_any_time(make_sample, order):
    batches = [to_batch(to_row(make_sample(i)), SCHEMA) for i in range(6)]
    with Spool(SCHEMA) as spool:
        assert [spool.append(batch) for batch in batches[:3]] == [0, 1, 2]
        assert spool[1].equals(batches[1])
        assert [spool.append(batch) for batch in batches[3:]] == [3, 4, 5]
        assert len(spool) == 6
        assert all(spool[i].equals(batches[i], check_metadata=True) for i in order)
