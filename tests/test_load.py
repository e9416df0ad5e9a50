"""Loading: the plan of an epoch by brute force, and the torch data set on files that the writer made."""

import json
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.schemas.errors import UsageError
from align.transforms.load.committed import open_committed
from align.transforms.load.plan import (
    Source,
    cut,
    draw_counts,
    draws,
    epoch_shards,
    join,
    permutation,
    reads,
    remaining,
    shard_order,
    share,
)
from align.transforms.load.rows import Rows

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=5).map(
    lambda pairs: [(50 * i + a, 50 * i + a + n) for i, (a, n) in enumerate(pairs)]
)


def positions(spans):
    return [p for start, end in spans for p in range(start, end)]


# -- The plan ------------------------------------------------------------------------------------------


@given(SPANS, st.integers(1, 7))
def test_shares_joined_are_the_whole_and_equal_to_within_one(spans, of):
    parts = [positions(share(spans, i, of)) for i in range(of)]
    assert list(chain(*parts)) == positions(spans)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(SPANS, st.integers(0, 60), st.integers(0, 60))
def test_a_cut_counts_along_the_spans(spans, first, last):
    assert positions(cut(spans, first, last)) == positions(spans)[first:last]


@given(SPANS)
def test_joined_spans_hold_the_same(spans):
    assert positions(join(spans[::-1])) == positions(spans)


@given(SPANS, st.integers(1, 4), st.integers(1, 5), st.integers(0, 30))
def test_what_remains_is_what_a_loader_has_not_delivered(spans, workers, size, steps):
    """Against a simulated loader: one batch of each worker in turn, finished ones passed over."""
    queues = [positions(share(spans, w, workers)) for w in range(workers)]
    batches = [[q[i : i + size] for i in range(0, len(q), size)] for q in queues]
    stream = [(w, r + 1, b[r]) for r in range(60) for w, b in enumerate(batches) if r < len(b)]
    if not stream:
        return
    step = min(steps, len(stream) - 1)
    worker, count, _ = stream[step]
    left = remaining(spans, workers, size, worker, count)
    assert positions(left) == sorted(p for _, _, batch in stream[step + 1 :] for p in batch)


@given(st.lists(st.integers(0, 6), max_size=5), st.integers(0, 3), st.integers(0, 5))
def test_reads_of_all_ranks_are_the_epoch(counts, seed, epoch):
    shards = epoch_shards([Source(f"s{i}", float(c)) for i, c in enumerate(counts)], seed, epoch)
    total = sum(counts)
    whole = [(r.path, d) for r in reads(shards, [(0, total)]) for d in range(r.first, r.last)]
    assert sorted(whole) == sorted((f"s{i}", d) for i, c in enumerate(counts) for d in range(c))
    shared = [
        (r.path, d)
        for rank in range(4)
        for r in reads(shards, share([(0, total)], rank, 4))
        for d in range(r.first, r.last)
    ]
    assert shared == whole


@given(st.lists(st.integers(0, 8), max_size=5), st.integers(0, 3), st.integers(0, 3))
def test_without_weights_each_row_comes_once_group_by_group(sizes, seed, epoch):
    order = shard_order(sizes, None, "s", seed, epoch)
    assert sorted(map(tuple, order.tolist())) == [(g, r) for g, n in enumerate(sizes) for r in range(n)]
    groups = order[:, 0].tolist()
    assert sum(a != b for a, b in pairwise(groups)) + bool(groups) == len(set(groups))


@given(st.lists(st.integers(0, 5 * 1024), min_size=1, max_size=30), st.integers(0, 50))
def test_weights_are_drawn_rounded_and_counted_in_advance(parts, epoch):
    weights = np.array(parts) / 1024
    counts = draw_counts(weights, "s", 7, epoch)
    assert ((counts == np.floor(weights)) | (counts == np.ceil(weights))).all()
    assert counts.sum() == draws(Source("s", float(weights.sum())), 7, epoch)
    assert len(shard_order([len(parts)], weights, "s", 7, epoch)) == counts.sum()


