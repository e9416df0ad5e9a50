"""Sampling weights against modality imbalance: n^α with a cap on repeats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

_PARTS = 1024
NO_LABEL = ""


def tally(labels: Iterable[Sequence[str]]) -> Counter[str]:
    """How many windows bear each label; tallies of parts add up. A window without any bears ``""``."""
    return Counter(label for several in labels for label in set(several) or {NO_LABEL})


def class_weights(counts: Mapping[str, int], alpha: float = 0.5, cap: float = 8.0) -> dict[str, float]:
    """How often an epoch draws a window of each class.

    Classes are drawn in proportion to n^α: as they are with α = 1, all alike with α = 0. So a window's
    weight is n^(α − 1), scaled to 1 in the most frequent class: nothing is left out, the rare is repeated.
    ImageBind's fixed replication of small data sets is this by hand (arXiv 2305.05665, table 9); the square
    root is that of repeat factor sampling (LVIS, arXiv 1908.03195).

    Args:
        counts: class -> windows.
        alpha: 0 to 1.
        cap: no window is drawn more often than this.

    Returns:
        class -> weight, in [1, cap], in steps of 1/1024 so that sums are exact.
    """
    most = max(counts.values(), default=0)
    return {
        label: min(max(1, round(_PARTS * (n / most) ** (alpha - 1))), round(_PARTS * cap)) / _PARTS
        for label, n in sorted(counts.items())
        if n
    }


def effective_number(counts: Mapping[str, int]) -> float:
    """How many equally frequent classes would be as diverse: exp of the entropy (Hill number of order 1)."""
    total = sum(counts.values())
    return math.exp(-sum(n / total * math.log(n / total) for n in counts.values() if n)) if total else 0.0


def pairs(patterns: Mapping[str, int], anchor: str = "image") -> dict[str, int]:
    """Windows that hold the anchor and another modality, by that modality: what ImageBind is trained on."""
    found: Counter[str] = Counter()
    for pattern, n in patterns.items():
        held = pattern.split("+")
        found.update({other: n for other in held if anchor in held and other != anchor})
    return dict(found)


def replication(counts: Mapping[str, int]) -> dict[str, float]:
    """How often each would have to be repeated to be as frequent as the largest."""
    most = max(counts.values(), default=0)
    return {label: most / n for label, n in counts.items() if n}


def window_weight(labels: Sequence[str], weights: Mapping[str, float]) -> float:
    """A window's weight: that of its rarest label."""
    return max(weights[label] for label in (labels or (NO_LABEL,)))
