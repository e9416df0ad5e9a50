"""One run in four parts: what is read, what a window is, what is written, how it is carried out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from typing import Any

from align.pipeline.sources import SourceOptions, read_text
from align.pipeline.storage.files import is_remote
from align.schemas.errors import UsageError
from align.schemas.option import (
    Declared,
    declared,
    hint,
    number,
    option,
    processes,
    refuse,
    settle,
    shares,
    size,
)
from align.schemas.options import AlignOptions
from align.schemas.wire import json_digest
from align.transforms.plan.splits import read_assignments

FORMATS = ("parquet", "webdataset")
INDEXES = ("balance", "energon", "dali", "wids", "none")
_LOCAL_RUNNERS = {"direct", "fnapi", "switchingdirect"}
digest = json_digest
_OF_TARS = frozenset({"energon", "dali", "wids"})


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What is written, and where.

    Attributes:
        assignments: recording or group id -> split, where ``split`` names a file instead of shares; what it
            does not name is left out. Read once, when the options are first made.
    """

    output: str = option("", "Empty or new folder (or gs://, s3://) for the data set.", metavar="DIR")
    format: tuple[str, ...] = option(
        ("parquet",), "What to write, in one pass: parquet, webdataset.", metavar="NAME,…", choices=FORMATS
    )
    split: str = option(
        "train=1",
        "e.g. train=0.9,val=0.1, never cutting a group; or file:splits.csv, lines of id and split.",
        shares,
        metavar="NAME=SHARE,…",
    )
    index: tuple[str, ...] = option(
        (),
        "Index the tar files for energon, dali, wids. Weights and near-duplicates (balance) are indexed by "
        "default for local Parquet outputs; none leaves that out.",
        metavar="NAME,…",
        choices=INDEXES,
    )
    seed: int = option(0, "Of splits, shards and their order.")
    shard_size: int = option(
        512 * 10**6,
        "What a shard should not much exceed.",
        size,
        typed="512MB",
        metavar="SIZE",
        low=10**5,
        unit="bytes",
    )
    segment: float = option(
        300.0, "Media read in one go.", number, metavar="SECONDS", low=1, high=86_400, unit="seconds"
    )
    assignments: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settle(self)
        if not self.format:
            raise refuse("format", f"needs at least one of {', '.join(FORMATS)}")
        if "none" in self.index and len(self.index) > 1:
            raise refuse("index", "none stands alone")
        if "balance" in self.index and "parquet" not in self.format:
            raise refuse("index", "balance needs Parquet shards; add parquet to the formats")
        if _OF_TARS & {*self.index} and "webdataset" not in self.format:
            raise refuse("index", "energon, dali and wids need tar files; add webdataset to the formats")
        if self.split.startswith("file:") and not self.assignments:
            path = self.split.removeprefix("file:")
            object.__setattr__(self, "assignments", read_assignments(path, read_text("split", path)))

    @property
    def index_kinds(self) -> frozenset[str]:
        """The indexes that the commit makes.

        ``balance`` reads every picture again: cheap where the output lies on this machine, a download of all
        of it otherwise, so remote outputs get it only when it is asked for.
        """
        if "none" in self.index:
            return frozenset()
        own = {"balance"} if "parquet" in self.format and not is_remote(self.output) else set()
        return frozenset(own.union(self.index))


@dataclass(frozen=True, slots=True)
class ExecutionOptions:
    """How a run is carried out: nothing that is written depends on it.

    Attributes:
        beam_args: Beam options, passed through.
        trust_metadata: plan from the metadata's spans without opening any media.
    """

    max_failures: float = option(
        0.01, "Exit with 3 if more of the windows failed; 0.01 is 1 %.", metavar="SHARE", low=0, high=1
    )
    max_windows: int = option(
        50_000_000, "Refuse a run of more windows, before it decodes.", metavar="N", low=1
    )
    resume: bool = option(False, "Keep finished shards of an interrupted run, do the rest.")
    retry_failed: bool = option(
        False, "Take in a repaired input and do again what failed; keep the other shards."
    )
    overwrite: bool = option(
        False, "Replace the data set that lies in the output. Files that are not its own stay."
    )
    decode_timeout: float = option(
        300.0,
        "Give up a segment whose decoder is silent for so long.",
        metavar="SECONDS",
        unit="seconds",
    )
    isolate: bool = option(
        True, "Decode in a child process: a crash or hang there costs one segment.", metavar="on|off"
    )
    workers: int = option(
        0, "Processes; auto goes by the size of the job.", processes, metavar="auto|N", typed="auto"
    )
    runner: str = option("DirectRunner", "Any Beam runner; its own options are passed through.")
    beam_args: tuple[str, ...] = field(default=(), repr=False)  # may hold secrets
    trust_metadata: bool = False

    def __post_init__(self) -> None:
        settle(self)
        if not self.decode_timeout > 0:
            raise refuse("decode_timeout", "must be a positive number of seconds")
        if self.overwrite and (self.resume or self.retry_failed):
            raise refuse("overwrite", "begins afresh, resume and retry-failed go on: choose one")
        if self.retry_failed:
            object.__setattr__(self, "resume", True)

    @property
    def runs_here(self) -> bool:
        """Whether the launcher carries the run out, with Beam's in-memory runner and workers of its own."""
        return self.runner.rpartition(".")[2].lower().removesuffix("runner") in _LOCAL_RUNNERS


