"""The same run to and from a bucket of Google's gives the bytes of the local one."""

import socket

import pytest

import align
from align.pipeline.config import RunConfig
from align.pipeline.storage import use_options
from align.pipeline.stores import store
from align.schemas.options import AlignOptions
from align.transforms.check.verify import verify

pytest.importorskip("google.cloud.storage", reason="needs apache-beam[gcp]")
emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")

OPTIONS = AlignOptions(window_ns=10**9, stride_ns=10**9)
BEAM_ARGS = ("--no_auth", "--project=some-project")


@pytest.fixture
def bucket(monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="some-bucket")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    use_options(BEAM_ARGS)
    yield "gs://some-bucket"
    server.stop()
    use_options(())


def upload(folder, uri):
    target = store(uri)
    for path in folder.rglob("*.*"):
        stream = target.create(path.relative_to(folder).as_posix())
        stream.write(path.read_bytes())
        target.seal(stream)


def content(out):
    """Every file of an output but what only a later run has use for."""
    place = store(out)
    return {name: place.open(name).read() for name in place.names() if not name.startswith("_work/")}


def configured(source, out, **changes):
    """A run without the indexes that only local outputs get."""
    given = {"workers": 1, "formats": ("parquet", "webdataset"), "max_failures": 1.0, "indexes": ("none",)}
    return RunConfig("ego4d", str(source), str(out), OPTIONS, **given, **changes)


def test_a_run_from_bucket_to_bucket_writes_the_bytes_of_a_local_one(bucket, clone_input, tmp_path):
    root = clone_input(tmp_path / "in", ["a", "broken"])
    (root / "full_scale/broken.mp4").write_bytes(b"no video" * 99)
    align.run(configured(root.parent, tmp_path / "out"))
    upload(root.parent, f"{bucket}/in")

    config = configured(f"{bucket}/in", f"{bucket}/out", beam_args=BEAM_ARGS)
    align.run(config)
    assert content(config.output) == content(str(tmp_path / "out"))
    assert verify(store(config.output), deep=True).ok
    again = configured(config.input, config.output, beam_args=BEAM_ARGS, resume=True)
    assert align.run(again).already
