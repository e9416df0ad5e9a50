"""The Beam graph of ``align sync``: recordings in, one kept part each out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from align.pipeline.job.planning import list_recordings
from align.pipeline.job.pooled import Pooled
from align.pipeline.job.runners import local_pipeline
from align.pipeline.process.local_run import carried_out_here
from align.pipeline.sync.run import Show, SyncConfig, is_recording
from align.pipeline.sync.sound import ConcurrentSet
from align.pipeline.sync.tasks import RECORDING, SET


def build(
    pipeline: beam.Pipeline, config: SyncConfig, sets: Sequence[ConcurrentSet], run: str
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
        | "Measure" >> beam.ParDo(Pooled(config, run, RECORDING, SET)).with_output_types(str)
    )


def carry_out(config: SyncConfig, recordings: int, sets: Sequence[ConcurrentSet], show: Show) -> None:
    """Run the graph on this machine, with as many processes as asked for."""
    total = recordings + len(sets)
    workers = min(config.run.execution.workers or 1, total)

    def with_total(counts: Counter[str]) -> None:
        show(counts + Counter(total=total))

    with carried_out_here("sync", config, workers, (config.run.inputs.input,), with_total) as here:
        pipeline = local_pipeline(config.run)
        build(pipeline, config, sets, here.token)
        try:
            pipeline.run().wait_until_finish()
        except Exception as error:
            raise here.failure or error from None
