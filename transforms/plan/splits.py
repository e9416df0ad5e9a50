"""Which split a group belongs to: a hash of its name, so that nothing else moves it; or what a file says."""

from __future__ import annotations

import csv
import hashlib
import re
import tomllib
from collections.abc import Iterator
from fractions import Fraction

from align.schemas.errors import UsageError

Splits = tuple[tuple[str, Fraction], ...]

_NAME = re.compile(r"[a-z0-9_]+")
_EXAMPLE = "--split takes names and fractions, e.g. train=0.9,val=0.1"


def parse_splits(text: str) -> Splits:
    """Read ``train=0.9,val=0.1``. Fractions are exact: ``1/3`` is one too; a lone name is all of it.

    Raises:
        UsageError: malformed, a name twice, a fraction that is not positive, or a sum other than 1.
    """
    parts = [part.strip().partition("=") for part in text.split(",")]
    if len(parts) == 1 and not parts[0][1]:
        parts = [(parts[0][0], "=", "1")]
    splits = tuple((name.strip(), _fraction(value)) for name, _, value in parts)
    names = [name for name, _ in splits]
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a split (only a-z, 0-9 and _). {_EXAMPLE}")
    if len(set(names)) < len(names):
        raise UsageError(f"{text!r} names a split twice. {_EXAMPLE}")
    total = sum((fraction for _, fraction in splits), Fraction(0))
    if total != 1:
        raise UsageError(f"the fractions of {text!r} add up to {float(total):g}, not 1. {_EXAMPLE}")
    return splits


def read_assignments(name: str, text: str) -> dict[str, str]:
    """Which split each recording or group belongs to, as a file says.

    Either lines of id and split (CSV; a first line ``id,split`` and comments with # are passed over), or TOML
    with a list of ids for each split: ``val = ["uid", "uid"]``.

    Args:
        name: the file's name; one that ends with ``.toml`` is read as TOML.
        text: what it holds.

    Raises:
        UsageError: malformed, or an id in two splits.
    """
    found: dict[str, str] = {}
    for where, identity, split in (_toml_pairs if name.endswith(".toml") else _csv_pairs)(name, text):
        if not _NAME.fullmatch(split):
            raise UsageError(f"--split {where}: {split!r} cannot name a split (only a-z, 0-9 and _)")
        if found.setdefault(identity, split) != split:
            raise UsageError(f"--split {where}: {identity} is in {found[identity]} and in {split}")
    if not found:
        raise UsageError(f"--split {name}: names no recording or group")
    return found


def _csv_pairs(name: str, text: str) -> Iterator[tuple[str, str, str]]:
    """Where it stands, id, split."""
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        cells, where = [cell.strip() for cell in row], f"{name}, line {number}"
        if not any(cells) or cells[0].startswith("#") or (number == 1 and cells[-1] == "split"):
            continue
        if len(cells) != 2 or not cells[0]:
            raise UsageError(f"--split {where}: is not a recording or group id, a comma, and a split")
        yield where, cells[0], cells[1]


def _toml_pairs(name: str, text: str) -> Iterator[tuple[str, str, str]]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--split {name}: {error}") from None
    for split, ids in table.items():
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise UsageError(f"--split {name}: {split} is not a list of recording or group ids")
        yield from ((name, one, split) for one in ids)


def split_of(group_id: str, splits: Splits, seed: int) -> str:
    """The split of a group. Adding or removing other groups does not change it."""
    digest = hashlib.blake2b(f"split:{seed}:{group_id}".encode("utf-8", "replace"), digest_size=8).digest()
    place = Fraction(int.from_bytes(digest), 1 << 64)
    upper = Fraction(0)
    for name, fraction in splits:
        upper += fraction
        if place < upper:
            return name
    return splits[-1][0]


def _fraction(text: str) -> Fraction:
    try:
        value = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise UsageError(f"{text.strip()!r} is not a positive fraction. {_EXAMPLE}")
    return value
