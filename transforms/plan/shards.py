"""Which shard a segment is written to: by its hash, so that recordings mix, and so that shards cost alike.

A hash gives each segment one of :data:`PLACES`; the places, in order, are cut into shards where their cost,
not their number, reaches equal parts of the whole. So a shard costs at most its share and one place's,
however much recordings differ, and what is held to know this does not grow with the number of segments.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from align.schemas.plan import Segment

PLACES = 4096
SHARD_COST_S = 60.0
SHARDS_FOR_WORKERS = 16
"""Beyond this many shards, only size asks for more: small shards cost their readers."""


def place_of(segment_key: str, seed: int) -> int:
    """Where a segment stands among all: a hash, the same in every process."""
    data = f"shard:{seed}:{segment_key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) % PLACES


def _nothing() -> NDArray[np.int64]:
    return np.zeros(PLACES, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """What some segments add up to.

    Attributes:
        output_bytes: estimated.
        segments: how many.
        cost_ms: int64 [PLACES], estimated CPU milliseconds by place; whole numbers, so that their sum is the
            same in whatever order it is taken.
        windows: how many they hold.
    """

    output_bytes: int = 0
    segments: int = 0
    cost_ms: NDArray[np.int64] = field(default_factory=_nothing)
    windows: int = 0

    @classmethod
    def of(cls, segment: Segment, seed: int) -> Load:
        """The load of one segment; nothing is free."""
        cost_ms = _nothing()
        cost_ms[place_of(segment.key, seed)] = max(1, round(segment.cost_s * 1000))
        return cls(segment.cost_bytes, 1, cost_ms, len(segment.starts_ns))

    def __add__(self, other: Load) -> Load:
        return Load(
            self.output_bytes + other.output_bytes,
            self.segments + other.segments,
            self.cost_ms + other.cost_ms,
            self.windows + other.windows,
        )

    def shards(self, shard_size: int) -> int:
        """How many shards to write these segments to: see :func:`shard_count`."""
        return shard_count(self.output_bytes, shard_size, float(self.cost_ms.sum()) / 1000, self.segments)

    def shard_of(self, place: int, shards: int) -> int:
        """The shard into whose part of the whole cost the middle of a place's cost falls."""
        middle = 2 * int(self.cost_ms[:place].sum()) + int(self.cost_ms[place])
        return min(shards * middle // max(2 * int(self.cost_ms.sum()), 1), shards - 1)


def shard_count(total_bytes: int, shard_size: int, total_cost_s: float, segments: int) -> int:
    """How many shards to write.

    Enough for shards of ``shard_size`` bytes; for a long job, enough that up to 16 workers can share it, and
    a power of two, so that two or four get equally many; never more than there are segments; at least one.
    """
    for_size = -(-total_bytes // max(shard_size, 1))
    worth = min(SHARDS_FOR_WORKERS, int(total_cost_s / SHARD_COST_S))
    for_workers = 1 << (worth.bit_length() - 1) if worth else 1
    return max(1, min(segments, max(for_size, for_workers)))
