"""Typed reading of JSON objects: a field of the wrong type is named, not guessed at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TypeGuard, TypeVar

from align.schemas.errors import AlignError

Fields = Mapping[str, object]
_Number = TypeVar("_Number", int, Fraction)

LONGEST_S = 30 * 86_400
"""Thirty days: beyond any recording, and few enough windows for a header that lies."""


def wrong(field: str, value: object, wanted: str) -> AlignError:
    """The fault of a field that does not hold what it should."""
    shown = repr(value)
    return AlignError(
        "bad_metadata",
        f"{field} is {shown if len(shown) <= 60 else shown[:57] + '...'}, not {wanted}",
        stage="source",
    )


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a finite number (``true`` is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def as_object(value: object) -> Fields:
    """The value, if it is an object."""
    if not isinstance(value, dict):
        raise wrong("an entry", value, "an object")
    return value


def seconds(entry: Fields, field: str) -> Fraction | None:
    """Seconds as the exact decimal they were written as; None where the field is null or absent."""
    value = entry.get(field)
    if value is None:
        return None
    if not is_number(value):
        raise wrong(field, value, "a number of seconds")
    return in_range(field, Fraction(repr(value)))


def optional(
    read: Callable[[Fields, str], _Number | None], entry: Fields, field: str, bad: list[str]
) -> _Number | None:
    """What ``read`` gives; a value that cannot be meant counts as absent, and ``bad`` gains a line."""
    try:
        return read(entry, field)
    except AlignError as error:
        bad.append(error.detail)
        return None


def in_range(field: str, value: Fraction) -> Fraction:
    """The seconds, if a recording could be that long."""
    if abs(value) > LONGEST_S:
        raise wrong(field, float(value), "a plausible number of seconds")
    return value


def integer(entry: Fields, field: str) -> int | None:
    """An integer (``5.0`` passes for one); None where the field is null or absent."""
    value = entry.get(field)
    if value is None:
        return None
    if not is_number(value) or value != int(value) or abs(value) >= 1 << 62:
        raise wrong(field, value, "an integer")
    return int(value)


def text(entry: Fields, field: str) -> str | None:
    """A string; None where the field is null or absent."""
    value = entry.get(field)
    if value is not None and not isinstance(value, str):
        raise wrong(field, value, "a string")
    return value


def texts(entry: Fields, field: str) -> tuple[str, ...]:
    """A list of strings, cleaned; empty where the field is null or absent."""
    values = _items(entry, field)
    for value in values:
        if not isinstance(value, str):
            raise wrong(field, value, "a string")
    return tuple(clean(value) for value in values if isinstance(value, str))


def flag(entry: Fields, field: str) -> bool:
    """A boolean; False where the field is null or absent."""
    value = entry.get(field)
    if value is not None and not isinstance(value, bool):
        raise wrong(field, value, "true or false")
    return bool(value)


def block(entry: Fields, field: str) -> Fields:
    """A nested object; empty where the field is null or absent."""
    value = entry.get(field)
    if value is not None and not isinstance(value, dict):
        raise wrong(field, value, "an object")
    return value or {}


def blocks(entry: Fields, field: str) -> list[Fields]:
    """A list of objects; empty where the field is null or absent."""
    values = _items(entry, field)
    for value in values:
        if not isinstance(value, dict):
            raise wrong(field, value, "an object")
    return [value for value in values if isinstance(value, dict)]


def _items(entry: Fields, field: str) -> list[object]:
    value = entry.get(field)
    if value is not None and not isinstance(value, list):
        raise wrong(field, value, "a list")
    return value or []


def clean(value: str) -> str:
    """The text with lone surrogates replaced, so that it can be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value