def test_over_many_epochs_a_row_is_drawn_as_often_as_its_weight():
    weights = np.array([0.25, 1.0, 2.5, 0.0, 1.125])
    mean = np.mean([draw_counts(weights, "s", 0, epoch) for epoch in range(2000)], axis=0)
    np.testing.assert_allclose(mean, weights, atol=0.04)


def test_orders_change_with_seed_and_epoch_and_are_fixed_for_good():
    assert permutation(8, "shards", 0, 0).tolist() == [0, 7, 3, 4, 2, 6, 1, 5]
    orders = {
        tuple(shard_order([20], None, "s", seed, epoch)[:, 1]) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25


# -- Files ---------------------------------------------------------------------------------------------


@pytest.fixture
def out(mixed_samples, write_dataset):
    """Sixteen training windows in five shards; row groups of three rows in one of them."""
    folder = write_dataset(mixed_samples, formats=("parquet",), shards=5)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"] |= {"image_size": 64, "frames": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shard = folder / "data/train-00000-of-00005.parquet"
    pq.write_table(pq.read_table(shard), shard, row_group_size=3)
    return folder


@pytest.fixture
def load():
    pytest.importorskip("torch", reason="torch is an extra")
    from align.transforms.load.load import load

    return load


def train_keys(samples):
    return sorted(s.key for s in samples if s.split == "train")


def loader(data, workers=0):
    from torch.utils.data import DataLoader

    return DataLoader(data, batch_size=None, num_workers=workers)


def keys(data, workers=0):
    return [k for batch in loader(data, workers) for k in batch["key"]]


def test_rows_are_what_the_writer_wrote(out, mixed_samples):
    table = pq.read_table(out / "data/train-00001-of-00005.parquet")
    rows, samples = Rows(table.to_batches(3), 3), {s.key: s for s in mixed_samples}
    for i in range(table.num_rows):
        row, sample = rows[i], samples[rows[i]["key"]]
        assert row["image"] == sample.image.data
        assert row["audio"] == (sample.audio and sample.audio.data)
        assert row["text"] == (None if sample.text is None else list(sample.text))
        if sample.imu is None:
            assert row["imu"] is None
        else:
            np.testing.assert_array_equal(row["imu"], sample.imu.values)
            np.testing.assert_array_equal(row["imu_mask"], sample.imu.mask)


def test_rows_of_a_sliced_column_are_their_own():
    imu = pa.array([[[float(i)] * 4] * 6 for i in range(5)], pa.list_(pa.list_(pa.float32())))
    mask = pa.array([[i % 2 == 0, True, i == 3] for i in range(5)])
    rows = Rows(pa.table({"imu": imu, "imu_mask": mask}).slice(2).to_batches(), 3)
    assert rows[1]["imu"].tolist() == [[3.0] * 4] * 6
    assert [rows[i]["imu_mask"].tolist() for i in (0, 1)] == [[True, True, False], [False, True, True]]


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_every_window_comes_once_whatever_the_workers(load, out, mixed_samples, workers):
    assert sorted(keys(load(out, batch_size=3), workers)) == train_keys(mixed_samples)


def test_four_ranks_joined_are_the_epoch_of_one(load, out, mixed_samples):
    whole = keys(load(out, batch_size=4, seed=5, epoch=2))
    parts = [keys(load(out, batch_size=4, seed=5, epoch=2, rank=r, world=4)) for r in range(4)]
    assert list(chain(*parts)) == whole
    assert sorted(whole) == train_keys(mixed_samples)
    assert [len(p) for p in parts] == [4] * 4


def test_ranks_times_workers_read_every_window_once(load, out, mixed_samples):
    read = [k for r in range(3) for k in keys(load(out, batch_size=2, rank=r, world=3), workers=2)]
    assert sorted(read) == train_keys(mixed_samples)


def test_the_order_depends_on_seed_and_epoch_alone(load, out):
    data = load(out, batch_size=4)
    first = keys(data)
    assert keys(data) == first == keys(load(out, batch_size=5, modalities=["text"]))
    data.set_epoch(1)
    assert keys(data) != first
    assert keys(data) == keys(load(out, batch_size=4, epoch=1))
    assert keys(load(out, batch_size=4, seed=1)) != first


def test_unshuffled_is_the_written_order(load, out):
    tables = [pq.read_table(p, columns=["key"]) for p in sorted((out / "data").glob("train-*"))]
    assert keys(load(out, batch_size=4, shuffle=False)) == pa.concat_tables(tables).column("key").to_pylist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_resumed_epoch_delivers_what_was_left(load, out, mixed_samples, workers, stop):
    data, seen = load(out, batch_size=3, seed=9, epoch=4), []
    for step, batch in enumerate(loader(data, workers), 1):
        seen += batch["key"]
        if step == stop:
            state = json.loads(json.dumps(data.state_dict(batch)))
            break
    resumed = load(out, batch_size=3, seed=9)
    resumed.load_state_dict(state)
    assert resumed.epoch == 4
    assert resumed.samples() == 16 - len(seen)
    assert sorted(seen + keys(resumed, workers)) == train_keys(mixed_samples)
    resumed.set_epoch(5)
    assert keys(resumed) == keys(load(out, batch_size=3, seed=9, epoch=5))


def test_an_epoch_may_be_resumed_twice_and_with_other_workers(load, out, mixed_samples):
    data, seen = load(out, batch_size=2), []
    for workers in (2, 0, 3):
        batch = next(iter(loader(data, workers)))
        seen += batch["key"]
        state = data.state_dict(batch)
        data = load(out, batch_size=2)
        data.load_state_dict(state)
    assert sorted(seen + keys(data)) == train_keys(mixed_samples)


def test_an_epoch_may_be_resumed_on_another_number_of_ranks(load, out, mixed_samples):
    seen, states = [], []
    for rank in range(2):
        data = load(out, batch_size=3, rank=rank, world=2)
        batch = next(iter(loader(data)))
        seen += batch["key"]
        states.append(data.state_dict(batch))
    for rank in range(3):
        data = load(out, batch_size=3, rank=rank, world=3)
        data.load_state_dict(states)
        seen += keys(data)
    assert sorted(seen) == train_keys(mixed_samples)


def test_batches_are_counted_for_the_rank_with_the_fewest(load, out):
    for drop_last in (False, True):
        for world, workers in ((1, 0), (3, 0), (3, 2)):
            made = [load(out, batch_size=3, rank=r, world=world, drop_last=drop_last) for r in range(world)]
            counts = [sum(1 for _ in loader(data, workers)) for data in made]
            assert {data.batches(workers) for data in made} == {min(counts)}


def test_what_is_missing_is_zeros_and_says_so(load, out, mixed_samples):
    samples = {s.key: s for s in mixed_samples}
    for batch in loader(load(out, batch_size=16)):
        assert batch["image"].shape == (16, 3, 64, 64)
        assert batch["audio"].shape == (16, 16_000)
        assert batch["imu"].shape == (16, 6, 200)
        assert batch["imu_mask"].shape == (16, 200)
        for i, key in enumerate(batch["key"]):
            sample = samples[key]
            for name in ("image", "audio", "imu", "text"):
                assert bool(batch["present"][name][i]) == bool(getattr(sample, name))
            if sample.imu is None:
                assert not batch["imu"][i].any()
                assert not batch["imu_mask"][i].any()
            else:
                np.testing.assert_array_equal(batch["imu"][i].numpy(), sample.imu.values)
            assert batch["audio"][i].any() == (sample.audio is not None)
            assert batch["text"][i] == " ".join(sample.text or ())
            assert (batch["ids"]["narration"][i] != 0) == bool(sample.text)


def test_normalised_windows_have_zero_mean_and_unit_deviation(load, out, mixed_samples):
    (batch,) = loader(load(out, batch_size=16, normalise="train"))
    there, measured = batch["present"]["imu"], batch["imu_mask"]
    imu = batch["imu"].numpy()[there].transpose(1, 0, 2)[:, measured.numpy()[there]]
    np.testing.assert_allclose(imu.mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(imu.std(axis=1), 1, atol=1e-3)
    assert not batch["imu"].numpy().transpose(0, 2, 1)[~measured.numpy()].any()
    (plain,) = loader(load(out, batch_size=16))
    pixels = plain["image"].numpy().astype(float) / 255
    scale = np.polyfit(pixels[:, 1].ravel(), batch["image"].numpy()[:, 1].ravel(), 1)
    stats = json.loads((out / "stats.json").read_text())["splits"]["train"]["normalisation"]
    green = stats["image"]["g"]
    np.testing.assert_allclose(scale, [1 / green["std"], -green["mean"] / green["std"]], rtol=1e-4)
    np.testing.assert_allclose(
        batch["audio"] * stats["audio"]["std"]
        + stats["audio"]["mean"] * (batch["present"]["audio"][:, None]),
        plain["audio"],
        atol=1e-5,
    )
    with pytest.raises(UsageError, match="train, val"):
        load(out, normalise="test")


def test_single_windows_may_be_batched_by_torchs_own_loader(load, out, mixed_samples):
    from torch.utils.data import DataLoader

    batches = list(DataLoader(load(out), batch_size=5, num_workers=2))
    assert sorted(k for b in batches for k in b["key"]) == train_keys(mixed_samples)
    assert all(b["image"].shape[0] == len(b["key"]) == len(b["present"]["imu"]) for b in batches)


def test_loader_workers_that_outlive_an_epoch_learn_of_the_next(load, out):
    from torch.utils.data import DataLoader

    data = load(out, batch_size=4)
    lasting = DataLoader(data, batch_size=None, num_workers=2, persistent_workers=True)
    first = [b["key"] for b in lasting]
    data.set_epoch(1)
    assert [b["key"] for b in lasting] == [b["key"] for b in DataLoader(data, None, num_workers=2)] != first


def test_other_splits_are_read_by_name(load, out, mixed_samples):
    val = sorted(s.key for s in mixed_samples if s.split == "val")
    assert sorted(keys(load(out, split="val", batch_size=2))) == val


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"split": "test"}, "train, val"),
        ({"profile": "imagebnd"}, "imagebind"),
        ({"profile": "imagebind"}, "window_ns"),
        ({"modalities": ["sound"]}, "sound"),
        ({"modalities": []}, "none"),
        ({"batch_size": 0}, "batch_size"),
        ({"rank": 4, "world": 4}, "rank 4"),
        ({"balance": True}, "index"),
        ({"duplicates": "drop"}, "index"),
        ({"duplicates": "no"}, "keep or drop"),
    ],
)
def test_a_wrong_argument_is_named(load, out, arguments, word):
    with pytest.raises(UsageError, match=word):
        load(out, **arguments)


