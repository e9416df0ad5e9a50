"""One place opens, guards and probes streams: a child reads what this process would, and is checked."""

import sys
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.pipeline import access
from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.process import isolation
from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
from align.pipeline.sync.run import SyncConfig, run_sync
from align.schemas.errors import AlignError
from align.schemas.options import AlignOptions
from align.schemas.recording import ImuColumns, Stream
from align.schemas.time import NS, ClockMap, ClockPiece, TimeSpan
from align.transforms.align.segment import align_segment
from align.transforms.check.inspect import inspect_imu, inspect_media
from align.transforms.read.probe import probe_media
from align.transforms.sync.flow import Flow
from align.transforms.sync.flow_bytes import flows_from_bytes, flows_to_bytes
from align.transforms.sync.picture import look
from align.transforms.tables.table import imu_range, read_imu, survey_imu

DOUBLE = """
import os, signal
from align.pipeline.process import decoder_process, frames

def trouble(name, real):
    def task(request, opener_for):
        if "bad" in request["uri"]:
            {trouble}
        yield from real(request, opener_for)
    return task

for name in {names}:
    decoder_process.TASKS[name] = trouble(name, decoder_process.TASKS[name])
decoder_process.main()
"""


@pytest.fixture(scope="module")
def root(clone_input, tmp_path_factory):
    return clone_input(tmp_path_factory.mktemp("access"), ["bad", "good"])


@pytest.fixture
def doubled(monkeypatch):
    """Children in which a task does something else to files named ``bad``."""

    def start(trouble, *names):
        code = DOUBLE.format(trouble=trouble, names=names)
        isolation.stop_idle()
        monkeypatch.setattr(isolation, "COMMAND", (sys.executable, "-c", code))

    yield start
    isolation.stop_idle()


@pytest.fixture(params=[True, False], ids=["child", "here"])
def config(root, request):
    yield RunConfig(source="ego4d", input=str(root.parent), isolate=request.param)
    isolation.stop_idle()


def test_what_is_read_is_the_same_in_a_child_and_here(config, root):
    recording = next(iter(list_recordings(config)))
    path, table = recording.video.uri, recording.imu.uri
    media = access.probe(recording, config)
    assert media == probe_media(path)
    found = access.survey(recording.imu, config)
    assert found == survey_imu(table, IMU_COLUMNS)
    windows = (TimeSpan(0, NS), TimeSpan(NS, 3 * NS))
    seen, truth = (
        access.looking(recording.video, media, config)(windows),
        look(path, media.video, windows),
    )
    assert [len(w) for w in seen] == [len(w) for w in truth]
    for a, b in zip(chain(*seen), chain(*truth), strict=True):
        assert (a.start_ns, a.end_ns) == (b.start_ns, b.end_ns)
        assert np.array_equal(a.at, b.at)
        assert np.array_equal(a.moved, b.moved)
    assert access.inspect(path, isolate=config.execution.isolate) == (
        *inspect_media(path),
        inspect_imu(table, IMU_COLUMNS),
    )
    assert access.inspect(table, isolate=config.execution.isolate) == (inspect_imu(table, IMU_COLUMNS),)


def test_a_table_read_in_stretches_is_the_table(config, monkeypatch):
    monkeypatch.setattr(access, "_STRETCH_NS", 700_000_000)
    recording = next(iter(list_recordings(config)))
    clock = ClockMap((ClockPiece(0, 7, 40.0), ClockPiece(2 * NS, -300_000_000, -10.0)))
    stream = replace(recording.imu, clock=clock)
    found = access.survey(stream, config)
    whole = read_imu(stream.uri, imu_range(found, found.span), clock, TimeSpan(-(2**60), 2**60), IMU_COLUMNS)
    rows = access.gyro_rows(stream, found, config)
    inside = slice(0, len(rows.gyro_ns))
    assert np.array_equal(rows.gyro_ns, whole.gyro_ns[inside])
    assert np.array_equal(rows.gyro, whole.gyro[inside])
    assert len(rows.gyro_ns) >= len(whole.gyro_ns) - 1


@pytest.mark.parametrize("task", ["look", "survey", "gyro"])
def test_a_crash_costs_sync_one_recording(doubled, root, tmp_path, task):
    doubled("os.kill(os.getpid(), signal.SIGSEGV)", task)
    run = RunConfig(source="ego4d", input=str(root.parent))
    result = run_sync(SyncConfig(run, str(tmp_path / "clocks.parquet")))
    assert [uid for uid, _ in result.failures] == ["bad"]
    assert "SIGSEGV" in result.failures[0][1]
    assert {r.recording_id for r in result.rows} == {"bad", "good"}
    assert next(r for r in result.rows if r.recording_id == "good").windows > 0


def test_a_crash_of_a_survey_costs_a_run_the_imu(doubled, root):
    doubled("os.kill(os.getpid(), signal.SIGSEGV)", "survey")
    config = RunConfig(source="ego4d", input=str(root.parent), sample=AlignOptions(window=1, stride=1))
    bad, good = (plan_recording(r, config) for r in list_recordings(config))
    assert [f.code for f in bad.faults] == ["decoder_crashed"]
    assert bad.segments[0].imu.missing == "invalid"
    assert not good.faults


