"""Shards: the same bytes whatever the order of arrival, one pass for both formats, nothing half-written."""

import errno
import io
import itertools
import json
import pickle
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.schemas.errors import AlignError, Fault
from align.transforms.formats.webdataset import DEFAULT_PARTS, read_rows
from align.transforms.store.publish import LocalStore, digest, leftovers, local, publish, publish_bytes
from align.transforms.write.row import from_batch
from align.transforms.write.shard import (
    Head,
    ShardReport,
    ShardSpec,
    finished_report,
    write_order,
    write_shard,
)

BOTH = ("parquet", "webdataset")
SPEC = ShardSpec("train", 2, 8, BOTH, seed=5, fingerprint="abc")

datasets.disable_progress_bars()


@pytest.fixture
def samples(mixed_samples):
    return [s for s in mixed_samples if s.split == "train"]


def files(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def output(out):
    return {name: data for name, data in files(out).items() if not name.startswith("_work/")}


def test_names_follow_the_contract(samples, tmp_path):
    report = write_shard(SPEC, samples, local(tmp_path))
    assert set(output(tmp_path)) == {"data/train-00002-of-00008.parquet", "webdataset/train-000002.tar"}
    assert (tmp_path / "_work/reports/train-00002-of-00008.json").is_file()
    assert [(f.path, f.format, f.samples) for f in report.files] == [
        ("data/train-00002-of-00008.parquet", "parquet", 16),
        ("webdataset/train-000002.tar", "webdataset", 16),
    ]


def test_bytes_do_not_depend_on_the_order_of_arrival(samples, tmp_path):
    expected = None
    for i in range(4):
        out = tmp_path / str(i)
        write_shard(SPEC, random.Random(i).sample(samples, len(samples)), local(out))
        expected = expected or output(out)
        assert output(out) == expected


def test_sample_bytes_do_not_depend_on_how_samples_are_sharded(samples, tmp_path):
    def tar_parts(cuts, name):
        found = {}
        for index, (a, b) in enumerate(itertools.pairwise(cuts)):
            spec = replace(SPEC, index=index)
            write_shard(spec, samples[a:b], local(tmp_path / name))
            with (tmp_path / name / spec.path("webdataset")).open("rb") as stream:
                found |= {row["key"]: list(DEFAULT_PARTS.of(row)) for row in read_rows(stream)}
        return found

    assert tar_parts([0, 16], "one") == tar_parts([0, 3, 4, 16], "three")


def test_both_formats_hold_the_same_samples_in_the_same_order(samples, tmp_path):
    write_shard(SPEC, samples, local(tmp_path))
    table = pq.read_table(tmp_path / SPEC.path("parquet"))
    rows = [from_batch(batch) for i in range(len(table)) for batch in table.slice(i, 1).to_batches()]
    with (tmp_path / SPEC.path("webdataset")).open("rb") as stream:
        for row, read in zip(rows, read_rows(stream), strict=True):
            for name, value in row.items():
                np.testing.assert_equal(read[name], value, err_msg=name)


def test_report_holds_sizes_and_checksums_of_what_lies_there(samples, tmp_path):
    store = local(tmp_path)
    for file in write_shard(SPEC, samples, store).files:
        assert digest(store, file.path) == (file.bytes, file.sha256)


def test_seed_changes_the_order(samples, tmp_path):
    for seed in (1, 2):
        write_shard(replace(SPEC, seed=seed), samples, local(tmp_path / str(seed)))
    one, two = (pq.read_table(tmp_path / s / SPEC.path("parquet"))["key"].to_pylist() for s in "12")
    assert one != two
    assert sorted(one) == sorted(two) == sorted(s.key for s in samples)


def test_empty_shard_has_a_report_and_no_file(tmp_path):
    fault = Fault("rec", 0, "read", "truncated", "cut")
    report = write_shard(SPEC, [fault], local(tmp_path))
    assert (report.samples, report.files, report.faults) == (0, (), (fault,))
    assert output(tmp_path) == {}
    assert finished_report(local(tmp_path), SPEC) == report


def test_faults_are_sorted_whatever_their_order(tmp_path):
    faults = [
        Fault("b", 1, "read", "x", ""),
        Fault("a", 7, "read", "x", ""),
        Fault("b", None, "plan", "y", ""),
    ]
    told = [(f.recording_id, f.start_ns) for f in write_shard(SPEC, faults, local(tmp_path)).faults]
    assert told == [("a", 7), ("b", None), ("b", 1)]


def test_report_survives_json(samples, tmp_path):
    report = write_shard(SPEC, [*samples, Fault("a\ud800", None, "read", "x", "y")], local(tmp_path))
    assert ShardReport.from_dict(json.loads(json.dumps(report.as_dict()))) == report


def test_same_key_twice_is_refused(make_sample, tmp_path):
    with pytest.raises(AlignError, match="bear the key") as caught:
        write_shard(SPEC, [make_sample(1), make_sample(2), make_sample(1)], local(tmp_path))
    assert caught.value.code == "duplicate_key"
    assert files(tmp_path) == {}


# -- Order -----------------------------------------------------------------------------------------------


def load_without_card(out, streaming=False):
    """The WebDataset builder left to its own inference; `.flac` stays bytes, torchcodec is not needed."""
    tars = sorted(map(str, out.glob("webdataset/*.tar")))
    return datasets.load_dataset(
        "webdataset", data_files=tars, split="train", streaming=streaming, cache_dir=str(out / "cache")
    )


@pytest.fixture
def flac_as_bytes(monkeypatch):
    from datasets.packaged_modules.webdataset.webdataset import WebDataset

    monkeypatch.setattr(WebDataset, "AUDIO_EXTENSIONS", [])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.usefixtures("flac_as_bytes")
def test_incomplete_first_samples_load_without_a_card(make_sample, tmp_path, streaming):
    lacks = [{"audio": "gap", "imu": "gap"}, {"text": "not_recorded"}, {"imu": "gap"}]
    poor = [make_sample(i, lacks=lacks[i % 3], scenarios=()) for i in range(30)]
    rich = [make_sample(30 + i, audio_gap=i == 0) for i in range(5)]
    write_shard(SPEC, [*poor, *rich], local(tmp_path))
    rows = list(load_without_card(tmp_path, streaming))
    assert {row["__key__"] for row in rows[:5]} == {s.key for s in rich}
    assert {row["__key__"] for row in rows} == {s.key for s in [*poor, *rich]}
    by_key = {row["__key__"]: row for row in rows}
    for sample in [*poor, *rich]:
        row = by_key[sample.key]
        assert (row["imu.npy"] is None) == (sample.imu is None)
        assert row["flac"] == (sample.audio.data if sample.audio else None)
        assert row["txt"] == ("\n".join(sample.text) if sample.text else None)


@pytest.mark.usefixtures("flac_as_bytes")
def test_fewer_than_five_complete_samples_still_load(make_sample, tmp_path):
    samples = [make_sample(i, lacks={} if i < 4 else {"imu": "gap"}) for i in range(12)]
    write_shard(SPEC, samples, local(tmp_path))
    rows = list(load_without_card(tmp_path))
    assert {row["__key__"] for row in rows} == {s.key for s in samples}


def test_order_is_a_permutation_with_five_alike_first():
    @given(st.lists(st.sampled_from([("json",), ("jpg", "json"), ("flac", "json"), ("jpg", "flac", "json")])))
    def check(kinds):
        heads = [Head(f"k{i}", k, len(k), i) for i, k in enumerate(kinds)]
        order = write_order(heads, 0)
        assert sorted(h.place for h in order) == list(range(len(heads)))
        assert order == write_order(heads[::-1], 0)
        counts = Counter(kinds)
        if any(n >= 5 for n in counts.values()):
            (alike,) = {h.kinds for h in order[:5]}
            assert len(alike) == max(len(k) for k, n in counts.items() if n >= 5)

    check()


# -- Commit and resume -----------------------------------------------------------------------------------


def test_finished_shard_is_taken_over_only_if_all_of_it_holds(samples, tmp_path):
    store = local(tmp_path)
    assert finished_report(store, SPEC) is None
    report = write_shard(SPEC, samples, store)
    assert finished_report(store, SPEC) == report
    assert finished_report(store, replace(SPEC, fingerprint="other")) is None
    assert finished_report(store, replace(SPEC, formats=("parquet",))) is None
    assert finished_report(store, replace(SPEC, total=9)) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "report", "report_type"])
