"""The options of a run on the command line, made from their declarations in :mod:`align.pipeline.config`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from align.pipeline.cli.config_file import load_toml
from align.pipeline.config import RunConfig, options
from align.schemas.option import Declared, refuse

Command = Callable[..., Any]

_EXAMPLE = "e.g. --source ego4d --input DIR --output OUT"
_MISSING = {"source": _EXAMPLE, "input": _EXAMPLE, "output": "name an empty or new folder"}


class _Given(click.ParamType[Any]):
    """A value as it was given, by hand or in a file: the declarations read and check it."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value


def run_options(*names: str, **defaults: str) -> Callable[[Command], Command]:
    """Decorate a click command with options of a run: those named, or all of them and their files.

    Args:
        names: of the options; none for all.
        defaults: those that are others than in a run.
    """

    def decorate(command: Command) -> Command:
        chosen = [one for one in options() if not names or one.name in names]
        extra = () if names else (_CONFIG, _PROFILE, _PRINT)
        for decorator in reversed([*(_click(one, defaults.get(one.name)) for one in chosen), *extra]):
            command = decorator(command)
        return command

    return decorate


def _click(one: Declared, default: str | None) -> Callable[[Command], Command]:
    known = one.option
    if one.is_switch:
        return click.option(one.flag, one.name, is_flag=True, default=None, help=known.help)
    metavar = known.metavar or _metavar(one)
    text = help_text(one, default)
    return click.option(one.flag, one.name, type=_Given(), metavar=metavar, default=default, help=text)


def _metavar(one: Declared) -> str:
    if one.option.choices:
        return "|".join(one.option.choices)
    return "N" if isinstance(one.default, int) else "TEXT" if isinstance(one.default, str) else "NUMBER"


def help_text(one: Declared, default: str | None = None) -> str:
    """What an option is for, with its default where there is one to speak of."""
    default = default or shown(one)
    return f"{one.option.help} [default: {default}]" if default else one.option.help


def shown(one: Declared) -> str:
    """The default as it is typed; "" where there is none."""
    if one.option.typed:
        return one.option.typed
    if one.default is None or one.default in ("", (), False):
        return ""
    if one.default is True:
        return "on"
    if isinstance(one.default, tuple):
        return ",".join(one.default)
    return f"{one.default:g}" if isinstance(one.default, float) else str(one.default)


def _use_file(context: click.Context, _: click.Parameter, path: str | None) -> None:
    if path:
        others = [p.name for p in context.command.params if isinstance(p, click.Option) and p.name]
        context.default_map = {**(context.default_map or {}), **load_toml(path, others)}


def _use_profile(context: click.Context, _: click.Parameter, name: str | None) -> None:
    if name:
        from align.transforms.views.views import profile_options

        context.default_map = {**profile_options(name), **(context.default_map or {})}


_CONFIG = click.option(
    "--config",
    metavar="FILE.toml",
    is_eager=True,
    callback=_use_file,
    expose_value=False,
    help="Read options from a TOML file; its keys are the options' names.",
)
_PROFILE = click.option(
    "--profile",
    metavar="NAME",
    is_eager=True,
    callback=_use_profile,
    expose_value=False,
    help="Write what a model takes: imagebind, imu2clip or clip; options that are given win.",
)
_PRINT = click.option(
    "--print-config", is_flag=True, help="Print all options as a TOML file for --config, and stop."
)


def option_names() -> list[str]:
    """Every option of a run as it is typed, for hints."""
    params = run_options()(lambda: None).__click_params__  # type: ignore[attr-defined]
    return [name for param in params for name in param.opts]


def config_from(
    beam_args: Iterable[str] = (), *, needed: Iterable[str] = ("source", "input"), **given: Any
) -> RunConfig:
    """The configuration that the given option values describe; None stands for a default.

    Args:
        beam_args: Beam options, passed through.
        needed: options that must be given.
        given: names and values.

    Raises:
        UsageError: a value that cannot be meant, or one that is needed is missing.
    """
    named = {name: value for name, value in given.items() if value is not None}
    for name in needed:
        if not named.get(name):
            raise refuse(name, f"is missing; {_MISSING[name]}")
    return RunConfig(**named, beam_args=tuple(beam_args))