def test_a_state_of_another_seed_is_refused(load, out):
    data = load(out, batch_size=2, seed=1)
    with pytest.raises(UsageError, match="seed"):
        data.load_state_dict(load(out, batch_size=2).state_dict())
    with pytest.raises(UsageError, match="batch_size"):
        data.state_dict(next(iter(load(out))))


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path):
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        open_committed(tmp_path)


def test_tar_files_alone_are_refused_with_the_way_out(load, mixed_samples, write_dataset):
    folder = write_dataset(mixed_samples, formats=("webdataset",))
    with pytest.raises(UsageError, match="tar files only"):
        load(folder)


def test_a_bucket_is_read_like_a_folder(load, out, mixed_samples, monkeypatch):
    server = pytest.importorskip("moto.server", reason="moto plays the bucket")
    boto3 = pytest.importorskip("boto3", reason="fills the bucket")
    credentials = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1"}
    for name, value in credentials.items():
        monkeypatch.setenv(name, value)
    bucket = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    bucket.start()
    try:
        host, port = bucket.get_host_and_port()
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        client.create_bucket(Bucket="windows")
        for path in out.rglob("*.*"):
            client.upload_file(str(path), "windows", f"out/{path.relative_to(out).as_posix()}")
        uri = f"s3://windows/out?endpoint_override={host}:{port}&scheme=http"
        assert sorted(keys(load(uri, batch_size=4, normalise="train"))) == train_keys(mixed_samples)
        with pytest.raises(UsageError, match=r"no manifest\.json"):
            open_committed(f"s3://windows/none?endpoint_override={host}:{port}&scheme=http")
    finally:
        bucket.stop()
