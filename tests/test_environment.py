"""What a child process is given: named variables, absolute paths, keys for the stores it uses, no more."""

import os

import pytest

from align.pipeline.process.environment import child_environment, python_module
from align.pipeline.process.isolation import COMMAND as DECODER
from align.pipeline.process.pool import COMMAND as WORKER

GIVEN = {
    "HOME": "/home/me",
    "LC_ALL": "C.UTF-8",
    "TMPDIR": "/scratch",
    "OMP_NUM_THREADS": "1",
    "PATH": "/usr/bin",
    "AWS_SECRET_ACCESS_KEY": "s",
    "AWS_PROFILE": "p",
    "GOOGLE_APPLICATION_CREDENTIALS": "/key.json",
    "STORAGE_EMULATOR_HOST": "http://localhost:1",
    "AZURE_STORAGE_CONNECTION_STRING": "z",
    "https_proxy": "http://me:word@proxy",
    "HF_TOKEN": "t",
    "GITHUB_TOKEN": "g",
    "LD_PRELOAD": "./evil.so",
    "PYTHONSTARTUP": "evil.py",
}
PLAIN = {"HOME", "LC_ALL", "TMPDIR", "OMP_NUM_THREADS", "PATH"}
S3, GS = {"AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"}, {"GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"}


@pytest.mark.parametrize(
    ("stores", "more"),
    [
        ((), set()),
        (("/data/in", "out", ""), set()),
        (("s3://b/in", "/out"), S3 | {"https_proxy"}),
        (("/in", "gs://b/out"), GS | {"https_proxy"}),
        (("GS://b", "s3://b"), S3 | GS | {"https_proxy"}),
    ],
)
def test_a_child_gets_named_variables_and_the_keys_of_the_stores_it_uses(stores, more):
    assert child_environment(stores, GIVEN) == {name: GIVEN[name] for name in PLAIN | more}


@pytest.mark.parametrize(
    ("entries", "kept"),
    [("/a:/b", "/a:/b"), (".:/a", "/a"), (":/a:", "/a"), ("", None), ("lib:../x", None), ("~/a:/b", "/b")],
)
@pytest.mark.parametrize("name", ["PATH", "PYTHONPATH", "LD_LIBRARY_PATH"])
def test_entries_that_mean_the_current_folder_are_left_out(name, entries, kept):
    assert child_environment(given={name: entries}).get(name) == kept


def test_without_a_choice_it_is_chosen_from_our_own(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    monkeypatch.setenv("SECRET", "s")
    assert child_environment().keys() <= os.environ.keys()
    assert child_environment()["TZ"] == "Asia/Kolkata"
    assert "SECRET" not in child_environment()


@pytest.mark.parametrize("command", [DECODER, WORKER, python_module("json")])
def test_every_child_is_started_without_the_current_folder_on_its_path(command):
    assert command[1:3] == ("-P", "-m")
    assert len(command) == 4
