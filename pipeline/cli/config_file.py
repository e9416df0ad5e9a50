"""A configuration as a TOML file: read for ``--config``, printed for ``--print-config``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from align.pipeline.config import PARTS, RunConfig, options
from align.schemas.option import declared, hint, refuse


def load_toml(path: str | os.PathLike[str], others: Iterable[str] = ()) -> dict[str, Any]:
    """Option values from a TOML file: keys are the options' names, bare or in tables named as the parts.

    Args:
        path: of the file.
        others: keys outside of tables that are known beside the options.

    Raises:
        UsageError: unreadable, not TOML, a key that is no option, or one that is given twice.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise refuse("config", f"{path}: {error}") from None
    known = dict.fromkeys(others, "")
    known |= {one.name: part for part, kind in PARTS.items() for one in declared(kind)}
    values: dict[str, Any] = {}
    for part, name, value in _leaves(table):
        if name not in known:
            names = f"known: {', '.join(known)}; tables: {', '.join(PARTS)}"
            raise refuse("config", f"{path}: {name!r} is not known ({names}){hint(name, known)}")
        if part not in ("", known[name]):
            raise refuse("config", f"{path}: {name!r} stands in [{part}]; it belongs in [{known[name]}]")
        if name in values:
            raise refuse("config", f"{path}: {name!r} is given twice")
        values[name] = value
    return values


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Part, name and value of each key; the part is "" for keys outside of tables."""
    for key, value in table.items():
        if key in PARTS and isinstance(value, Mapping):
            yield from ((key, name.replace("-", "_"), inner) for name, inner in value.items())
        else:
            yield "", key.replace("-", "_"), value


def as_toml(config: RunConfig) -> list[str]:
    """All options of a configuration as lines of a TOML file that gives the same configuration."""
    values = config.flat()
    lines = []
    for one in options():
        name, value = one.name.replace("_", "-"), values[one.name]
        shown_value = one.option.typed if one.option.typed and value == one.default else value
        lines.append(f"# {name} is not set" if value is None else f"{name} = {_toml(shown_value)}")
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in str(value))
    return f'"{"".join(plain)}"'
