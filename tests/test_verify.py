"""Verify finds what is off, and nothing where nothing is."""

import copy
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.schemas.errors import Fault
from align.schemas.sample import EncodedAudio, EncodedImage, ImuWindow
from align.schemas.time import NS, TimeSpan
from align.transforms.check.rows import Expected, check_row
from align.transforms.check.verify import verify
from align.transforms.index.balance import add_index
from align.transforms.index.loaders import write_loader_indexes
from align.transforms.store.publish import local
from align.transforms.write.row import to_row


def codes(out, deep=False):
    return {problem.code for problem in verify(str(out), deep=deep).problems}


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def dataset(mixed_samples, write_dataset):
    faults = [
        Fault("rec9", None, "plan", "redacted", "blanked", "skipped", 3),
        Fault("rec9", 5, "read", "truncated", "cut", "failed", 2),
        Fault("rec9", None, "source", "unknown_file", "noted only", "noted", 0),
    ]
    return write_dataset(mixed_samples, faults=faults)


@pytest.mark.parametrize("deep", [False, True])
def test_whole_dataset_verifies(dataset, deep):
    report = verify(str(dataset), deep=deep)
    assert report.problems == ()
    assert report.ok
    assert (report.shards, report.samples) == (8, 20)


@pytest.mark.parametrize("formats", [("parquet",), ("webdataset",)])
def test_one_format_alone_verifies(mixed_samples, write_dataset, formats):
    assert verify(str(write_dataset(mixed_samples, formats=formats)), deep=True).problems == ()


def test_empty_dataset_verifies(write_dataset):
    assert verify(str(write_dataset([])), deep=True).problems == ()


def test_several_frames_per_window_verify(make_sample, write_dataset):
    assert verify(str(write_dataset([make_sample(i, frames=3) for i in range(6)])), deep=True).problems == ()


def test_any_flipped_byte_is_found(dataset):
    rng = np.random.default_rng(0)
    for shard in [*dataset.glob("data/*.parquet"), *dataset.glob("webdataset/*.tar")]:
        whole = shard.read_bytes()
        places = {0, len(whole) - 1, *rng.integers(0, len(whole), 5).tolist()}
        for place in places:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(8))
            shard.write_bytes(damaged)
            found = verify(str(dataset)).problems
            assert any(p.path.endswith(shard.name) and p.code == "checksum" for p in found)
        shard.write_bytes(whole)
    assert codes(dataset) == set()


def test_truncated_and_lost_shards_are_found(dataset):
    first, second = sorted(dataset.glob("data/train-*.parquet"))
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    problems = {p.path: p.code for p in verify(str(dataset)).problems if p.path.startswith("data/")}
    assert problems == {f"data/{first.name}": "size", f"data/{second.name}": "no_shard"}


def test_missing_manifest_says_that_the_run_did_not_finish(dataset):
    (dataset / "manifest.json").unlink()
    (problem,) = verify(str(dataset)).problems
    assert problem.code == "no_manifest"
    assert "--resume" in str(problem)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda m: m.update(schema_version=2), "schema_version"),
        (lambda m: m.pop("shards"), "bad_manifest"),
        (lambda m: m["counts"].update(windows_planned=99), "bad_manifest"),
        (lambda m: m["counts"].update(failed="many"), "bad_manifest"),
        (lambda m: m["counts"].update(windows_written=19, failed=3), "counts"),
        (lambda m: m["counts"].update(windows_skipped={"redacted": 2}, failed=3), "counts"),
        (lambda m: m["shards"][0].update(samples=1), "samples"),
        (lambda m: m["shards"][0].update(sha256="0" * 64), "checksum"),
        (lambda m: m["shards"][0].update(path="../secret"), "bad_path"),
        (lambda m: m["shards"][0].update(path="data/.."), "bad_path"),
        (lambda m: m["shards"][0].update(split="val"), "wrong_split"),
        (lambda m: m["shards"][0].update(format="webdataset"), "unreadable"),
        (lambda m: m["shards"].pop(0), "unlisted"),
        (lambda m: m["config"].update(window_ns=NS + 1), "bad_window"),
        (lambda m: m["config"].update(imu_rate=100), "bad_imu"),
        (lambda m: m["config"].update(audio_rate=8000), "bad_audio"),
    ],
)
def test_manifest_that_does_not_hold_is_found(dataset, change, code):
    edit_json(dataset / "manifest.json", change)
    assert code in codes(dataset)


