"""One run, described: what is read, what a window is, what is written, and how it is carried out."""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from align.pipeline.storage.files import absolute, is_remote, open_binary
from align.schemas.errors import UsageError
from align.schemas.options import AlignOptions
from align.schemas.time import NS
from align.schemas.wire import json_digest

FORMATS = ("parquet", "webdataset")
INDEXES = ("balance", "energon", "dali", "wids", "none")
_LOCAL_RUNNERS = {"direct", "fnapi", "switchingdirect"}
digest = json_digest
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything ``align run`` was asked for; checks itself when it is made.

    Attributes:
        options: what a window is and what is taken from it.
        formats: ``parquet``, ``webdataset`` or both.
        splits: ``train=0.9,val=0.1``; fractions of the groups.
        assignments: recording or group id -> split, instead of fractions; what it does not name is left out.
        seed: of splits, shards and the order inside a shard.
        shard_size: bytes a shard should not much exceed.
        segment_s: seconds of media that are read in one go.
        max_windows: more planned windows than that, over all recordings, and the run ends before it decodes.
        max_failures: share of the planned windows that may fail before the run counts as failed.
        resume: go on with what an interrupted run finished.
        retry_failed: take in an input that was repaired, and do again what failed; all else is kept.
        overwrite: remove the data set that lies in the output, and begin afresh.
        isolate: decode in child processes, so that a codec's crash or hang costs one segment.
        allow_symlinks: read media that links lead to outside the input folder.
        decode_timeout_s: CPU time for one window after which a child is taken to hang; it may idle three
            times as long.
        workers: processes, or 0 to choose by the size of the job.
        runner: ``DirectRunner`` (Beam's in-process runner) or any other Beam runner.
        beam_args: Beam options, passed through.
        indexes: what the commit adds beside the shards: ``balance`` (of itself, for local Parquet outputs),
            ``energon``, ``dali``, ``wids``; or ``none``.
        clocks: the table that ``align sync`` wrote; empty for clocks as the source states them.
        clocks_sha256: of its content.
        trust_metadata: plan from the metadata's spans without opening any media.
    """

    source: str
    input: str
    output: str = ""
    options: AlignOptions = field(default_factory=AlignOptions)
    formats: tuple[str, ...] = ("parquet",)
    media: str = "full_scale"
    recordings: tuple[str, ...] = ()
    limit: int | None = None
    scenarios: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    splits: str = "train=1"
    assignments: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    shard_size: int = 512 * 10**6
    segment_s: float = 300.0
    max_failures: float = 0.01
    max_windows: int = 50_000_000
    resume: bool = False
    retry_failed: bool = False
    overwrite: bool = False
    isolate: bool = True
    decode_timeout_s: float = 300.0
    allow_symlinks: bool = False
    workers: int = 0
    runner: str = "DirectRunner"
    beam_args: tuple[str, ...] = field(default=(), repr=False)  # may hold secrets
    trust_metadata: bool = False
    indexes: tuple[str, ...] = ()
    clocks: str = ""
    clocks_sha256: str = field(init=False, default="")

    def __post_init__(self) -> None:
        known_or_usage("--format", self.formats, FORMATS)
        known_or_usage("--index", self.indexes, INDEXES)
        checks = [
            (bool(self.formats), f"--format needs at least one of {', '.join(FORMATS)}"),
            ("none" not in self.indexes or len(self.indexes) == 1, "--index none stands alone"),
            (
                "balance" not in self.indexes or "parquet" in self.formats,
                "--index balance needs Parquet shards",
            ),
            (
                not {"energon", "dali", "wids"} & {*self.indexes} or "webdataset" in self.formats,
                "--index energon, dali and wids need tar files; add --format parquet,webdataset",
            ),
            (self.limit is None or self.limit > 0, "--limit must be at least 1"),
            (self.shard_size >= 10**5, "--shard-size must be at least 100KB"),
            (1 <= self.segment_s <= 86_400, "--segment must be between 1 and 86400 seconds"),
            (0 <= self.max_failures <= 1, "--max-failures must be between 0 and 1 (0.01 is 1 %)"),
            (self.max_windows >= 1, "--max-windows must be at least 1"),
            (self.decode_timeout_s > 0, "--decode-timeout must be a positive number of seconds"),
            (
                not (self.overwrite and (self.resume or self.retry_failed)),
                "--overwrite begins afresh, --resume and --retry-failed go on: choose one",
            ),
            (self.workers >= 0, "--workers must be a positive number, or auto"),
        ]
        for good, detail in checks:
            if not good:
                raise UsageError(detail)
        if self.clocks:
            object.__setattr__(self, "clocks_sha256", _sha256_of("--clocks", self.clocks))

    @property
    def runs_here(self) -> bool:
        """Whether the launcher carries the run out, with Beam's in-memory runner and workers of its own."""
        return self.runner.rpartition(".")[2].lower().removesuffix("runner") in _LOCAL_RUNNERS

    @property
    def index_kinds(self) -> frozenset[str]:
        """The indexes that the commit makes.

        ``balance`` reads every picture anew: cheap where the output lies on this machine, a download of all
        of it otherwise, so remote outputs get it only when it is asked for.
        """
        if "none" in self.indexes:
            return frozenset()
        own = {"balance"} if "parquet" in self.formats and not is_remote(self.output) else set()
        return frozenset(own.union(self.indexes))

    def sample_config(self) -> dict[str, Any]:
        """What the bytes of a sample depend on beside its recording: nothing of shards, workers or places."""
        clocks = {"clocks": self.clocks_sha256 or None}
        return {"source": self.source, "media": self.media, **clocks, **self.options.as_dict()}

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
        return {
            **self.sample_config(),
            "formats": list(self.formats),
            "splits": f"by file, sha256 {digest(dict(self.assignments))}"
            if self.assignments
            else self.splits,
            "seed": self.seed,
            "shard_size": self.shard_size,
            "segment_s": self.segment_s,
            "recordings": list(self.recordings),
            "limit": self.limit,
            "scenarios": list(self.scenarios),
            "exclude": list(self.exclude),
        }


def _sha256_of(what: str, path: str) -> str:
    try:
        with open_binary(absolute(path)) as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read: {error.strerror or error}") from None


def known_or_usage(what: str, values: Iterable[str], known: Iterable[str]) -> None:
    """Refuse values that are not known, with the nearest known one.

    Raises:
        UsageError: names the value, the known ones, and the likely one.
    """
    known = tuple(known)
    for value in values:
        if value not in known:
            near = difflib.get_close_matches(value, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{what}: {value!r} is not known (known: {', '.join(known)}){hint}")


def parse_size(text: str) -> int:
    """Bytes of ``512MB``, ``1GiB``, ``100000``.

    Raises:
        UsageError: the text is not a size.
    """
    number = text.strip().upper().rstrip("KMGIB")
    unit = text.strip().upper()[len(number) :]
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise UsageError(f"--shard-size: {text!r} is not a size; write e.g. 512MB") from None


def parse_seconds(what: str, text: str) -> int:
    """Nanoseconds of a decimal number of seconds, exact.

    Raises:
        UsageError: not a number, or finer than a nanosecond.
    """
    try:
        if len(str(text)) > 40 or "e" in str(text).lower():
            raise ValueError  # 1e999999999 would be built digit by digit
        ns = Fraction(str(text)) * NS
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{what}: {text!r} is not a number of seconds") from None
    if ns.denominator != 1:
        raise UsageError(f"{what}: {text} s is not a whole number of nanoseconds")
    return int(ns)


def load_toml(path: str | os.PathLike[str], known: Iterable[str]) -> dict[str, Any]:
    """Option values from a TOML file whose keys are the names of the command's options.

    Raises:
        UsageError: unreadable, not TOML, or a key that is no option.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {path}: {error}") from None
    values = {key.replace("-", "_"): value for key, value in table.items()}
    known_or_usage(f"--config {path}", values, known)
    return {key: _as_option(value) for key, value in values.items()}


def _as_option(value: object) -> object:
    if isinstance(value, list):
        return ",".join(str(v) for v in value)
    if isinstance(value, Mapping):
        return ",".join(f"{k}={v}" for k, v in value.items())
    return value
