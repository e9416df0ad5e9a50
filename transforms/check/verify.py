"""Whether a data set is what its manifest says: every byte, every count, every row.

The quick check reads every byte once for its checksum and once for its rows, and of media only headers;
the deep one also decodes every picture and sound, and forms the statistics anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from align.schemas.errors import AlignError, Fault
from align.schemas.features import COLUMNS, SCHEMA_VERSION, arrow_schema
from align.transforms.check.rows import Expected, check_row
from align.transforms.formats.webdataset import DEFAULT_PARTS, read_rows
from align.transforms.index.check import check_indexes
from align.transforms.store.publish import Store, digest, leftovers, local, read_json
from align.transforms.write.manifest import FAILURES, MANIFEST, Counts
from align.transforms.write.row import from_batch
from align.transforms.write.shard import ShardFile
from align.transforms.write.stats import STATS, Collector, as_json

_ROW_GROUP_LIMIT = 100_000_000
_READ_ROWS = 64
_OF_ONE_KIND = 5
_SHARD_PATH = re.compile(r"^(data|webdataset)/[^/]+$")
_BESIDE = re.compile(r"^webdataset/(README\.md|[^/]+\.(idx|json)|\.nv-meta/.+)$")


_MALFORMED = (OSError, AlignError, LookupError, TypeError, ValueError, AttributeError)
_UNREADABLE = (*_MALFORMED, pa.ArrowException, tarfile.TarError)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is off: in which file, what (a snake_case word), and in words."""

    path: str
    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail} [{self.code}]"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked, and what is off. ``samples`` counts windows, not their copies per format."""

    shards: int
    samples: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.problems


def verify(out: str | Store, *, deep: bool = False) -> VerifyReport:
    """Check a data set against its manifest and every invariant of the schema.

    Args:
        out: its folder, or the store it lies in.
        deep: decode all media, and form all statistics anew.
    """
    check = _Check(local(out) if isinstance(out, str) else out, deep)
    problems = tuple(_few_of_a_kind(check.run()))
    return VerifyReport(check.shards, max(check.samples.values(), default=0), problems)


def _few_of_a_kind(problems: Iterator[Problem]) -> Iterator[Problem]:
    """Pass on the first few problems of a kind in a file, then say how many more there were."""
    seen: Counter[tuple[str, str]] = Counter()
    for problem in problems:
        seen[problem.path, problem.code] += 1
        if seen[problem.path, problem.code] <= _OF_ONE_KIND:
            yield problem
    for (path, code), n in seen.items():
        if n > _OF_ONE_KIND:
            yield Problem(path, code, f"{n - _OF_ONE_KIND} more of this kind")


