"""Every loader that docs/training.md names reads every sample of real runs, incomplete ones included."""

import json
import os
import subprocess
import sys
import textwrap

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from align.transforms.index.balance import add_index
from align.transforms.index.loaders import write_loader_indexes
from align.transforms.store.publish import local


@pytest.fixture(scope="module", params=["synthetic", "real"])
def out(request, align_run):
    """A run in both formats: four synthetic recordings that lack things, or the real ones."""
    folder = request.getfixturevalue("synth_dataset" if request.param == "synthetic" else "shared_ego4d")
    stride = {"stride": 1} if request.param == "synthetic" else {}
    made = align_run(folder, format=("parquet", "webdataset"), options={"image_size": 64, **stride})
    add_index(local(made))
    write_loader_indexes(local(made))
    return made


@pytest.fixture(scope="module")
def rows(out):
    """Key -> what the sample has, straight from the Parquet files."""
    names = ["key", "image", "audio", "imu", "text"]
    tables = [pq.read_table(path, columns=names) for path in sorted((out / "data").glob("*.parquet"))]
    return {row["key"]: row for table in tables for row in table.to_pylist()}


def tars(out):
    return [str(path) for path in sorted((out / "webdataset").glob("*.tar"))]


def undecoded(data):
    for name, kind in (("image", datasets.Image), ("audio", datasets.Audio)):
        data = data.cast_column(name, kind(decode=False))
    return data


def test_the_runs_hold_incomplete_samples(rows):
    assert any(row["imu"] is None for row in rows.values())
    assert any(row["imu"] is not None for row in rows.values())


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_parquet_shards(out, rows, streaming, tmp_path):
    data = undecoded(
        datasets.load_dataset(str(out), split="train", streaming=streaming, cache_dir=str(tmp_path))
    )
    read = {row["key"]: row for row in data}
    assert read.keys() == rows.keys()
    for key, row in read.items():
        assert row["image"]["bytes"] == rows[key]["image"]["bytes"]
        assert row["imu"] == rows[key]["imu"]


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_tar_files_too(out, rows, streaming, tmp_path):
    """With the columns said, it need not guess them from the first five samples."""
    columns = datasets.Features(
        {
            "__key__": datasets.Value("string"),
            "jpg": datasets.Image(decode=False),
            "flac": datasets.Value("binary"),  # as Audio it would need torchcodec even to pass bytes on
            "imu.npy": datasets.List(datasets.List(datasets.Value("float32"))),
            "txt": datasets.Value("string"),
        }
    )
    data = datasets.load_dataset(
        "webdataset", data_files={"train": tars(out)}, features=columns, split="train",
        streaming=streaming, cache_dir=str(tmp_path),
    )  # fmt: skip
    read = {row["__key__"]: row for row in data}
    assert read.keys() == rows.keys()
    for key, row in read.items():
        assert np.array_equal(row["imu.npy"], rows[key]["imu"])
        assert row["txt"] == ("\n".join(rows[key]["text"]) if rows[key]["text"] else None)
        assert row["flac"] == (rows[key]["audio"] or {}).get("bytes")


def test_webdataset_reads_and_decodes_every_sample(out, rows):
    data = webdataset.WebDataset(tars(out), shardshuffle=False).decode("rgb8")
    read = {sample["__key__"]: sample for sample in data}
    assert read.keys() == rows.keys()
    for key, sample in read.items():
        assert ("imu.npy" in sample) == (rows[key]["imu"] is not None)
        if "imu.npy" in sample:
            np.testing.assert_array_equal(sample["imu.npy"], np.array(rows[key]["imu"], np.float32))
        assert sample["jpg"].shape[0] == 64
        assert ("flac" in sample) == (rows[key]["audio"] is not None)


@pytest.mark.parametrize("workers", [0, 2])
def test_align_load_reads_every_sample(out, rows, workers):
    torch = pytest.importorskip("torch", reason="torch is an extra")
    import align

    data = align.load(out, batch_size=4, normalise="train")
    batches = list(torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers))
    assert sorted(key for batch in batches for key in batch["key"]) == sorted(rows)
    for batch in batches:
        for i, key in enumerate(batch["key"]):
            held = {m: bool(rows[key][m]) for m in ("image", "audio", "imu", "text")}
            assert {m: bool(batch["present"][m][i]) for m in held} == held


