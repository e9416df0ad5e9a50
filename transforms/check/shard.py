"""A look at one shard: what does not hold of its rows, and what they say together with other shards'.

The result is plain JSON, so that the looking may be done in another process.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from align.schemas.errors import AlignError
from align.schemas.features import COLUMNS, arrow_schema
from align.schemas.options import MAX_AGE_NS, MAX_FRAMES
from align.schemas.shapes import listing, mapping, record, text, whole
from align.transforms.check.rows import Expected, check_row
from align.transforms.formats.parquet_footer import check_footer
from align.transforms.formats.webdataset import DEFAULT_PARTS, read_rows
from align.transforms.store.publish import Store
from align.transforms.write.row import from_batch
from align.transforms.write.shard import ShardFile
from align.transforms.write.stats import Collector, Statistics

_ROW_GROUP_LIMIT = 100_000_000
_READ_ROWS = 64
_OF_ONE_KIND = 5
_NAME_BYTES = 8
MALFORMED = (OSError, AlignError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
_UNREADABLE = (*MALFORMED, pa.ArrowException, MemoryError, OverflowError)

_PLAIN = record(
    {
        "samples": whole(),
        "names": text("[A-Za-z0-9+/=]*", most=1 << 31),
        "index_keys": text("[A-Za-z0-9+/=]*|-", most=1 << 31),
        "problems": listing(listing(text(most=1 << 20))),
        "groups": mapping(listing(text(most=1 << 20))),
        "sums": mapping(mapping(whole(-(2**200), 2**200))),
    }
)


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a shard.

    Attributes:
        names: uint64 [n, 2], of each row a hash of its key and one of its content.
        problems: code and detail, few of each kind.
        groups: group -> the splits its rows name.
        sums: statistics of the rows; empty unless all media were decoded.
        index_keys: uint64 [m], hashes of the keys in the shard's index; None where it was not looked at.
    """

    names: NDArray[np.uint64]
    problems: tuple[tuple[str, str], ...] = ()
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sums: Statistics = Statistics()
    index_keys: NDArray[np.uint64] | None = None

    def to_plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "samples": len(self.names),
            "names": base64.b64encode(self.names.tobytes()).decode(),
            "index_keys": "-"
            if self.index_keys is None
            else base64.b64encode(self.index_keys.tobytes()).decode(),
            "problems": [list(problem) for problem in self.problems],
            "groups": {group: sorted(splits) for group, splits in self.groups.items()},
            "sums": {split: dict(sums) for split, sums in self.sums.sums.items()},
        }

    @classmethod
    def from_plain(cls, plain: Any) -> Look:
        """What :meth:`to_plain` gave.

        Raises:
            ValueError: it is none.
        """
        _PLAIN("look", plain)
        names = np.frombuffer(base64.b64decode(plain["names"]), np.uint64).reshape(-1, 2)
        keys = plain["index_keys"]
        return cls(
            names,
            tuple((str(code), str(detail)) for code, detail in plain["problems"]),
            {group: frozenset(splits) for group, splits in plain["groups"].items()},
            Statistics(plain["sums"]),
            None if keys == "-" else np.frombuffer(base64.b64decode(keys), np.uint64),
        )


Looker = Callable[[ShardFile, Mapping[str, Any], bool, str], Look]
"""Looks at a shard, given the run's options, whether to decode, and its index (or "")."""


def look_at_shard(store: Store, file: ShardFile, config: Mapping[str, Any], deep: bool, index: str) -> Look:
    """Look at a shard whose size and checksum hold, as its manifest lists it.

    Args:
        store: where it lies.
        file: the shard.
        config: the run's options, as the manifest holds them.
        deep: decode all media and form statistics.
        index: path of its index, or "".
    """
    rates = config["window_ns"], config["audio_rate"], config["imu_rate"]
    rows = _Rows(file, Expected(file.split, *rates, deep=deep, **_bounds(config)))
    problems = tuple(_few_of_a_kind(rows.problems(store, config)))
    names = np.frombuffer(b"".join(rows.names), np.uint64).reshape(-1, 2)
    groups = {group: frozenset(splits) for group, splits in rows.groups.items()}
    keys = _index_keys(store, index, file.samples) if index else None
    return Look(names, problems, groups, rows.collector.result() if deep else Statistics(), keys)