@dataclass(slots=True)
class _Check:
    """One verification under way: what the files say together is gathered while they pass."""

    store: Store
    deep: bool
    manifest: dict[str, Any] = field(default_factory=dict)
    shards: int = 0
    samples: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[NDArray[np.uint64]]] = field(default_factory=lambda: defaultdict(list))
    groups: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    collectors: dict[str, Collector] = field(default_factory=lambda: defaultdict(Collector))

    def run(self) -> Iterator[Problem]:
        try:
            self.manifest = read_json(self.store, MANIFEST)
            if self.manifest["schema_version"] != SCHEMA_VERSION:
                detail = f"is of schema {self.manifest['schema_version']}; this reads {SCHEMA_VERSION}"
                yield Problem(MANIFEST, "schema_version", detail)
                return
            files = [_listed(shard) for shard in self.manifest["shards"]]
            counts = Counts(**self.manifest["counts"])
        except FileNotFoundError:
            detail = "is missing: the run did not finish; run again with --resume"
            yield Problem(MANIFEST, "no_manifest", detail)
            return
        except _MALFORMED as error:
            yield Problem(MANIFEST, "bad_manifest", f"does not hold: {error}")
            return
        for file in files:
            yield from self.shard(file)
        yield from self.unlisted({file.path for file in files})
        yield from self.across()
        yield from self.accounts(counts, {file.format for file in files})
        yield from self.statistics()
        yield from self.indexes()

    def shard(self, file: ShardFile) -> Iterator[Problem]:
        """One file: its path, its bytes, then its rows. Rows of a damaged file are not looked at."""
        if not _SHARD_PATH.match(file.path) or file.path.endswith("/.."):
            detail = f"lists {file.path!r}, which lies outside data/ and webdataset/"
            yield Problem(MANIFEST, "bad_path", detail)
            return
        self.shards += 1
        try:
            size, sha256 = digest(self.store, file.path)
        except OSError as error:
            yield Problem(file.path, "no_shard", f"cannot be read: {error.strerror or error}")
            return
        if size != file.bytes:
            yield Problem(file.path, "size", f"has {size} bytes, the manifest says {file.bytes}")
        elif sha256 != file.sha256:
            yield Problem(file.path, "checksum", f"is damaged: SHA-256 {sha256}, not {file.sha256}")
        else:
            try:
                yield from self.rows(file)
            except _UNREADABLE as error:
                yield Problem(file.path, "unreadable", f"cannot be read as {file.format}: {error!r}")

    def rows(self, file: ShardFile) -> Iterator[Problem]:
        config = self.manifest["config"]
        rates = config["window_ns"], config["audio_rate"], config["imu_rate"]
        if not all(type(rate) is int for rate in rates):
            raise TypeError(f"the manifest's window_ns, audio_rate, imu_rate are {rates}")
        expected = Expected(file.split, *rates, deep=self.deep)
        names: list[bytes] = []
        with self.store.open(file.path) as stream:
            if file.format == "parquet":
                yield from _check_layout(file.path, stream, config)
            for row in _parquet_rows(stream) if file.format == "parquet" else read_rows(stream):
                for code, detail in check_row(row, expected):
                    yield Problem(file.path, code, f"{row['key']}: {detail}")
                names.append(_name(row["key"]) + _content(row))
                self.groups[row["group_id"]].add(row["split"])
                if self.deep:
                    self.collectors[file.format].add(row)
        if len(names) != file.samples:
            detail = f"holds {len(names)} samples, the manifest says {file.samples}"
            yield Problem(file.path, "samples", detail)
        self.samples[file.format] += len(names)
        self.names[file.format].append(np.frombuffer(b"".join(names), np.uint64).reshape(-1, 2))

    def unlisted(self, listed: set[Any]) -> Iterator[Problem]:
        """Files that a reader's pattern would take for a part of the data set."""
        left = set(leftovers(self.store))
        for name in self.store.names():
            if name in left:
                yield Problem(name, "leftover", "was left behind by a run that died: align clean removes it")
            elif name.startswith(("data/", "webdataset/")) and name not in listed and not _BESIDE.match(name):
                yield Problem(name, "unlisted", "is not in the manifest")

    def across(self) -> Iterator[Problem]:
        """Keys are unique, the formats hold the same samples, and no group is in two splits."""
        tables = {fmt: np.concatenate(names) for fmt, names in self.names.items()}
        for fmt, table in tables.items():
            repeated = len(table) - len(np.unique(table[:, 0]))
            if repeated:
                detail = f"{repeated} samples of {fmt} bear the key of another"
                yield Problem(MANIFEST, "duplicate_keys", detail)
        ordered = [np.unique(table, axis=0) for table in tables.values()]
        if any(not np.array_equal(ordered[0], other) for other in ordered[1:]):
            yield Problem(MANIFEST, "formats_differ", f"{' and '.join(tables)} do not hold the same samples")
        for group, splits in self.groups.items():
            if len(splits) > 1:
                detail = f"group {group!r} is in the splits {', '.join(sorted(splits))}"
                yield Problem(MANIFEST, "leak", detail)

    def accounts(self, counts: Counts, formats: set[str]) -> Iterator[Problem]:
        """What the manifest counts is what the shards and the list of failures hold."""
        for fmt in sorted(formats):
            if self.samples[fmt] != counts.windows_written:
                detail = f"{counts.windows_written} windows written, {self.samples[fmt]} found in {fmt}"
                yield Problem(MANIFEST, "counts", detail)
        if not formats and counts.windows_written:
            yield Problem(MANIFEST, "counts", f"{counts.windows_written} windows written, but no shard")
        try:
            skipped, failed = self.failures()
        except _MALFORMED as error:
            yield Problem(FAILURES, "bad_failures", f"cannot be read: {error!r}")
            return
        if (skipped, failed) != (counts.windows_skipped, counts.failed):
            detail = f"has {skipped} skipped, {failed} failed; the manifest {counts}"
            yield Problem(FAILURES, "counts", detail)

    def failures(self) -> tuple[dict[str, int], int]:
        """Skipped windows by reason, and failed ones."""
        lost: Counter[tuple[str, str]] = Counter()
        with self.store.open(FAILURES) as stream:
            for line in stream:
                fault = Fault(**json.loads(line))
                lost[fault.outcome, fault.code] += fault.windows
        skipped = {code: n for (outcome, code), n in lost.items() if outcome == "skipped" and n}
        return skipped, sum(n for (outcome, _), n in lost.items() if outcome == "failed")

    def statistics(self) -> Iterator[Problem]:
        try:
            said = read_json(self.store, STATS)
            windows = sum(split["windows"] for split in said["splits"].values())
        except _MALFORMED as error:
            yield Problem(STATS, "bad_stats", f"cannot be read: {error!r}")
            return
        if windows != max(self.samples.values(), default=0):
            yield Problem(STATS, "counts", f"speaks of {windows} windows")
        for fmt, collector in self.collectors.items():
            if json.loads(json.dumps(as_json(collector.result()))) != said:
                yield Problem(STATS, "bad_stats", f"is not what the samples in {fmt} give")

    def indexes(self) -> Iterator[Problem]:
        """The files beside the shards, and what the manifest says of the splits."""
        try:
            for told in check_indexes(self.store, self.manifest):
                yield Problem(*told)
            for split, said in self.manifest.get("splits", {}).items():
                groups = sum(split in splits for splits in self.groups.values())
                if groups != said["groups"]:
                    detail = f"{said['groups']} groups in split {split}, {groups} found"
                    yield Problem(MANIFEST, "counts", detail)
        except _MALFORMED as error:
            yield Problem(MANIFEST, "bad_manifest", f"does not hold: {error!r}")


