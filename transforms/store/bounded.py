"""Small JSON files that others wrote: their size and what they unfold to are known before they are parsed."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from align.schemas.errors import AlignError
from align.transforms.store.publish import Store

MOST_BYTES = 64 << 20
_MOST_VALUES = 4 << 20
"""An empty list of three bytes takes sixty in memory: values are counted too."""


def read_bounded_json(store: Store, path: str, *, most: int = MOST_BYTES) -> Any:
    """Read a JSON file of at most ``most`` bytes and some four million values; ``NaN`` is none of JSON's.

    Raises:
        FileNotFoundError: there is no such file.
        AlignError: ``bad_json``, it is larger, or not JSON; ``bad_path`` where it is a link or no file.
    """
    with store.open(path) as stream:
        data = stream.read(most + 1)
    return parse_bounded(data, path, most=most)


def parse_bounded(data: bytes, name: str, *, most: int = MOST_BYTES) -> Any:
    """The value of a JSON text; see :func:`read_bounded_json`.

    Raises:
        AlignError: ``bad_json``.
    """
    if len(data) > most:
        detail = f"{name} is larger than {most >> 20} MB: align wrote no such file"
        raise AlignError("bad_json", detail, stage="verify")
    if sum(data.count(mark) for mark in (b"[", b"{", b",")) > _MOST_VALUES:
        raise AlignError("bad_json", f"{name} holds more than {_MOST_VALUES} values", stage="verify")
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise AlignError("bad_json", f"{name} is not JSON: {error}; write it anew", stage="verify") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")
