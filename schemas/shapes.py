"""What a JSON value must look like, as small checks that compose: for files that others wrote."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[str, Any], None]
"""Takes where a value stands and the value; raises :class:`Unfit`."""

MOST_WHOLE = 2**63 - 1


class Unfit(ValueError):
    """A value is not of its shape; says where and why in one line."""


def _need(good: bool, where: str, want: str, value: Any) -> None:
    if not good:
        shown = (
            ascii(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
        )
        raise Unfit(f"{where} is {shown[:80]}, not {want}")


def whole(least: int = 0, most: int = MOST_WHOLE) -> Check:
    """An integer within bounds; a truth value is none."""

    def check(where: str, value: Any) -> None:
        _need(type(value) is int and least <= value <= most, where, f"a whole number from {least} on", value)

    return check


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """A finite number within bounds."""

    def check(where: str, value: Any) -> None:
        fits = type(value) in (int, float) and math.isfinite(value) and least <= value <= most
        _need(fits, where, "a finite number in its range", value)

    return check


def text(pattern: str = r"(?s).*", most: int = 4096) -> Check:
    """A string that a pattern matches as a whole."""
    known = re.compile(pattern)

    def check(where: str, value: Any) -> None:
        fits = isinstance(value, str) and len(value) <= most and known.fullmatch(value) is not None
        _need(fits, where, f"a text such as is written there (at most {most} characters)", value)

    return check


def maybe(inner: Check) -> Check:
    """The same, or null."""
    return lambda where, value: None if value is None else inner(where, value)


def listing(inner: Check) -> Check:
    """A list, each item of which is checked."""

    def check(where: str, value: Any) -> None:
        _need(isinstance(value, list), where, "a list", value)
        for place, item in enumerate(value):
            inner(f"{where}[{place}]", item)

    return check


def mapping(inner: Check) -> Check:
    """An object with names of any kind, each value of which is checked."""

    def check(where: str, value: Any) -> None:
        _need(isinstance(value, dict), where, "an object", value)
        for name, item in value.items():
            inner(f"{where}.{name[:80]!a}", item)

    return check


def record(fields: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object that holds the fields, and may hold the optional ones and others, which are not looked at."""

    def check(where: str, value: Any) -> None:
        _need(isinstance(value, dict), where, "an object", value)
        for name, inner in fields.items():
            _need(name in value, where, f"complete: {name} is missing", value)
            inner(f"{where}.{name}", value[name])
        for name, inner in (optional or {}).items():
            if name in value:
                inner(f"{where}.{name}", value[name])

    return check