def test_leftovers_and_unlisted_files_are_found(dataset):
    (dataset / "data" / ".train-00000-of-00002.parquet.0123456789abcdef.tmp").touch()
    (dataset / "data" / "train-00007-of-00008.parquet").touch()
    (dataset / "webdataset" / "train-000000.idx").touch()
    assert codes(dataset) == {"leftover", "unlisted"}


def test_failures_and_statistics_must_agree(dataset):
    (dataset / "failures.jsonl").write_text("")
    edit_json(dataset / "stats.json", lambda s: s["splits"]["train"].update(windows=1))
    problems = {p.path: p.code for p in verify(str(dataset)).problems}
    assert problems == {"failures.jsonl": "counts", "stats.json": "counts"}


def test_deep_check_forms_the_statistics_anew(dataset):
    def change(stats):
        stats["splits"]["train"]["normalisation"]["image"]["r"]["mean"] += 1e-9

    edit_json(dataset / "stats.json", change)
    assert codes(dataset) == set()
    assert codes(dataset, deep=True) == {"bad_stats"}


def test_duplicate_keys_across_shards_are_found(make_sample, write_dataset):
    assert "duplicate_keys" in codes(write_dataset([make_sample(0), make_sample(0)], shards=2))


def test_group_in_two_splits_is_found(make_sample, write_dataset):
    samples = [replace(make_sample(i, split=s), group_id="p") for i, s in enumerate(("train", "val"))]
    assert "leak" in codes(write_dataset(samples))


def test_formats_that_differ_are_found(make_sample, write_dataset):
    out = write_dataset([make_sample(i) for i in range(3)], shards=1)
    other = write_dataset([make_sample(i, text=("another",)) for i in range(3)], shards=1, name="other")
    tar = (other / "webdataset" / "train-000000.tar").read_bytes()
    (out / "webdataset" / "train-000000.tar").write_bytes(tar)

    def change(manifest):
        (shard,) = (s for s in manifest["shards"] if s["format"] == "webdataset")
        shard.update(bytes=len(tar), sha256=hashlib.sha256(tar).hexdigest())

    edit_json(out / "manifest.json", change)
    assert codes(out) == {"formats_differ"}


def test_many_problems_of_a_kind_are_summed_up(make_sample, write_dataset):
    out = write_dataset([make_sample(i) for i in range(9)], shards=1, formats=("parquet",))
    edit_json(out / "manifest.json", lambda m: m["config"].update(window_ns=2 * NS))
    told = [p for p in verify(str(out)).problems if p.code == "bad_window"]
    assert len(told) == 6
    assert told[-1].detail == "4 more of this kind"


# -- Rows ------------------------------------------------------------------------------------------------

EXPECTED = Expected("train", NS, 16_000, 200)


