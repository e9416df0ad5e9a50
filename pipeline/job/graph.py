"""The Beam graph, on one screen.

Only references travel through the shuffle: a segment says what to read, a shard's worker reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam import typehints
from apache_beam.pvalue import AsList, AsSingleton

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import RecordingPlan, list_recordings
from align.pipeline.job.pooled import Pooled
from align.pipeline.job.shards import (
    Loads,
    Losses,
    ShardKey,
    add_loads,
    commit_run,
    number_shards,
    refuse_too_many,
    shard_key,
)
from align.pipeline.job.tasks import PLAN, WRITE, ShardWork
from align.pipeline.process.isolation import stop_idle
from align.pipeline.process.local_run import LocalRun, local_run
from align.schemas.plan import Segment
from align.transforms.plan.shards import Load
from align.transforms.write.shard import ShardReport


@dataclass
class AlignRecordings(beam.PTransform):
    """Recordings in (a PCollection of ``Recording | Fault``), one committed data set out.

    Gives a PCollection with one element: the manifest. ``run`` is for a run that this machine carries out:
    see :mod:`align.pipeline.process.local_run`.
    """

    config: RunConfig
    run: str = ""

    def expand(self, recordings: beam.PCollection) -> beam.PCollection:
        """List → plan → key by shard → write → commit."""
        config = self.config
        plans = (
            recordings
            | "Spread recordings" >> beam.Reshuffle()
            | "Plan" >> beam.ParDo(Pooled(config, self.run, PLAN)).with_output_types(RecordingPlan)
        )
        segments = plans | "Segments" >> beam.FlatMap(lambda plan: plan.segments)
        loads = (
            segments
            | "Measure splits" >> beam.CombineGlobally(SumLoads(config.outputs.seed))
            | "Not too many" >> beam.ParDo(RefuseTooMany(config, self.run))
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
            | "Work" >> beam.MapTuple(ShardWork.of).with_output_types(ShardWork)
            | "Write shards" >> beam.ParDo(Pooled(config, self.run, WRITE)).with_output_types(ShardReport)
        )
        losses = plans | "Losses" >> beam.Map(lambda plan: (plan.offered, plan.windows, plan.faults))
        return (
            recordings.pipeline
            | "Once" >> beam.Create([config])
            | "Commit" >> beam.ParDo(Commit(self.run), AsList(reports), AsList(losses))
        )


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

    def __init__(self, config: RunConfig, run: str) -> None:
        self.config, self.run = config, run

    def process(self, loads: Loads) -> Iterator[Loads]:
        with _noted(self.run):
            yield refuse_too_many(loads, self.config)


@typehints.with_output_types(tuple[ShardKey, Any])
def key_by_shard(segment: Segment, config: RunConfig, loads: Loads) -> tuple[ShardKey, Segment]:
    """Hash each segment to a shard, so that a shard mixes segments of many recordings."""
    return shard_key(segment, config, loads), segment


@typehints.with_output_types(tuple[ShardKey, Any])
def renumber(keyed: tuple[ShardKey, Segment], numbers: dict[ShardKey, ShardKey]) -> tuple[ShardKey, Segment]:
    """Give a segment the number that its shard has among those that the hash hit."""
    return numbers[keyed[0]], keyed[1]


class Commit(beam.DoFn):
    """Write what describes the data set and, last, the manifest."""

    def __init__(self, run: str) -> None:
        self.run = run

    def process(self, config: RunConfig, reports: list[ShardReport], losses: list[Losses]) -> Iterator[Any]:
        stop_idle()  # nothing is decoded any more
        with _noted(self.run) as here:
            if here is not None:
                here.end_workers()
            yield commit_run(config, reports, losses)


@contextmanager
def _noted(run: str) -> Iterator[LocalRun | None]:
    """Keep an error as it was raised for the launcher: Beam passes on its text alone."""
    here = local_run(run)
    try:
        yield here
    except Exception as error:
        if here is not None:
            here.noted(error)
        raise


def build(pipeline: beam.Pipeline, config: RunConfig, run: str = "") -> beam.PCollection:
    """The whole job, listing included."""
    recordings = (
        pipeline
        | "Source" >> beam.Create([config])
        | "List recordings" >> beam.FlatMap(list_recordings).with_output_types(Any)
    )
    return recordings | "Align" >> AlignRecordings(config, run)
