"""Fixtures that several test files share."""

import hashlib
import http.client
import io
import itertools
import json
import os
import resource
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import filelock
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import settings

import align
from align.pipeline.config import RunConfig
from align.schemas.options import AlignOptions
from align.schemas.sample import (
    EncodedAudio,
    EncodedImage,
    ImuWindow,
    Provenance,
    Quality,
    Sample,
)
from align.schemas.time import NS, TimeSpan
from align.transforms.store.publish import local
from align.transforms.synth.layout import synthesize
from align.transforms.synth.options import SynthOptions
from align.transforms.write.card import write_card
from align.transforms.write.manifest import count, manifest, write_failures, write_manifest
from align.transforms.write.shard import ShardSpec, write_shard
from align.transforms.write.stats import merge_all, write_stats

# In CI the same examples every time. Random search belongs to the desk; what it finds becomes an @example.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# A test that would take the machine down with it gets a MemoryError instead.
resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, resource.getrlimit(resource.RLIMIT_DATA)[1]))

# -- Samples made by hand, and data sets written from them ---------------------------------------------


def _jpeg(rng, height=64, width=96):
    coarse = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _flac(rng, samples, rate, silence=(0, 0)):
    buffer = io.BytesIO()
    tone = rng.normal(0, 0.1, samples).clip(-1, 1)
    tone[slice(*silence)] = 0
    soundfile.write(buffer, tone, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def make_sample():
    """Make a realistic Sample: ``make_sample(3, lacks={"imu": "gap"}, split="val", audio_gap=True)``."""

    def make(
        i=0, *, lacks=None, split="train", seconds=1, audio_rate=16_000, imu_rate=200, frames=0,
        audio_gap=False, imu_gap=False, text=("opens the door", "zürich 東京 🚪"), recording=None,
        scenarios=("Cooking",),
    ):  # fmt: skip
        rng = np.random.default_rng([i, 7])
        lacks = dict(lacks or {})
        recording = recording or f"rec{i % 3}"
        window = TimeSpan(21_028_600 + i * seconds * NS, 21_028_600 + (i + 1) * seconds * NS)
        time_ns = window.center_ns - 5_000_000
        gap = TimeSpan(window.start_ns + NS // 10, window.start_ns + NS // 5)
        image = None if "image" in lacks else EncodedImage(_jpeg(rng), time_ns)
        hole = (audio_rate // 10, audio_rate // 5) if audio_gap else (0, 0)
        sound = _flac(rng, seconds * audio_rate, audio_rate, hole)
        audio = EncodedAudio(sound, (gap,) if audio_gap else ())
        n = seconds * imu_rate
        mask = np.ones(n, np.bool_)
        if imu_gap:
            mask[: n // 20] = False
        values = np.where(mask, rng.normal(0, 3, (6, n)), 0).astype(np.float32)
        has_text = "text" not in lacks
        return Sample(
            key=f"{recording}_{window.start_ns:015d}",
            source="synthetic",
            recording_id=recording,
            group_id=f"person-{split}-{i % 2}",
            split=split,
            window=window,
            image=image,
            audio=None if "audio" in lacks else audio,
            imu=None if "imu" in lacks else ImuWindow(values, mask),
            text=tuple(text) if has_text else None,
            text_raw=tuple(f"#C C {t}" for t in text) if has_text else None,
            text_times_ns=tuple(window.start_ns + k for k in range(len(text))) if has_text else None,
            quality=Quality(
                image_offset_ns=-5_000_000 if image else None,
                audio_coverage=None if "audio" in lacks else 0.9 if audio_gap else 1.0,
                imu_coverage=None if "imu" in lacks else float(mask.mean()),
                imu_max_gap_ns=None if "imu" in lacks else 5_000_000,
                imu_rate_hz=None if "imu" in lacks else 198.77,
            ),
            provenance=Provenance(
                "full_scale/a.mp4", 0, None if "audio" in lacks else "full_scale/a.mp4",
                None if "audio" in lacks else 1, None if "imu" in lacks else "imu/a.csv", 0,
                "canonical_timestamp_ms", "c" * 64,
            ),
            frames=tuple(EncodedImage(_jpeg(rng), window.start_ns + k) for k in range(frames)),
            scenarios=scenarios,
            missing=lacks,
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def mixed_samples(make_sample):
    """Twenty windows of three recordings: complete ones, and ones that lack each modality in turn."""
    lacks = [
        {},
        {"imu": "not_recorded"},
        {"audio": "gap"},
        {"text": "not_recorded"},
        {"audio": "decode_error", "imu": "gap"},
    ]
    return [
        make_sample(
            i, lacks=lacks[(i % 8) - 3] if i % 8 > 3 else {}, audio_gap=i % 3 == 1, imu_gap=i % 4 == 1,
            text=() if i == 7 else ("walks", "stops\nand turns"), split="val" if i >= 16 else "train",
            scenarios=() if i % 3 else ("Cooking", "Eating"),
        )
        for i in range(20)
    ]  # fmt: skip


@pytest.fixture
def write_dataset(tmp_path):
    """Write samples as a committed data set: ``write_dataset(samples, formats=("parquet",)) -> Path``."""

    def write(
        samples, *, formats=("parquet", "webdataset"), faults=(), shards=2, name="out", source="synthetic"
    ):
        store = local(tmp_path / name)
        reports = []
        for split in sorted({s.split for s in samples}):
            mine = [s for s in samples if s.split == split]
            for index in range(shards):
                spec = ShardSpec(split, index, shards, formats, seed=3, fingerprint="f")
                reports.append(write_shard(spec, mine[index::shards], store))
        written = sum(r.samples for r in reports)
        lost = sum(f.windows for f in faults)
        counts = count(3, written + lost, reports, faults)
        config = {
            "window_ns": NS,
            "audio_rate": 16_000,
            "imu_rate": 200,
            "frames": 1,
            "formats": list(formats),
        }
        content = manifest(
            align_version="0.1.0", source=source, config=config, config_sha256="c" * 64,
            files=[f for r in reports for f in r.files], counts=counts,
        )  # fmt: skip
        statistics = write_stats(store, merge_all(r.statistics for r in reports))
        write_failures(store, faults)
        write_card(store, content, statistics)
        write_manifest(store, content)
        return tmp_path / name

    return write


# -- Synthetic recordings ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def synth_folder(tmp_path_factory):
    """Synthetic recordings, made once per test run and set of options: ``synth_folder(codec="vp9") -> Path``.

    Small by default (160 x 96, 4 s, one recording). Read-only: several tests and workers share a folder.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(**changes):
        options = SynthOptions(**{"count": 1, "duration_s": 4.0, "width": 160, "height": 96, **changes})
        name = hashlib.sha256(json.dumps(options.as_dict(), sort_keys=True).encode()).hexdigest()[:16]
        folder = shared / f"synth-{name}"
        with filelock.FileLock(f"{folder}.lock"):
            if not (folder / "truth.json").exists():
                synthesize(folder, options)
        return folder

    return make


@pytest.fixture(scope="session")
def synth_dataset(synth_folder):
    """Four linked recordings of 12 s in one folder: complete, no sound, no IMU, no narrations."""
    return synth_folder(count=4, duration_s=12.0, no_audio=(1,), no_imu=(2,), no_narration=(3,))


# -- Real recordings -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real recordings beside the repository; they are not part of it."""
    folder = Path(__file__).parent.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real recordings (../shared/data) are not here")
    return folder


@pytest.fixture(scope="session")
def shared_ego4d(shared_data):
    """Three real recordings laid out as an EGO4D download."""
    return shared_data / "ego4d"


# -- Runs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def align_run(tmp_path_factory):
    """Carry out a run: ``align_run(folder, format=("parquet",), options={"frames": 3}) -> Path``."""

    def run(folder, *, options=None, **changes):
        out = tmp_path_factory.mktemp("run") / "out"
        changes = {"workers": 1, **changes}
        given = AlignOptions(**(options or {}))
        align.run(RunConfig(source="ego4d", input=str(folder), output=str(out), sample=given, **changes))
        return out

    return run


@pytest.fixture(scope="session")
def clone_input(synth_folder):
    """Copies of one 4 s recording under other names: ``clone_input(folder, ["a", "b"]) -> folder / "v2"``."""
    template = synth_folder() / "v2"
    master = json.loads((template / "ego4d.json").read_text())
    (video,) = master["videos"]
    uid = video["video_uid"]
    narration = json.loads((template / "annotations/narration.json").read_text())[uid]

    def clone(folder, names):
        root = folder / "v2"
        for kind, end in (("full_scale", "mp4"), ("imu", "csv")):
            (root / kind).mkdir(parents=True)
            for name in names:
                (root / kind / f"{name}.{end}").write_bytes((template / kind / f"{uid}.{end}").read_bytes())
        videos = [{**video, "video_uid": name, "fb_participant_id": i} for i, name in enumerate(names)]
        (root / "ego4d.json").write_text(json.dumps({**master, "videos": videos}))
        (root / "annotations").mkdir()
        told = dict.fromkeys(names, narration)
        (root / "annotations/narration.json").write_text(json.dumps(told))
        return root

    return clone


@pytest.fixture(scope="session")
def run_result():
    """What a run wrote and lost: ``run_result(out) -> (rows by key, faults by recording)``."""

    def read(out):
        rows = {r["key"]: r for f in sorted(out.glob("data/*.parquet")) for r in pq.read_table(f).to_pylist()}
        faults = {}
        for line in (out / "failures.jsonl").read_text().splitlines():
            fault = json.loads(line)
            faults.setdefault(fault["recording_id"], []).append(fault)
        return rows, faults

    return read


# -- Object stores -------------------------------------------------------------------------------------


class _FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to a server; every so many-th one ends in one of the faults, by turns.

    Attributes:
        every: 0 for none.
        refused: requests with this in their path are answered with 403.
        hurt: how often each fault came.
        lost: answers of finished uploads that got lost: GCS gives them again, its emulator has forgotten.
    """

    FAULTS = ("500", "hung up", "answer lost", "answer cut", "answer slow")
    daemon_threads = True

    def __init__(self, host, port):
        self.target, self.every, self.refused, self.hurt = (host, port), 0, "", Counter()
        self.lost = {}
        self.faults, self.seen = itertools.cycle(self.FAULTS), itertools.count(1)
        super().__init__(("127.0.0.1", 0), _PassOn)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def fault(self):
        """What happens to the next request."""
        return next(self.faults) if self.every and not next(self.seen) % self.every else None


class _PassOn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        """One request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault()
        if self.server.refused and self.server.refused in self.path:
            self.answer(403, [], b"")
            return
        if fault in ("500", "hung up"):
            status, headers, data = 500, [], b""
        else:
            status, headers, data = self.server.lost.pop(self.path, None) or self.ask(body)
        if fault == "answer cut" and not data:
            fault = None
        if fault:
            self.server.hurt[fault] += 1
        if fault == "answer slow":
            time.sleep(1)
        if fault in ("hung up", "answer lost"):
            self.close_connection = True
            if fault == "answer lost" and "upload_id=" in self.path:
                self.server.lost[self.path] = status, headers, data
        else:
            self.answer(status, headers, data, cut=fault == "answer cut")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = handle_any

    def ask(self, body):
        connection = http.client.HTTPConnection(*self.server.target, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        there, here = (f"http://{h}:{p}" for h, p in (self.server.target, self.server.server_address))
        drop = ("transfer-encoding", "connection", "server", "date")
        headers = [(k, v.replace(there, here)) for k, v in answer.getheaders() if k.lower() not in drop]
        data = answer.read()
        connection.close()
        if "json" in (answer.getheader("Content-Type") or ""):
            data = data.replace(there.encode(), here.encode())
        return answer.status, headers, data

    def answer(self, status, headers, data, cut=False):
        self.send_response(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD" or not headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def faulty_proxy():
    """A proxy on the loopback that may misbehave: ``proxy = faulty_proxy("127.0.0.1", port)``."""
    running = []

    def start(host, port):
        proxy = _FaultyProxy(host, port)
        running.append((proxy, threading.Thread(target=proxy.serve_forever)))
        running[-1][1].start()
        return proxy

    yield start
    for proxy, thread in running:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
