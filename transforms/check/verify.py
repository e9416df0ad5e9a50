"""Whether a data set is what its manifest says: every byte, every count, every row.

The quick check reads every byte once for its checksum and once for its rows, and of media only headers;
the deep one also decodes every picture and sound, and forms the statistics anew.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.schemas.errors import AlignError, Fault, UsageError
from align.schemas.manifest import check_manifest, misplaced
from align.transforms.check.described import read_stats, versioned
from align.transforms.check.manifest import check_description
from align.transforms.check.shard import MALFORMED, Look, Looker, look_at_shard
from align.transforms.index.check import check_entry, check_listing
from align.transforms.store.bounded import read_bounded_json
from align.transforms.store.publish import Store, local
from align.transforms.store.whole import whole_file
from align.transforms.write.manifest import FAILURES, MANIFEST, Counts
from align.transforms.write.names import leftovers_of
from align.transforms.write.shard import ShardFile
from align.transforms.write.stats import STATS, Statistics, as_json, merge

_OF_ONE_KIND = 6
_BESIDE = re.compile(r"^webdataset/(README\.md|[^/]+\.(idx|json)|\.nv-meta/.+)$")
_MOST_LINE = 1 << 20
_MOST_REASONS = 1000
_MOST_LOST = 3
"""So many shards may end the process that looks at them; then no more are looked at."""


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


def verify(out: str | Store, *, deep: bool = False, looker: Looker | None = None) -> VerifyReport:
    """Check a data set against its manifest and every invariant of the schema.

    Args:
        out: its folder, or the store it lies in.
        deep: decode all media, and form all statistics anew.
        looker: looks at a shard's rows; in this process if None. Raises an ``AlignError`` ``limits`` where a
            shard asks for more memory or time than a process may have.
    """
    store = local(out) if isinstance(out, str) else out
    check = _Check(store, deep, looker or partial(look_at_shard, store))
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
    looker: Looker
    manifest: dict[str, Any] = field(default_factory=dict)
    shards: int = 0
    lost: int = 0
    samples: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[NDArray[np.uint64]]] = field(default_factory=lambda: defaultdict(list))
    groups: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    sums: dict[str, Statistics | None] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def run(self) -> Iterator[Problem]:
        try:
            self.manifest = check_manifest(versioned(read_bounded_json(self.store, MANIFEST)))
            files = [ShardFile(**{n: s[n] for n in ShardFile.__slots__}) for s in self.manifest["shards"]]
            counts = Counts(**{name: self.manifest["counts"][name] for name in Counts.__slots__})
        except FileNotFoundError:
            detail = "is missing: the run did not finish; run again with --resume"
            yield Problem(MANIFEST, "no_manifest", detail)
            return
        except UsageError as error:
            yield Problem(MANIFEST, error.code, str(error))
            return
        except MALFORMED as error:
            yield Problem(MANIFEST, "bad_manifest", f"does not hold: {error}")
            return
        yield from self.described()
        yield from self.index_files()
        for file in files:
            yield from self.shard(file)
        yield from self.unlisted({file.path for file in files})
        yield from self.across()
        yield from self.accounts(counts, {file.format for file in files})
        yield from self.statistics()
        yield from self.splits()

    def described(self) -> Iterator[Problem]:
        """What the manifest says of itself, and of the small files beside the shards."""
        try:
            yield from (Problem(*told) for told in check_description(self.store, self.manifest))
        except MALFORMED as error:
            yield Problem(MANIFEST, "bad_manifest", f"does not hold: {error!r}")

    def index_files(self) -> Iterator[Problem]:
        """The files beside the shards. The index of a shard is compared with it when it is looked at."""
        yield from (Problem(*told) for told in check_listing(self.store, self.manifest))
        for entry in [*self.manifest.get("index", ()), *self.manifest.get("loader_index", ())]:
            if told := check_entry(self.store, entry):
                yield Problem(*told)
            elif "shard" in entry:
                self.indexes[entry["shard"]] = entry["path"]

    def shard(self, file: ShardFile) -> Iterator[Problem]:
        """One file: its path, its bytes, then its rows. Rows of a damaged file are not looked at."""
        twice = ("bad_path", f"lists {file.path!r} twice") if file.path.casefold() in self.read else None
        if why := misplaced(file.path, file.format) or twice:
            yield Problem(MANIFEST, *why)
            return
        self.shards += 1
        self.read.add(file.path.casefold())
        told = whole_file(self.store, file.path, file.bytes, file.sha256)
        if told:
            yield Problem(file.path, "no_shard" if told[0] == "no_file" else told[0], told[1])
        elif self.lost >= _MOST_LOST:
            yield Problem(
                file.path, "unreadable", f"is not looked at: {self.lost} shards before it ended badly"
            )
        else:
            yield from self.rows(file)

    def rows(self, file: ShardFile) -> Iterator[Problem]:
        index = self.indexes.get(file.path, "")
        try:
            look = self.looker(file, self.manifest["config"], self.deep, index)
        except AlignError as error:
            self.lost += 1
            yield Problem(file.path, "unreadable", f"cannot be read as {file.format}: {error}")
            return
        for code, detail in look.problems:
            yield Problem(file.path, code, detail)
        if look.index_keys is not None and not np.array_equal(look.index_keys, look.names[:, 0]):
            yield Problem(index, "index_keys", f"does not have the keys of {file.path}; run align index")
        self.gather(file, look)

    def gather(self, file: ShardFile, look: Look) -> None:
        """Add what a shard says to what the others said."""
        self.samples[file.format] += len(look.names)
        self.names[file.format].append(look.names)
        for group, splits in look.groups.items():
            self.groups[group].update(splits)
        if self.deep:
            before = self.sums.get(file.format, Statistics())
            # What is no whole media is not counted, so the sums of its format prove nothing.
            self.sums[file.format] = None if look.problems or before is None else merge(before, look.sums)

    def unlisted(self, listed: set[Any]) -> Iterator[Problem]:
        """Files that a reader's pattern would take for a part of the data set."""
        left = set(leftovers_of(self.store))
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
        except MALFORMED as error:
            yield Problem(FAILURES, "bad_failures", f"cannot be read: {error!r}")
            return
        if (skipped, failed) != (counts.windows_skipped, counts.failed):
            detail = f"has {skipped} skipped, {failed} failed; the manifest {counts}"
            yield Problem(FAILURES, "counts", detail)

    def failures(self) -> tuple[dict[str, int], int]:
        """Skipped windows by reason, and failed ones."""
        lost: Counter[tuple[str, str]] = Counter()
        with self.store.open(FAILURES) as stream:
            while line := stream.readline(_MOST_LINE):
                fault = Fault(**json.loads(line))
                if type(fault.windows) is not int or not isinstance(fault.code, str):
                    raise TypeError(f"a line with windows {fault.windows!r:.80} and code {fault.code!r:.80}")
                lost[fault.outcome, fault.code] += fault.windows
                if len(lost) > _MOST_REASONS:
                    raise ValueError(f"more than {_MOST_REASONS} reasons")
        skipped = {code: n for (outcome, code), n in lost.items() if outcome == "skipped" and n}
        return skipped, sum(n for (outcome, _), n in lost.items() if outcome == "failed")

    def statistics(self) -> Iterator[Problem]:
        try:
            said = read_stats(self.store)
            windows = sum(split["windows"] for split in said["splits"].values())
        except MALFORMED as error:
            yield Problem(STATS, "bad_stats", f"cannot be read: {error!r}")
            return
        if windows != max(self.samples.values(), default=0):
            yield Problem(STATS, "counts", f"speaks of {windows} windows")
        for fmt, sums in self.sums.items():
            if sums is not None and json.loads(json.dumps(as_json(sums))) != said:
                yield Problem(STATS, "bad_stats", f"is not what the samples in {fmt} give")

    def splits(self) -> Iterator[Problem]:
        """What the manifest says of the splits."""
        for split, said in self.manifest.get("splits", {}).items():
            groups = sum(split in splits for splits in self.groups.values())
            if groups != said["groups"]:
                detail = f"{said['groups']} groups in split {split}, {groups} found"
                yield Problem(MANIFEST, "counts", detail)