def test_damaged_shard_is_not_taken_over_and_is_made_anew_equal(samples, tmp_path, damage):
    store = local(tmp_path)
    write_shard(SPEC, samples, store)
    whole = output(tmp_path)
    victim = tmp_path / (SPEC.report_path if damage.startswith("report") else SPEC.path("webdataset"))
    data = victim.read_bytes()
    match damage:
        case "flip":
            victim.write_bytes(data[:99] + bytes([data[99] ^ 1]) + data[100:])
        case "cut" | "report":
            victim.write_bytes(data[: len(data) // 2])
        case "report_type":
            victim.write_bytes(b"[1, 2]")
        case "remove":
            victim.unlink()
    assert finished_report(store, SPEC) is None
    write_shard(SPEC, samples, store)
    assert output(tmp_path) == whole


@pytest.mark.parametrize("after", [0, 3])
def test_fault_of_ours_while_reading_leaves_no_name(samples, tmp_path, after):
    def rows():
        yield from samples[:after]
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        write_shard(SPEC, rows(), local(tmp_path))
    assert files(tmp_path) == {}


def test_full_disk_is_one_readable_line_and_leaves_no_name(samples, tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalStore, "create", lambda self, path: Full(tmp_path / "x", "wb"))
    with pytest.raises(AlignError, match="No space left on device") as caught:
        write_shard(SPEC, samples, local(tmp_path))
    assert caught.value.code == "write_failed"
    assert set(files(tmp_path)) == {"x"}


def test_final_name_appears_only_after_the_last_byte(tmp_path):
    store = local(tmp_path)
    with publish(store, "data/a") as publication:
        publication.stream.write(b"half")
        assert list(store.names()) == leftovers(store)
        assert len(leftovers(store)) == 1
    assert files(tmp_path) == {"data/a": b"half"}
    assert (publication.bytes, publication.sha256) == digest(store, "data/a")


def test_publishing_again_replaces_the_whole_file(tmp_path):
    store = local(tmp_path)
    publish_bytes(store, "a", b"a longer text")
    publish_bytes(store, "a", b"short")
    assert files(tmp_path) == {"a": b"short"}


def test_leftovers_are_told_from_files_of_others(tmp_path):
    for name in (".a.parquet.0123456789abcdef.tmp", "a.tmp", ".hidden", "data/.b.tar.fedcba9876543210.tmp"):
        publish_bytes(local(tmp_path), name, b"")
    found = [".a.parquet.0123456789abcdef.tmp", "data/.b.tar.fedcba9876543210.tmp"]
    assert leftovers(local(tmp_path)) == found


CRASH = """
import os, pickle, signal, sys
from align.transforms.store.publish import LocalStore
from align.transforms.write.shard import write_shard

left = int(sys.argv[3])

def dying(method):
    def call(*args):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args)
    return call

class Dying(LocalStore):
    create, seal, rename = dying(LocalStore.create), dying(LocalStore.seal), dying(LocalStore.rename)

spec, samples = pickle.load(open(sys.argv[1], "rb"))
write_shard(spec, samples, Dying(sys.argv[2]))
"""


@pytest.mark.parametrize("survives", [0, 1, 3, 5, 7, 8])
def test_killed_at_any_step_leaves_only_whole_files_and_is_finished_by_the_next_run(
    samples, tmp_path, survives
):
    """Three files (two formats, one report), each created, sealed and renamed: nine steps."""
    write_shard(SPEC, samples, local(tmp_path / "whole"))
    whole = output(tmp_path / "whole")
    (tmp_path / "job").write_bytes(pickle.dumps((SPEC, samples)))
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", CRASH, str(tmp_path / "job"), str(out), str(survives)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    store = local(out)
    left = leftovers(store)
    for name, data in output(out).items():
        assert name in left or data == whole[name]
    assert finished_report(store, SPEC) is None
    for name in left:
        store.remove(name)
    write_shard(SPEC, samples, store)
    assert output(out) == whole
