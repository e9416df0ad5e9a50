"""A run to and from a bucket of Google's gives the bytes of a local one, through errors and kills."""

import json
import signal
import socket
import subprocess
import sys
import time

import pytest

import align
from align.pipeline.config import RunConfig
from align.pipeline.storage.files import use_options
from align.pipeline.storage.stores import store
from align.schemas.options import AlignOptions
from align.transforms.check.verify import verify

pytest.importorskip("google.cloud.storage", reason="needs apache-beam[gcp]")
emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")

OPTIONS = AlignOptions(window=1, stride=1)
BEAM_ARGS = ("--no_auth", "--project=some-project")


@pytest.fixture
def bucket(faulty_proxy, monkeypatch):
    """An empty bucket behind a proxy that may misbehave: the proxy, the bucket's URI."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="some-bucket")
    server.start()
    proxy = faulty_proxy("127.0.0.1", port)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    use_options(BEAM_ARGS)
    yield proxy, "gs://some-bucket"
    server.stop()
    use_options(())


def upload(folder, uri):
    target = store(uri)
    for path in folder.rglob("*.*"):
        stream = target.create(path.relative_to(folder).as_posix())
        stream.write(path.read_bytes())
        target.seal(stream)
    return uri


def everything(out):
    place = store(out)
    return {name: place.open(name).read() for name in place.names()}


def content(out):
    """Every file of an output but what only a later run has use for."""
    return {name: data for name, data in everything(out).items() if not name.startswith("_work/")}


def configured(source, out, **changes):
    """A run without the indexes that only local outputs get."""
    given = {"workers": 1, "format": ("parquet", "webdataset"), "max_failures": 1.0, "index": ("none",)}
    return RunConfig(source="ego4d", input=str(source), output=str(out), sample=OPTIONS, **given | changes)


@pytest.fixture(scope="module")
def folder(clone_input, tmp_path_factory):
    root = clone_input(tmp_path_factory.mktemp("gcs"), ["a", "broken"])
    (root / "full_scale/broken.mp4").write_bytes(b"no video" * 99)
    return root.parent


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "out"
    align.run(configured(folder, out))
    return content(str(out))


def test_a_run_from_bucket_to_bucket_writes_the_bytes_of_a_local_one(bucket, folder, whole):
    _, place = bucket
    source = upload(folder, f"{place}/in")
    align.run(configured(source, f"{place}/out", beam_args=BEAM_ARGS))
    assert content(f"{place}/out") == whole
    assert verify(store(f"{place}/out"), deep=True).ok
    assert align.run(configured(source, f"{place}/out", beam_args=BEAM_ARGS, resume=True)).already


def test_errors_slow_answers_and_cut_connections_are_tried_again(bucket, folder, whole):
    proxy, place = bucket
    source = upload(folder, f"{place}/in")
    proxy.every = 7
    align.run(configured(source, f"{place}/out", beam_args=BEAM_ARGS))
    proxy.every = 0
    assert proxy.hurt.keys() == {*proxy.FAULTS}
    assert content(f"{place}/out") == whole


def test_an_object_that_may_not_be_read_costs_its_recording_alone(bucket, clone_input, tmp_path):
    proxy, place = bucket
    source = upload(clone_input(tmp_path, ["a", "secret"]).parent, f"{place}/in")
    proxy.refused = "secret.mp4"
    result = align.run(configured(source, f"{place}/out", beam_args=BEAM_ARGS))
    counts = result.manifest["counts"]
    assert (counts["windows_written"], counts["failed"]) == (4, 4)
    (fault,) = map(json.loads, content(f"{place}/out")["failures.jsonl"].splitlines())
    assert (fault["recording_id"], fault["code"]) == ("secret", "unreadable_file")


def program(source, out, *more):
    options = ("--window", "1", "--shard-size", "100KB", "--format", "parquet,webdataset", "--index", "none")
    command = [sys.executable, "-m", "align.pipeline.cli", "run", "--source", "ego4d", "--workers", "1"]
    return [*command, "--input", str(source), "--output", str(out), *options, *more]


@pytest.mark.parametrize("sign", ["_work/reports/train-", "stats.json"], ids=["first shard", "commit"])
def test_a_run_that_is_killed_is_resumed_to_the_same_bytes(bucket, clone_input, tmp_path, sign):
    _, place = bucket
    folder = clone_input(tmp_path, "ab").parent
    subprocess.run(program(folder, tmp_path / "out"), check=True, capture_output=True)
    source, out = upload(folder, f"{place}/in"), f"{place}/out"
    running = subprocess.Popen(program(source, out, *BEAM_ARGS), stdout=subprocess.DEVNULL)
    while running.poll() is None and not any(name.startswith(sign) for name in store(out).names()):
        time.sleep(0.1)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert "manifest.json" not in set(store(out).names())
    subprocess.run(program(source, out, "--resume", *BEAM_ARGS), check=True, capture_output=True)
    assert everything(out) == everything(str(tmp_path / "out"))
