"""Pairs that a contrastive loss would push apart although they belong together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

_NOT_WORDS = re.compile(r"[^\w]+")


def identity(text: str) -> int:
    """A positive 63-bit number that stands for a text: equal for equal texts, everywhere."""
    return (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1) | 1


def narration_id(sentences: Sequence[str] | None) -> int:
    """Stands for what is narrated, whatever the case and punctuation; 0 where nothing is."""
    words = _NOT_WORDS.sub(" ", " ".join(sentences or ()).lower()).strip()
    return identity(words) if words else 0


def not_negatives(ids: Mapping[str, Any], by: Sequence[str] = ("sample", "picture", "narration")) -> Any:
    """Which pairs of a batch are no negatives: the same window, near-duplicate pictures, the same narration.

    Works on numpy arrays and torch tensors alike.

    Args:
        ids: name -> int64 [n]; 0 matches nothing.
        by: which of them to go by. ``group`` leaves no negatives within a participant.

    Returns:
        bool [n, n], False on the diagonal: the logits that a loss should set to -inf.
    """
    same = None
    for name in by:
        known = ids[name]
        match = (known[:, None] == known[None, :]) & (known != 0)[:, None]
        same = match if same is None else same | match
    if same is None:
        raise ValueError("by names no ids")
    diagonal = range(len(same))
    same[diagonal, diagonal] = False
    return same
