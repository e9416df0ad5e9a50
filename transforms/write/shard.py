"""One shard: samples in, files and a report out. The report is what resume, commit and totals rely on."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from align.schemas.errors import AlignError, Fault
from align.schemas.features import arrow_schema
from align.schemas.sample import Sample
from align.schemas.wire import json_digest
from align.transforms.formats.parquet import ParquetShard
from align.transforms.formats.webdataset import DEFAULT_PARTS, TarShard
from align.transforms.stages import count, stage
from align.transforms.store.publish import Publication, Store, digest, publish, publish_json, read_json
from align.transforms.write.encoded import EncodedRow, encoded
from align.transforms.write.row import from_batch
from align.transforms.write.spool import Spool
from align.transforms.write.stats import Collector, Statistics

Format = Literal["parquet", "webdataset"]
FORMATS: tuple[Format, ...] = ("parquet", "webdataset")
REPORTS = "_work/reports"
_FIRST = 5

Item: TypeAlias = "Sample | EncodedRow | pa.RecordBatch | Fault"
"""What comes of a window: a sample, the same as a row of the schema, or why there is none."""


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """What a shard is, apart from its samples.

    Attributes:
        split: the split of every sample in it.
        index: its number within the split, from 0.
        total: how many shards the split has.
        formats: which files are written, from one pass.
        seed: shuffles the samples inside the shard.
        audio_rate: Hz, for the schema.
        imu_rate: Hz, for the schema.
        fingerprint: hash of all that the shard's content depends on (config and segment list); a
            finished shard is kept on resume only if it is equal.
    """

    split: str
    index: int
    total: int
    formats: tuple[Format, ...] = ("parquet",)
    seed: int = 0
    audio_rate: int = 16_000
    imu_rate: int = 200
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """Names the shard, whatever its formats: ``train-00000-of-00008``."""
        return f"{self.split}-{self.index:05d}-of-{self.total:05d}"

    @property
    def report_path(self) -> str:
        """Where its report lies."""
        return f"{REPORTS}/{self.name}.json"

    def path(self, fmt: Format) -> str:
        """Path of its file in a format, relative to the output."""
        return (
            f"data/{self.name}.parquet"
            if fmt == "parquet"
            else f"webdataset/{self.split}-{self.index:06d}.tar"
        )


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One file as the manifest lists it."""

    path: str
    format: str
    split: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What became of a shard.

    Attributes:
        name: as in :class:`ShardSpec`.
        samples: how many were written (to each format); with none there is no file.
        statistics: partial, over its samples.
        faults: sorted by recording and start.
        recordings: ids of all whose windows it holds or lost, sorted.
        seconds: wall time spent on ``read`` (waiting for samples), ``spool`` and ``write``.
    """

    name: str
    split: str
    fingerprint: str
    samples: int
    files: tuple[ShardFile, ...] = ()
    statistics: Statistics = Statistics()
    faults: tuple[Fault, ...] = ()
    recordings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def failed(self) -> int:
        """Windows lost to a fault."""
        return sum(fault.windows for fault in self.faults if fault.outcome == "failed")

    def as_dict(self) -> dict[str, Any]:
        """The report as a JSON object with its own digest, without times: equal shards have equal reports."""
        content = {name: value for name, value in asdict(self).items() if name != "seconds"}
        return {**content, "sha256": json_digest(content)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ShardReport:
        """The report of a JSON object.

        Raises:
            KeyError, TypeError: it is not one.
            ValueError: it was altered.
        """
        value = dict(value)
        if value.pop("sha256") != json_digest(value):
            raise ValueError("the report is not what its digest says")
        parts = {
            "files": tuple(ShardFile(**f) for f in value["files"]),
            "statistics": Statistics(value["statistics"]["sums"]),
            "faults": tuple(Fault(**f) for f in value["faults"]),
            "recordings": tuple(value["recordings"]),
        }
        return cls(**{**value, **parts})


def write_shard(spec: ShardSpec, rows: Iterable[Item], store: Store) -> ShardReport:
    """Write a shard and its report.

    The report is published once all bytes are written, before the files get their names: whatever lies there
    under such a name, a report lists it, and a shard is finished when its files are what the report says.

    The files depend on the set of samples alone, not on the order in which they come: samples are
    spooled, then written in :func:`write_order`. Memory holds one row group, whatever the shard's size.

    Args:
        spec: the shard.
        rows: its samples, or one-row batches of them, and the faults met on the way to them.
        store: where it goes.

    Raises:
        AlignError: ``write_failed``; ``duplicate_key``, two samples bear one key; ``bad_media``. No file
            appears then.
    """
    clock = _Clock()
    schema = arrow_schema(spec.audio_rate, spec.imu_rate)
    collector = Collector()
    faults: list[Fault] = []
    heads: list[Head] = []
    recordings: set[str] = set()
    with Spool(schema) as spool:
        for item in clock.timed("read", rows):
            if isinstance(item, Fault):
                faults.append(item)
                recordings.add(item.recording_id)
                continue
            with stage("write"):
                made = encoded(item, schema)
                batch, row = made.batch, from_batch(made.batch)
                collector.add(row, made.counts)
                recordings.add(row["recording_id"])
                heads.append(_head(row, spool.append(batch)))
        _check_unique(spec, heads)
        order = write_order(heads, spec.seed)
        report = ShardReport(
            spec.name, spec.split, spec.fingerprint, len(heads), (), collector.result(),
            tuple(sorted(faults, key=fault_order)), tuple(sorted(recordings)), clock.seconds,
        )  # fmt: skip

        def announce(files: tuple[ShardFile, ...]) -> None:
            nonlocal report
            report = replace(report, files=files)
            publish_json(store, spec.report_path, report.as_dict())

        with stage("write"):
            if order:
                _write_files(spec, store, (spool[head.place] for head in order), announce)
            else:
                announce(())
        count("write", len(heads), sum(file.bytes for file in report.files))
        clock.lap("write")
    pa.default_memory_pool().release_unused()  # a row group's memory, while the next shard is read
    return report


@dataclass(frozen=True, slots=True)
class Head:
    """What the order of writing needs to know of a spooled sample.

    Attributes:
        kinds: its WebDataset parts.
        leaves: how many values its ``KEY.json`` holds.
        place: its index in the spool.
    """

    key: str
    kinds: tuple[str, ...]
    leaves: int
    place: int


def _head(row: Mapping[str, Any], place: int) -> Head:
    parts = DEFAULT_PARTS
    return Head(row["key"], parts.kinds(row), _leaves(parts.describe(row)), place)


def write_order(heads: Sequence[Head], seed: int) -> list[Head]:
    """The order of a shard's samples: by a hash of seed and key, a complete few first.

    The WebDataset builder of ``datasets`` 5.2 takes its columns from the first five samples, which must
    have the same parts, and drops or rejects what they lack. So the first five are of one pattern: the one
    with most parts among those that five samples share (or among all, where none is so common), and of
    its samples those that say most.
    """
    shuffled = sorted(heads, key=lambda head: _hash(seed, head.key))
    counts = Counter(head.kinds for head in shuffled)
    common = [k for k, n in counts.items() if n >= _FIRST] or list(counts)
    if not common:
        return []
    best = max(common, key=lambda kinds: (len(kinds), counts[kinds], kinds))
    richest = sorted((h for h in shuffled if h.kinds == best), key=lambda head: -head.leaves)
    first = {head.key for head in richest[:_FIRST]}
    return sorted(shuffled, key=lambda head: head.key not in first)


def finished_report(store: Store, spec: ShardSpec) -> ShardReport | None:
    """The report of a shard that need not be written again.

    It is there, made from the same config and segments, and every file it names has the bytes it names.
    """
    try:
        report = ShardReport.from_dict(read_json(store, spec.report_path))
        whole = all(digest(store, f.path) == (f.bytes, f.sha256) for f in report.files)
    except (OSError, AlignError, LookupError, TypeError, ValueError, AttributeError):
        return None
    formats = {f.format for f in report.files} if report.samples else set(spec.formats)
    same = (
        report.fingerprint == spec.fingerprint and report.name == spec.name and formats == set(spec.formats)
    )
    return report if same and whole else None


def fault_order(fault: Fault) -> tuple[str, int, str, str]:
    """Sorts faults by recording and start, those of whole recordings first."""
    return fault.recording_id, -(2**63) if fault.start_ns is None else fault.start_ns, fault.stage, fault.code


def _check_unique(spec: ShardSpec, heads: Sequence[Head]) -> None:
    key, count = next(iter(Counter(head.key for head in heads).most_common(1)), ("", 0))
    if count > 1:
        detail = f"{count} samples of shard {spec.name} bear the key {key}: two recordings with one id?"
        raise AlignError("duplicate_key", detail, stage="write")


def _write_files(
    spec: ShardSpec,
    store: Store,
    batches: Iterable[pa.RecordBatch],
    announce: Callable[[tuple[ShardFile, ...]], None],
) -> None:
    """All formats from one pass over the batches; what is going to lie there is announced before it does."""
    with ExitStack() as stack:
        made = [(fmt, stack.enter_context(publish(store, spec.path(fmt)))) for fmt in spec.formats]
        writers = [_writer(spec, fmt, publication) for fmt, publication in made]
        samples = 0
        for batch in batches:
            samples += 1
            for writer in writers:
                if isinstance(writer, ParquetShard):
                    writer.write(batch)
                else:
                    writer.write(from_batch(batch))
        for writer in writers:
            writer.close()
        announce(
            tuple(
                ShardFile(p.path, fmt, spec.split, samples, p.stream.tell(), p.stream.sha256)
                for fmt, p in made
            )
        )


def _writer(spec: ShardSpec, fmt: Format, publication: Publication) -> ParquetShard | TarShard:
    if fmt == "parquet":
        return ParquetShard(publication.stream, spec.audio_rate, spec.imu_rate)
    return TarShard(publication.stream)


def _hash(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}/{key}".encode()).digest()


def _leaves(value: Any) -> int:
    return sum(map(_leaves, value.values())) if isinstance(value, dict) else 1


class _Clock:
    """Attributes wall time to named phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def timed(self, phase: str, items: Iterable[Item]) -> Iterator[Item]:
        """Pass items on; the wait for each counts as ``phase``, what the caller does with it as ``spool``."""
        for item in items:
            self.lap(phase)
            yield item
            self.lap("spool")
        self.lap(phase)
