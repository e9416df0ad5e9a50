"""A child is given up when it hangs, never because it, its parent or the machine was stopped for a while."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.process.deadline import IDLE_FACTOR, LOOK_S, Deadline
from align.pipeline.process.isolation import Decoder
from align.pipeline.process.vitals import Vitals, vitals
from align.schemas.errors import Fault
from align.schemas.options import AlignOptions

SECOND = AlignOptions(window=1, stride=1)
LIMIT = 10.0

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def ends_after(step_s, cpu_share, state, *, seconds=1000.0, events=None):
    """Seconds after which a child is given up that goes on like this, seen each ``step_s``; None if never.

    ``events`` calls something of the deadline at some seconds.
    """
    deadline, now, cpu = Deadline(LIMIT, 0.0), 0.0, 3.0
    while now < seconds:
        now += step_s
        cpu += step_s * cpu_share
        if events is not None:
            events(deadline, now)
        child = Vitals() if cpu_share is None else Vitals(cpu, state)
        if deadline.passed(now, child):
            return now
    return None


@pytest.mark.parametrize(
    ("what", "step_s", "cpu_share", "state", "end"),
    [
        ("works", LOOK_S, 1.0, "R", LIMIT),
        ("works on four processors", LOOK_S, 4.0, "R", LIMIT / 4),
        ("gets half a processor", LOOK_S, 0.5, "R", 2 * LIMIT),
        ("gets no processor", LOOK_S, 0.0, "R", None),
        ("sleeps", LOOK_S, 0.0, "S", IDLE_FACTOR * LIMIT),
        ("waits for a disk", LOOK_S, 0.0, "D", IDLE_FACTOR * LIMIT),
        ("hardly works", LOOK_S, 0.01, "S", IDLE_FACTOR * LIMIT),
        ("reads half the time", LOOK_S, 0.5, "D", 2 * LIMIT),
        ("was stopped", LOOK_S, 0.0, "T", None),
        ("is traced", LOOK_S, 0.0, "t", None),
        ("is looked at now and then", 60.0, 0.0, "S", None),
        ("works, and is looked at now and then", 60.0, 1.0, "S", 120.0),
    ],
)
def test_what_counts_is_work_and_idleness(what, step_s, cpu_share, state, end):
    assert ends_after(step_s, cpu_share, state) == pytest.approx(end, abs=3 * LOOK_S)


def test_without_proc_time_counts_but_for_the_gaps_between_looks():
    deadline, now = Deadline(LIMIT, 0.0), 0.0
    for step in [100.0, *[LOOK_S] * 149, 3600.0]:
        now += step
        assert not deadline.passed(now, Vitals())
    for _ in range(3):
        now += LOOK_S
        last = deadline.passed(now, Vitals())
    assert last


@pytest.mark.parametrize(("share", "state"), [(1.0, "R"), (0.0, "S")])
def test_a_whole_reply_starts_the_time_again(share, state):
    def reply(deadline, now):
        if int(now / LOOK_S) % 20 == 0:
            deadline.restart()

    assert ends_after(LOOK_S, share, state, events=reply) is None


def test_time_in_which_bytes_are_fetched_for_the_child_is_not_its_own():
    def fetch(deadline, now):
        deadline.excuse(now)

    assert ends_after(LOOK_S, 0.0, "S", events=fetch) is None


@needs_proc
def test_vitals_are_those_of_the_process():
    with subprocess.Popen(
        [sys.executable, "-c", "x = b'x' * 300_000_000; input()"], stdin=subprocess.PIPE
    ) as it:
        wait_until(lambda: vitals(it.pid).resident > 300_000_000)
        wait_until(lambda: vitals(it.pid).state == "S")
        it.send_signal(signal.SIGSTOP)
        wait_until(lambda: vitals(it.pid).state == "T")
        it.kill()
    assert vitals(it.pid) == Vitals()
    before = vitals(os.getpid()).cpu_s
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    assert vitals(os.getpid()).cpu_s - before == pytest.approx(0.3, abs=0.25)


def wait_until(true):
    for _ in range(1000):
        if true():
            return
        time.sleep(0.02)
    pytest.fail("it does not happen")


STOPPED = """
import os, signal, sys
from align.pipeline.process import decoder_process

true = decoder_process.read_segment

def stop(request, opener_for):
    for number, reply in enumerate(true(request, opener_for)):
        if number == 2:
            os.kill({whom}, signal.SIGSTOP)
        yield reply

decoder_process.TASKS["segment"] = stop
decoder_process.main()
"""

LAUNCHER = """
import os, sys
from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.process.isolation import Decoder
from align.schemas.errors import Fault
from align.schemas.options import AlignOptions

options = AlignOptions(window=1, stride=1)
config = RunConfig(source="ego4d", input=sys.argv[1], sample=options, isolate=False)
(recording,) = list_recordings(config)
(segment,) = plan_recording(recording, config).segments
decoder = Decoder(0.5, (sys.executable, "-c", sys.argv[2]))
items = list(decoder.samples(segment, options, "c"))
decoder.stop()
print(len(items), [item.detail for item in items if isinstance(item, Fault)])
"""

PAUSE_S = 4.0  # longer than the 1.5 s for which a child may idle here


@needs_proc
def test_a_child_that_is_stopped_for_a_while_loses_nothing(clone_input, tmp_path):
    root = clone_input(tmp_path, ["a"])
    config = RunConfig(source="ego4d", input=str(root.parent), sample=SECOND, isolate=False)
    (recording,) = list_recordings(config)
    (segment,) = plan_recording(recording, config).segments
    decoder = Decoder(0.5, (sys.executable, "-c", STOPPED.format(whom="os.getpid()")))
    pid, slept = decoder.start().pid, []

    def wake():
        wait_until(lambda: vitals(pid).state == "T")
        time.sleep(PAUSE_S)
        slept.append(True)
        os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=wake)
    thread.start()
    try:
        items = list(decoder.samples(segment, SECOND, "c"))
    finally:
        thread.join()
        decoder.stop()
    assert slept
    assert len(items) == 4
    assert not [item for item in items if isinstance(item, Fault)]


@needs_proc
@pytest.mark.parametrize("whom", ["0", "os.getppid()"], ids=["both", "parent"])
def test_a_job_that_is_stopped_for_a_while_loses_nothing(clone_input, tmp_path, whom):
    """As by Ctrl-Z, or a scheduler that suspends jobs."""
    folder = clone_input(tmp_path, ["a"]).parent
    command = [sys.executable, "-c", LAUNCHER, str(folder), STOPPED.format(whom=whom)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as job:
        wait_until(lambda: vitals(job.pid).state == "T")
        time.sleep(PAUSE_S)
        os.killpg(job.pid, signal.SIGCONT)
        out, _ = job.communicate(timeout=60)
    assert out.strip() == "4 []"