def _bounds(config: Mapping[str, Any]) -> dict[str, Any]:
    """What rows must keep to by the configuration; of data sets that are older than a bound, nothing."""
    coverage, age, frames = (
        config.get(name, usual)
        for name, usual in (("min_coverage", 0.0), ("max_image_age_ns", None), ("frames", 1))
    )
    known = isinstance(coverage, (int, float)) and type(frames) is int and type(age) in (int, type(None))
    if not known or not (0 <= coverage <= 1 and 0 <= (age or 0) <= MAX_AGE_NS and 1 <= frames <= MAX_FRAMES):
        raise TypeError(f"the manifest's min_coverage, max_image_age_ns, frames are {coverage, age, frames}")
    return {"min_coverage": coverage, "max_image_age_ns": age, "frames": frames}


@dataclass(slots=True)
class _Rows:
    """The rows of one shard while they pass."""

    file: ShardFile
    expected: Expected
    names: list[bytes] = field(default_factory=list)
    groups: dict[str, set[str]] = field(default_factory=dict)
    collector: Collector = field(default_factory=Collector)

    def problems(self, store: Store, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        try:
            with store.open(self.file.path) as stream:
                yield from self._of(stream, config)
        except _UNREADABLE as error:
            detail = str(error) if isinstance(error, AlignError) else repr(error)
            yield "unreadable", f"cannot be read as {self.file.format}: {detail[:2000]}"

    def _of(self, stream: IO[bytes], config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if self.file.format == "parquet":
            check_footer(stream)
            layout = list(_check_layout(stream, config))
            yield from layout
            if any(code == "schema" for code, _ in layout):
                return
        for row in _parquet_rows(stream) if self.file.format == "parquet" else read_rows(stream):
            if len(self.names) == self.file.samples:
                yield "samples", f"holds more samples than the manifest says, {self.file.samples}"
                return
            yield from self._row(row)
        if len(self.names) != self.file.samples:
            yield "samples", f"holds {len(self.names)} samples, the manifest says {self.file.samples}"

    def _row(self, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        holds = True
        for code, detail in check_row(row, self.expected):
            holds = False
            yield code, f"{row['key']}: {detail}"
        self.names.append(_name(row["key"]) + _content(row))
        self.groups.setdefault(row["group_id"], set()).add(row["split"])
        if self.expected.deep and holds:
            self.collector.add(row)


def _few_of_a_kind(problems: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Pass on the first few problems of a kind, then say how many more there were."""
    seen: Counter[str] = Counter()
    for code, detail in problems:
        seen[code] += 1
        if seen[code] <= _OF_ONE_KIND:
            yield code, detail
    for code, n in seen.items():
        if n > _OF_ONE_KIND:
            yield code, f"{n - _OF_ONE_KIND} more of this kind"


def _parquet_rows(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(stream).iter_batches(_READ_ROWS):
        for index in range(batch.num_rows):
            yield from_batch(batch, index)


def _check_layout(stream: IO[bytes], config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    file = pq.ParquetFile(stream)
    schema = file.schema_arrow
    if [(f.name, f.type) for f in schema] != list(COLUMNS.items()):
        yield "schema", "its columns are not those of the schema"
    elif schema.metadata != arrow_schema(config["audio_rate"], config["imu_rate"]).metadata:
        yield "schema", "its features or rates are not those of the schema"
    for i in range(file.num_row_groups):
        group = file.metadata.row_group(i)
        if group.total_byte_size > _ROW_GROUP_LIMIT and group.num_rows > 1:
            yield "row_group", f"row group {i} has {group.total_byte_size} bytes"


def _index_keys(store: Store, path: str, samples: int) -> NDArray[np.uint64]:
    """Hashes of an index's keys; empty where it cannot be read: then it is not its shard's."""
    names: list[bytes] = []
    try:
        with store.open(path) as stream:
            check_footer(stream, samples)
            for batch in pq.ParquetFile(stream).iter_batches(_READ_ROWS, columns=["key"]):
                names += [_name(key) for key in batch.column("key").to_pylist()]
    except _UNREADABLE:
        return np.zeros(0, np.uint64)
    return np.frombuffer(b"".join(names), np.uint64)


def _name(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=_NAME_BYTES).digest()


def _content(row: Mapping[str, Any]) -> bytes:
    """A hash of the sample as its WebDataset parts: equal for the same sample in any format."""
    content = hashlib.blake2b(digest_size=_NAME_BYTES)
    for name, data in DEFAULT_PARTS.of(row):
        content.update(f"{name} {len(data)}\n".encode())
        content.update(data)
    return content.digest()
