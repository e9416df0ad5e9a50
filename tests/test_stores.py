"""The same run to and from a bucket gives the bytes of the local one, through errors and cut connections."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import align
from align.pipeline.config import RunConfig
from align.pipeline.stores import store
from align.schemas.options import AlignOptions
from align.transforms.check.verify import verify

boto3 = pytest.importorskip("boto3", reason="needs apache-beam[aws]")
moto_server = pytest.importorskip("moto.server", reason="needs moto[server]")

OPTIONS = AlignOptions(window_ns=10**9, stride_ns=10**9)


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on; now and then it answers 500 instead, or hangs up in the middle of an answer."""

    protocol_version = "HTTP/1.1"
    target: tuple[str, int]
    every = 0
    seen = 0
    hurt = 0

    def handle_any(self) -> None:
        kind = type(self)
        kind.seen += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if kind.every and kind.seen % kind.every == 0:
            kind.hurt += 1
            if kind.hurt % 2:
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.close_connection = True
            return
        connection = http.client.HTTPConnection(*kind.target, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(data)
        connection.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def moto():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def bucket(moto, monkeypatch):
    """An empty bucket behind a proxy that may misbehave: how to upload, the proxy's class, its URI."""
    session = boto3.session.Session()
    monkeypatch.setattr(boto3.session, "Session", lambda: session)  # Beam makes one a call, at 0.3 CPU s each
    kind = type("Behaving", (Proxy,), {"target": moto})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "y"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    s3 = session.client("s3")
    name = f"bucket-{proxy.server_port}"
    s3.create_bucket(Bucket=name)

    def upload(folder: Path) -> str:
        for path in folder.rglob("*.*"):
            s3.put_object(Bucket=name, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes())
        return f"s3://{name}"

    yield upload, kind, f"s3://{name}"
    proxy.shutdown()
    proxy.server_close()
    thread.join()


@pytest.fixture(scope="module")
def folder(clone_input, tmp_path_factory):
    root = clone_input(tmp_path_factory.mktemp("stores"), ["a", "broken"])
    (root / "full_scale/broken.mp4").write_bytes(b"no video" * 99)
    return root.parent


def configured(source, out, **changes):
    """A run without the indexes that only local outputs get."""
    given = {"workers": 1, "formats": ("parquet", "webdataset"), "max_failures": 1.0, "indexes": ("none",)}
    return RunConfig("ego4d", str(source), str(out), OPTIONS, **given, **changes)


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


def test_errors_and_cut_connections_are_tried_again(bucket, folder, whole):
    upload, proxy, place = bucket
    source = upload(folder)
    proxy.every = 9
    align.run(configured(source, f"{place}/out"))
    proxy.every = 0
    assert proxy.hurt > 5
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
