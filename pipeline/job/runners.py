"""Which Beam runner carries a run out, and with which of Beam's own options."""

from __future__ import annotations

import argparse
import difflib
import os
from collections import Counter
from contextlib import suppress
from typing import Any

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options import pipeline_options as beam_options
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from align.pipeline.cli.options import option_names
from align.pipeline.config import RunConfig
from align.schemas.errors import UsageError
from align.transforms.stages import NAMESPACE

_BY_WORKERS = ("--direct_num_workers", "--direct_running_mode")
_SECRET = ("secret", "password", "passwd", "access_key", "session_token", "connection_string", "private_key")


def make_pipeline(config: RunConfig) -> beam.Pipeline:
    """An empty pipeline on the runner of a run."""
    if config.execution.runs_here:
        return local_pipeline(config)
    return beam.Pipeline(
        options=beam_options.PipelineOptions(
            [f"--runner={config.execution.runner}", *config.execution.beam_args]
        )
    )


def local_pipeline(config: RunConfig) -> beam.Pipeline:
    """An empty pipeline on Beam's in-memory runner, which opens no port.

    The runner is named explicitly: left to itself, Beam 2.77's ``DirectRunner`` first tries to download
    another runner's binary. With more than one worker, or in another mode, it would start servers without
    authentication on every interface.
    """
    options = beam_options.PipelineOptions(list(config.execution.beam_args))
    direct = options.view_as(beam_options.DirectOptions)
    direct.direct_num_workers, direct.direct_running_mode = 1, "in_memory"
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=options)
    with suppress(OSError):  # for transforms of other languages; it would stay behind a killed run
        os.rmdir(pipeline.local_tempdir)
    return pipeline


def refuse_unfit(config: RunConfig) -> None:
    """Check options that are passed through against the runner they are passed to.

    Raises:
        UsageError: one would open ports; or hold a secret that a service stores and shows.
    """
    for name in (
        argument.split("=")[0] for argument in config.execution.beam_args if argument.startswith("--")
    ):
        if config.execution.runs_here and name in _BY_WORKERS:
            raise UsageError(f"{name} is not taken: --workers N has N processes, without any open port")
        if not config.execution.runs_here and any(word in name.lower() for word in _SECRET):
            raise UsageError(
                f"{name} is not sent to {config.execution.runner}, which would show it to all who see the "
                "job: give the workers credentials of their own (service account, instance role)"
            )


def refuse_unknown_runner(config: RunConfig) -> None:
    """Check the name of the runner.

    Raises:
        UsageError: Beam has none of that name, or what it needs is not installed.
    """
    if config.execution.runs_here:
        return
    name = config.execution.runner
    try:
        create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        why = str(error).splitlines()[0]
        raise UsageError(f"--runner {name}: Beam cannot make it ({why}); known here: DirectRunner") from None


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
    parser = argparse.ArgumentParser(
        add_help=False, conflict_handler="resolve", allow_abbrev=False, exit_on_error=False
    )
    for kind in _all_subclasses(beam_options.PipelineOptions):
        if kind.__module__ == beam_options.__name__:
            kind._add_argparse_args(_Tolerant(parser))
    known = [option for action in parser._actions for option in action.option_strings] + option_names()
    try:
        _, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UsageError(f"Beam does not understand the value of {error.argument_name}") from None
    if unknown:
        name = unknown[0].split("=")[0]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else " (see align run --help)"
        raise UsageError(f"no such option: {name}{hint}")


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
