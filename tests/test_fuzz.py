"""A short run of the fuzzer: whatever is fed to the readers, only ``AlignError`` comes back."""

from itertools import islice

import pytest

from benchmarks.fuzz import cases, survives, targets

CASES = {"csv": 150, "media": 150, "ego4d": 100, "narration": 100}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return targets(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", CASES)
def test_damaged_files_are_read_or_refused(prepared, name):
    data, read = prepared[name]
    assert survives(read, data) == "read"
    ends = {survives(read, damaged) for _, damaged in islice(cases(data, 7), CASES[name])}
    assert "read" in ends
