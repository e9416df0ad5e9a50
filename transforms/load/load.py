"""``align.load``: a finished data set as a torch data set. torch is imported only here, and late."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from align.schemas.errors import AlignError, UsageError
from align.transforms.load.committed import Committed, open_committed
from align.transforms.load.plan import Source
from align.transforms.views.normalise import normalisation
from align.transforms.views.views import Profile, check_written, find_profile

if TYPE_CHECKING:
    from align.transforms.load.dataset import Windows


def load(
    out: str | os.PathLike[str],
    *,
    split: str = "train",
    modalities: Sequence[str] | None = None,
    profile: str | None = None,
    batch_size: int | None = None,
    drop_last: bool = False,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    rank: int | None = None,
    world: int | None = None,
    balance: bool = False,
    duplicates: Literal["keep", "drop"] = "keep",
    normalise: str | None = None,
) -> Windows:
    """Read a data set for training.

    Over all ranks and loader workers every window comes exactly once in an epoch, in an order that depends on
    ``seed`` and the epoch alone. Each item is a dict::

        image  uint8 [3, s, s], or as the profile wants it    present  {modality: bool}
        video  [3, frames, s, s]                              key      str
        audio  float32 [n], or a mel [1, 128, 204]            text     str
        imu    float32 [6, n], with imu_mask bool [n]         ids      {sample, picture, narration, group}

    What a window lacks is zeros (or "") **and** False in ``present``. With ``batch_size`` every entry has a
    leading batch axis (strings: a list) and ``position`` says where the epoch stands::

        data = align.load("out", profile="imagebind", batch_size=64)
        for batch in torch.utils.data.DataLoader(data, batch_size=None, num_workers=4):
            ...
            state = data.state_dict(batch)      # goes into the checkpoint

    Args:
        out: folder, ``gs://`` or ``s3://`` URI of a finished run.
        split: which split.
        modalities: of ``image``, ``video``, ``audio``, ``imu``, ``text``; all that the profile knows if None.
            Only their columns are read.
        profile: ``imagebind``, ``imu2clip``, ``clip``; None gives windows as they were written.
        batch_size: windows in a batch; None yields single windows for a loader that batches itself.
        drop_last: leave out each worker's last batch if it is not full.
        seed: of the order.
        epoch: the first epoch; :meth:`Windows.set_epoch` says the next.
        shuffle: False keeps the written order.
        rank: which part is ours; from ``torch.distributed`` if None, else 0.
        world: of how many; from ``torch.distributed`` if None, else 1.
        balance: draw each window as often as its ``weight`` says. Needs an index.
        duplicates: ``drop`` leaves out near-duplicates of other windows. Needs an index.
        normalise: a split, mostly ``train``, by whose statistics values get zero mean and unit deviation
            (float32): IMU always, picture and sound where the profile has no constants of its own.

    Raises:
        UsageError: a name that is not known, a data set that is not finished, or one that was written with
            other options than the profile needs.
        AlignError: ``no_torch``.
    """
    dataset = open_committed(out)
    chosen = find_profile(profile)
    wanted = _modalities(chosen, modalities, dataset)
    check_written(chosen, wanted, dataset.options)
    if batch_size is not None and batch_size < 1:
        raise UsageError("batch_size must be at least 1, or None for single windows")
    sources = _sources(dataset, split, balance, duplicates)
    if chosen.size is None and "image_size" not in dataset.options:
        raise AlignError("bad_manifest", f"{dataset.root}: its manifest has no image_size", stage="verify")
    try:
        from align.transforms.load.dataset import Settings, Windows
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        detail = "align.load needs torch; install it with: pip install 'multimodal-align[train]'"
        raise AlignError("no_torch", detail, stage="usage") from None
    by = normalisation(dataset.stats(), normalise) if normalise else None
    settings = Settings(
        chosen, wanted, batch_size, drop_last, seed, shuffle, balance, duplicates == "drop", by
    )
    return Windows(dataset, sources, settings, rank=rank, world=world, epoch=epoch)


def _modalities(profile: Profile, wanted: Sequence[str] | None, dataset: Committed) -> tuple[str, ...]:
    if wanted is None:
        return profile.modalities
    unknown = sorted(set(wanted) - set(profile.modalities))
    if unknown or not wanted:
        known = ", ".join(profile.modalities)
        raise UsageError(f"modalities: this profile knows {known}; got {', '.join(unknown) or 'none'}")
    return tuple(m for m in profile.modalities if m in wanted)


def _sources(dataset: Committed, split: str, balance: bool, duplicates: str) -> list[Source]:
    """The shards with what is expected of each."""
    shards = dataset.shards(split)
    if duplicates not in ("keep", "drop"):
        raise UsageError(f"duplicates is keep or drop, not {duplicates!r}")
    if not balance and duplicates == "keep":
        return [Source(s["path"], float(s["samples"])) for s in shards]
    indexes = dataset.indexes()
    if any(s["path"] not in indexes for s in shards):
        raise UsageError(f"{dataset.root} has no index of weights and duplicates; make one with align index")
    sums = {(True, "keep"): "weight", (True, "drop"): "weight_distinct", (False, "drop"): "distinct"}
    return [Source(s["path"], float(indexes[s["path"]][sums[balance, duplicates]])) for s in shards]
