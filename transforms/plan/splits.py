"""Which split a group belongs to: a hash of its name, so that nothing else can move it."""

from __future__ import annotations

import hashlib
import re
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
