"""Worker processes on pipes: each task done once, the longest first; what goes wrong ends the run at once."""

import io
import os
import signal
import subprocess
import time

import pytest

from align.pipeline.process import tasks
from align.pipeline.process.frames import receive, send
from align.pipeline.process.pool import COMMAND, Pool, WorkerDefect
from align.pipeline.process.progress import Progress
from align.pipeline.process.tasks import packed
from align.pipeline.process.worker_process import BEGIN, ERROR, RESULT, TASK
from align.schemas.errors import AlignError, UsageError
from align.transforms.stages import take

DOUBLE = """
import os, signal, sys, time
from dataclasses import dataclass
from align.pipeline.process.tasks import Job, Task
from align.schemas.errors import AlignError, UsageError
from align.transforms.stages import count

@dataclass(frozen=True)
class Config:
    journal: str
    refuse: bool = False

@dataclass(frozen=True)
class Item:
    number: int
    trouble: str = "pass"

@dataclass(frozen=True)
class Result:
    square: int
    pid: int

def begin(config):
    if config.refuse:
        raise UsageError("not like that")

def work(config, item, heartbeat):
    with open(config.journal, "a") as file:
        file.write(f"{item.number}\\n")
    exec(item.trouble)
    heartbeat.add(written=1)
    count("align", 1, item.number)
    print("a library talks")
    return Result(item.number**2, os.getpid())

SQUARE = Task("square", Item, Result, work, lambda item: item.number)
JOB = Job(Config, begin, (SQUARE,))
"""
ENTER = "import align.pipeline.process.tasks as tasks\ntasks._JOBS['double'] = 'pool_double'\n"


@pytest.fixture
def double(tmp_path, monkeypatch):
    """A job of our own, known to this process and to its workers."""
    place = tmp_path / "double"
    place.mkdir()
    (place / "pool_double.py").write_text(DOUBLE)
    (place / "sitecustomize.py").write_text(ENTER)
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setitem(tasks._JOBS, "double", "pool_double")
    import pool_double

    yield pool_double
    del __import__("sys").modules["pool_double"]


@pytest.fixture
def pool(double, tmp_path):
    started = []

    def start(size, **config):
        progress = Progress()
        made = Pool("double", double.Config(str(tmp_path / "journal"), **config), size, progress)
        made.progress_seen = progress
        started.append(made)
        return made

    yield start
    for one in started:
        one.close()
        assert all(worker.poll() is not None for worker in one._workers)


def journal(tmp_path):
    path = tmp_path / "journal"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come to pass")


def test_every_task_is_done_once_by_one_of_the_workers(pool, double, tmp_path):
    take()
    two = pool(2)
    tickets = [two.submit(double.SQUARE, double.Item(n, "time.sleep(0.02)")) for n in range(40)]
    results = [two.result(ticket) for ticket in tickets]
    assert [result.square for result in results] == [n * n for n in range(40)]
    assert sorted(journal(tmp_path)) == list(range(40))
    assert {result.pid for result in results} <= {worker.pid for worker in two._workers}
    assert take() == {"align.elements": 40, "align.bytes": sum(range(40))}
    assert two.progress_seen.total() == {"written": 40}


def test_both_workers_work_at_once(pool, double, tmp_path):
    """Each of two tasks waits until the other has begun."""
    meet = f"while open({str(tmp_path / 'journal')!r}).read().count(chr(10)) < 2: time.sleep(0.01)"
    two = pool(2)
    tickets = [two.submit(double.SQUARE, double.Item(n, meet)) for n in range(2)]
    assert len({two.result(ticket).pid for ticket in tickets}) == 2


def test_the_longest_tasks_are_begun_first(pool, double, tmp_path):
    go = tmp_path / "go"
    one = pool(1)
    first = one.submit(
        double.SQUARE, double.Item(5, f"while not os.path.exists({str(go)!r}): time.sleep(0.01)")
    )
    wait_until(lambda: journal(tmp_path))
    rest = [one.submit(double.SQUARE, double.Item(n)) for n in (3, 9, 1, 7)]
    go.touch()
    assert [one.result(ticket).square for ticket in (first, *rest)] == [25, 9, 81, 1, 49]
    assert journal(tmp_path) == [5, 9, 7, 3, 1]


