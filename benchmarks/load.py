"""Loading speed of ``align.load``, webdataset and datasets on the same samples, in one run.

    python -m benchmarks.load [--samples 600] [--rounds 3] [--out DIR]

Each reader decodes pictures to RGB pixels, sound to float samples and IMU to arrays, in one process of its
own; rounds alternate between the readers, so that a busy machine disturbs all alike. Memory is the peak of
the process, imports included.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile

from align.schemas.options import AlignOptions
from align.schemas.sample import EncodedAudio, EncodedImage, ImuWindow, Provenance, Quality, Sample
from align.schemas.time import NS, TimeSpan
from align.transforms.store.publish import local
from align.transforms.write.card import write_card
from align.transforms.write.manifest import count, manifest, write_manifest
from align.transforms.write.shard import ShardSpec, write_shard
from align.transforms.write.stats import merge_all, write_stats

BATCH = 32
READERS = ("align", "webdataset", "datasets")


def write(out: Path, samples: int) -> None:
    """A data set of both formats with windows of 5 s, as a run with default options writes them."""
    store = local(out)
    specs = [ShardSpec("train", index, 4, ("parquet", "webdataset"), fingerprint="-") for index in range(4)]
    reports = [write_shard(s, (_sample(i) for i in range(s.index, samples, 4)), store) for s in specs]
    content = manifest(
        align_version="-", source="made up", config=AlignOptions().as_dict(), config_sha256="-",
        files=[f for report in reports for f in report.files], counts=count(1, samples, reports, ()),
    )  # fmt: skip
    write_card(store, content, write_stats(store, merge_all(r.statistics for r in reports)))
    write_manifest(store, content)


def _sample(number: int) -> Sample:
    rng = np.random.default_rng(number)
    window = TimeSpan(5 * NS * number, 5 * NS * (number + 1))
    texture = cv2.resize(rng.integers(0, 256, (64, 114, 3), np.uint8), (455, 256))
    jpeg = cv2.imencode(".jpg", texture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    flac = io.BytesIO()
    soundfile.write(flac, rng.normal(0, 0.05, 80_000), 16_000, format="FLAC", subtype="PCM_16")
    return Sample(
        key=f"made-up-{number:06d}", source="made up", recording_id="r", group_id="g", split="train",
        window=window, image=EncodedImage(jpeg, window.center_ns), audio=EncodedAudio(flac.getvalue()),
        imu=ImuWindow(rng.normal(size=(6, 1000)).astype(np.float32), np.ones(1000, np.bool_)),
        text=("opens a door",), text_raw=("#C C opens a door",), text_times_ns=(window.center_ns,),
        quality=Quality(0, 1.0, 1.0, 5_000_000, 200.0),
        provenance=Provenance("v.mp4", 0, "v.mp4", 1, "i.csv", 0, None, "-"),
    )  # fmt: skip


def _batches(samples: Iterator[tuple[Any, ...]]) -> Iterator[list[Any]]:
    held = []
    for sample in samples:
        held.append(sample)
        if len(held) == BATCH:
            yield [np.stack(column) for column in zip(*held, strict=True)]
            held = []
    if held:
        yield [np.stack(column) for column in zip(*held, strict=True)]


def _square(pixels: Any) -> Any:
    left = (pixels.shape[1] - 256) // 2
    return pixels[:, left : left + 256].transpose(2, 0, 1)


def _sound(flac: bytes) -> Any:
    return soundfile.read(io.BytesIO(flac), dtype="float32")[0]


def align_reader(out: Path) -> Callable[[], Iterator[Any]]:
    """As in docs/training.md."""
    import align

    return lambda: iter(align.load(out, modalities=("image", "audio", "imu"), batch_size=BATCH))


def webdataset_reader(out: Path) -> Callable[[], Iterator[Any]]:
    """Tar files in order, its own decoders, a shuffle buffer as large as one of our row groups."""
    import webdataset

    tars = [str(path) for path in sorted((out / "webdataset").glob("*.tar"))]

    def flac(key: str, data: bytes) -> Any:
        return _sound(data) if key.endswith("flac") else None

    def read() -> Iterator[Any]:
        shards = webdataset.WebDataset(tars, shardshuffle=4).shuffle(400).decode("rgb8", flac)
        return _batches((_square(s["jpg"]), s["flac"], s["imu.npy"]) for s in shards)

    return read


def datasets_reader(out: Path) -> Callable[[], Iterator[Any]]:
    """Streaming over the Parquet files, pictures by its own decoder, columns it need not read left out."""
    import datasets

    def read() -> Iterator[Any]:
        columns = ["image", "audio", "imu"]
        rows = datasets.load_dataset(str(out), split="train", streaming=True, columns=columns)
        rows = rows.cast_column("audio", datasets.Audio(decode=False)).shuffle(0, buffer_size=400)
        return _batches(
            (_square(np.asarray(r["image"])), _sound(r["audio"]["bytes"]), np.array(r["imu"], np.float32))
            for r in rows
        )

    return read


def measure(name: str, out: Path) -> dict[str, float]:
    """Read one epoch in this process."""
    read = {"align": align_reader, "webdataset": webdataset_reader, "datasets": datasets_reader}[name](out)
    next(read())  # imports and caches
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    samples = sum(len(b["key"]) if isinstance(b, dict) else len(b[0]) for b in read())
    return {
        "samples": samples,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "grown_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def compare(out: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The median of several rounds, each reader in a fresh process."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in READERS}
    for _ in range(rounds):
        for name in READERS:
            command = [sys.executable, "-m", "benchmarks.load", "--out", str(out), "--measure", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for name, found in runs.items()
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", choices=READERS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.out)))
        return
    with tempfile.TemporaryDirectory(prefix="align-bench-") as folder:
        out = options.out or Path(folder, "out")
        if not (out / "manifest.json").exists():
            write(out, options.samples)
        found = compare(out, options.rounds)
    print(f"{'reader':12}{'samples/s':>11}{'samples/CPU s':>15}{'peak MB':>9}")
    for name, run in found.items():
        rate, per_cpu = run["samples"] / run["wall_s"], run["samples"] / run["cpu_s"]
        print(f"{name:12}{rate:11.0f}{per_cpu:15.0f}{run['peak_mb']:9.0f}")


if __name__ == "__main__":
    main()
