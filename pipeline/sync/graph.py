"""The Beam graph of ``align sync``: recordings in, one kept part each out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from align.pipeline.job.planning import list_recordings
from align.pipeline.job.runners import choose_runner, pipeline_options
from align.pipeline.process.progress import Heartbeat, watch
from align.pipeline.sync.run import Show, SyncConfig, is_recording, sync_recording, sync_set
from align.pipeline.sync.sound import ConcurrentSet
from align.schemas.recording import Recording


class _Measure(beam.DoFn):
    """Measure each recording's clocks, and compare the sounds of each set."""

    def __init__(self, config: SyncConfig, heartbeats: str) -> None:
        self.config, self.heartbeats = config, heartbeats

    def setup(self) -> None:
        self.heartbeat = Heartbeat(self.heartbeats)

    def process(self, item: Recording | ConcurrentSet) -> Any:
        if isinstance(item, Recording):
            yield sync_recording(item, self.config)
        else:
            yield sync_set(item, self.config)
        self.heartbeat.add(recordings=1)

    def finish_bundle(self) -> None:
        self.heartbeat.flush()


def build(
    pipeline: beam.Pipeline, config: SyncConfig, sets: Sequence[ConcurrentSet], heartbeats: str
) -> beam.PCollection:
    """List → spread → measure; gives the ids of the recordings and sets. No media pass between the steps."""
    recordings = (
        pipeline
        | "Source" >> beam.Create([config.run])
        | "List recordings" >> beam.FlatMap(list_recordings).with_output_types(Any)
        | "Only recordings" >> beam.Filter(is_recording)
    )
    together = pipeline | "Concurrent sets" >> beam.Create(sets).with_output_types(Any)
    return (
        (recordings, together)
        | "Recordings and sets" >> beam.Flatten()
        | "Spread" >> beam.Reshuffle()
        | "Measure" >> beam.ParDo(_Measure(config, heartbeats)).with_output_types(str)
    )


def carry_out(config: SyncConfig, recordings: int, sets: Sequence[ConcurrentSet], show: Show) -> None:
    """Run the graph on this machine, with as many processes as asked for."""
    total = recordings + len(sets)
    workers = min(config.run.workers or 1, total)

    def with_total(counts: Counter[str]) -> None:
        show(counts + Counter(total=total))

    with watch(with_total) as heartbeats:
        options = pipeline_options(config.run, workers)
        pipeline = beam.Pipeline(runner=choose_runner(config.run, workers, heartbeats), options=options)
        build(pipeline, config, sets, heartbeats)
        pipeline.run().wait_until_finish()
