"""Quantiles of integers in one pass: histograms of a fixed step, whose counts add up in any order.

Values are rounded to the nearest multiple of the step, and of the rounded values the quantiles are exact:
so each lies within half a step of the true one, however the data are sharded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = ("0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99")
_REACH = 1 << 14


class Histograms:
    """Counts of values by name. What lies beyond 2¹⁴ steps is counted with the outermost."""

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = {}

    def add(self, name: str, values: NDArray[Any], step: int = 1) -> None:
        """Count integers, rounded to multiples of a step (a power of two), ties up."""
        if not values.size:
            return
        bins = values.astype(np.int64) + step // 2
        bins >>= step.bit_length() - 1
        np.clip(bins, -_REACH, _REACH, out=bins)
        low = int(bins.min())
        bins -= low
        self.add_steps(name, low, np.bincount(bins))

    def add_counts(self, name: str, low: int, counts: NDArray[np.int64], step: int = 1) -> None:
        """The same of values that are counted already.

        Args:
            name: of the values.
            low: the least value; a multiple of the step.
            counts: int64 [n], how often ``low``, ``low + 1``, … occur; n is a multiple of the step.
            step: a power of two.
        """
        self.add_steps(name, *stepped(low, counts, step))

    def add_steps(self, name: str, low: int, counts: NDArray[np.int64]) -> None:
        """The same of values that are rounded already; ``low`` counts steps."""
        if name not in self._counts:
            self._counts[name] = np.zeros(2 * _REACH + 1, np.int64)
        self._counts[name][low + _REACH : low + _REACH + len(counts)] += counts

    def sums(self) -> dict[str, int]:
        """The counts as sums by name: ``name@multiple``."""
        return {
            f"{name}@{place - _REACH}": int(counts[place])
            for name, counts in self._counts.items()
            for place in np.flatnonzero(counts).tolist()
        }


def stepped(low: int, counts: NDArray[np.int64], step: int) -> tuple[int, NDArray[np.int64]]:
    """The same counts of values rounded to multiples of a step, and the multiple that they begin with.

    Arguments as in :meth:`Histograms.add_counts`.
    """
    half = step // 2
    merged = np.pad(counts, (half, half)).reshape(-1, step).sum(axis=1) if half else counts
    return low // step, merged


def quantiles(sums: Mapping[str, int], name: str, scale: float) -> dict[str, float]:
    """The quantiles of what was counted under a name: the least value with that share at or below it.

    Args:
        sums: as :meth:`Histograms.sums` gives them, added up over shards.
        name: of the values.
        scale: what one step stands for.
    """
    counted = {int(k.rpartition("@")[2]): n for k, n in sums.items() if k.startswith(f"{name}@")}
    places = np.array(sorted(counted), np.int64)
    below = np.cumsum([counted[int(place)] for place in places])
    found = {}
    for share in QUANTILES if len(places) else ():
        hundredths = round(float(share) * 100)
        needed = -(-int(below[-1]) * hundredths // 100)
        found[share] = float(places[np.searchsorted(below, needed)] * scale)
    return found