PARTS: dict[str, type[Any]] = {
    "inputs": SourceOptions,
    "sample": AlignOptions,
    "outputs": OutputOptions,
    "execution": ExecutionOptions,
}
_UNDECLARED = {
    "excluded": "inputs",
    "clocks_sha256": "inputs",
    "assignments": "outputs",
    "beam_args": "execution",
    "trust_metadata": "execution",
}
_READ_FROM: Mapping[str, tuple[str, Any]] = {
    "exclude": ("excluded", ()),
    "clocks": ("clocks_sha256", ""),
    "split": ("assignments", {}),
}
"""Option that names a file -> the field for what was read from it, and its value before that."""


def options() -> Iterator[Declared]:
    """Every option of a run, part by part."""
    return chain.from_iterable(declared(part) for part in PARTS.values())


@cache
def _homes() -> dict[str, str]:
    """Name of each option -> the part that it belongs to."""
    return {one.name: name for name, part in PARTS.items() for one in declared(part)} | _UNDECLARED


@dataclass(frozen=True, slots=True, init=False)
class RunConfig:
    """Everything ``align run`` was asked for, by the options' names; each part checks itself when it is made.

    ``RunConfig(source="ego4d", input="in", output="out", window=2)``; a whole part may be given under its
    name, and what is not named has its default.

    Raises:
        UsageError: an unknown name, or a value that cannot be meant.
    """

    inputs: SourceOptions
    sample: AlignOptions
    outputs: OutputOptions
    execution: ExecutionOptions

    def __init__(self, **given: Any) -> None:
        parts = {name: given.pop(name) if name in given else part() for name, part in PARTS.items()}
        for option_name, (found, nothing) in _READ_FROM.items():
            if option_name in given:
                given.setdefault(found, nothing)
        for name, values in _by_part(given).items():
            object.__setattr__(self, name, replace(parts[name], **values) if values else parts[name])

    def but(self, **given: Any) -> RunConfig:
        """The same with other values for some options, or with other parts.

        What an option read from a file stays, unless that option is among them.

        Raises:
            UsageError: an unknown name, or a value that cannot be meant.
        """
        return RunConfig(**{name: getattr(self, name) for name in PARTS} | given)

    def flat(self) -> dict[str, Any]:
        """Name of each option -> its value."""
        return {name: getattr(getattr(self, part), name) for name, part in _homes().items()}

    def sample_config(self) -> dict[str, Any]:
        """What the bytes of a sample depend on beside its recording: nothing of shards, workers or places."""
        clocks = {"clocks": self.inputs.clocks_sha256 or None}
        return {"source": self.inputs.source, "media": self.inputs.media, **clocks, **self.sample.as_dict()}

    @property
    def sample_sha256(self) -> str:
        """Names the sample configuration: the ``config_sha256`` of manifest and provenance."""
        return digest(self.sample_config())

    @property
    def sample_options(self) -> list[str]:
        """The names in :meth:`as_manifest` whose values ``config_sha256`` is the digest of."""
        return sorted(self.sample_config())

    def as_manifest(self) -> dict[str, Any]:
        """The configuration as the manifest shows it: no paths, nothing of how the run was carried out."""
        outputs, inputs = self.outputs, self.inputs
        by_file = f"by file, sha256 {digest(dict(outputs.assignments))}"
        return {
            **self.sample_config(),
            "formats": list(outputs.format),
            "splits": by_file if outputs.assignments else outputs.split,
            "seed": outputs.seed,
            "shard_size": outputs.shard_size,
            "segment_s": outputs.segment,
            "recordings": list(inputs.recordings),
            "limit": inputs.limit,
            "scenarios": list(inputs.scenario),
            "exclude": list(inputs.excluded),
        }


def _by_part(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    homes = _homes()
    parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for name, value in given.items():
        if name not in homes:
            raise UsageError(f"no option is named {name!r}{hint(name, homes)}")
        parts[homes[name]][name] = value
    return parts
