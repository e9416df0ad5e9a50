"""The same run to and from a bucket gives the bytes of the local one, through errors and cut connections."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import align
from align.pipeline.config import RunConfig
from align.pipeline.storage.stores import store
from align.schemas.options import AlignOptions
from align.transforms.check.verify import verify

boto3 = pytest.importorskip("boto3", reason="needs apache-beam[aws]")
moto_server = pytest.importorskip("moto.server", reason="needs moto[server]")

OPTIONS = AlignOptions(window=1, stride=1)


@pytest.fixture(scope="module")
def moto():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def bucket(moto, faulty_proxy, monkeypatch):
    """An empty bucket behind a proxy that may misbehave: how to upload, the proxy, the bucket's URI."""
    proxy = faulty_proxy(*moto)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "y"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    s3 = boto3.client("s3", endpoint_url="http://{}:{}".format(*moto))
    name = f"bucket-{proxy.server_port}"
    s3.create_bucket(Bucket=name)

    def upload(folder: Path) -> str:
        for path in folder.rglob("*.*"):
            s3.put_object(Bucket=name, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes())
        return f"s3://{name}"

    return upload, proxy, f"s3://{name}"


@pytest.fixture(scope="module")
def folder(clone_input, tmp_path_factory):
    root = clone_input(tmp_path_factory.mktemp("stores"), ["a", "broken"])
    (root / "full_scale/broken.mp4").write_bytes(b"no video" * 99)
    return root.parent


def configured(source, out, **changes):
    """A run without the indexes that only local outputs get."""
    given = {"workers": 1, "format": ("parquet", "webdataset"), "max_failures": 1.0, "index": ("none",)}
    return RunConfig(
        source="ego4d", input=str(source), output=str(out), sample=OPTIONS, **{**given, **changes}
    )


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "out"
    align.run(configured(folder, out))
    return content(str(out))


def content(out):
    """Every file of an output but what only a later run has use for."""
    place = store(out)
    return {name: place.open(name).read() for name in place.names() if not name.startswith("_work/")}


def test_a_run_from_bucket_to_bucket_writes_the_bytes_of_a_local_one(bucket, folder, whole):
    upload, _, place = bucket
    source = upload(folder)
    align.run(configured(source, f"{place}/out"))
    assert content(f"{place}/out") == whole
    assert verify(store(f"{place}/out"), deep=True).ok
    assert align.run(configured(source, f"{place}/out", resume=True)).already


def test_two_workers_are_given_the_keys_of_the_bucket(bucket, folder, whole):
    upload, _, place = bucket
    source = upload(folder)
    two = configured(source, f"{place}/out", workers=2, beam_args=("--s3_verify=False",))
    align.run(two)
    assert content(f"{place}/out") == whole


def test_errors_slow_answers_and_cut_connections_are_tried_again(bucket, folder, whole):
    upload, proxy, place = bucket
    source = upload(folder)
    proxy.every = 7
    align.run(configured(source, f"{place}/out"))
    proxy.every = 0
    assert proxy.hurt.keys() == {*proxy.FAULTS}
    assert content(f"{place}/out") == whole


def test_an_unfinished_upload_is_finished_by_the_next_run(bucket, folder, whole):
    _, _, place = bucket
    out = f"{place}/out"
    align.run(configured(folder, out))
    target = store(out)
    target.remove("manifest.json")
    lost = next(name for name in target.names() if name.startswith("data/"))
    target.remove(lost)
    align.run(configured(folder, out, resume=True))
    assert content(out) == whole


def test_a_run_without_a_fault_writes_its_empty_list_of_faults(bucket, clone_input, tmp_path):
    """S3 refuses an upload in parts that has no part, which is how Beam writes an empty object."""
    _, _, place = bucket
    align.run(configured(clone_input(tmp_path, ["a"]).parent, f"{place}/out"))
    assert content(f"{place}/out")["failures.jsonl"] == b""


def test_an_object_that_may_not_be_read_costs_its_recording_alone(bucket, clone_input, tmp_path):
    upload, proxy, place = bucket
    source = upload(clone_input(tmp_path, ["a", "secret"]).parent)
    proxy.refused = "full_scale/secret.mp4"
    counts = align.run(configured(source, f"{place}/out")).manifest["counts"]
    assert (counts["windows_written"], counts["failed"]) == (4, 4)
    (fault,) = map(json.loads, content(f"{place}/out")["failures.jsonl"].splitlines())
    assert (fault["recording_id"], fault["code"]) == ("secret", "unreadable_file")
    assert "full_scale/secret.mp4" in fault["detail"]
    assert place not in fault["detail"]


def test_an_output_that_may_not_be_written_ends_the_run_in_one_line(bucket, folder):
    _, proxy, place = bucket
    proxy.refused = "out/data/"
    done = subprocess.run(program(folder, f"{place}/out"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("align: cannot write data/train-00000-of-00001.parquet: ")
    assert done.stderr.count("\n") == 1


def test_a_process_makes_one_client(bucket, folder, monkeypatch):
    upload, _, place = bucket
    source, made = upload(folder), []
    real = boto3.session.Session
    monkeypatch.setattr(boto3.session, "Session", lambda: made.append(1) or real())
    align.run(configured(source, f"{place}/out").but(isolate=False))
    assert len(made) <= 2  # Beam puts other options in place of ours when the pipeline starts


def program(source, out, *more):
    options = ("--window", "1", "--shard-size", "100KB", "--format", "parquet,webdataset", "--index", "none")
    command = [sys.executable, "-m", "align.pipeline.cli", "run", "--source", "ego4d", "--workers", "1"]
    return [*command, "--max-failures", "1", "--input", str(source), "--output", str(out), *options, *more]


@pytest.fixture(scope="module")
def several(clone_input, tmp_path_factory):
    """An input of several shards, and every file of what a run makes of it."""
    folder = clone_input(tmp_path_factory.mktemp("several"), "ab").parent
    out = tmp_path_factory.mktemp("whole") / "out"
    subprocess.run(program(folder, out), check=True, capture_output=True)
    return folder, everything(str(out))


def everything(out):
    place = store(out)
    return {name: place.open(name).read() for name in place.names()}


@pytest.mark.parametrize("sign", ["_work/reports/train-", "stats.json"], ids=["first shard", "commit"])
def test_a_run_between_buckets_that_is_killed_is_resumed_to_the_same_bytes(bucket, several, sign):
    upload, _, place = bucket
    folder, whole = several
    source, target = upload(folder), store(f"{place}/out")
    running = subprocess.Popen(program(source, f"{place}/out"), stdout=subprocess.DEVNULL)
    while running.poll() is None and not any(name.startswith(sign) for name in target.names()):
        time.sleep(0.1)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert "manifest.json" not in set(target.names())
    subprocess.run(program(source, f"{place}/out", "--resume"), check=True, capture_output=True)
    assert everything(f"{place}/out") == whole
