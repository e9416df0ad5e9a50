"""The Beam graph of ``align sync``: recordings in, one kept part each out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import apache_beam as beam

from align.pipeline.planning import list_recordings
from align.pipeline.progress import Heartbeat, watch
from align.pipeline.runners import choose_runner, pipeline_options
from align.pipeline.sync_run import Show, SyncConfig, is_recording, sync_recording
from align.schemas.recording import Recording


class _SyncRecordings(beam.DoFn):
    """Measure each recording's clocks."""

    def __init__(self, config: SyncConfig, heartbeats: str) -> None:
        self.config, self.heartbeats = config, heartbeats

    def setup(self) -> None:
        self.heartbeat = Heartbeat(self.heartbeats)

    def process(self, recording: Recording) -> Any:
        yield sync_recording(recording, self.config)
        self.heartbeat.add(recordings=1)

    def finish_bundle(self) -> None:
        self.heartbeat.flush()


def build(pipeline: beam.Pipeline, config: SyncConfig, heartbeats: str) -> beam.PCollection:
    """List → spread → measure; gives the ids of the recordings."""
    return (
        pipeline
        | "Source" >> beam.Create([config.run])
        | "List recordings" >> beam.FlatMap(list_recordings).with_output_types(Any)
        | "Only recordings" >> beam.Filter(is_recording)
        | "Spread" >> beam.Reshuffle()
        | "Measure" >> beam.ParDo(_SyncRecordings(config, heartbeats)).with_output_types(str)
    )


def carry_out(config: SyncConfig, recordings: int, show: Show) -> None:
    """Run the graph on this machine, with as many processes as asked for."""
    workers = min(config.run.workers or 1, recordings)

    def with_total(counts: Counter[str]) -> None:
        show(counts + Counter(total=recordings))

    with watch(with_total) as heartbeats:
        options = pipeline_options(config.run, workers)
        pipeline = beam.Pipeline(runner=choose_runner(config.run, workers, heartbeats), options=options)
        build(pipeline, config, heartbeats)
        pipeline.run().wait_until_finish()
