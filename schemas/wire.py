"""Our frozen records as plain JSON values and back: how they travel between processes without pickle."""

from __future__ import annotations

import hashlib
import json
import re
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

OMIT_NONE = {"omit": None}
"""Metadata of a field that came later: where it is None, records look, and hash, as they did before."""


_FRACTION = re.compile(
    r"-?[0-9]{1,100}(/[0-9]{1,100})?"
)  # what ``str`` gives; 1e999999999 would take for ever


def json_digest(value: object) -> str:
    """SHA-256 of a JSON value in canonical form: sorted keys, no spaces, ASCII; tuples are lists."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def to_plain(value: Any) -> Any:
    """The value in dicts, lists, strings and numbers.

    Args:
        value: a dataclass of dataclasses, tuples, dicts with string keys, Fractions and JSON's own types.
    """
    if is_dataclass(value):
        named = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: to_plain(item) for f, item in named if item is not None or "omit" not in f.metadata}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, Fraction):
        return str(value)
    return value


def from_plain(kind: Any, plain: Any) -> Any:
    """The value of type ``kind`` that :func:`to_plain` took apart.

    Raises:
        KeyError, TypeError, ValueError, ArithmeticError: it is none.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if plain is None and types.NoneType in parts:
            return None
        return _first_of([part for part in parts if part is not types.NoneType], plain)
    if origin in (tuple, dict, Mapping) and not isinstance(plain, (list, tuple) if origin is tuple else dict):
        raise TypeError(f"{plain!r:.100} is no {origin.__name__}")
    if origin is tuple:
        if parts == (int, ...) and all(type(item) is int for item in plain):
            return tuple(plain)  # instants of keyframes: tens of thousands for each segment
        inner = parts[:1] * len(plain) if parts[-1] is Ellipsis else parts
        return tuple(from_plain(part, item) for part, item in zip(inner, plain, strict=True))
    if origin in (dict, Mapping):
        return {key: from_plain(parts[1], item) for key, item in plain.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        omitted = {f.name for f in fields(kind) if "omit" in f.metadata} - plain.keys()
        hints = ((name, hint) for name, hint in _hints(kind).items() if name not in omitted)
        values = {name: from_plain(hint, plain[name]) for name, hint in hints}
        return kind(**values)
    return _plain_value(kind, plain)


def _first_of(kinds: list[Any], plain: Any) -> Any:
    """The value as the first of the types that it can be."""
    for kind in kinds[:-1]:
        with suppress(TypeError, ValueError):
            return from_plain(kind, plain)
    return from_plain(kinds[-1], plain)


def _plain_value(kind: Any, plain: Any) -> Any:
    """A value that JSON has, or a Fraction; ``True`` is no number."""
    if kind is Fraction and isinstance(plain, str) and _FRACTION.fullmatch(plain):
        return Fraction(plain)
    if kind is float and isinstance(plain, (int, float)) and not isinstance(plain, bool):
        return float(plain)
    if get_origin(kind) is Literal and plain in get_args(kind):
        return plain
    if kind in (str, int, bool) and isinstance(plain, kind) and isinstance(plain, bool) <= (kind is bool):
        return plain
    raise TypeError(f"{plain!r:.100} is no {getattr(kind, '__name__', kind)}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}
