"""Carries out a run or a plan: checks first, then the graph, then what came of it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from align.pipeline.config import RunConfig
from align.pipeline.planning import RecordingPlan, list_recordings, plan_recording
from align.pipeline.progress import watch
from align.pipeline.shards import SplitTotals
from align.pipeline.stores import store
from align.schemas.errors import AlignError, Fault, UsageError
from align.schemas.recording import Recording
from align.schemas.time import NS
from align.transforms.plan.splits import parse_splits
from align.transforms.write.commit import leftovers, publish_json, read_json

Show = Callable[[Counter[str]], None]

# Below this much estimated work a second process costs more to start (about 5 CPU s) than it saves.
_ALONE_BELOW_S = 60.0

# Measured on 1080p H.264 with a picture per 5 s: 110 to 450 CPU s an hour of media, by GOP length.
_CPU_PER_MEDIA_S = 0.06

STARTED = "_work/run.json"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run left behind.

    Attributes:
        manifest: the committed manifest.
        too_many_failures: more than the allowed share of the planned windows failed.
    """

    output: str
    manifest: dict[str, Any]
    too_many_failures: bool


def run(config: RunConfig, *, show: Show | None = None) -> RunResult:
    """Carry out a run on Beam and return what it committed.

    Raises:
        UsageError: the configuration cannot be meant, found before any work.
        AlignError: the run as a whole failed; what is finished stays for ``resume``.
    """
    if config.beam_args:
        with _quiet_beam():
            from align.pipeline.runners import refuse_unknown
        refuse_unknown(config.beam_args)
    check(config)
    with _quiet_beam():
        import apache_beam as beam

        from align.pipeline.graph import build
        from align.pipeline.runners import choose_runner, pipeline_options
    options = pipeline_options(config, config.workers or workers_for(config))
    _prepare(config)
    with watch(show or (lambda _: None)) as heartbeats:
        pipeline = beam.Pipeline(runner=choose_runner(config), options=options)
        build(pipeline, config, heartbeats)
        pipeline.run().wait_until_finish()
    return result_of(config)


def check(config: RunConfig) -> None:
    """Refuse what cannot work before any work starts.

    Raises:
        UsageError: unknown source, no recordings, a bad split, an output that is not empty.
    """
    if not config.output:
        raise UsageError("--output is missing; name an empty or new folder")
    parse_splits(config.splits)
    _first_recording(config)
    _check_output(config)


def _first_recording(config: RunConfig) -> None:
    faults = []
    for item in list_recordings(config):
        if isinstance(item, Recording):
            return
        faults.append(item.detail)
    why = f": {faults[0]}" if faults else ""
    raise UsageError(f"no recordings to align in {config.input}{why}")


def _check_output(config: RunConfig) -> None:
    target = store(config.output)
    try:
        names = set(target.names())
    except NotADirectoryError:
        raise UsageError(f"--output {config.output} is not a folder") from None
    if not names:
        return
    if not config.resume:
        raise UsageError(f"--output {config.output} is not empty; choose another, or add --resume to go on")
    if STARTED not in names and "manifest.json" not in names:
        raise UsageError(f"--output {config.output} holds no run to resume; choose an empty folder")
    started = read_json(target, STARTED) if STARTED in names else read_json(target, "manifest.json")["config"]
    wanted = config.as_manifest()
    changed = [k for k in wanted if started.get(k) != wanted[k]]
    if changed:
        shown = ", ".join(f"{k}: {started.get(k)!r} then, {wanted[k]!r} now" for k in changed)
        raise UsageError(f"--resume needs the options of the run it resumes; changed: {shown}")


def _prepare(config: RunConfig) -> None:
    target = store(config.output)
    for name in leftovers(target):
        target.remove(name)
    publish_json(target, STARTED, config.as_manifest())


def workers_for(config: RunConfig) -> int:
    """All cores for a long job, one process for a short one, judged by the metadata's durations."""
    cores = os.cpu_count() or 1
    work_s = 0.0
    for item in list_recordings(config) if cores > 1 else ():
        if isinstance(item, Recording) and item.span is not None:
            work_s += item.span.length_ns / NS * _CPU_PER_MEDIA_S
        if work_s > _ALONE_BELOW_S:
            return cores
    return 1


def result_of(config: RunConfig) -> RunResult:
    """Read back what a run committed, and judge it.

    Raises:
        AlignError: ``nothing_written``: every window was skipped or failed.
    """
    manifest = read_json(store(config.output), "manifest.json")
    counts = manifest["counts"]
    if not counts["windows_written"]:
        detail = f"no window was written; {config.output}/failures.jsonl says why"
        raise AlignError("nothing_written", detail, stage="commit")
    allowed = config.max_failures * counts["windows_planned"]
    return RunResult(config.output, manifest, counts["failed"] > allowed)


def plan(config: RunConfig) -> PlanSummary:
    """What a run would read and write, from headers alone, in flat memory."""
    parse_splits(config.splits)
    summary = PlanSummary()
    for item in list_recordings(config):
        if isinstance(item, Fault):
            summary.add(RecordingPlan(item.recording_id, item.windows, (), (item,), offered=False))
        else:
            summary.add(plan_recording(item, config, survey=False))
    if not summary.recordings:
        raise UsageError(f"no recordings to align in {config.input}")
    return summary


@dataclass
class PlanSummary:
    """Totals of a plan; grows with the number of splits and reasons, not of windows."""

    recordings: int = 0
    windows: int = 0
    segments: int = 0
    media_s: float = 0.0
    cpu_s: float = 0.0
    output_bytes: int = 0
    totals: SplitTotals = field(default_factory=SplitTotals)
    lost: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, plan: RecordingPlan) -> None:
        """Count one recording's plan."""
        self.recordings += plan.offered
        self.windows += plan.windows
        for fault in plan.faults:
            self.lost[fault.code] += fault.windows
            self.notes[fault.code] += fault.windows == 0
        for segment in plan.segments:
            self.segments += 1
            self.media_s += (segment.starts_ns[-1] + segment.window_ns - segment.starts_ns[0]) / NS
            self.cpu_s += segment.cost_s
            self.output_bytes += segment.cost_bytes
            self.totals = self.totals.plus(segment)


@contextmanager
def _quiet_beam() -> Iterator[None]:
    """Import Beam without the warning it gives where its cloud extras are not installed."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
