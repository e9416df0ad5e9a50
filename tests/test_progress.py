"""What the launcher sees of its workers: their counts, and which of them are lost."""

import io
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

from align.pipeline.process import progress
from align.pipeline.process.progress import Heartbeat, total, watch
from align.pipeline.process.stopping import Finished, stoppable
from align.pipeline.process.worker_process import ALIVE, signed_on
from align.schemas.errors import AlignError
from align.transforms.align.audio import encode_flac

SIGN_ON = """
import sys, time
from align.pipeline.process.worker_process import signed_on
with signed_on(sys.argv[1]):
    {body}
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "_EVERY_S", 0.01)


@pytest.fixture
def worker():
    started = []

    def start(folder, body):
        command = [sys.executable, "-c", SIGN_ON.format(body=body), folder]
        started.append(subprocess.Popen(command))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come to pass")


def signs(folder):
    from pathlib import Path

    return {int(path.stem) for path in Path(folder).glob(f"*{ALIVE}")}


def test_counts_of_all_workers_are_added_up(tmp_path):
    for written in (2, 3):
        heartbeat = Heartbeat(str(tmp_path))
        heartbeat.add(written=written, failed=1)
        heartbeat.flush()
    with signed_on(str(tmp_path)):
        assert total(str(tmp_path)) == {"written": 5, "failed": 2}


def test_a_worker_that_ended_as_told_is_not_lost(worker):
    told = []
    with watch(lambda _: None, told.append) as folder:
        first = worker(folder, "pass")
        assert first.wait() == 0
        second = worker(folder, "time.sleep(99)")
        wait_until(lambda: signs(folder) == {second.pid})
        time.sleep(0.3)
        assert second.poll() is None
    assert not told


@pytest.mark.parametrize("body", ["raise SystemExit(1)", "import os; os._exit(0)", "1 / 0"])
def test_a_lost_worker_ends_the_others_and_the_run(worker, body):
    told = []
    with watch(lambda _: None, told.append) as folder:
        other = worker(folder, "time.sleep(99)")
        wait_until(lambda: signs(folder) == {other.pid})
        lost = worker(folder, body)
        lost.wait()
        assert other.wait(20) == -9
        wait_until(lambda: told)
        time.sleep(0.2)
    assert [error.code for error in told] == ["worker_died"]
    assert f"worker process {lost.pid} died" in told[0].detail


def test_a_display_that_fails_costs_nothing():
    def show(_):
        raise BrokenPipeError

    with watch(show):
        time.sleep(0.1)


def test_a_block_that_has_nothing_more_to_do_ends_without_an_error():
    left = []
    with stoppable(left.append) as stopper:
        threading.Timer(0.1, stopper.stop, [Finished()]).start()
        time.sleep(60)
    assert not left


def test_a_block_that_is_stopped_ends_with_the_reason():
    def stopped():
        with stoppable() as stopper:
            threading.Timer(0.1, stopper.stop, [AlignError("output_lost", "gone")]).start()
            time.sleep(60)

    with pytest.raises(AlignError, match="gone"):
        stopped()


def test_beside_the_main_thread_nothing_is_signalled_where_all_is_done():
    """The process belongs to whoever calls us; there is only Beam's parting to wait for."""
    with stoppable() as unused:
        ended = []

        def elsewhere():
            with stoppable() as stopper:
                stopper.stop(Finished())
                ended.append(1)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert ended
    assert unused.reason is None


def test_ctrl_c_gets_through_where_c_calls_python():
    """libsndfile asks for bytes through Python functions; what these raise is printed and forgotten."""
    flac = encode_flac(np.zeros(16_000, np.int16), 16_000)
    went_on = []

    def listening(delay_s):
        with stoppable():
            threading.Timer(delay_s, os.kill, [os.getpid(), signal.SIGINT]).start()
            until = time.monotonic() + 2
            while time.monotonic() < until:
                soundfile.read(io.BytesIO(flac))
            went_on.append(delay_s)

    for i in range(40):
        with pytest.raises(KeyboardInterrupt):
            listening(0.01 + 0.0003 * i)
    assert not went_on
