"""Our frozen records as plain JSON values and back: how they travel between processes without pickle."""

from __future__ import annotations

import hashlib
import json
import types
from dataclasses import fields, is_dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

OMIT_NONE = {"omit": None}
"""Metadata of a field that came later: where it is None, records look, and hash, as they did before."""


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
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, Fraction):
        return str(value)
    return value


def from_plain(kind: Any, plain: Any) -> Any:
    """The value of type ``kind`` that :func:`to_plain` took apart.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = [part for part in parts if part is not types.NoneType]
        return None if plain is None else from_plain(inner, plain)
    if origin is tuple:
        inner = parts[:1] * len(plain) if parts[-1] is Ellipsis else parts
        return tuple(from_plain(part, item) for part, item in zip(inner, plain, strict=True))
    if origin is dict:
        return {key: from_plain(parts[1], item) for key, item in plain.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        omitted = {f.name for f in fields(kind) if "omit" in f.metadata} - plain.keys()
        hints = ((name, hint) for name, hint in _hints(kind).items() if name not in omitted)
        return kind(**{name: from_plain(hint, plain[name]) for name, hint in hints})
    if kind in (Fraction, float):
        return kind(plain)
    if origin is not Literal and not isinstance(plain, kind):
        raise TypeError(f"{plain!r} is no {kind.__name__}")
    return plain


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}
