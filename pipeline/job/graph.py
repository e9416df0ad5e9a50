"""The Beam graph, on one screen.

Only references travel through the shuffle: a segment says what to read, a shard's worker reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam import typehints
from apache_beam.pvalue import AsList, AsSingleton

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import RecordingPlan, list_recordings, plan_recording
from align.pipeline.job.shards import (
    Loads,
    Losses,
    ShardKey,
    add_loads,
    commit_run,
    lost_by,
    number_shards,
    refuse_too_many,
    shard_key,
    write_one_shard,
)
from align.pipeline.process.isolation import stop_idle
from align.pipeline.process.progress import Heartbeat
from align.pipeline.process.stopping import leave_word
from align.schemas.errors import AlignError, Fault
from align.schemas.plan import Segment
from align.schemas.recording import Recording
from align.transforms.plan.shards import Load
from align.transforms.stages import NAMESPACE, count, stage, take
from align.transforms.write.shard import ShardReport


@dataclass
class AlignRecordings(beam.PTransform):
    """Recordings in (a PCollection of ``Recording | Fault``), one committed data set out.

    Gives a PCollection with one element: the manifest.
    """

    config: RunConfig
    heartbeats: str | None = None

    def expand(self, recordings: beam.PCollection) -> beam.PCollection:
        """List → plan → key by shard → write → commit."""
        config = self.config
        plans = (
            recordings
            | "Spread recordings" >> beam.Reshuffle()
            | "Plan" >> beam.ParDo(PlanRecordings(config, self.heartbeats))
        )
        segments = plans | "Segments" >> beam.FlatMap(lambda plan: plan.segments)
        loads = (
            segments
            | "Measure splits" >> beam.CombineGlobally(SumLoads(config.seed))
            | "Not too many" >> beam.ParDo(RefuseTooMany(config, self.heartbeats))
        )
        keyed = segments | "Key by shard" >> beam.Map(key_by_shard, config, AsSingleton(loads))
        numbers = (
            keyed
            | "Shards" >> beam.Keys()
            | "Used" >> beam.Distinct()
            | "All" >> beam.combiners.ToList()
            | "Without holes" >> beam.Map(number_shards)
        )
        reports = (
            keyed
            | "Number" >> beam.Map(renumber, AsSingleton(numbers))
            | "Group" >> beam.GroupByKey()
            | "Write shards" >> beam.ParDo(WriteShards(config, self.heartbeats))
        )
        losses = plans | "Losses" >> beam.Map(lambda plan: (plan.offered, plan.windows, plan.faults))
        return (
            recordings.pipeline
            | "Once" >> beam.Create([config])
            | "Commit" >> beam.ParDo(Commit(self.heartbeats), AsList(reports), AsList(losses))
        )


@typehints.with_output_types(RecordingPlan)
class PlanRecordings(beam.DoFn):
    """Probe, plan and survey each recording."""

    def __init__(self, config: RunConfig, heartbeats: str | None) -> None:
        self.config, self.heartbeats = config, heartbeats

    def setup(self) -> None:
        self.heartbeat = Heartbeat(self.heartbeats)

    def process(self, item: Recording | Fault) -> Iterator[RecordingPlan]:
        if isinstance(item, Fault):
            plan = RecordingPlan(item.recording_id, item.windows, (), (item,), offered=False)
        else:
            with stage("plan"):
                plan = plan_recording(item, self.config)
            count("plan", plan.windows)
        self.heartbeat.add(recordings=1, planned=plan.windows, **lost_by(plan.faults))
        _report_stages()
        yield plan

    def finish_bundle(self) -> None:
        self.heartbeat.flush()


class SumLoads(beam.CombineFn):
    """What each split holds, from which follows how many shards it gets and which segments they hold."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def create_accumulator(self) -> Loads:
        return {}

    def add_input(self, loads: Loads, segment: Segment) -> Loads:
        return add_loads([loads, {segment.split: Load.of(segment, self.seed)}])

    def merge_accumulators(self, several: Iterable[Loads]) -> Loads:
        return add_loads(several)

    def extract_output(self, loads: Loads) -> Loads:
        return loads


class RefuseTooMany(beam.DoFn):
    """Pass on what all segments add up to, if a run may hold it."""

    def __init__(self, config: RunConfig, heartbeats: str | None) -> None:
        self.config, self.heartbeats = config, heartbeats

    def process(self, loads: Loads) -> Iterator[Loads]:
        try:
            yield refuse_too_many(loads, self.config)
        except AlignError as error:
            leave_word(self.heartbeats, error)
            raise


@typehints.with_output_types(tuple[ShardKey, Any])
def key_by_shard(segment: Segment, config: RunConfig, loads: Loads) -> tuple[ShardKey, Segment]:
    """Hash each segment to a shard, so that a shard mixes segments of many recordings."""
    return shard_key(segment, config, loads), segment


@typehints.with_output_types(tuple[ShardKey, Any])
def renumber(keyed: tuple[ShardKey, Segment], numbers: dict[ShardKey, ShardKey]) -> tuple[ShardKey, Segment]:
    """Give a segment the number that its shard has among those that the hash hit."""
    return numbers[keyed[0]], keyed[1]


@typehints.with_output_types(ShardReport)
class WriteShards(beam.DoFn):
    """Read, align and write the segments of one shard."""

    def __init__(self, config: RunConfig, heartbeats: str | None) -> None:
        self.config, self.heartbeats = config, heartbeats

    def setup(self) -> None:
        self.heartbeat = Heartbeat(self.heartbeats)

    def process(self, keyed: tuple[ShardKey, Iterable[Segment]]) -> Iterator[ShardReport]:
        key, segments = keyed
        try:
            report = write_one_shard(key, segments, self.config, self.heartbeat)
        except AlignError as error:
            leave_word(self.heartbeats, error)
            raise
        _report_stages()
        yield report

    def finish_bundle(self) -> None:
        self.heartbeat.flush()


def _report_stages() -> None:
    """Give what was counted to Beam, whose runners add it up over all workers."""
    for name, value in take().items():
        beam.metrics.Metrics.counter(NAMESPACE, name).inc(value)


class Commit(beam.DoFn):
    """Write what describes the data set and, last, the manifest."""

    def __init__(self, heartbeats: str | None) -> None:
        self.heartbeats = heartbeats

    def process(self, config: RunConfig, reports: list[ShardReport], losses: list[Losses]) -> Iterator[Any]:
        stop_idle()  # nothing is decoded any more
        try:
            yield commit_run(config, reports, losses)
        except AlignError as error:
            leave_word(self.heartbeats, error)
            raise


def build(pipeline: beam.Pipeline, config: RunConfig, heartbeats: str | None = None) -> beam.PCollection:
    """The whole job: listing happens on a worker, so the launcher holds nothing of the data set."""
    recordings = (
        pipeline
        | "Source" >> beam.Create([config])
        | "List recordings" >> beam.FlatMap(list_recordings).with_output_types(Any)
    )
    return recordings | "Align" >> AlignRecordings(config, heartbeats)
