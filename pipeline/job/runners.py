"""Which Beam runner carries a run out, and with which of Beam's own options."""

from __future__ import annotations

import argparse
import difflib
import shlex
import sys
from collections import Counter
from typing import Any

from apache_beam.metrics import MetricsFilter
from apache_beam.options import pipeline_options as beam_options
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from align.pipeline.cli.options import option_names
from align.pipeline.config import IN_PROCESS, RunConfig
from align.schemas.errors import UsageError
from align.transforms.stages import NAMESPACE


def choose_runner(config: RunConfig, workers: int = 1, heartbeats: str = "") -> Any:
    """The runner object or name; its worker processes sign on in the folder ``heartbeats``.

    The in-process runner is named explicitly: left to itself, Beam 2.77's ``DirectRunner`` first tries to
    download another runner's binary.
    """
    if config.runner not in IN_PROCESS:
        return config.runner
    if workers == 1:
        return FnApiRunner()
    command = (sys.executable, "-m", "align.pipeline.process.worker_process", heartbeats)
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(f"exec {shlex.join(command)}"))


def refuse_unknown_runner(name: str) -> None:
    """Check the name of a runner.

    Raises:
        UsageError: Beam has none of that name, or what it needs is not installed.
    """
    if name in IN_PROCESS:
        return
    try:
        create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        why = str(error).splitlines()[0]
        raise UsageError(f"--runner {name}: Beam cannot make it ({why}); known here: DirectRunner") from None


def pipeline_options(config: RunConfig, workers: int) -> beam_options.PipelineOptions:
    """Beam's options for a run."""
    arguments = list(config.beam_args)
    if config.runner not in IN_PROCESS:
        return beam_options.PipelineOptions([f"--runner={config.runner}", *arguments])
    if workers > 1:
        arguments.append(f"--direct_num_workers={workers}")
    return beam_options.PipelineOptions(arguments)


def stage_counts(result: Any) -> dict[str, int]:
    """The counters of a finished run's stages, as far as its runner tells."""
    try:
        found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    except (AttributeError, NotImplementedError, TypeError):
        return {}  # a runner without metrics: the data set is none the worse for it
    counts: Counter[str] = Counter()
    for metric in found:
        counts[metric.key.metric.name] += metric.result
    return dict(counts)


def refuse_unknown(arguments: tuple[str, ...]) -> None:
    """Check options that are passed through.

    Raises:
        UsageError: an option that neither we nor Beam know.
    """
    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve", allow_abbrev=False)
    for kind in _all_subclasses(beam_options.PipelineOptions):
        if kind.__module__ == beam_options.__name__:
            kind._add_argparse_args(_Tolerant(parser))
    known = [option for action in parser._actions for option in action.option_strings] + option_names()
    try:
        _, unknown = parser.parse_known_args(list(arguments))
    except (SystemExit, argparse.ArgumentError) as error:
        raise UsageError(f"Beam does not understand {' '.join(arguments)}: {error}") from None
    if unknown:
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, 1)
        hint = f"; did you mean {near[0]}?" if near else " (see align run --help)"
        raise UsageError(f"no such option: {unknown[0]}{hint}")


class _Tolerant:
    """Adds arguments as Beam's own parser does, value providers included."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser

    def add_value_provider_argument(self, *names: str, **kwargs: Any) -> None:
        self._parser.add_argument(*names, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def _all_subclasses(kind: Any) -> list[Any]:
    return [c for sub in kind.__subclasses__() for c in (sub, *_all_subclasses(sub))]
