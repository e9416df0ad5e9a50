"""A run listens on nothing, runs no foreign code, hands on no secret, and leaves nothing when killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ALIGN = Path(sys.executable).parent / "align"
CANARY = "canary-4711"
SECRETS = {
    name: f"{CANARY}-{name}"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN")
}
AT_EXIT = """
import atexit, os, sys
def tell():
    with open({place!r} + "/" + str(os.getpid()), "w") as file:
        file.write(" ".join(sys.modules))
atexit.register(tell)
"""
CODE = "open({mark!r}, 'a').write(__name__ + '\\n')\nraise ImportError('foreign code')\n"


def alive(pid):
    """Whether a process runs: one that has ended and was not yet asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tree_of(root):
    """A process and all below it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def listening(pid) -> Iterator[str]:
    """Sockets of a process on which somebody else could speak to it: TCP and unix that listen, UDP."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        name = os.readlink(link)
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            row = line.split()
            if row[9] in inodes and (row[3] == "0A" or table.startswith("udp")):
                yield f"{table} {row[1]}"
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        row = line.split()
        if row[6] in inodes and int(row[3], 16) & 0x10000:  # SO_ACCEPTCON, include/linux/net.h
            yield f"unix {row[7:]}"


@dataclass
class Seen:
    """What was seen of a process tree.

    Attributes:
        sockets: that listened.
        lines: process id -> its command line.
        environments: process id -> its environment; the launcher's own is not looked at.
    """

    sockets: set[str] = field(default_factory=set)
    lines: dict[int, str] = field(default_factory=dict)
    environments: dict[int, str] = field(default_factory=dict)
    said: str = ""

    def look(self, root):
        for pid in tree_of(root):
            try:
                self.sockets.update(listening(pid))
                line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                if pid != root and "align.pipeline.process" in line:  # not between fork and exec
                    self.lines[pid] = line
                    self.environments[pid] = Path(f"/proc/{pid}/environ").read_text()
            except OSError:
                continue

    def of(self, name):
        return [pid for pid, line in self.lines.items() if name in line]


def watched(arguments, program=(str(ALIGN),), **how):
    """Run a command and look at its processes all the time."""
    seen = Seen()
    running = subprocess.Popen(
        [*program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how
    )
    while running.poll() is None:
        seen.look(running.pid)
        time.sleep(0.1)
    seen.said = running.communicate()[0]
    assert running.returncode == 0, seen.said
    return seen


def run_command(folder, out, *more):
    options = ("--window", "1", "--shard-size", "100KB", "--workers", "2")
    return ["run", "--source", "ego4d", "--input", folder, "--output", out, *options, *more]


def sync_command(folder, table):
    return [
        "sync",
        "--source",
        "ego4d",
        "--input",
        folder,
        "--output",
        table,
        "--workers",
        "2",
        "--limit",
        "2",
    ]


@pytest.fixture(scope="module")
def folder(clone_input, tmp_path_factory):
    return clone_input(tmp_path_factory.mktemp("doors"), "abcd").parent


@dataclass
class Watched:
    seen: Seen
    out: Path
    modules: dict[int, set[str]]
    """Of each worker, when it ended."""


@pytest.fixture(scope="module")
def run_with_two_workers(folder, tmp_path_factory):
    """A run whose launcher knows secrets, and whose workers write down at their end what they imported."""
    base = tmp_path_factory.mktemp("watched")
    place = base / "modules"
    place.mkdir()
    (base / "sitecustomize.py").write_text(AT_EXIT.format(place=str(place)))
    environment = {**os.environ, **SECRETS, "PYTHONPATH": str(base)}
    out = base / "out"
    arguments = run_command(folder, out, f"--s3_secret_access_key={CANARY}-option")
    seen = watched(arguments, env=environment)
    modules = {int(file.name): set(file.read_text().split()) for file in place.iterdir()}
    return Watched(seen, out, modules)


def test_a_run_listens_on_nothing(run_with_two_workers):
    seen = run_with_two_workers.seen
    assert len(seen.of("worker_process")) == 2
    assert seen.of("decoder_process")
    assert not seen.sockets


def test_no_process_of_a_run_is_given_a_secret(run_with_two_workers):
    seen = run_with_two_workers.seen
    assert not [line for line in seen.lines.values() if CANARY in line]
    assert all(seen.environments.values())
    assert not [text for text in seen.environments.values() if CANARY in text]


def test_no_secret_is_written_down_or_printed(run_with_two_workers):
    files = [path for path in run_with_two_workers.out.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]
    assert CANARY not in run_with_two_workers.seen.said


def test_a_worker_imports_no_beam_for_local_files(run_with_two_workers):
    workers = run_with_two_workers.seen.of("worker_process")
    for pid in workers:
        assert "align.pipeline.job.tasks" in run_with_two_workers.modules[pid]
        assert not {"apache_beam", "grpc"} & run_with_two_workers.modules[pid]


@pytest.fixture
def hostile_folder(tmp_path):
    """A folder whose files have the names of modules that our processes import, and leave a mark when run."""
    place, mark = tmp_path / "data set", tmp_path / "mark"
    (place / "align").mkdir(parents=True)
    names = ("json", "numpy", "queue", "random", "av", "sitecustomize", "usercustomize", "align/__init__")
    for name in names:
        (place / f"{name}.py").write_text(CODE.format(mark=str(mark)))
    return place, mark


def test_code_in_the_current_folder_is_never_run(folder, hostile_folder):
    place, mark = hostile_folder
    watched(run_command(folder, "out", "--limit", "2"), cwd=place)
    assert not mark.exists(), mark.read_text()


def test_align_sync_listens_on_nothing_and_runs_no_code_of_the_current_folder(folder, hostile_folder):
    """Relative entries of PYTHONPATH mean the current folder; here all but the launcher could heed them."""
    place, mark = hostile_folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", "", os.environ.get("PYTHONPATH", "")])}
    command = sync_command(folder, "clocks.parquet")
    seen = watched(command, program=[sys.executable, "-I", str(ALIGN)], cwd=place, env=environment)
    assert not mark.exists(), mark.read_text()
    assert len(seen.of("worker_process")) == 2
    assert not seen.sockets


@pytest.mark.parametrize("command", ["verify", "index", "inspect", "stats"])
def test_no_command_on_a_data_set_runs_code_of_the_current_folder(
    run_with_two_workers, hostile_folder, command
):
    place, mark = hostile_folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", "", os.environ.get("PYTHONPATH", "")])}
    program = [sys.executable, "-I", str(ALIGN)]
    seen = watched([command, run_with_two_workers.out], program=program, cwd=place, env=environment)
    assert not mark.exists(), mark.read_text()
    assert not seen.sockets


@pytest.mark.parametrize("moment", ["workers start", "shards are written"])
def test_a_killed_launcher_leaves_no_process_and_no_file(folder, tmp_path, moment):
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    running = subprocess.Popen(
        [str(ALIGN), *map(str, run_command(folder, out))],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    tree = set()
    try:
        for _ in range(4000):
            tree.update(tree_of(running.pid))
            begun = len(tree) > 2 if moment == "workers start" else any(out.glob("_work/reports/[!.]*.json"))
            if begun or running.poll() is not None:
                break
            time.sleep(0.01)
        tree.update(tree_of(running.pid))
        assert running.poll() is None
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert len(tree) > 2
    for _ in range(100):
        if not any(map(alive, tree)):
            break
        time.sleep(0.1)
    assert not [pid for pid in tree if alive(pid)]
    assert not list(temporary.iterdir())
