"""Indexes for other loaders, against the tools that make or read them."""

import json
import sqlite3
import struct
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from align.schemas.errors import UsageError
from align.transforms.index.loaders import write_loader_indexes
from align.transforms.index.tars import scan
from align.transforms.store.publish import local


@pytest.fixture
def out(mixed_samples, write_dataset):
    return write_dataset(mixed_samples)


def tars(out):
    return sorted((out / "webdataset").glob("*.tar"))


def test_a_scan_finds_every_part_where_tarfile_reads_it(out, mixed_samples):
    keys = []
    for path in tars(out):
        data = path.read_bytes()
        with path.open("rb") as stream:
            samples = scan(stream)
        with tarfile.open(path) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}
        found = {f"{s.key}.{p.name}": data[p.offset : p.offset + p.size] for s in samples for p in s.parts}
        assert found == members
        assert [s.start for s in samples] == [0, *(s.end for s in samples[:-1])]
        assert not data[samples[-1].end :].strip(b"\0")
        keys += [s.key for s in samples]
    assert sorted(keys) == sorted(s.key for s in mixed_samples)


def test_dalis_index_names_place_and_size_of_every_part(out):
    write_loader_indexes(local(out), ["dali"])
    for path in tars(out):
        head, *lines = path.with_suffix(".idx").read_text().splitlines()
        data = path.read_bytes()
        assert head == f"v1.2 {len(lines)}"
        for line in lines:
            words = line.split(" ")
            for ext, offset, size, name in zip(*(words[i::4] for i in range(4)), strict=True):
                with tarfile.open(path) as tar:
                    assert tar.extractfile(name).read() == data[int(offset) :][: int(size)]
                assert name.split(".", 1)[1] == ext
                assert int(offset) % 512 == 0


def test_wids_index_lists_the_shards_of_each_split(out, mixed_samples):
    write_loader_indexes(local(out), ["wids"])
    for split in ("train", "val"):
        index = json.loads((out / "webdataset" / f"{split}.wids.json").read_text())
        assert index["__kind__"] == "wids-shard-index-v1"
        assert sum(s["nsamples"] for s in index["shardlist"]) == sum(s.split == split for s in mixed_samples)
        for shard in index["shardlist"]:
            assert (out / "webdataset" / shard["url"]).stat().st_size == shard["filesize"]


def test_wids_itself_reads_every_sample(out, mixed_samples):
    wids = pytest.importorskip("wids", reason="wids left webdataset with version 1.0")
    write_loader_indexes(local(out), ["wids"])
    data = wids.ShardListDataset(str(out / "webdataset/train.wids.json"), transformations=[])
    keys = sorted(data[i]["__key__"] for i in range(len(data)))
    assert keys == sorted(s.key for s in mixed_samples if s.split == "train")


def rows(path):
    with sqlite3.connect(path) as database:
        tables = {
            name: database.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3").fetchall()
            for name in ("samples", "sample_parts")
        }
        schema = database.execute("SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2").fetchall()
    return tables, schema


def test_nv_meta_is_what_energon_prepare_writes(out):
    prepare = pytest.importorskip(
        "megatron.energon.flavors.webdataset", reason="megatron-energon is not installed"
    ).prepare.WebdatasetPreparator
    folder = out / "webdataset"
    names = [p.name for p in tars(out)]
    splits = [(split, f"{split}-.*") for split in ("train", "val", "test")]
    prepare.prepare_dataset(folder, names, split_parts_patterns=splits, shuffle_seed=None, workers=1)
    theirs = {p.name: p.read_bytes() for p in (*folder.glob("*.tar.idx"), *(folder / ".nv-meta").iterdir())}
    tables, schema = rows(folder / ".nv-meta/index.sqlite")
    write_loader_indexes(local(out), ["energon"])
    assert rows(folder / ".nv-meta/index.sqlite") == (tables, schema)
    for name in names:
        assert (folder / f"{name}.idx").read_bytes() == theirs[f"{name}.idx"]
    yaml = pytest.importorskip("yaml", reason="comes with energon")
    expand = pytest.importorskip("braceexpand", reason="comes with energon").braceexpand
    parts = yaml.safe_load(theirs["split.yaml"])["split_parts"]
    theirs_by_split = {split: [n for pattern in ps for n in expand(pattern)] for split, ps in parts.items()}
    split = yaml.safe_load((folder / ".nv-meta/split.yaml").read_text())
    assert split == {"exclude": [], "split_parts": theirs_by_split}
    ours = json.loads((folder / ".nv-meta/.info.json").read_text())
    assert ours["shard_counts"] == json.loads(theirs[".info.json"])["shard_counts"]


def test_energon_lints_and_loads_what_we_wrote(out, mixed_samples):
    energon = pytest.importorskip("megatron.energon", reason="megatron-energon is not installed")
    write_loader_indexes(local(out), ["energon"])
    folder = out / "webdataset"
    command = [sys.executable, "-m", "megatron.energon.cli.main", "lint", str(folder)]
    lint = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert lint.returncode == 0, lint.stderr
    alone = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    samples = {s.key: s for s in mixed_samples}
    for split in ("train", "val"):
        data = energon.get_val_dataset(str(folder), split_part=split, batch_size=1, worker_config=alone)
        read = list(energon.get_loader(data))
        keys = [batch.__key__[0] for batch in read]
        assert sorted(keys) == sorted(k for k, s in samples.items() if s.split == split)
        for key, batch in zip(keys, read, strict=True):
            assert batch.caption == [" ".join(samples[key].text or ())]
            assert batch.image.shape[1:] == (3, 64, 96)


def test_a_tar_index_ends_where_the_last_sample_ends(out):
    write_loader_indexes(local(out), ["energon"])
    for path in tars(out):
        data = (out / "webdataset" / f"{path.name}.idx").read_bytes()
        offsets = np.array(struct.unpack(f"{len(data) // 8}Q", data))
        assert (np.diff(offsets.astype(int)) > 0).all()
        assert not path.read_bytes()[offsets[-1] :].strip(b"\0")


def test_the_manifest_lists_what_was_written_and_repeating_changes_nothing(out):
    entries = write_loader_indexes(local(out))
    files = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert json.loads((out / "manifest.json").read_text())["loader_index"] == entries
    assert all((out / e["path"]).stat().st_size == e["bytes"] for e in entries)
    write_loader_indexes(local(out))
    assert files == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_wrong_usage_is_named(out, mixed_samples, write_dataset):
    with pytest.raises(UsageError, match="energon, dali, wids"):
        write_loader_indexes(local(out), ["dalli"])
    plain = write_dataset(mixed_samples, formats=("parquet",), name="plain")
    with pytest.raises(UsageError, match="tar files"):
        write_loader_indexes(local(plain))