@pytest.mark.parametrize(
    ("trouble", "kind", "code"),
    [
        ("raise AlignError('write_failed', 'the disk is full', stage='write')", AlignError, "write_failed"),
        ("raise UsageError('the disk is full', code='clocks')", UsageError, "clocks"),
    ],
)
def test_a_fault_arrives_as_it_was_raised(pool, double, trouble, kind, code):
    two = pool(2)
    with pytest.raises(AlignError, match="the disk is full") as caught:
        two.result(two.submit(double.SQUARE, double.Item(1, trouble)))
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert caught.value.stage == ("write" if kind is AlignError else "usage")


def test_a_defect_arrives_with_its_traceback(pool, double):
    two = pool(2)
    with pytest.raises(WorkerDefect) as caught:
        two.result(two.submit(double.SQUARE, double.Item(1, "1 / 0")))
    assert str(caught.value) == "in a worker process: ZeroDivisionError: division by zero"
    (where,) = caught.value.__notes__
    assert 'pool_double.py", line' in where


@pytest.mark.parametrize(
    "trouble", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "sys.exit()", "os.close(replies_fd)"]
)
def test_a_lost_worker_ends_the_work_of_all(pool, double, tmp_path, trouble):
    if trouble.startswith("os.close"):
        trouble = "[os.close(fd) for fd in range(3, 20) if os.path.exists(f'/proc/self/fd/{fd}')]"
    two = pool(2)
    busy = two.submit(double.SQUARE, double.Item(9, "time.sleep(600)"))
    wait_until(lambda: journal(tmp_path))
    two.submit(double.SQUARE, double.Item(1, trouble))
    with pytest.raises(AlignError, match=r"worker process \d+ died .*--resume") as caught:
        two.result(busy)
    assert caught.value.code == "worker_died"


def test_a_worker_that_was_lost_idle_is_noticed_by_the_next_task(pool, double):
    one = pool(1)
    one.result(one.submit(double.SQUARE, double.Item(1)))
    one._workers[0].kill()
    one._workers[0].wait()
    with pytest.raises(AlignError, match="died"):
        one.result(one.submit(double.SQUARE, double.Item(2)))


def test_a_worker_that_cannot_begin_says_why(pool, double):
    one = pool(1, refuse=True)
    with pytest.raises(UsageError, match="not like that"):
        one.result(one.submit(double.SQUARE, double.Item(1)))


def test_only_what_the_task_declares_is_sent(pool, double):
    with pytest.raises(TypeError):
        pool(1).submit(double.SQUARE, double.Config("x"))


def begun(double, tmp_path, trouble):
    """A worker without a pool, in the midst of a task."""
    worker = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    send(worker.stdin, BEGIN, b"double\n" + packed(double.Config, double.Config(str(tmp_path / "journal"))))
    send(worker.stdin, TASK, b"square\n" + packed(double.Item, double.Item(3, trouble)))
    wait_until(lambda: journal(tmp_path))
    return worker


def test_a_worker_ends_in_the_midst_of_a_task_when_its_pipe_is_closed(double, tmp_path):
    """What a launcher that is gone looks like where nothing else tells: this process lives on."""
    worker = begun(double, tmp_path, "time.sleep(600)")
    worker.stdin.close()
    assert worker.wait(60) == 1


def test_signals_to_the_whole_group_are_the_launchers_to_handle(double, tmp_path):
    go = tmp_path / "go"
    worker = begun(double, tmp_path, f"while not os.path.exists({str(go)!r}): time.sleep(0.01)")
    for number in (signal.SIGINT, signal.SIGTERM):
        worker.send_signal(number)
    time.sleep(0.2)
    go.touch()
    kinds = [receive(worker.stdout)[0] for _ in range(3)]
    worker.stdin.close()
    assert worker.wait(60) == 0
    assert kinds[-1] == RESULT


def test_a_request_for_an_unknown_task_or_job_gives_no_access_to_other_code(tmp_path):
    worker = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    send(worker.stdin, BEGIN, b"os\n")
    send(worker.stdin, TASK, b"system\n")
    replies = [receive(worker.stdout) for _ in range(2)]
    worker.stdin.close()
    worker.wait(60)
    assert all(kind != ERROR and b"KeyError" in payload for kind, payload in replies)


def test_frames_come_back_whole_or_not_at_all():
    stream = io.BytesIO()
    for payload in (b"", b"x", os.urandom(100_000)):
        send(stream, b"R", payload)
    whole = stream.getvalue()
    again = io.BytesIO(whole)
    assert [len(receive(again)[1]) for _ in range(3)] == [0, 1, 100_000]
    assert receive(again) is None
    for cut in (3, 10, 12, len(whole) - 1):
        short = io.BytesIO(whole[:cut])
        with pytest.raises(EOFError):
            list(iter(lambda short=short: receive(short), None))
