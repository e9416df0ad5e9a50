"""Text indexes of tar files: DALI's, one per shard, and wids', one per split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from align.transforms.index.tars import TarSample


def dali_index(samples: Sequence[TarSample]) -> str:
    """The ``.idx`` of a shard, version 1.2: per sample a line of part, offset, size and file name.

    Format: ``tools/wds2idx.py`` of NVIDIA/DALI; for ``fn.readers.webdataset(index_paths=…)``.
    """
    lines = [
        " ".join(f"{p.name} {p.offset} {p.size} {sample.key}.{p.name}" for p in sample.parts)
        for sample in samples
    ]
    return "\n".join([f"v1.2 {len(samples)}", *lines, ""])


def wids_index(name: str, shards: Sequence[Mapping[str, Any]]) -> str:
    """The index of a split for ``wids.ShardListDataset`` (webdataset 0.2): random access by number.

    Args:
        name: of the split.
        shards: of each, ``url`` relative to the index, ``md5sum``, ``nsamples`` and ``filesize``.
    """
    content = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": name,
        "shardlist": sorted(shards, key=lambda shard: str(shard["url"])),
    }
    return json.dumps(content, indent=2) + "\n"