OPENCLIP = """
    import json, sys, types
    import torch
    # A torchvision that was built for another torch registers no kernels; the reader needs none.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        try:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            pass
    import numpy
    from open_clip_train.data import get_wds_dataset

    args = types.SimpleNamespace(
        train_data=None, val_data=sys.argv[1], val_num_samples=None, batch_size=4, workers=0, world_size=1,
        train_num_samples=None, train_data_upsampling_factors=None, dataset_resampled=False, seed=0,
    )
    texts = []
    for images, captions in get_wds_dataset(
        args, lambda image: torch.from_numpy(numpy.array(image)[:64, :64].copy()), is_train=False,
        tokenizer=lambda text: [text],
    ).dataloader:
        assert images.shape[1:] == (64, 64, 3)
        texts += captions
    print(json.dumps(texts))
"""


def test_openclips_own_reader_takes_every_narrated_picture(out, rows):
    pytest.importorskip("torch", reason="torch is an extra")
    if not _installed("open_clip_train"):
        pytest.skip("open-clip-torch is not installed")
    command = [sys.executable, "-c", textwrap.dedent(OPENCLIP), "::".join(tars(out))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    narrated = sorted("\n".join(row["text"]) for row in rows.values() if row["text"])
    assert sorted(json.loads(done.stdout.splitlines()[-1])) == narrated


def test_energon_cooks_crude_samples_of_whatever_parts_there_are(out, rows):
    energon = pytest.importorskip("megatron.energon", reason="megatron-energon is not installed")

    @energon.stateless
    def cook(sample):
        return energon.CaptioningSample(
            **energon.basic_sample_keys(sample),
            image=sample["jpg"],
            caption=sample["__key__"] + " " + "+".join(sorted(k for k in sample if not k.startswith("__"))),
        )

    class Encoder(energon.DefaultTaskEncoder):
        cookers = (energon.Cooker(cook),)

    alone = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    data = energon.get_val_dataset(
        str(out / "webdataset"), split_part="train", batch_size=1, worker_config=alone,
        task_encoder=Encoder(), dataset_config="crude.yaml", auto_decode=False,
    )  # fmt: skip
    read = dict(batch.caption[0].split(" ") for batch in energon.get_loader(data))
    assert read.keys() == rows.keys()
    assert all(
        ("imu.npy" in parts.split("+")) == (rows[key]["imu"] is not None) for key, parts in read.items()
    )


def _installed(name):
    from importlib.util import find_spec

    return find_spec(name) is not None and os.name == "posix"


@pytest.mark.parametrize("profile", ["imagebind", "imu2clip", "clip"])
def test_what_a_profile_writes_its_view_reads(profile, synth_dataset, align_run):
    pytest.importorskip("torch", reason="torch is an extra")
    import align
    from align.views import profile_options

    options = {"stride": 3, **profile_options(profile)}
    out = align_run(synth_dataset, options=options, limit=3)
    (batch,) = align.load(out, profile=profile, batch_size=100, shuffle=False)
    shapes = {
        name: tuple(batch[name].shape[1:]) for name in ("image", "video", "audio", "imu") if name in batch
    }
    assert (
        shapes
        == {
            "imagebind": {
                "image": (3, 224, 224),
                "video": (3, 2, 224, 224),
                "audio": (1, 128, 204),
                "imu": (6, 2000),
            },
            "imu2clip": {
                "image": (3, 224, 224),
                "video": (3, 10, 224, 224),
                "audio": (80_000,),
                "imu": (6, 1000),
            },
            "clip": {"image": (3, 224, 224)},
        }[profile]
    )
    if profile == "clip":
        assert all(batch["text"])
        return
    # Held still, an accelerometer reads 9.8 m/s² upward: world +y is down, and y stands second in accl.
    measured = batch["imu"][batch["present"]["imu"]]
    assert measured[:, 1].mean() == pytest.approx(-9.8, abs=0.5)
    assert 0 < (~batch["present"]["audio"]).sum() < len(batch["key"])