def test_a_crash_ends_inspect_in_one_line(doubled, root):
    doubled("os.kill(os.getpid(), signal.SIGSEGV)", "inspect")
    with pytest.raises(AlignError, match="SIGSEGV") as error:
        access.inspect(str(root / "full_scale/bad.mp4"))
    assert error.value.code == "decoder_crashed"


def test_a_hang_ends_inspect(doubled, root):
    doubled("import time; time.sleep(1000)", "inspect")
    with pytest.raises(AlignError) as error:
        access.inspect(str(root / "full_scale/bad.mp4"), timeout_s=4.0)
    assert error.value.code == "decode_timeout"


@pytest.mark.parametrize("answer", ["b'x'", "b''", "b'[]'", "b'[[1]]'", "b'{}'", "b'null'", "b'\\xff' * 99"])
@pytest.mark.parametrize("task", ["look", "survey", "inspect"])
def test_an_answer_without_sense_is_the_fault_of_the_file(doubled, root, task, answer):
    if task == "inspect" and answer in ("b'[]'", "b'{}'"):
        pytest.skip("a file without streams")
    doubled(f"yield frames.PART, {answer}; return", task)
    config = RunConfig(source="ego4d", input=str(root.parent))
    bad = next(iter(list_recordings(config)))
    media = probe_media(bad.video.uri)
    asked = {
        "look": lambda: access.looking(bad.video, media, config)([TimeSpan(0, NS)]),
        "survey": lambda: access.survey(bad.imu, config),
        "inspect": lambda: access.inspect(bad.video.uri),
    }
    with pytest.raises(AlignError) as error:
        asked[task]()
    assert error.value.code == "decoder_crashed"


@given(st.binary(max_size=300))
def test_any_bytes_are_flows_or_refused(data):
    try:
        flows = flows_from_bytes(data)
    except ValueError:
        return
    assert flows_to_bytes(flows) == data


def test_flows_survive_the_wire():
    points = np.random.default_rng(0).normal(0, 1, (7, 4)).astype(np.float32)
    flows = [
        Flow(0, 5, points[:3, :2], points[:3, 2:]),
        Flow(5, 9, points[:0, :2], points[:0, 2:]),
        Flow(-3 + 12, 20, points[3:, :2], points[3:, 2:]),
    ]
    again = flows_from_bytes(flows_to_bytes(flows))
    assert [(f.start_ns, f.end_ns) for f in again] == [(0, 5), (5, 9), (9, 20)]
    assert all(np.array_equal(a.at, b.at) for a, b in zip(again, flows, strict=True))
    assert flows_from_bytes(flows_to_bytes([])) == []


OTHER = ImuColumns(
    "timestamp_s", ("gx", "gy", "gz"), ("ax", "ay", "az"), 1e9, gyro_scale=np.pi / 180, accl_scale=9.80665
)


@pytest.mark.parametrize("isolate", [True, False])
def test_a_table_with_columns_of_its_own_ends_as_imu(root, tmp_path, isolate):
    """In °/s and g, too slow a turn and too strong a push for the values to tell their units."""
    path = tmp_path / "motion.csv"
    times = np.arange(-200, 1200) / 200
    header = "frame,timestamp_s,ax,ay,az,gx,gy,gz,"  # a delimiter at the end names no column
    rows = [f"{k},{t:.6f},2.5,0,0,{10 * t:.6f},-5,0," for k, t in enumerate(times)]
    path.write_text("\n".join([header, *rows]) + "\n")
    second = AlignOptions(window=1, stride=1)
    config = RunConfig(source="ego4d", input="/", sample=second, isolate=isolate)
    (first, *_) = list_recordings(RunConfig(source="ego4d", input=str(root.parent)))
    recording = replace(first, imu=Stream("imu", str(path), "motion.csv", columns=OTHER))
    plan = plan_recording(recording, config)
    assert not plan.faults
    samples = [s for segment in plan.segments for s in align_segment(segment, second, "c")]
    assert len(samples) == 4
    for k, sample in enumerate(samples):
        assert sample.imu.mask.all()
        at = k + np.arange(200) / 200
        np.testing.assert_allclose(sample.imu.values[0], np.deg2rad(10 * at), atol=1e-5)
        np.testing.assert_allclose(sample.imu.values[1], np.deg2rad(-5), atol=1e-6)
        np.testing.assert_allclose(sample.imu.values[3], 2.5 * 9.80665, atol=1e-4)


def test_a_table_whose_columns_nobody_names_is_noted(root):
    config = RunConfig(source="ego4d", input=str(root.parent), sample=AlignOptions(window=1, stride=1))
    recording = next(iter(list_recordings(config)))
    plan = plan_recording(replace(recording, imu=replace(recording.imu, columns=None)), config)
    assert [(f.code, f.outcome) for f in plan.faults] == [("imu_columns", "noted")]
    assert "Stream.columns" in plan.faults[0].detail
