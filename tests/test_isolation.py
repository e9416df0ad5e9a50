"""Decoding in a child gives the same samples; one that crashes, hangs or swells costs one segment."""

import sys
import time
from pathlib import Path

import pytest

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.process.isolation import Decoder, borrow
from align.schemas.errors import AlignError, Fault
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.wire import from_plain, to_plain
from align.transforms.align.segment import align_segment
from align.transforms.write.encoded import EncodedRow
from align.transforms.write.row import to_batch, to_row

SECOND = AlignOptions(window=1, stride=1)

DOUBLE = """
import os, signal, sys, time
from align.pipeline.process import decoder_process
from align.transforms.align import segment as home

real = home.align_segment

def double(segment, *rest):
    for done, item in enumerate(real(segment, *rest)):
        if done == 2 and segment.recording.recording_id == sys.argv[1]:
            {trouble}
        yield item

home.align_segment = double
decoder_process.main()
"""


@pytest.fixture(scope="module")
def segments(clone_input, tmp_path_factory):
    root = clone_input(tmp_path_factory.mktemp("isolation"), ["bad", "good"])
    config = RunConfig(source="ego4d", input=str(root.parent), sample=SECOND, isolate=False)
    return [s for r in list_recordings(config) for s in plan_recording(r, config).segments]


@pytest.fixture
def decoder():
    started = []

    def start(trouble=None, timeout_s=60.0):
        code = DOUBLE.format(trouble=trouble or "pass")
        started.append(Decoder(timeout_s, (sys.executable, "-c", code, "bad")))
        return started[-1]

    yield start
    for child in started:
        child.stop()


def test_records_survive_the_wire(segments):
    for segment in segments:
        assert from_plain(Segment, to_plain(segment)) == segment
    assert from_plain(AlignOptions, to_plain(SECOND)) == SECOND
    with pytest.raises(TypeError):
        from_plain(AlignOptions, {**to_plain(SECOND), "frames": "many"})


def test_a_child_gives_the_very_rows_that_this_process_gives(segments, decoder):
    child = decoder()
    for segment in segments:
        here = list(align_segment(segment, SECOND, "c"))
        there = list(child.samples(segment, SECOND, "c"))
        assert len(here) == 4
        rows = [item.batch for item in there]
        assert all(a == to_batch(to_row(b), a.schema) for a, b in zip(rows, here, strict=True))


@pytest.mark.parametrize(
    ("trouble", "code", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "decoder_crashed", "SIGSEGV"),
        ("os._exit(3)", "decoder_crashed", "exit code 3"),
        ("time.sleep(1000)", "decode_timeout", "--decode-timeout"),
        ("raise MemoryError", "memory_limit", "memory"),
        ("held = bytearray(2**30); time.sleep(9)", "memory_limit", "memory"),
        ("held = [bytearray(2**20) for _ in range(2**14)]", "memory_limit", "memory"),
    ],
    ids=["segfault", "exit", "hang", "no memory", "one big piece", "many pieces"],
)
def test_a_lost_child_costs_the_windows_it_had_not_delivered(segments, decoder, trouble, code, said):
    child = decoder(trouble, timeout_s=1.0 if code == "decode_timeout" else 60.0)
    bad, good = segments
    items = list(child.samples(bad, SECOND, "c"))
    assert [type(item) for item in items] == [EncodedRow, EncodedRow, Fault, Fault]
    assert [item.start_ns for item in items[2:]] == list(bad.starts_ns[2:])
    assert {item.code for item in items[2:]} == {code}
    assert [
        i.detail for i in items[2:] if not (said in i.detail and i.detail.startswith("full_scale/bad.mp4: "))
    ] == []
    assert all(isinstance(item, EncodedRow) for item in child.samples(good, SECOND, "c"))


def test_a_defect_of_ours_costs_the_segment_and_hides_nothing(segments, decoder, tmp_path, caplog):
    child = decoder("1 / 0")
    child.output = str(tmp_path)
    items = list(child.samples(segments[0], SECOND, "c"))
    assert [type(item) for item in items] == [EncodedRow, EncodedRow, Fault, Fault]
    (trace,) = tmp_path.rglob("*.txt")
    detail = "a defect of align in the decoder: ZeroDivisionError: division by zero; traceback in {}"
    assert items[2].detail.endswith(detail.format(trace.relative_to(tmp_path)))
    assert items[2].code == "decoder_crashed"
    assert "in double" in trace.read_text()
    assert trace.read_text() in caplog.text
    assert len(list(child.samples(segments[1], SECOND, "c"))) == 4


def test_a_reader_that_stops_early_leaves_nothing_behind(segments, decoder):
    child = decoder()
    rows = child.samples(segments[0], SECOND, "c")
    next(rows)
    rows.close()
    assert len(list(child.samples(segments[1], SECOND, "c"))) == 4


def test_a_child_that_died_idle_is_started_anew(segments, decoder):
    child = decoder()
    list(child.samples(segments[0], SECOND, "c"))
    child.start().kill()
    time.sleep(0.1)
    assert len(list(child.samples(segments[1], SECOND, "c"))) == 4


def test_a_program_that_does_not_start_is_an_error_not_a_loop(segments):
    with pytest.raises(AlignError, match="decod"):
        Decoder(9.0, (sys.executable, "-c", "raise SystemExit")).probe("x.mp4", None)


def test_probing_reports_what_the_guard_reports(decoder, tmp_path):
    with pytest.raises(AlignError) as caught:
        decoder().probe(str(tmp_path / "gone.mp4"), None)
    assert caught.value.code == "missing_file"


def test_a_run_gives_the_same_files_with_and_without_isolation(align_run, clone_input, tmp_path):
    root = clone_input(tmp_path, ["a", "b"])
    outs = [align_run(root.parent, options={"window": 1}, isolate=isolate) for isolate in (True, False)]
    trees = [{p.relative_to(o): p.read_bytes() for p in o.rglob("*") if p.is_file()} for o in outs]
    assert trees[0] == trees[1]


def test_a_run_gets_no_child_that_was_started_on_other_terms():
    one, other = (RunConfig(source="ego4d", input="in", decode_timeout=s) for s in (50.0, 70.0))
    with borrow(one) as decoder:
        process = decoder.start()
    with borrow(one) as again:
        assert again is decoder
    with borrow(other) as fresh:
        assert fresh is not decoder
        assert process.poll() is not None


def test_a_child_has_most_of_its_memory_left_after_a_segment(segments):
    """Address space that an allocator merely reserves must not count: large pictures would fail for it."""
    child = Decoder(60.0)
    try:
        assert not [item for item in child.samples(segments[1], SECOND, "c") if isinstance(item, Fault)]
        status = Path(f"/proc/{child.start().pid}/status").read_text()
    finally:
        child.stop()
    (data,) = (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    assert data < 900_000_000
