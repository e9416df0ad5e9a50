"""Carries out a run or a plan: checks first, then the graph, then what came of it."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from align.pipeline.config import RunConfig
from align.pipeline.job.owned import refuse_links
from align.pipeline.job.planning import RecordingPlan, list_recordings, plan_recording
from align.pipeline.job.resume import (
    Inputs,
    already_complete,
    begin,
    clean,
    is_committed,
    look_at_inputs,
    refuse_unfit,
)
from align.pipeline.job.tasks import stores_of, use_stores
from align.pipeline.job.workers import workers_for
from align.pipeline.process.isolation import start_early
from align.pipeline.process.local_run import carried_out_here
from align.pipeline.process.stopping import Leave, stoppable
from align.pipeline.storage.lock import locked, refuse_if_held
from align.pipeline.storage.stores import store
from align.schemas.errors import AlignError, Fault, UsageError
from align.schemas.option import refuse
from align.schemas.time import NS
from align.transforms.plan.splits import parse_splits
from align.transforms.store.publish import read_json
from align.transforms.write.manifest import FAILURES

Show = Callable[[Counter[str]], None]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run left behind.

    Attributes:
        manifest: the committed manifest.
        too_many_failures: more than the allowed share of the planned windows failed.
        already: it was complete before; nothing was done.
        stages: what each stage counted: see :mod:`align.transforms.stages`.
        notes: code -> lines of ``failures.jsonl`` that cost no window and yet should be known.
    """

    output: str
    manifest: dict[str, Any]
    too_many_failures: bool
    already: bool = False
    stages: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)


def run(
    config: RunConfig | None = None, *, show: Show | None = None, leave: Leave | None = None, **options: Any
) -> RunResult:
    """Carry out a run on Beam and return what it committed.

    Args:
        config: the run.
        show: called now and then with the counts so far.
        leave: ends the process, given the reason, where Beam does not let itself be stopped.
        options: by their names, those that differ from ``config`` or from the defaults.

    Raises:
        UsageError: the configuration cannot be meant, found before any work.
        AlignError: the run as a whole failed; what is finished stays for ``resume``.
    """
    config = (config or RunConfig()).but(**options)
    _check_beam(config)
    use_stores(config)
    inputs = check(config)
    if config.execution.resume and already_complete(config, inputs):
        clean(config.outputs.output)
        return result_of(config, already=True)
    target, workers = store(config.outputs.output), _workers(config, inputs)
    with stoppable(leave) as stopper, locked(target, config.outputs.output, stopper.stop):
        begin(config, inputs)
        with carried_out_here("run", config, workers, stores_of(config), show or (lambda _: None)) as here:
            if config.execution.isolate and workers == 1 and config.execution.runs_here:
                start_early(config)
            with _quiet_beam():
                from align.pipeline.job.graph import build
                from align.pipeline.job.runners import make_pipeline, stage_counts
            done = None
            try:
                pipeline = make_pipeline(config)
                build(pipeline, config, here.token)
                done = pipeline.run()
                done.wait_until_finish()
            except Exception as error:  # a runner may not part well, after the commit
                if not is_committed(config.outputs.output):
                    raise here.failure or error from None
    return replace(result_of(config), stages=stage_counts(done))


def _workers(config: RunConfig, inputs: Inputs) -> int:
    """How many processes of ours do the work; where another runner does it, none beside this one."""
    return (config.execution.workers or workers_for(inputs.work_s)) if config.execution.runs_here else 1


def _check_beam(config: RunConfig) -> None:
    """Refuse options and runners that Beam does not know; imports it only where there is a need."""
    if not config.execution.beam_args and config.execution.runs_here:
        return
    with _quiet_beam():
        from align.pipeline.job.runners import refuse_unfit as refuse_unfit_options
        from align.pipeline.job.runners import refuse_unknown, refuse_unknown_runner
    refuse_unknown(config.execution.beam_args)
    refuse_unfit_options(config)
    refuse_unknown_runner(config)


def _check_split(config: RunConfig) -> None:
    if not config.outputs.assignments:
        parse_splits(config.outputs.split)


def check(config: RunConfig) -> Inputs:
    """Refuse what cannot work before any work starts.

    Raises:
        UsageError: unknown source, no recordings, a bad split, an output that is not empty, that holds a
            run of another config or input, or to which another run is writing.
    """
    if config.execution.trust_metadata:
        raise UsageError("--trust-metadata is for align plan: a run takes nothing on trust")
    if not config.outputs.output:
        raise refuse("output", "is missing; name an empty or new folder")
    _check_split(config)
    inputs = look_at_inputs(config)
    refuse_links(config.outputs.output)
    refuse_if_held(store(config.outputs.output), config.outputs.output)
    refuse_unfit(config, inputs)
    return inputs


def result_of(config: RunConfig, *, already: bool = False) -> RunResult:
    """Read back what a run committed, and judge it.

    Raises:
        AlignError: ``nothing_written``: every window was skipped or failed.
    """
    manifest = read_json(store(config.outputs.output), "manifest.json")
    counts = manifest["counts"]
    if not counts["windows_written"]:
        detail = f"no window was written; {config.outputs.output}/failures.jsonl says why"
        raise AlignError("nothing_written", detail, stage="commit")
    allowed = config.execution.max_failures * counts["windows_planned"]
    too_many = counts["failed"] > allowed
    return RunResult(config.outputs.output, manifest, too_many, already, notes=_notes(config))


def _notes(config: RunConfig) -> dict[str, int]:
    with store(config.outputs.output).open(FAILURES) as lines:
        faults = map(json.loads, lines)
        return dict(Counter(fault["code"] for fault in faults if not fault["windows"]))


def plan(config: RunConfig | None = None, **options: Any) -> PlanSummary:
    """What a run of these options would read and write, from headers alone, in flat memory."""
    config = (config or RunConfig()).but(**options)
    _check_split(config)
    _check_beam(config)
    summary = PlanSummary()
    for item in list_recordings(config):
        if isinstance(item, Fault):
            summary.add(RecordingPlan(item.recording_id, item.windows, (), (item,), offered=False))
        else:
            summary.add(plan_recording(item, config, survey=False))
    if not summary.recordings:
        raise UsageError(f"no recordings to align in {config.inputs.input}")
    summary.notes["too_many_windows"] += summary.windows > config.execution.max_windows
    return summary


@dataclass
class PlanSummary:
    """Totals of a plan; grows with the number of reasons, not of windows."""

    recordings: int = 0
    windows: int = 0
    segments: int = 0
    media_s: float = 0.0
    cpu_s: float = 0.0
    output_bytes: int = 0
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


@contextmanager
def _quiet_beam() -> Iterator[None]:
    """Import Beam without the warning it gives where its cloud extras are not installed."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
