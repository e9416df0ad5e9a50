"""The command ``align``. Each command is thin: options, one library call, what to look at next.

Heavy imports stand inside the commands, so that ``align --help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

import click

from align.pipeline.cli.config_file import as_toml
from align.pipeline.cli.echo import echo
from align.pipeline.cli.options import config_from, run_options
from align.pipeline.process.stopping import Terminated
from align.schemas.errors import AlignError, UsageError, without_secrets

# Beam reads this once, at import: without its cloud extras it would warn about them on every start.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


class _LazyGroup(click.Group):
    """Commands that live in modules of their own are imported when they are asked for."""

    elsewhere: ClassVar = {
        "synth": "align.pipeline.cli.synth_command",
        "index": "align.pipeline.cli.index_command",
        "stats": "align.pipeline.cli.stats_command",
        "sync": "align.pipeline.cli.sync_command",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["run", "plan", "sync", "synth", "inspect", "verify", "stats", "index", "clean", "completion"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.elsewhere:
            from importlib import import_module

            command: click.Command = getattr(import_module(self.elsewhere[name]), name)
            return command
        return super().get_command(ctx, name)


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="multimodal-align", prog_name="align")
@click.option("--debug", is_flag=True, help="Show tracebacks; works after any command.")
def align(debug: bool) -> None:
    """Raw egocentric recordings in, time-aligned, image-paired windows out.

    \b
    Try it on made-up recordings:
      align synth demo/in
      align run --source ego4d --input demo/in --output demo/out
      align verify demo/out

    Exit codes: 0 done; 1 the run or check failed; 2 wrong usage; 3 too many windows failed.
    """


_BEAM_OPTIONS = click.argument("beam_options", nargs=-1, type=click.UNPROCESSED, metavar="[BEAM OPTIONS]")


@align.command(context_settings={"ignore_unknown_options": True})
@run_options()
@_BEAM_OPTIONS
def run(beam_options: tuple[str, ...], print_config: bool, **given: Any) -> None:
    """Turn recordings into sharded, time-aligned windows.

    \b
    align run --source ego4d --input ego4d_data --output out --window 5 --format parquet,webdataset
    align run --config run.toml --output out --resume

    Options that are not listed go to Beam as they are, e.g. --runner DataflowRunner --project P
    --region R --temp_location gs://B/tmp.
    """
    config = config_from(beam_options, needed=() if print_config else ("source", "input", "output"), **given)
    if print_config:
        echo(*as_toml(config))
        return
    from align.pipeline.cli.console import finish, progress_display
    from align.pipeline.job.run import run as run_pipeline

    with progress_display() as show:
        result = run_pipeline(config, show=show, leave=_leave)
    sys.exit(finish(result))


@align.command(context_settings={"ignore_unknown_options": True})
@run_options()
@click.option("--trust-metadata", is_flag=True, help="Open no media at all: go by what the metadata says.")
@_BEAM_OPTIONS
def plan(trust_metadata: bool, beam_options: tuple[str, ...], print_config: bool, **given: Any) -> None:
    """Show what a run would read and write; opens headers only.

    Takes the options of a run, so that the same line or file serves for both; writes nothing.
    """
    needed = () if print_config else ("source", "input")
    config = config_from(beam_options, needed=needed, trust_metadata=trust_metadata, **given)
    if print_config:
        echo(*as_toml(config))
        return
    from align.pipeline.cli.console import print_plan
    from align.pipeline.job.run import plan as plan_run

    print_plan(plan_run(config))


@align.command()
@click.argument("path")
@run_options("isolate", "decode_timeout")
def inspect(path: str, **given: Any) -> None:
    """Look at a recording's timeline or a data set's manifest.

    PATH is a media file (streams, clocks, gaps and faults on one timeline), an IMU table, or a finished
    data set.
    """
    from align.pipeline.cli.console import print_inspection

    how = config_from(needed=(), **given).execution
    print_inspection(path, isolate=how.isolate, timeout_s=how.decode_timeout)


@align.command()
@click.argument("out")
@click.option("--deep", is_flag=True, help="Decode every picture and sound too.")
def verify(out: str, deep: bool) -> None:
    """Check every shard of OUT: checksums, counts, invariants."""
    from align.pipeline.cli.console import print_verification

    sys.exit(print_verification(out, deep=deep))


@align.command()
@click.argument("out")
def clean(out: str) -> None:
    """Remove what dead runs left in OUT.

    That is temporary files, stale locks, and shards of earlier attempts that the manifest does not list.
    Files that are not of the data set stay.
    """
    from align.pipeline.job.resume import clean as clean_output

    removed = clean_output(out)
    echo(
        *(f"removed {n} {what}" for what, n in sorted(removed.items())),
        *([] if removed else ["nothing to remove"]),
    )


@align.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print shell completion.

    Add `eval "$(align completion bash)"` to your shell's start-up file.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise UsageError(f"no completion for {shell}")
    echo(*found(align, {}, "align", "_ALIGN_COMPLETE").source().splitlines())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: one readable line for an error, a traceback only with ``--debug``."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    before = logging.root.manager.disable
    if not debug:
        logging.disable(logging.CRITICAL)  # what matters is said in one line; Beam would add tracebacks
        threading.excepthook = lambda _: None
    try:
        align.main([a for a in arguments if a != "--debug"], prog_name="align", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        echo(*error.format_message().splitlines())
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code, debug)
    except UsageError as error:
        _fail(as_typed(error), 2, debug)
    except AlignError as error:
        _fail(str(error), 1, debug)
    except (KeyboardInterrupt, click.Abort, Terminated) as reason:
        _leave(reason)
    except Exception as error:
        _fail(f"{type(error).__name__}: {error} (a defect of align; --debug shows where)", 1, debug)
    finally:
        logging.disable(before)
        threading.excepthook = threading.__excepthook__


def _leave(reason: BaseException) -> NoReturn:
    """End at once: threads of Beam's that still run must not hold the process."""
    if isinstance(reason, AlignError):
        line, code = str(reason), 1
    else:
        line = "stopped; run the same command with --resume to go on"
        code = 143 if isinstance(reason, Terminated) else 130
    echo(f"align: {line}", err=True)
    sys.stdout.flush()
    os._exit(code)


def as_typed(error: UsageError) -> str:
    """What is wrong, the option that it names as it is typed."""
    flag = "--" + error.option.replace("_", "-")
    return flag + error.detail.removeprefix(error.option) if error.option else error.detail


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        import traceback

        echo(*traceback.format_exc().splitlines(), err=True)
    echo(f"align: {without_secrets(' '.join(message.split()))}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