def broken(code):
    """A sample with one thing wrong, by the code that tells it."""
    black = np.zeros((6, 200), np.float32)
    masked = ImuWindow(np.ones((6, 200), np.float32), np.zeros(200, np.bool_))
    gap = (TimeSpan(0, NS),)
    changes = {
        "bad_key": lambda s: replace(s, key="a/b.c"),
        "empty_id": lambda s: replace(s, group_id=""),
        "wrong_split": lambda s: replace(s, split="val"),
        "bad_window": lambda s: replace(s, window=TimeSpan(5, 5)),
        "no_reason": lambda s: replace(s, text=None, text_raw=None, text_times_ns=None),
        "false_reason": lambda s: replace(s, missing={"image": "gap"}),
        "bad_reason": lambda s: replace(s, audio=None, missing={"audio": "tired"}),
        "bad_image": lambda s: replace(s, image=EncodedImage(b"GIF89a", s.image.time_ns)),
        "bad_image_time": lambda s: replace(s, image=replace(s.image, time_ns=s.image.time_ns + 9 * NS)),
        "bad_frames": lambda s: replace(s, frames=(replace(s.image, time_ns=2), replace(s.image, time_ns=1))),
        "bad_audio": lambda s: replace(s, audio=EncodedAudio(s.audio.data[:40])),
        "bad_audio_gaps": lambda s: replace(s, audio=EncodedAudio(s.audio.data, gap)),
        "bad_imu": lambda s: replace(s, imu=ImuWindow(black[:, :9], np.ones(9, np.bool_))),
        "bad_coverage": lambda s: replace(s, quality=replace(s.quality, audio_coverage=0.5)),
        "bad_text": lambda s: replace(s, text_times_ns=(s.window.end_ns, s.window.end_ns)),
        "masked": lambda s: replace(s, imu=masked, quality=replace(s.quality, imu_coverage=0.0)),
        "nan": lambda s: replace(s, imu=ImuWindow(black * np.nan, s.imu.mask)),
        "mask": lambda s: replace(s, imu=ImuWindow(black, s.imu.mask & (np.arange(200) > 9))),
        "text_count": lambda s: replace(s, text_raw=("one",)),
        "no_coverage": lambda s: replace(s, quality=replace(s.quality, imu_coverage=None)),
        "coverage_range": lambda s: replace(s, quality=replace(s.quality, imu_coverage=1.5)),
    }
    return changes[code]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        *((code, code) for code in (
            "bad_key", "empty_id", "wrong_split", "bad_window", "no_reason", "false_reason", "bad_reason",
            "bad_image", "bad_image_time", "bad_frames", "bad_audio", "bad_audio_gaps", "bad_imu",
            "bad_coverage", "bad_text",
        )),
        ("masked", "bad_imu"), ("nan", "bad_imu"), ("mask", "bad_coverage"), ("text_count", "bad_text"),
        ("no_coverage", "bad_coverage"), ("coverage_range", "bad_coverage"),
    ],
)  # fmt: skip
def test_row_that_does_not_hold_is_told_by_its_code(make_sample, change, code):
    sample = make_sample()
    assert list(check_row(to_row(sample), EXPECTED)) == []
    assert code in [told for told, _ in check_row(to_row(broken(change)(sample)), EXPECTED)]


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_media_cut_short_is_found_by_the_deep_check(make_sample, kind):
    sample = make_sample()
    if kind == "image":
        bad = replace(sample, image=replace(sample.image, data=sample.image.data[:-300]))
    else:
        bad = replace(sample, audio=EncodedAudio(sample.audio.data[: len(sample.audio.data) // 2]))
    found = [code for code, _ in check_row(to_row(bad), replace(EXPECTED, deep=True))]
    assert found == [f"bad_{kind}"]


JUNK = [None, -1, 1.5, "", "../x", "\ud800", [], {}, [None], {"a": 1}, True, 10**30]


def test_no_manifest_makes_verify_raise(make_sample, write_dataset):
    out = write_dataset([make_sample()], formats=("webdataset",), shards=1)
    whole = json.loads((out / "manifest.json").read_text())
    branches = {"": whole, "counts": whole["counts"], "config": whole["config"], "shards": whole["shards"][0]}
    places = [(branch, name) for branch, content in branches.items() for name in content]

    @settings(max_examples=30, deadline=None)
    @given(st.sampled_from(places), st.sampled_from(JUNK))
    def check(place, junk):
        content = copy.deepcopy(whole)
        branch, name = place
        part = content["shards"][0] if branch == "shards" else content[branch] if branch else content
        part[name] = junk
        (out / "manifest.json").write_text(json.dumps(content))
        assert isinstance(verify(str(out)).problems, tuple)

    check()


@pytest.fixture
def indexed(dataset):
    add_index(local(dataset))
    write_loader_indexes(local(dataset))
    return dataset


@pytest.mark.parametrize(
    "pattern", ["index/train-00000*", "webdataset/*.wids.json", "webdataset/.nv-meta/split.yaml"]
)
def test_a_damaged_or_lost_index_is_found(indexed, pattern):
    assert codes(indexed) == set()
    path = next(indexed.glob(pattern))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert codes(indexed) == {"checksum"}
    path.unlink()
    assert codes(indexed) == {"no_index"}


def test_an_index_of_other_windows_is_found(indexed):
    manifest = indexed / "manifest.json"
    entries = json.loads(manifest.read_text())["index"]
    edit_json(manifest, lambda m: m["index"][0].update(shard=entries[1]["shard"]))
    assert codes(indexed) == {"index_keys"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda m: m["index"].pop(), "unlisted"),
        (lambda m: m["index"][0].update(path="../x"), "bad_path"),
        (lambda m: m["loader_index"][0].update(path="data/x"), "bad_path"),
        (lambda m: m["index"][0].pop("bytes"), "bad_manifest"),
        (lambda m: m.update(index=[None]), "bad_manifest"),
        (lambda m: m.update(splits={"train": {"groups": 9, "windows": 16}}), "counts"),
    ],
)
def test_a_manifest_that_lists_indexes_wrongly_is_found(indexed, change, code):
    edit_json(indexed / "manifest.json", change)
    assert code in codes(indexed)
