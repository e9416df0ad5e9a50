"""Weights, near-duplicates and false negatives: closed forms, brute force, and the index on real shards."""

import dataclasses
import json
from collections import Counter

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from align.pipeline.cli.index_command import index
from align.schemas.errors import AlignError, UsageError
from align.schemas.sample import EncodedImage
from align.transforms.index.balance import IndexOptions, add_index
from align.transforms.index.duplicates import clusters, picture_hash, representatives
from align.transforms.index.negatives import identity, narration_id, not_negatives
from align.transforms.index.weights import (
    class_weights,
    effective_number,
    pairs,
    replication,
    tally,
    window_weight,
)
from align.transforms.store.publish import local

# -- Weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "cap", "expected"),
    [
        (1.0, 8, {"a": 1, "b": 1, "c": 1}),
        (0.5, 8, {"a": 1, "b": 2, "c": 8}),
        (0.5, 100, {"a": 1, "b": 2, "c": 20}),
        (0.0, 8, {"a": 1, "b": 4, "c": 8}),
        (0.0, 1, {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_classes_are_drawn_in_proportion_to_their_size_to_the_alpha(alpha, cap, expected):
    counts = {"a": 400, "b": 100, "c": 1}
    assert class_weights(counts, alpha, cap) == expected


@given(
    st.dictionaries(st.text(max_size=3), st.integers(1, 10**6), min_size=1),
    st.floats(0, 1),
    st.floats(1, 50),
)
def test_no_window_is_left_out_or_drawn_beyond_the_cap(counts, alpha, cap):
    weights = class_weights(counts, alpha, cap)
    assert weights.keys() == counts.keys()
    assert all(1 <= w <= cap + 1 / 1024 and (w * 1024).is_integer() for w in weights.values())
    assert weights[max(counts, key=counts.get)] == 1


def test_tallies_of_parts_add_up_and_windows_without_labels_have_a_class():
    windows = [["a"], ["a", "b"], [], ["b", "b"]]
    assert tally(windows) == {"a": 2, "b": 2, "": 1} == tally(windows[:1]) + tally(windows[1:])


def test_a_window_weighs_as_its_rarest_label():
    weights = {"a": 1.0, "b": 3.0, "": 2.0}
    assert [window_weight(labels, weights) for labels in (["a", "b"], ["a"], [])] == [3.0, 1.0, 2.0]


def test_the_effective_number_counts_classes_as_if_they_were_equally_frequent():
    assert effective_number({"a": 5, "b": 5, "c": 5}) == pytest.approx(3)
    assert effective_number({"a": 9, "b": 0}) == pytest.approx(1)
    assert effective_number({"a": 3, "b": 1}) == pytest.approx(4 / 27**0.25)  # 2^H, H in bits
    assert effective_number({}) == 0


def test_pairs_are_what_stands_with_the_picture_and_replication_evens_them_out():
    patterns = {"image+audio+imu": 10, "image+audio": 30, "audio+imu": 99, "image": 5, "none": 7}
    assert pairs(patterns) == {"audio": 40, "imu": 10}
    assert replication(pairs(patterns)) == {"audio": 1.0, "imu": 4.0}
    assert replication({}) == {}


# -- Near-duplicates -----------------------------------------------------------------------------------


def scene(seed, size=128):
    return cv2.resize(
        np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8), (size, size), interpolation=2
    )


def encoded(pixels, quality=90):
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def bits(a, b):
    return (picture_hash(a) ^ picture_hash(b)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_keeps_its_hash_through_quality_size_and_brightness(seed):
    pixels = scene(seed)
    original = encoded(pixels)
    darker = encoded((pixels * 0.8).astype(np.uint8))
    smaller = encoded(cv2.resize(pixels, (96, 96), interpolation=cv2.INTER_AREA))
    assert max(bits(original, other) for other in (encoded(pixels, 40), darker, smaller)) <= 4


def test_other_pictures_have_other_hashes():
    pictures = [encoded(scene(seed)) for seed in range(12)]
    assert min(bits(a, b) for i, a in enumerate(pictures) for b in pictures[:i]) > 12


def test_flat_pictures_are_alike_whatever_their_colour():
    flat = [encoded(np.full((64, 96, 3), v, np.uint8)) for v in (0, 17, 128, 255)]
    assert {picture_hash(f) for f in flat} == {0}


def test_a_broken_picture_is_a_fault_of_its_own():
    with pytest.raises(AlignError, match="cannot be decoded"):
        picture_hash(b"nothing")


def brute_clusters(hashes, distance):
    parent = list(range(len(hashes)))

    def root(i):
        return i if parent[i] == i else root(parent[i])

    for i, a in enumerate(hashes):
        for j, b in enumerate(hashes[:i]):
            if (a ^ b).bit_count() <= distance:
                parent[root(i)] = root(j)
    return {frozenset(k for k in range(len(hashes)) if root(k) == root(i)) for i in range(len(hashes))}


@st.composite
def near_hashes(draw):
    """A few hashes, and others that differ from them in a few bits."""
    roots = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=7).map(lambda bs: sum(1 << b for b in set(bs)))
    return [draw(st.sampled_from(roots)) ^ draw(flips) for _ in range(draw(st.integers(0, 20)))]


@given(near_hashes(), st.integers(0, 8))
def test_clusters_are_those_of_comparing_all_with_all(hashes, distance):
    labels = clusters(np.array(hashes, np.uint64), distance)
    found = {frozenset(np.flatnonzero(labels == label).tolist()) for label in labels}
    assert found == brute_clusters(hashes, distance)


@given(st.lists(st.integers(0, 4), max_size=30), st.randoms())
def test_a_cluster_is_stood_for_by_its_least_rank(labels, random):
    rank = list(range(100, 100 + len(labels)))
    random.shuffle(rank)
    found = representatives(np.array(labels, np.int64), np.array(rank, np.int64))
    for i, label in enumerate(labels):
        members = [j for j, other in enumerate(labels) if other == label]
        assert found[i] == min(members, key=lambda j: rank[j])


# -- Negatives that are none ---------------------------------------------------------------------------


def test_the_same_narration_is_recognised_whatever_its_case_and_punctuation():
    assert narration_id(["Opens  the door."]) == narration_id(["opens the door"]) != 0
    assert narration_id(["opens", "the door"]) == narration_id(["opens the door"])
    assert narration_id(["closes the door"]) != narration_id(["opens the door"])
    assert narration_id([]) == narration_id(None) == narration_id(["…"]) == 0


def test_identities_fit_a_signed_integer_and_never_change():
    assert identity("a") == 2340832890917691671
    assert all(0 < identity(str(i)) < 2**63 for i in range(1000))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_pairs_that_belong_together_are_no_negatives(library):
    make = np.array if library == "numpy" else pytest.importorskip("torch", reason="an extra").tensor
    ids = {
        "sample": make([1, 2, 3, 4]),
        "picture": make([1, 1, 3, 4]),
        "narration": make([0, 7, 7, 0]),
        "group": make([5, 5, 6, 6]),
    }
    found = {tuple(p) for p in np.argwhere(np.asarray(not_negatives(ids))).tolist()}
    assert found == {(0, 1), (1, 0), (1, 2), (2, 1)}
    found = {tuple(p) for p in np.argwhere(np.asarray(not_negatives(ids, by=["group"]))).tolist()}
    assert found == {(0, 1), (1, 0), (2, 3), (3, 2)}


# -- The index on shards -------------------------------------------------------------------------------


@pytest.fixture
def doubled(mixed_samples):
    """The mixed samples: 2 and 17 (of the other split) have the picture of 1, each other one its own."""
    like = {2: 1, 17: 1}
    return [
        dataclasses.replace(s, image=EncodedImage(encoded(scene(like.get(i, i))), s.image.time_ns))
        for i, s in enumerate(mixed_samples)
    ]


def index_rows(folder):
    tables = [pq.read_table(p) for p in sorted((folder / "index").glob("*.parquet"))]
    return {row["key"]: row for t in tables for row in t.to_pylist()}


def test_the_index_says_of_each_window_what_brute_force_says(doubled, write_dataset):
    folder = write_dataset(doubled)
    balance = add_index(local(folder))
    rows = index_rows(folder)
    assert rows.keys() == {s.key for s in doubled}
    alike = {doubled[i].key for i in (1, 2, 17)}
    stands = min(alike, key=identity)
    for sample in doubled:
        row = rows[sample.key]
        held = [m for m in ("image", "audio", "imu", "text") if getattr(sample, m)]
        assert row["pattern"] == "+".join(held)
        assert row["group_id"] == sample.group_id
        assert row["text_hash"] == narration_id(sample.text)
        assert row["phash"] == picture_hash(sample.image.data)
        other = sample.key in alike and sample.key != stands
        assert row["duplicate_of"] == (stands if other else None)
    for split in ("train", "val"):
        mine = [rows[s.key] for s in doubled if s.split == split]
        counts = Counter(row["pattern"] for row in mine)
        weights = class_weights(counts)
        assert all(row["weight"] == weights[row["pattern"]] for row in mine)
        shown = {label: c["windows"] for label, c in balance["classes"][split].items()}
        assert shown == counts
    assert balance["duplicates"] == 2
    splits = {doubled[i].split for i in (1, 2, 17) if doubled[i].key == stands}
    assert balance["across_splits"] == (2 if splits == {"val"} else 1)


def test_the_manifest_lists_the_index_and_repeating_it_changes_nothing(doubled, write_dataset):
    folder = write_dataset(doubled)
    before = json.loads((folder / "manifest.json").read_text())
    add_index(local(folder))
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {k: v for k, v in manifest.items() if k not in ("index", "balance")} == before
    for entry in manifest["index"]:
        table = pq.read_table(folder / entry["path"])
        keys = pq.read_table(folder / entry["shard"], columns=["key"]).column("key")
        assert table.column("key").to_pylist() == keys.to_pylist()
        assert entry["bytes"] == (folder / entry["path"]).stat().st_size
        assert entry["weight"] == sum(table.column("weight").to_pylist())
        assert entry["distinct"] == table.column("duplicate_of").null_count
    add_index(local(folder), threads=3)
    assert files == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_index_does_not_depend_on_sharding(doubled, write_dataset):
    one, many = write_dataset(doubled, shards=1, name="one"), write_dataset(doubled, shards=4, name="many")
    assert add_index(local(one)) == add_index(local(many))
    assert index_rows(one) == index_rows(many)


def test_scenarios_can_be_balanced_instead(doubled, write_dataset):
    folder = write_dataset(doubled)
    balance = add_index(local(folder), IndexOptions(by="scenario", alpha=0.0))
    labels = tally([s.scenarios for s in doubled if s.split == "train"])
    assert {k: c["windows"] for k, c in balance["classes"]["train"].items()} == labels


def test_loading_follows_weights_and_leaves_out_duplicates(doubled, write_dataset):
    pytest.importorskip("torch", reason="torch is an extra")
    from align.transforms.load.load import load

    folder = write_dataset(doubled)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["image_size"] = 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    add_index(local(folder))
    rows = {k: r for k, r in index_rows(folder).items() if r["weight"]}
    mine = [s.key for s in doubled if s.split == "train"]

    def drawn(**options):
        data = load(folder, modalities=["text"], batch_size=4, **options)
        found = Counter(key for batch in data for key in batch["key"])
        assert data.samples() == found.total()
        return found

    balanced = drawn(balance=True)
    for key in mine:
        assert balanced[key] in {int(rows[key]["weight"]), -int(-rows[key]["weight"] // 1)}
    distinct = {k for k in mine if rows[k]["duplicate_of"] is None}
    assert drawn(duplicates="drop") == dict.fromkeys(distinct, 1)
    assert drawn(duplicates="drop", balance=True).keys() == distinct
    batch = next(iter(load(folder, modalities=["text"], batch_size=16)))
    alike = [batch["key"].index(doubled[i].key) for i in (1, 2)]
    assert not_negatives(batch["ids"], by=["picture"])[alike[0], alike[1]]


def test_tar_files_alone_cannot_be_indexed(doubled, write_dataset):
    with pytest.raises(UsageError, match="Parquet"):
        add_index(local(write_dataset(doubled, formats=("webdataset",))))


@pytest.mark.parametrize(
    "wrong", [{"by": "colour"}, {"alpha": 1.5}, {"cap": 0.5}, {"distance": -1}, {"distance": 40}]
)
def test_index_options_check_themselves(wrong):
    with pytest.raises(UsageError):
        IndexOptions(**wrong)


def test_the_command_indexes_and_says_what_it_found(doubled, write_dataset):
    folder = write_dataset(doubled)
    done = CliRunner().invoke(index, [str(folder), "--loaders", "dali", "--alpha", "0"])
    assert done.exit_code == 0, done.output
    assert "near-duplicates: 2" in done.output
    assert "image+audio+imu+text" in done.output
    assert len(index_rows(folder)) == 20
    assert list((folder / "webdataset").glob("*.idx"))
    card = (folder / "README.md").read_text()
    assert "2 near-duplicates" in card
    assert "other loaders: dali" in card


def test_the_command_refuses_a_folder_without_a_manifest(tmp_path):
    done = CliRunner().invoke(index, [str(tmp_path)])
    assert isinstance(done.exception, UsageError)
