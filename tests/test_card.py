"""The card loads in `datasets` as it is, and says what a stranger must know."""

import datasets
import numpy as np
import pytest
import yaml

datasets.disable_progress_bars()


def raw(table):
    """Media as bytes, so that no decoder is needed."""
    return table.cast_column("audio", datasets.Audio(decode=False)).cast_column(
        "image", datasets.Image(decode=False)
    )


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_reads_every_parquet_row_of_every_split(mixed_samples, write_dataset, cache, streaming):
    out = write_dataset(mixed_samples)
    loaded = datasets.load_dataset(str(out), streaming=streaming, cache_dir=cache)
    assert set(loaded) == {"train", "val"}
    rows = {row["key"]: row for split in loaded.values() for row in raw(split)}
    assert rows.keys() == {s.key for s in mixed_samples}
    for sample in mixed_samples:
        row = rows[sample.key]
        assert (row["audio"] or {}).get("bytes") == (sample.audio.data if sample.audio else None)
        assert (row["image"] or {}).get("bytes") == (sample.image.data if sample.image else None)
        assert row["missing_reason"] == {m: sample.missing.get(m) for m in ("image", "audio", "imu", "text")}
        assert row["text"] == (None if sample.text is None else list(sample.text))
        if sample.imu:
            np.testing.assert_array_equal(np.array(row["imu"], np.float32), sample.imu.values)
        else:
            assert row["imu"] is None


def test_images_decode_by_default(mixed_samples, write_dataset, cache):
    out = write_dataset(mixed_samples, formats=("parquet",))
    loaded = datasets.load_dataset(str(out), split="val", cache_dir=cache)
    assert loaded.features["image"] == datasets.Image()
    assert loaded.remove_columns("audio")[0]["image"].size == (96, 64)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("formats", [("webdataset",), ("parquet", "webdataset")])
def test_load_dataset_reads_every_tar_sample(mixed_samples, write_dataset, cache, formats, streaming):
    out = write_dataset(mixed_samples, formats=formats)
    folder = out if formats == ("webdataset",) else out / "webdataset"
    loaded = datasets.load_dataset(str(folder), streaming=streaming, cache_dir=cache)
    rows = {}
    for split in loaded.values():
        rows |= {r["__key__"]: r for r in split.cast_column("jpg", datasets.Image(decode=False))}
    assert rows.keys() == {s.key for s in mixed_samples}
    for sample in mixed_samples:
        row = rows[sample.key]
        assert row["json"]["missing"] == sample.missing
        assert row["json"]["start_ns"] == sample.window.start_ns
        assert row["flac"] == (sample.audio.data if sample.audio else None)
        assert row["txt"] == ("\n".join(sample.text) if sample.text else None)
        if sample.imu:
            np.testing.assert_array_equal(np.array(row["imu.npy"], np.float32), sample.imu.values)


def test_card_counts_rows_and_bytes_per_split(mixed_samples, write_dataset):
    out = write_dataset(mixed_samples)
    front = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    splits = {s["name"]: s for s in front["dataset_info"]["splits"]}
    assert {name: s["num_examples"] for name, s in splits.items()} == {"train": 16, "val": 4}
    sizes = sum(p.stat().st_size for p in (out / "data").glob("val-*"))
    assert splits["val"]["num_bytes"] == sizes
    assert front["license"] == "other"
    assert "missing" not in front["configs"][0]["columns"]


def test_splits_with_a_common_beginning_stay_apart(make_sample, write_dataset, cache):
    samples = [make_sample(i, split=s) for i, s in enumerate(("train", "train_b", "train"))]
    loaded = datasets.load_dataset(str(write_dataset(samples)), cache_dir=cache)
    assert {name: len(split) for name, split in loaded.items()} == {"train": 2, "train_b": 1}


def test_card_of_ego4d_forbids_redistribution(make_sample, write_dataset):
    told = (write_dataset([make_sample()], source="ego4d", name="a") / "README.md").read_text()
    silent = (write_dataset([make_sample()], source="mine", name="b") / "README.md").read_text()
    assert "forbids redistribution" in told
    assert "forbids redistribution" not in silent


def test_card_names_every_column_channel_and_option(mixed_samples, write_dataset):
    from align.schemas.features import COLUMNS, IMU_CHANNELS

    text = (write_dataset(mixed_samples) / "README.md").read_text()
    assert [c for c in COLUMNS if f"| `{c}` |" not in text] == []
    assert ", ".join(f"{c} (rad/s)" for c in IMU_CHANNELS[:3]) in text
    assert "| `imu_rate` | 200 |" in text


def test_card_of_an_empty_dataset_is_still_valid_yaml(write_dataset):
    front = (write_dataset([]) / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(front)["license"] == "other"


def test_the_five_lines_of_the_card_run(mixed_samples, write_dataset, monkeypatch, cache):
    out = write_dataset(mixed_samples)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(code.replace("OUT", str(out)), names)
    assert names["table"].num_rows == 20
    assert sum(1 for _ in names["windows"]) == 16
