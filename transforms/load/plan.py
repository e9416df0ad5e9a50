"""Who reads what, in which order: pure functions of (shards, seed, epoch, rank, worker, position).

An epoch is one sequence of draws: the shards permuted, the row groups of each permuted, their rows permuted.
Without weights every row is drawn once; with weights a row of weight 2.5 is drawn two or three times, and
over many epochs 2.5 times on average. Each rank takes one contiguous part of the sequence, each of its loader
workers a contiguous part of that. So parts are equal to within one draw, joined they are the epoch of a
single reader, and a shard is opened by no more readers than needed. A position is what remains of a part.

    draws    0 ─────────────────────────────────────────────── n
    shards   |   7   |    2    |   0   |       5       |   …
    ranks    |        rank 0           |        rank 1         |
    workers  |     0      |     1      |     0     |     1     |
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]
"""Half-open range of positions in the epoch's sequence of draws."""


@dataclass(frozen=True, slots=True)
class Source:
    """A shard to draw from.

    Attributes:
        path: names it; its draws depend on no other shard.
        weight: sum of its rows' weights: how many draws are expected of it.
    """

    path: str
    weight: float


@dataclass(frozen=True, slots=True)
class Read:
    """The draws ``[first, last)`` of one shard."""

    path: str
    first: int
    last: int


def permutation(count: int, *words: object) -> NDArray[np.int64]:
    """A permutation of ``range(count)`` that depends on ``words`` alone, on every machine and version."""
    keys = np.random.Philox(key=_number(words) >> 128).random_raw(count)
    return np.argsort(keys, kind="stable")


def _number(words: Sequence[object]) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(map(str, words)).encode()).digest(), "big")


def _phase(seed: int, epoch: int, path: str) -> float:
    """In [0, 1), a multiple of 2⁻²⁰ so that sums with weights stay exact."""
    return (_number(("phase", seed, epoch, path)) >> 236) / (1 << 20)


def draws(source: Source, seed: int, epoch: int) -> int:
    """How many draws a shard yields in an epoch."""
    return int(np.floor(source.weight + _phase(seed, epoch, source.path)))


def draw_counts(weights: NDArray[np.float64], path: str, seed: int, epoch: int) -> NDArray[np.int64]:
    """How often each row of a shard is drawn: its weight rounded down or up, by systematic sampling.

    Args:
        weights: float64 [rows], multiples of 2⁻²⁰.
        path: the shard.
        seed: of the order.
        epoch: from 0.

    Returns:
        int64 [rows]; the sum is what :func:`draws` said.
    """
    reached = np.floor(np.cumsum([0.0, *weights]) + _phase(seed, epoch, path))
    return np.diff(reached).astype(np.int64)


def shard_order(
    group_rows: Sequence[int], weights: NDArray[np.float64] | None, path: str, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The rows of a shard in the order in which an epoch draws them.

    Row groups are permuted, then the rows in each: one row group in memory is enough.

    Args:
        group_rows: rows of each row group.
        weights: float64 [rows]; None draws each row once.
        path: the shard.
        seed: of the order.
        epoch: from 0.

    Returns:
        int64 [draws, 2]: row group, row in the group.
    """
    edges = np.cumsum([0, *group_rows])
    counts = np.ones(edges[-1], np.int64) if weights is None else draw_counts(weights, path, seed, epoch)
    pieces = []
    for group in permutation(len(group_rows), "groups", seed, epoch, path):
        rows = np.repeat(np.arange(group_rows[group]), counts[edges[group] : edges[group + 1]])
        rows = rows[permutation(len(rows), "rows", seed, epoch, path, group)]
        pieces.append(np.column_stack([np.full(len(rows), group), rows]))
    return np.concatenate(pieces) if pieces else np.zeros((0, 2), np.int64)


def epoch_shards(sources: Sequence[Source], seed: int, epoch: int) -> list[tuple[Source, int]]:
    """The shards in the epoch's order, each with its number of draws."""
    ordered = sorted(sources, key=lambda s: s.path)
    return [
        (ordered[i], draws(ordered[i], seed, epoch)) for i in permutation(len(ordered), "shards", seed, epoch)
    ]


def share(spans: Sequence[Span], index: int, of: int) -> list[Span]:
    """The ``index``-th of ``of`` contiguous parts of some spans, equal to within one draw."""
    total = sum(end - start for start, end in spans)
    return cut(spans, total * index // of, total * (index + 1) // of)


def cut(spans: Sequence[Span], first: int, last: int) -> list[Span]:
    """The draws ``[first, last)``, counted along the spans."""
    found, passed = [], 0
    for start, end in spans:
        low, high = max(start, start + first - passed), min(end, start + last - passed)
        if low < high:
            found.append((low, high))
        passed += end - start
    return found


def reads(shards: Sequence[tuple[Source, int]], spans: Sequence[Span]) -> Iterator[Read]:
    """What to read of which shard for some spans, in the epoch's order."""
    for first, last in spans:
        offset = 0
        for source, count in shards:
            low, high = max(first - offset, 0), min(last - offset, count)
            if low < high:
                yield Read(source.path, low, high)
            offset += count


def delivered(draws_of: Sequence[int], batch_size: int, worker: int, batches: int) -> list[int]:
    """How many draws each worker of a loader has delivered when a given batch has come out of it.

    A loader takes one batch of each worker in turn, and passes over those that have finished: worker 0 has
    delivered as many as worker ``worker``, those after it one less.

    Args:
        draws_of: draws of each worker.
        batch_size: draws in a batch.
        worker: which worker's batch came last.
        batches: how many of its batches have come, that one included.
    """
    rounds = [batches if w <= worker else batches - 1 for w in range(len(draws_of))]
    return [min(total, r * batch_size) for total, r in zip(draws_of, rounds, strict=True)]


def remaining(spans: Sequence[Span], workers: int, batch_size: int, worker: int, batches: int) -> list[Span]:
    """What a rank has yet to read after a given batch (see :func:`delivered`); ascending, joined spans."""
    parts = [share(spans, w, workers) for w in range(workers)]
    sizes = [sum(end - start for start, end in part) for part in parts]
    done = delivered(sizes, batch_size, worker, batches)
    return join(s for part, size, d in zip(parts, sizes, done, strict=True) for s in cut(part, d, size))


def join(spans: Iterator[Span] | Sequence[Span]) -> list[Span]:
    """Neighbouring spans made one; sorted."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
