"""Runs that are killed, stopped, starved or replayed: nothing lost, nothing doubled."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from align.schemas.errors import AlignError
from align.transforms.store.publish import local
from align.transforms.write.shard import ShardSpec, write_shard

NAMES = tuple("abcdefgh")
SHARDS = ("--window", "1", "--shard-size", "100KB", "--format", "parquet,webdataset")


@pytest.fixture(scope="module")
def folder(clone_input, tmp_path_factory):
    return clone_input(tmp_path_factory.mktemp("crash"), NAMES).parent


def command(folder, out, *more):
    program = [sys.executable, "-m", "align.pipeline.cli", "run", "--source", "ego4d"]
    return [*program, "--input", str(folder), "--output", str(out), *SHARDS, *more]


def tree(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def finish(folder, out, *more):
    done = subprocess.run(command(folder, out, *more), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(folder, out, "--workers", "1")
    return tree(out)


def begun(folder, out, *more, shards):
    """A run that has finished so many shards and goes on."""
    quiet = subprocess.DEVNULL
    running = subprocess.Popen(command(folder, out, *more), stdout=quiet, stderr=subprocess.PIPE, text=True)
    for _ in range(2000):
        if len(list(out.glob("data/[!.]*.parquet"))) >= shards or running.poll() is not None:
            return running
        time.sleep(0.03)
    raise AssertionError("the run makes no progress")


@pytest.mark.parametrize(("workers", "shards"), [(1, 3), (2, 2)])
def test_a_killed_run_is_resumed_to_the_same_bytes(folder, whole, tmp_path, workers, shards):
    out = tmp_path / "out"
    running = begun(folder, out, "--workers", str(workers), shards=shards)
    running.kill()
    running.communicate()
    assert not (out / "manifest.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in out.glob("data/[!.]*.parquet")}
    finish(folder, out, "--workers", "1", "--resume")
    assert tree(out) == whole
    assert len([p for p, mtime in kept.items() if p.stat().st_mtime_ns == mtime]) >= shards


@pytest.mark.parametrize(
    ("workers", "how", "code"), [(1, signal.SIGINT, 130), (2, signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stopped_run_says_how_to_go_on_and_leaves_no_process(folder, tmp_path, workers, how, code):
    out = tmp_path / "out"
    running = begun(folder, out, "--workers", str(workers), shards=1)
    running.send_signal(how)
    said = running.communicate(timeout=30)[1]
    assert running.returncode == code
    assert said.strip() == "align: stopped; run the same command with --resume to go on"
    for _ in range(100):
        if not left_behind(out):
            return
        time.sleep(0.1)
    raise AssertionError(f"processes are left: {left_behind(out)}")


def left_behind(out):
    """Processes that hold a file below a folder open, or were given it as an argument."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(out) in entry.read_text():
                found.append(entry.read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_a_worker_that_dies_ends_the_run_in_one_line(folder, whole, tmp_path):
    out = tmp_path / "out"
    running = begun(folder, out, "--workers", "2", shards=1)
    children = [p.read_text() for p in Path(f"/proc/{running.pid}/task").glob("*/children")]
    workers = " ".join(children).split()
    worker = next(p for p in workers if "worker_process" in Path(f"/proc/{p}/cmdline").read_text())
    os.kill(int(worker), signal.SIGKILL)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 1
    assert said.count("\n") == 1
    assert "--resume" in said
    finish(folder, out, "--workers", "1", "--resume")
    assert tree(out) == whole


AT_SHUTDOWN = """
import atexit, time
atexit.register(time.sleep, 60)
"""

AT_START = """
import signal, sys
class Killer:
    def find_spec(self, name, path, target=None):
        if name == "align.pipeline.job.tasks":
            os.kill(os.getpid(), signal.SIGKILL)
sys.meta_path.insert(0, Killer())
"""

DEFECT = """
import sys
from align.pipeline.job import planning
def plan_recording(*_, **__):
    raise ZeroDivisionError("on purpose")
planning.plan_recording = plan_recording
"""


@pytest.fixture
def sabotaged(folder, tmp_path):
    """A run with two workers, in each of which some code runs before anything else."""

    def run(code, out, *more):
        place = tmp_path / "sabotage"
        place.mkdir()
        lines = [f"    {line}" for line in code.splitlines()]
        start = [
            "import os",
            'if "align.pipeline.process.worker_process" in open("/proc/self/cmdline").read():',
        ]
        (place / "sitecustomize.py").write_text("\n".join([*start, *lines, "    pass"]))
        paths = [str(place), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        return subprocess.run(
            command(folder, out, "--workers", "2", *more),
            capture_output=True, text=True, timeout=120, check=False, env=environment,
        )  # fmt: skip

    return run


def test_a_run_that_has_committed_is_done_though_its_workers_do_not_end(sabotaged, whole, tmp_path):
    out = tmp_path / "out"
    done = sabotaged(AT_SHUTDOWN, out)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(out) == whole


def test_a_run_that_cannot_commit_fails(sabotaged, folder, whole, tmp_path):
    out = tmp_path / "out"
    running = begun(folder, out, "--workers", "1", shards=2)
    running.kill()
    running.communicate()
    (out / "stats.json").mkdir()
    (out / "stats.json/x").touch()
    done = sabotaged("", out, "--resume")
    assert done.returncode == 1
    assert done.stderr.startswith("align: cannot write stats.json: ")
    assert done.stderr.count("\n") == 1
    assert not (out / "manifest.json").exists()
    shutil.rmtree(out / "stats.json")
    finish(folder, out, "--workers", "1", "--resume")
    assert tree(out) == whole


def test_workers_that_die_before_they_have_begun_end_the_run(sabotaged, tmp_path):
    done = sabotaged(AT_START, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "worker process" in done.stderr


def test_a_defect_in_a_worker_is_one_line_and_with_debug_a_traceback(sabotaged, tmp_path):
    done = sabotaged(DEFECT, tmp_path / "out", "--debug")
    assert done.returncode == 1
    assert ", in plan_recording" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "align: WorkerDefect: in a worker process: ZeroDivisionError: on purpose "
        "(a defect of align; --debug shows where)"
    )


def run_in(out, folder):
    done = subprocess.run(
        command(folder, out, "--workers", "1"), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_line(folder, small_disk):
    code, said = run_in(small_disk / "out", folder)
    assert code == 1
    assert "No space left on device" in said
    assert not (small_disk / "out/manifest.json").exists()


def test_a_full_disk_leaves_no_half_file_for_a_reader(mixed_samples, small_disk):
    specs = [ShardSpec("train", index, 99) for index in range(99)]
    with pytest.raises(AlignError, match="No space left"):
        [write_shard(spec, mixed_samples, local(small_disk)) for spec in specs]
    assert not [p for p in small_disk.rglob("*") if p.name.endswith(".tmp")]


def test_an_output_that_cannot_be_written_is_one_line(folder):
    code, said = run_in("/proc/out", folder)
    assert code == 1
    assert said.startswith("align: cannot write to /proc/out: ")


def test_an_output_removed_under_way_ends_the_run(folder, tmp_path):
    out = tmp_path / "out"
    running = begun(folder, out, "--workers", "1", shards=1)
    shutil.rmtree(out, ignore_errors=True)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 1
    assert said.count("\n") == 1
    assert not (out / "manifest.json").exists()


def test_two_runs_at_once_do_not_share_an_output(folder, whole, tmp_path):
    out = tmp_path / "out"
    first = begun(folder, out, "--workers", "1", shards=1)
    second = subprocess.run(
        command(folder, out, "--resume"), capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == 2
    assert f"process {first.pid}" in second.stderr
    first.communicate(timeout=120)
    assert tree(out) == whole


def test_writers_of_one_name_do_not_mix(tmp_path):
    """Two threads publish under one name: each gets a temporary name of its own, and one wins whole."""
    from align.transforms.store.publish import publish_bytes

    store = local(tmp_path)
    threads = [threading.Thread(target=publish_bytes, args=(store, "a", bytes([i]) * 99)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = (tmp_path / "a").read_bytes()
    assert len(set(data)) == 1
    assert list(store.names()) == ["a"]
