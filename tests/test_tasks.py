"""What travels between launcher and workers comes out as it went in; two workers count as much as one."""

from dataclasses import replace

import align
from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings
from align.pipeline.job.tasks import JOB, PLAN, WRITE, ShardWork
from align.pipeline.process.progress import Heartbeat
from align.pipeline.process.tasks import job_of, packed, unpacked
from align.pipeline.sync.run import SyncConfig
from align.pipeline.sync.sound import concurrent_sets
from align.pipeline.sync.tasks import SET
from align.schemas.errors import Fault
from align.schemas.options import AlignOptions
from align.schemas.recording import Concurrent
from align.transforms.stages import take
from align.transforms.sync.clocks import write_clocks
from align.transforms.sync.verdict import SyncOptions

SECOND = AlignOptions(window=1, stride=1)


def travelled(kind, value):
    return unpacked(kind, packed(kind, value))


def test_a_configuration_travels_with_what_it_found_out_when_it_was_made(tmp_path):
    clocks = tmp_path / "clocks.parquet"
    write_clocks(str(clocks), ())
    config = RunConfig(
        source="ego4d", input="in", output="out", sample=SECOND, assignments={"a": "val"}, limit=3,
        clocks=str(clocks), beam_args=("--s3_secret_access_key=s",), scenario=("Cooking",),
    )  # fmt: skip
    assert travelled(RunConfig, config) == config
    before = config.inputs.clocks_sha256
    clocks.write_bytes(clocks.read_bytes() + b" ")
    assert travelled(RunConfig, config).inputs.clocks_sha256 == before
    sync = SyncConfig(config, str(clocks), "", SyncOptions(2.0, 0.001))
    assert travelled(SyncConfig, sync) == sync
    assert "s3_secret" not in repr(sync)


def test_recordings_plans_shards_and_reports_travel(clone_input, tmp_path):
    root = clone_input(tmp_path, ["a", "b"])
    (root / "full_scale/b.mp4").write_bytes(b"no video" * 99)
    config = RunConfig(
        source="ego4d", input=str(tmp_path), output=str(tmp_path / "out"), sample=SECOND, isolate=False
    )
    recordings = [r for r in list_recordings(config) if not isinstance(r, Fault)]
    plans = [PLAN.do(config, recording, Heartbeat()) for recording in recordings]
    work = ShardWork.of(("train", 0, 1), (s for plan in plans for s in plan.segments))
    report = WRITE.do(config, work, Heartbeat())
    together = tuple(replace(r, concurrent=Concurrent("s", 5)) for r in recordings)
    (concurrent,) = concurrent_sets(together)
    assert any(plan.faults for plan in plans)
    assert report.samples == 4
    for task, items in ((PLAN, recordings), (WRITE, [work]), (SET, [concurrent])):
        assert [travelled(task.item, item) for item in items] == items
    assert [travelled(PLAN.result, plan) for plan in plans] == plans
    assert travelled(WRITE.result, report) == report


def test_a_fault_of_the_source_needs_no_worker():
    fault = Fault("r", None, "source", "bad_metadata", "why", windows=7)
    plan = PLAN.do(RunConfig(source="ego4d", input="in"), fault, Heartbeat())
    assert (plan.windows, plan.segments, plan.faults, plan.offered) == (7, (), (fault,), False)
    assert not isinstance(fault, PLAN.item)


def test_jobs_are_known_by_name():
    assert job_of("run") is JOB
    assert job_of("sync").config is SyncConfig


def test_two_workers_count_what_one_counts(clone_input, tmp_path):
    folder = clone_input(tmp_path, ["a", "b", "c"]).parent
    config = RunConfig(
        source="ego4d",
        input=str(folder),
        output=str(tmp_path / "1"),
        sample=SECOND,
        shard_size=10**5,
        workers=1,
    )
    shown = []
    take()
    one = align.run(config)
    two = align.run(config.but(output=str(tmp_path / "2"), workers=2), show=shown.append)

    def counted(result):
        return {name: n for name, n in result.stages.items() if not name.endswith("cpu_ns")}

    assert counted(one)["write.elements"] == 12
    assert counted(one) == counted(two)
    assert one.stages.keys() == two.stages.keys()
    assert shown[-1] == {"recordings": 3, "planned": 12, "written": 12, "skipped": 0, "failed": 0}
