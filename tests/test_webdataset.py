"""Tar shards: read by webdataset, tarfile and datasets; reproducible; the inverse reads them exactly."""

import io
import json
import tarfile

import numpy as np
import pytest
import webdataset

from align.schemas.errors import AlignError
from align.schemas.features import COLUMNS, arrow_schema
from align.transforms.formats.webdataset import DEFAULT_PARTS, TarShard, read_rows
from align.transforms.write.row import from_batch, to_batch, to_row

SCHEMA = arrow_schema(16_000, 200)


def stored(sample):
    """The row as every writer sees it, after Arrow."""
    return from_batch(to_batch(to_row(sample), SCHEMA))


def written(samples):
    stream = io.BytesIO()
    shard = TarShard(stream)
    for sample in samples:
        shard.write(stored(sample))
    shard.close()
    return stream.getvalue()


def test_parts_of_a_complete_sample(make_sample):
    sample = make_sample(frames=2)
    found = dict(DEFAULT_PARTS.of(stored(sample)))
    kinds = ["jpg", "f00.jpg", "f01.jpg", "flac", "imu.npy", "imu_mask.npy", "txt", "json"]
    assert list(found) == [f"{sample.key}.{kind}" for kind in kinds]
    assert found[f"{sample.key}.jpg"] == sample.image.data
    assert found[f"{sample.key}.flac"] == sample.audio.data
    values = np.load(io.BytesIO(found[f"{sample.key}.imu.npy"]), allow_pickle=False)
    np.testing.assert_array_equal(values, sample.imu.values)
    assert values.dtype == np.float32
    assert found[f"{sample.key}.txt"].decode() == "opens the door\nzürich 東京 🚪"


@pytest.mark.parametrize(
    ("lacks", "absent"),
    [
        ({"image": "decode_error"}, {"jpg"}),
        ({"audio": "gap"}, {"flac"}),
        ({"imu": "not_recorded"}, {"imu.npy", "imu_mask.npy"}),
        ({"text": "not_recorded"}, {"txt"}),
    ],
)
def test_what_a_sample_lacks_has_no_part(make_sample, lacks, absent):
    whole = {"jpg", "flac", "imu.npy", "imu_mask.npy", "txt", "json"}
    assert set(DEFAULT_PARTS.kinds(stored(make_sample(lacks=lacks)))) == whole - absent
    assert "txt" not in DEFAULT_PARTS.kinds(stored(make_sample(text=())))


def test_json_is_strict_sorted_and_leaves_out_null_and_empty(make_sample):
    row = stored(make_sample(lacks={"audio": "gap"}, text=(), scenarios=()))
    data = dict(DEFAULT_PARTS.of(row))[f"{row['key']}.json"]
    said = json.loads(data, parse_constant=lambda name: pytest.fail(name))
    assert said == DEFAULT_PARTS.describe(row)
    assert list(said) == sorted(said)
    assert said["missing"] == {"audio": "gap"}
    assert {"audio_gaps", "text", "scenarios", "frame_times_ns", "image", "imu"}.isdisjoint(said)
    assert None not in said["quality"].values()


def test_rows_read_back_are_the_rows_written(mixed_samples, make_sample):
    samples = [*mixed_samples, make_sample(30, frames=2), make_sample(31, lacks={"image": "decode_error"})]
    for sample, back in zip(samples, read_rows(io.BytesIO(written(samples))), strict=True):
        row = stored(sample)
        assert list(back) == list(COLUMNS)
        for name in COLUMNS:
            np.testing.assert_equal(back[name], row[name], err_msg=name)
        assert list(DEFAULT_PARTS.of(back)) == list(DEFAULT_PARTS.of(row))


def test_more_than_a_hundred_frames_keep_their_order(make_sample):
    row = stored(make_sample(frames=102))
    stream = io.BytesIO()
    shard = TarShard(stream)
    shard.write(row)
    shard.close()
    (back,) = read_rows(io.BytesIO(stream.getvalue()))
    assert back["frames"] == row["frames"]


def test_webdataset_reads_every_sample(mixed_samples, tmp_path):
    (tmp_path / "train-000000.tar").write_bytes(written(mixed_samples))
    found = list(webdataset.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False).decode("rgb8"))
    assert [s["__key__"] for s in found] == [s.key for s in mixed_samples]
    for sample, read in zip(mixed_samples, found, strict=True):
        assert ("imu.npy" in read) == (sample.imu is not None)
        if sample.imu:
            np.testing.assert_array_equal(read["imu.npy"], sample.imu.values)
            np.testing.assert_array_equal(read["imu_mask.npy"], sample.imu.mask)
        if sample.image:
            assert read["jpg"].shape == (64, 96, 3)
        assert read["json"]["start_ns"] == sample.window.start_ns
        assert read.get("flac", sample.audio and sample.audio.data) == (sample.audio and sample.audio.data)


def test_tar_members_have_no_owner_time_or_odd_mode(make_sample):
    with tarfile.open(fileobj=io.BytesIO(written([make_sample()]))) as tar:
        told = {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode, m.type) for m in tar}
    assert told == {(0, 0, "", "", 0, 0o644, tarfile.REGTYPE)}


def test_equal_samples_give_equal_tars(mixed_samples):
    assert written(mixed_samples) == written(mixed_samples)


def test_keys_longer_than_a_tar_header_survive(make_sample):
    key = "k" * 250
    rows = {**stored(make_sample()), "key": key}
    stream = io.BytesIO()
    shard = TarShard(stream)
    shard.write(rows)
    shard.close()
    assert [row["key"] for row in read_rows(io.BytesIO(stream.getvalue()))] == [key]


@pytest.mark.parametrize(
    "members",
    [
        {"a.jpg": b"x"},
        {"a.json": b'{"key": "b", "missing": {}}'},
        {"../a.json": b'{"key": "a", "missing": {}}'},
        {"nodot": b""},
    ],
)
def test_foreign_members_are_refused(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(AlignError, match="sample"):
        list(read_rows(io.BytesIO(stream.getvalue())))


def test_arrays_are_never_unpickled():
    stream = io.BytesIO()
    buffer = io.BytesIO()
    np.save(buffer, np.array([object()], dtype=object), allow_pickle=True)
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in {"a.imu.npy": buffer.getvalue(), "a.json": b'{"key": "a", "missing": {}}'}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(ValueError, match="allow_pickle"):
        list(read_rows(io.BytesIO(stream.getvalue())))
