"""The child that reads what strangers wrote: whatever a file does to it costs one request."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from align.pipeline.process import limited
from align.pipeline.process.limited import Limited
from align.schemas.errors import AlignError

MODULE = """
import os, signal, sys, time
from align.schemas.errors import AlignError

def same(value):
    print("a library talks")
    return value

def hungry():
    return len(bytearray(2 << 30))

def asleep():
    time.sleep(1000)


def endless():
    while True:
        pass

def crashed():
    os.kill(os.getpid(), signal.SIGSEGV)

def refused():
    raise AlignError("bad_shard", "no shard of ours")

def broken():
    raise KeyError("x")

def environment():
    return sorted(os.environ)

def module_path():
    return os.environ["PYTHONPATH"]

def writing():
    import tempfile
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"x")

def new_privileges():
    lines = open("/proc/self/status").read().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("NoNewPrivs"))

def first_on_path():
    return sys.path[0]
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A child whose functions are those above: the table of names is replaced on both sides."""
    (tmp_path / "strange.py").write_text(MODULE)
    names = [
        "same",
        "hungry",
        "endless",
        "asleep",
        "crashed",
        "refused",
        "broken",
        "environment",
        "first_on_path",
    ]
    names += ["module_path", "writing", "new_privileges"]
    start = (
        "import align.pipeline.process.limited as limited\n"
        f"limited._FUNCTIONS = dict.fromkeys({names!r}, 'strange')\n"
        "limited.main()\n"
    )
    real = subprocess.Popen

    def popen(command, **how):
        assert command[1:] == ("-P", "-m", "align.pipeline.process.limited")
        return real([sys.executable, "-P", "-c", start], **how)

    monkeypatch.setattr(limited.subprocess, "Popen", popen)
    monkeypatch.setattr(limited, "_CPU_S", 1.0)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with Limited() as child:
        yield child


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("hungry", "limits"),
        ("endless", "limits"),
        ("asleep", "limits"),
        ("crashed", "limits"),
        ("refused", "bad_shard"),
        ("broken", "unreadable"),
    ],
)
def test_each_end_is_one_fault_and_the_next_request_is_answered(child, name, code):
    assert child.call("same", 0, value=[1, "ü"]) == [1, "ü"]
    with pytest.raises(AlignError) as caught:
        child.call(name, 0)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert child.call("same", 0, value={"a": None}) == {"a": None}


def test_it_gets_no_keys_and_nothing_from_the_current_folder(child):
    assert "AWS_SECRET_ACCESS_KEY" not in child.call("environment", 0)
    assert child.call("first_on_path", 0) != ""
    with Limited(["s3://bucket/out"]) as other:
        assert "AWS_SECRET_ACCESS_KEY" in other.call("environment", 0)
    with Limited(["gs://bucket/out"]) as other:
        assert "AWS_SECRET_ACCESS_KEY" not in other.call("environment", 0)


def test_relative_entries_of_the_module_path_do_not_reach_it(child, monkeypatch, tmp_path):
    """They mean the current folder, which may be the data set itself."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", "", str(tmp_path)]))
    with Limited() as other:
        assert other.call("module_path", 0) == str(tmp_path)


def test_it_can_write_no_file_and_gain_no_rights(child):
    with pytest.raises(AlignError) as caught:
        child.call("writing", 0)
    assert caught.value.code == "unreadable"
    if sys.platform == "linux":
        assert child.call("new_privileges", 0) == "1"


def test_a_pause_costs_nothing(child):
    """The clock is that of the CPU: a child that was stopped for longer than its limit goes on."""
    assert child.call("same", 0, value=1) == 1
    process = child._child
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(process.pid, signal.SIGCONT)
    assert child.call("same", 0, value=2) == 2
    assert child._child is process


def test_no_child_is_left(child):
    child.call("same", 0, value=1)
    process = child._child
    child.close()
    assert process.returncode is not None


def test_only_listed_functions_are_called():
    assert set(limited._FUNCTIONS) == {"check", "seen"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "align.pipeline.process.limited"],
        input=json.dumps({"name": "system", "seconds": 1, "given": {}}).encode() + b"\n",
        capture_output=True,
    )
    assert done.returncode != 0
    assert done.stdout == b""
