"""Rows that share a timestamp because a driver delivered them together, and where they are put instead.

A batch's timestamp is taken as that of its first row, and its rows as evenly spaced from there on, at the
rate that the whole table shows, and closer where the next batch begins too soon::

    stamps    0 0 0 0 . . . . 100 100 100 100 . . . .
    put at    0 25 50 75      100 125 150 175            no row is off by more than a batch's length

A row is one of a batch only if it stands directly after another of the same timestamp and differs from it: a
row that is repeated is a duplicate, and rows of several components are a matter of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FEWEST = 5  # batches, before they are taken for a habit
_BATCHED_SHARE = 0.1  # of the rows share a timestamp with another one: no accident
_REGULAR_SHARE = 0.9  # of the batches fill their time at the table's rate
_LONGEST_STEP = 3  # median steps: what is longer is a gap
_ROWS_OFF, _SHARE_OFF = 1.5, 0.1  # rows, or a share of them, by which a regular batch may be off


@dataclass(slots=True)
class Batches:
    """What the blocks of a table said so far of one sensor's rows.

    Attributes:
        rows: rows of the sensor.
        shared: those that differ from the row before them and have its timestamp.
        groups: batches of one row or more between whose timestamps there is no gap, ends of blocks left out.
        regular: of those, as many as fill the time to the next one at their block's rate.
        group_rows, group_ns: their rows and their time in all.
        longest: rows of the longest batch.
    """

    rows: int = 0
    shared: int = 0
    groups: int = 0
    regular: int = 0
    group_rows: int = 0
    group_ns: int = 0
    longest: int = 0

    def add(self, times: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Take a block's rows of the sensor, in file order: int64 [n], ns, and float64 [n, 3]."""
        self.rows += len(times)
        alike = np.diff(times) == 0
        if not alike.any():
            self._add_groups(times, np.ones(len(times), np.int64))
            return
        self.shared += int((np.diff(values, axis=0)[alike] != 0).any(axis=1).sum())
        first = np.flatnonzero(np.concatenate(([True], ~alike)))
        self._add_groups(times[first], np.diff(np.append(first, len(times))))

    def _add_groups(self, stamps: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self.longest = max(self.longest, int(counts.max(initial=0)))
        steps, counts = np.diff(stamps)[1:], counts[1:-1]
        steps, counts = steps[steps > 0], counts[steps > 0]
        if not len(steps):
            return
        near = steps <= _LONGEST_STEP * np.median(steps)
        steps, counts = steps[near], counts[near]
        expected = counts * (float(steps.sum()) / float(counts.sum()))
        row_ns = expected[0] / counts[0]
        allowed = np.maximum(_ROWS_OFF * row_ns, _SHARE_OFF * expected)
        self.groups += len(steps)
        self.regular += int((np.abs(steps - expected) <= allowed).sum())
        self.group_rows += int(counts.sum())
        self.group_ns += int(steps.sum())

    @property
    def are_there(self) -> bool:
        """Whether rows come in batches rather than with timestamps of their own."""
        return self.shared > _BATCHED_SHARE * self.rows and self.groups >= _FEWEST

    @property
    def are_regular(self) -> bool:
        """Whether the batches hold what a steady sensor gives between their timestamps."""
        return self.regular >= _REGULAR_SHARE * self.groups

    @property
    def row_ns(self) -> float:
        """From row to row; 0.0 where rows have timestamps of their own."""
        return self.group_ns / self.group_rows if self.are_there else 0.0

    @property
    def reach_ns(self) -> int:
        """By no more than this a row is put later than its timestamp."""
        return round(2 * self.longest * self.row_ns)  # the ends of blocks may cut a batch in two


def spread(times: NDArray[np.int64], row_ns: float) -> NDArray[np.int64]:
    """Where rows stand whose batches share a timestamp: int64 [n], ns.

    It depends on a batch and the timestamp after it only.

    Args:
        times: int64 [n], ns, in file order.
        row_ns: from row to row.
    """
    if not len(times):
        return times
    first = np.flatnonzero(np.concatenate(([True], np.diff(times) != 0)))
    counts = np.diff(np.append(first, len(times)))
    until = np.append(np.diff(times[first]), np.iinfo(np.int64).max).astype(np.float64)
    until[until <= 0] = np.inf
    step = np.minimum(row_ns, until / counts)
    number = np.arange(len(times)) - np.repeat(first, counts)
    moved = np.floor(number * np.repeat(step, counts) + 0.5).astype(np.int64)
    return np.asarray(times + moved, np.int64)


def batch_note(batches: Batches) -> str:
    """Says that rows shared timestamps, and what became of them."""
    if not batches.are_there:
        return ""
    size = batches.group_rows / max(batches.groups, 1)
    shared = f"rows share timestamps, {size:.3g} rows each"
    if not batches.are_regular:
        irregular = 1 - batches.regular / batches.groups
        return (
            f"{shared}, and {irregular:.0%} of these batches do not fit one rate: their times are not known"
        )
    return f"{shared}: spread from each timestamp on at {1e9 / batches.row_ns:.2f} Hz"