def _listed(shard: Mapping[str, Any]) -> ShardFile:
    file = ShardFile(**shard)
    if [type(value) for value in astuple(file)] != [str, str, str, int, int, str]:
        raise TypeError(f"a shard is listed with values of wrong types: {dict(shard)}")
    return file


def _parquet_rows(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(stream).iter_batches(_READ_ROWS):
        for index in range(batch.num_rows):
            yield from_batch(batch, index)


def _check_layout(path: str, stream: IO[bytes], config: Mapping[str, Any]) -> Iterator[Problem]:
    file = pq.ParquetFile(stream)
    schema = file.schema_arrow
    if [(f.name, f.type) for f in schema] != list(COLUMNS.items()):
        yield Problem(path, "schema", "its columns are not those of the schema")
    elif schema.metadata != arrow_schema(config["audio_rate"], config["imu_rate"]).metadata:
        yield Problem(path, "schema", "its features or rates are not those of the schema")
    for i in range(file.num_row_groups):
        group = file.metadata.row_group(i)
        if group.total_byte_size > _ROW_GROUP_LIMIT and group.num_rows > 1:
            yield Problem(path, "row_group", f"row group {i} has {group.total_byte_size} bytes")


def _name(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


def _content(row: Mapping[str, Any]) -> bytes:
    """A hash of the sample as its WebDataset parts: equal for the same sample in any format."""
    content = hashlib.blake2b(digest_size=8)
    for name, data in DEFAULT_PARTS.of(row):
        content.update(f"{name} {len(data)}\n".encode())
        content.update(data)
    return content.digest()
