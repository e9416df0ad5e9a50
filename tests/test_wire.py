"""A portable job server and a worker process of its own, reached over the network only: the same bytes."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

import align
from align.pipeline.config import RunConfig
from align.schemas.options import AlignOptions
from align.transforms.check.verify import verify
from align.transforms.store.publish import local

OPTIONS = AlignOptions(window=1, stride=1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(module, option, log):
    """One of Beam's services in a process group of its own, gone with all its processes at the end."""
    port = free_port()
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # it starts plain "python"
    command = [sys.executable, "-m", f"apache_beam.runners.{module}", f"{option}={port}"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, env={**os.environ, "PATH": path}, start_new_session=True
        )
    try:
        wait_for(port, process)
        yield f"localhost:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(port, process):
    for _ in range(600):
        assert process.poll() is None, "the service ended"
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("the service does not answer")


@pytest.fixture
def portable(tmp_path):
    """Beam's options that send a pipeline to a job server, whose work a process of another service does."""
    with (
        served("portability.local_job_service_main", "--port", tmp_path / "jobs.log") as jobs,
        served("worker.worker_pool_main", "--service_port", tmp_path / "workers.log") as workers,
    ):
        yield (f"--job_endpoint={jobs}", "--environment_type=EXTERNAL", f"--environment_config={workers}")


def content(out):
    return {
        path.relative_to(out): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and "_work" not in path.parts
    }


def test_a_portable_runner_with_a_process_of_its_own_writes_the_same_bytes(portable, clone_input, tmp_path):
    folder = clone_input(tmp_path, ["a", "b"]).parent
    here = str(tmp_path / "here")
    config = RunConfig(source="ego4d", input=str(folder), output=here, sample=OPTIONS, workers=1)
    align.run(config)
    there = tmp_path / "there"
    align.run(config.but(output=str(there), runner="PortableRunner", beam_args=portable))
    assert content(there) == content(tmp_path / "here")
    assert verify(local(str(there)), deep=True).ok
