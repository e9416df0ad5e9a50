"""The torch data set behind :func:`align.load`: reads its part of an epoch and batches views of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from align.schemas.errors import AlignError, UsageError
from align.schemas.manifest import MOST_REPEATS
from align.transforms.load.committed import Committed
from align.transforms.load.items import ALWAYS, Item, make_item, stack
from align.transforms.load.plan import (
    Read,
    Source,
    Span,
    epoch_shards,
    join,
    reads,
    remaining,
    shard_order,
    share,
)
from align.transforms.load.rows import read_rows
from align.transforms.views.normalise import Normalisation
from align.transforms.views.views import Profile, columns


@dataclass(frozen=True, slots=True)
class Settings:
    """What :func:`align.load` was asked for; its arguments say what each means."""

    profile: Profile
    modalities: tuple[str, ...]
    batch_size: int | None
    drop_last: bool
    seed: int
    shuffle: bool
    balance: bool
    drop_duplicates: bool
    normalisation: Normalisation | None = None

    @property
    def indexed(self) -> bool:
        """Whether the index decides how often a row is drawn."""
        return self.balance or self.drop_duplicates


class Windows(IterableDataset[Item]):
    """Windows or batches of one split; see :func:`align.load`.

    Args:
        dataset: what to read.
        sources: its shards, with the draws expected of each.
        settings: what was asked for.
        rank: which part is ours; from ``torch.distributed`` if None.
        world: of how many; from ``torch.distributed`` if None.
        epoch: the first epoch.
    """

    def __init__(
        self,
        dataset: Committed,
        sources: Sequence[Source],
        settings: Settings,
        *,
        rank: int | None = None,
        world: int | None = None,
        epoch: int = 0,
    ) -> None:
        self._dataset, self._sources, self._settings = dataset, list(sources), settings
        self._indexes = dataset.indexes()
        self._samples = dataset.samples()
        self._rank, self._world = _place(rank, world)
        # In shared memory, so that loader workers that outlive an epoch learn of the next one.
        self._epoch = cast(Any, torch.tensor([epoch])).share_memory_()
        self._resumed: tuple[int, list[Span]] | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        """The ``AlignOptions`` that the data set was written with."""
        return self._dataset.options

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration reads: all of it, unless it is the one that was resumed."""
        self._epoch[0] = epoch

    def samples(self) -> int:
        """How many windows this rank draws in the epoch (what remains of it after a resume)."""
        return _total(self._spans())

    def batches(self, workers: int = 0) -> int:
        """How many batches a loader with ``workers`` workers yields on the rank that has the fewest.

        Ranks may differ by one batch: synchronous training stops all of them here.
        """
        size, parts = self._settings.batch_size or 1, max(workers, 1)
        ranks = self._all_ranks() if self._rest is None else [self._rest]
        shares = [[_total(share(spans, w, parts)) for w in range(parts)] for spans in ranks]
        whole = self._settings.drop_last
        return min(sum(n // size if whole else -(-n // size) for n in share_) for share_ in shares)

    def state_dict(self, batch: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Where this rank stands, as plain JSON.

        Args:
            batch: the last batch that was used: what a loader has prefetched beyond it counts as unread.
                None means the beginning of the epoch (or of what was resumed).

        Returns:
            What :meth:`load_state_dict` takes: seed, epoch, and what remains to be read.

        Raises:
            UsageError: ``batch`` does not come from a data set with a ``batch_size``.
        """
        spans = self._spans()
        if batch is not None:
            if "position" not in batch or not self._settings.batch_size:
                raise UsageError("a position needs batches made here: load with batch_size=…")
            worker, workers, count = batch["position"]
            spans = remaining(spans, workers, self._settings.batch_size, worker, count)
        return {"seed": self._settings.seed, "epoch": self.epoch, "remaining": [list(s) for s in spans]}

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Go on where a state was taken: the next iteration reads what remained, once.

        Args:
            state: this rank's state; or, where the number of ranks has changed, the list of all former ranks'
                states, whose remainders are joined and shared out anew.

        Raises:
            UsageError: the state belongs to another seed, or the list mixes epochs.
        """
        states = [state] if isinstance(state, Mapping) else list(state)
        if {s["seed"] for s in states} != {self._settings.seed}:
            raise UsageError("the state was saved under another seed; load the data set with that seed")
        epochs = {s["epoch"] for s in states}
        if len(epochs) != 1:
            raise UsageError(f"the states are of different epochs: {sorted(epochs)}")
        self._epoch[0] = epochs.pop()
        spans = join((a, b) for s in states for a, b in s["remaining"])
        ours = spans if isinstance(state, Mapping) else share(spans, self._rank, self._world)
        self._resumed = (self.epoch, ours)

    def __iter__(self) -> Iterator[Item]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            cv2.setNumThreads(1)
        items = self._items(share(self._spans(), worker, workers))
        if self._settings.batch_size is None:
            return map(_tensors, items)
        return map(_tensors, self._batched(items, worker, workers))

    @property
    def _rest(self) -> list[Span] | None:
        """What is left of a resumed epoch. Workers that outlive it keep it, so it names its epoch."""
        return self._resumed[1] if self._resumed and self._resumed[0] == self.epoch else None

    def _spans(self) -> list[Span]:
        return self._all_ranks()[self._rank] if self._rest is None else self._rest

    def _all_ranks(self) -> list[list[Span]]:
        whole = [(0, sum(count for _, count in self._shards()))]
        return [share(whole, rank, self._world) for rank in range(self._world)]

    def _shards(self) -> list[tuple[Source, int]]:
        shards = epoch_shards(self._sources, self._settings.seed, self.epoch)
        return shards if self._settings.shuffle else sorted(shards, key=lambda s: s[0].path)

    def _batched(self, items: Iterator[Item], worker: int, workers: int) -> Iterator[Item]:
        size = self._settings.batch_size or 1
        for count in itertools.count(1):
            chunk = list(itertools.islice(items, size))
            if not chunk or (self._settings.drop_last and len(chunk) < size):
                return
            batch = {**stack(chunk), "position": (worker, workers, count)}
            del chunk  # or it would be held while the next one fills
            yield batch
            del batch

    def _items(self, spans: Sequence[Span]) -> Iterator[Item]:
        for read in reads(self._shards(), spans):
            yield from self._shard(read)

    def _shard(self, read: Read) -> Iterator[Item]:
        settings = self._settings
        names = list(dict.fromkeys([*ALWAYS, *columns(settings.profile, settings.modalities)]))
        index = self._index(read.path)
        with self._dataset.parquet(read.path, self._samples[read.path]) as parquet:
            sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            order = self._order(sizes, index, read.path)[read.first : read.last]
            for group, draws in itertools.groupby(order.tolist(), key=lambda draw: draw[0]):
                rows = None  # lets go of the last group before the next is read
                rows = read_rows(parquet, group, names)
                for _, row in draws:
                    duplicate_of = index["duplicate_of"][starts[group] + row] if index else None
                    yield make_item(
                        rows[row], settings.profile, settings.modalities, self._dataset.options,
                        duplicate_of, settings.normalisation,
                    )  # fmt: skip

    def _index(self, path: str) -> Mapping[str, list[Any]]:
        if path not in self._indexes:
            return {}
        columns = ["weight", "duplicate_of"]
        index = self._dataset.table(self._indexes[path]["path"], columns, self._samples[path])
        if not all(w is not None and 0 <= w <= MOST_REPEATS for w in index["weight"]):
            detail = f"the index of {path} holds a weight beyond 0 to {MOST_REPEATS}; run align index"
            raise AlignError("bad_index", detail, stage="verify")
        return index

    def _order(self, sizes: Sequence[int], index: Mapping[str, list[Any]], path: str) -> NDArray[np.int64]:
        settings = self._settings
        weights = None
        if settings.indexed:
            weights = np.array(index["weight"]) if settings.balance else np.ones(len(index["weight"]))
            if settings.drop_duplicates:
                weights = weights * np.array([d is None for d in index["duplicate_of"]])
        order = shard_order(sizes, weights, path, settings.seed, self.epoch)
        return order if settings.shuffle else order[np.lexsort((order[:, 1], order[:, 0]))]


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    """Rank and world size, from ``torch.distributed`` where it runs and nothing else is said."""
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = (torch.distributed.get_rank() if running else 0) if rank is None else rank
    world = (torch.distributed.get_world_size() if running else 1) if world is None else world
    if not 0 <= rank < world:
        raise UsageError(f"rank {rank} is not one of {world}; ranks count from 0")
    return rank, world


def _tensors(value: Any) -> Any:
    """Arrays made tensors, at any depth."""
    if isinstance(value, dict):
        return {name: _tensors(part) for name, part in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _total(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)
