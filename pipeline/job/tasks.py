"""The steps of a run that may be done in a worker process: plan a recording, write a shard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import RecordingPlan, plan_recording
from align.pipeline.job.shards import ShardKey, lost_by, write_one_shard
from align.pipeline.process.isolation import start_early
from align.pipeline.process.progress import Heartbeat
from align.pipeline.process.tasks import Job, Task
from align.pipeline.storage.files import is_remote, use_options
from align.schemas.errors import Fault
from align.schemas.plan import Segment
from align.schemas.recording import Recording
from align.transforms.stages import count, stage
from align.transforms.write.shard import ShardReport


@dataclass(frozen=True, slots=True)
class ShardWork:
    """The segments of one shard."""

    key: ShardKey
    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, key: ShardKey, segments: Iterable[Segment]) -> ShardWork:
        """From a group, whatever it is iterated over by."""
        return cls(key, tuple(segments))


def begin(config: RunConfig) -> None:
    """Get a worker ready: its decoder starts while this process imports the rest."""
    if config.execution.isolate:
        start_early(config)
    use_stores(config)


def use_stores(config: RunConfig) -> None:
    """Give Beam's file systems the run's options, where the run needs them."""
    if config.execution.beam_args and any(map(is_remote, stores_of(config))):
        use_options(config.execution.beam_args)


def stores_of(config: RunConfig) -> tuple[str, ...]:
    """Where a worker reads and writes."""
    return config.inputs.input, config.outputs.output, config.inputs.clocks


def _plan(config: RunConfig, item: Recording | Fault, heartbeat: Heartbeat) -> RecordingPlan:
    """Probe, plan and survey a recording; what the source could not use is passed on."""
    if isinstance(item, Fault):
        plan = RecordingPlan(item.recording_id, item.windows, (), (item,), offered=False)
    else:
        with stage("plan"):
            plan = plan_recording(item, config)
        count("plan", plan.windows)
    heartbeat.add(recordings=1, planned=plan.windows, **lost_by(plan.faults))
    return plan


def _write(config: RunConfig, work: ShardWork, heartbeat: Heartbeat) -> ShardReport:
    """Read, align and write the segments of one shard."""
    return write_one_shard(work.key, work.segments, config, heartbeat)


def _length(recording: Recording) -> float:
    return float(recording.span.length_ns) if recording.span else 0.0


def _work(work: ShardWork) -> float:
    return sum(segment.cost_s for segment in work.segments)


PLAN = Task("plan", Recording, RecordingPlan, _plan, _length)
WRITE = Task("write", ShardWork, ShardReport, _write, _work)
JOB = Job(RunConfig, begin, (PLAN, WRITE))
