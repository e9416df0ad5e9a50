"""A short run of the fuzzer: whatever is fed to the readers, only ``AlignError`` comes back."""

from itertools import islice

import pytest

from align.pipeline.process.isolation import stop_idle
from benchmarks.fuzz import cases, mutated, survives, targets
from benchmarks.fuzz_decode import FORMATS, boxes, decode_targets

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


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    yield decode_targets(tmp_path_factory.mktemp("decode"), mutated)
    stop_idle()


@pytest.mark.parametrize("name", [*(f"decode-{name}" for name in FORMATS), "decode-csv"])
def test_damaged_recordings_end_as_samples_or_faults(decoded, name):
    data, read, damage = decoded[name]
    # Fragments have no index of keyframes, and AVI has no times.
    assert survives(read, data) in ("read", "noted no_keyframes", "noted nominal_times")
    for _, damaged in islice(cases(data, 11, damage=damage), 20):
        survives(read, damaged)


def test_the_fuzzer_knows_the_boxes_of_an_mp4(decoded):
    data, _, _ = decoded["decode-mp4"]
    kinds = [data[start + 4 : start + 8] for start, _ in boxes(data)]
    assert {b"ftyp", b"moov", b"mdat", b"trak", b"stbl", b"stts", b"stco"} <= set(kinds)
