"""``.nv-meta``, the folder that Megatron-Energon reads beside tar files, as ``energon prepare`` writes it.

Format: Megatron-Energon 7.4, ``docs/source/basic/data_prep.md``. Two data set configurations are offered:
``dataset.yaml``, picture and narration as ``CaptioningSample``, which ``energon lint`` accepts; and
``crude.yaml``, dicts of whatever parts a window has, for a task encoder with a cooker of its own.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from align.transforms.index.tars import TarSample

VERSION = "7.4.1"
FOLDER = ".nv-meta"

_DATASET = """sample_type:
  __module__: megatron.energon
  __class__: CaptioningSample
part_filter: sample_loader.py:part_filter
sample_loader: sample_loader.py:sample_loader
"""
_CRUDE = """__module__: megatron.energon
__class__: CrudeWebdataset
subflavors: {}
"""
_SAMPLE_LOADER = '''"""Picture and narration of a window: None and "" where it has none."""


def sample_loader(raw):
    sentences = raw["json"].get("text") or ()
    return {"__key__": raw["__key__"], "image": raw.get("jpg"), "caption": " ".join(sentences)}


def part_filter(part):
    return part in ("jpg", "json")
'''

_TABLES = """
CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE,
    sample_index INTEGER NOT NULL, byte_offset INTEGER, byte_size INTEGER);
CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT,
    content_byte_offset INTEGER, content_byte_size INTEGER);
"""
_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples (tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts (tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts
    (tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""


def tar_index(samples: Sequence[TarSample]) -> bytes:
    """``<shard>.tar.idx``: where each sample starts and the last one ends, as uint64."""
    offsets = [*(s.start for s in samples), samples[-1].end if samples else 0]
    return struct.pack(f"{len(offsets)}Q", *offsets)


def sqlite_index(shards: Sequence[Sequence[TarSample]], path: Path) -> None:
    """Write ``index.sqlite``: keys, samples and parts of all shards, which are numbered in their order."""
    with sqlite3.connect(path) as database:
        database.executescript(_TABLES)
        for number, samples in enumerate(shards):
            database.executemany(
                "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
                ((number, s.key, i, s.start, s.end - s.start) for i, s in enumerate(samples)),
            )
            database.executemany(
                "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
                ((number, i, p.name, p.offset, p.size) for i, s in enumerate(samples) for p in s.parts),
            )
        database.executescript(_INDEXES)
    database.close()


def texts(counts: Mapping[str, int], splits: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The small files of ``.nv-meta``, by name.

    Args:
        counts: shard -> samples, in the order in which ``index.sqlite`` numbers the shards.
        splits: split -> its shards.
    """
    info = {"energon_version": VERSION, "shard_counts": dict(counts)}
    parts = {**dict.fromkeys(("train", "val", "test"), ()), **splits}
    identity = hashlib.sha256(json.dumps([info, splits], sort_keys=True).encode()).hexdigest()
    lines = [f"  {split}: {json.dumps(list(shards))}" for split, shards in parts.items()]
    return {
        ".info.json": json.dumps(info, indent=2) + "\n",
        "index.uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, identity)),
        "split.yaml": "\n".join(["exclude: []", "split_parts:", *lines, ""]),
        "dataset.yaml": _DATASET,
        "crude.yaml": _CRUDE,
        "sample_loader.py": _SAMPLE_LOADER,
    }
