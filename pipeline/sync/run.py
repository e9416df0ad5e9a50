"""Measures the clocks of a data set's recordings, and writes the table and the page.

Finished recordings are kept beside the table in ``CLOCKS.parts/`` until all are done, so that an interrupted
run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeGuard

from align.pipeline import access
from align.pipeline.config import RunConfig, digest
from align.pipeline.job.planning import list_recordings
from align.pipeline.storage.files import is_remote
from align.pipeline.sync.sound import ConcurrentSet, concurrent_sets, measure_set
from align.schemas.errors import AlignError, Fault, UsageError
from align.schemas.recording import Recording
from align.schemas.time import TimeSpan
from align.schemas.wire import to_plain
from align.transforms.sync.clocks import ClockRow, write_clocks
from align.transforms.sync.measure import Measured, measure_imu, nothing_to_compare
from align.transforms.sync.report import page, recording_section, set_section
from align.transforms.sync.verdict import SyncOptions

Show = Callable[[Counter[str]], None]

_EDITED = "an edit list of several stretches: its pictures cannot be compared"
_REACHES_S = (0.1, 600.0)


@dataclass(frozen=True, slots=True)
class SyncConfig:
    """Everything ``align sync`` was asked for; checks itself when it is made.

    Attributes:
        run: which recordings, and how the work is carried out.
        clocks: the table to write.
        report: the page to write; empty for none.
        options: how a pair of clocks is looked at.
    """

    run: RunConfig
    clocks: str
    report: str = ""
    options: SyncOptions = field(default_factory=SyncOptions)

    def __post_init__(self) -> None:
        low, high = _REACHES_S
        if not low <= self.options.reach_s <= high:
            raise UsageError(f"--reach must be between {low:g} and {high:g} seconds")
        if not 0 <= self.options.threshold_s <= 10:
            raise UsageError("--threshold must be between 0 and 10000 milliseconds")
        for path in filter(None, (self.clocks, self.report)):
            if is_remote(path):
                raise UsageError(f"{path} is not a local path: write it here, then copy it")
            if not Path(path).absolute().parent.is_dir():
                raise UsageError(f"there is no folder {str(Path(path).absolute().parent)!r} to write to")
        if not self.run.execution.runs_here:
            raise UsageError(f"align sync runs on this machine only, not on {self.run.execution.runner}")

    @property
    def parts(self) -> Path:
        """Where finished recordings are kept meanwhile."""
        return Path(self.clocks + ".parts")

    @property
    def stamp(self) -> str:
        """Tells the parts of this run from those of other options or inputs."""
        source = [self.run.inputs.source, os.path.abspath(self.run.inputs.input), self.run.inputs.media]
        return digest([source, asdict(self.options), bool(self.report)])[:12]


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What came of a run.

    Attributes:
        rows: of the table, in its order.
        failures: recordings that could not be read: (id, why).
    """

    rows: tuple[ClockRow, ...]
    failures: tuple[tuple[str, str], ...]


def run_sync(config: SyncConfig, *, show: Show | None = None) -> SyncResult:
    """Measure all recordings on Beam and write the table.

    Raises:
        UsageError: no recordings; or parts of an earlier run lie there and ``resume`` was not asked for.
        AlignError: the source cannot be read.
    """
    listed = [replace(item, narrations=None) for item in list_recordings(config.run) if is_recording(item)]
    if not listed:
        of = config.run.inputs
        raise UsageError(f"there are no recordings of source {of.source!r} in {of.input!r}")
    _begin(config)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Beam warns where its cloud extras are not installed
    try:
        from align.pipeline.sync.graph import carry_out
    finally:
        logging.disable(before)
    sets = concurrent_sets(listed)
    carry_out(config, len(listed), sets, show or (lambda _: None))
    return commit_sync(config, [r.recording_id for r in listed], sets)


def _begin(config: SyncConfig) -> None:
    if Path(config.clocks).exists() and not config.run.execution.resume:
        raise UsageError(f"{config.clocks} is there already; name another file, or add --resume")
    if config.parts.exists() and not config.run.execution.resume:
        rmtree(config.parts)
    config.parts.mkdir(exist_ok=True)


def sync_recording(item: Recording, config: SyncConfig) -> str:
    """Measure one recording, unless an earlier run did, and keep what was found; gives its id."""
    part = _part(config, item.recording_id)
    if not part.exists():
        found, failed = _measure(item, config)
        failures = [(item.recording_id, failed)] if failed else []
        section = recording_section(item.recording_id, found) if config.report else ""
        _keep(part, found.rows, failures, section)
    return item.recording_id


def sync_set(item: ConcurrentSet, config: SyncConfig) -> str:
    """Compare the sounds of a set, unless an earlier run did, and keep what was found; gives its id."""
    part = _set_part(config, item)
    if not part.exists():
        found = measure_set(item, config.options, config.run)
        section = set_section(found.set_id, found.reference, found.found) if config.report else ""
        _keep(part, [row for one in found.found for row in one.rows], found.failures, section)
    return item.set_id


def _keep(part: Path, rows: Iterable[ClockRow], failures: Iterable[tuple[str, str]], section: str) -> None:
    content = {"failures": list(failures), "rows": [asdict(r) for r in rows], "section": section}
    draft = part.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(part)


def commit_sync(
    config: SyncConfig, recording_ids: Iterable[str], sets: Iterable[ConcurrentSet] = ()
) -> SyncResult:
    """Put the parts together: the table and the page appear whole, then the parts go."""
    names = [_part(config, recording_id) for recording_id in sorted(set(recording_ids))]
    names += [_set_part(config, item) for item in sets]
    parts: list[dict[str, Any]] = [json.loads(name.read_text(encoding="utf-8")) for name in names]
    found = (ClockRow(**row) for part in parts for row in part["rows"])
    rows = tuple(sorted(found, key=lambda r: (r.recording_id, r.stream, r.start_ns)))
    draft = f"{config.clocks}.{os.getpid()}.tmp"
    write_clocks(draft, rows)
    if config.report:
        text = page((part["section"] for part in parts), rows)
        Path(config.report).write_text(text, encoding="utf-8")
    os.replace(draft, config.clocks)
    rmtree(config.parts, ignore_errors=True)
    failures = dict(reversed([(one, why) for part in parts for one, why in part["failures"]]))
    return SyncResult(rows, tuple(sorted(failures.items())))


def _part(config: SyncConfig, recording_id: str) -> Path:
    name = hashlib.sha256(recording_id.encode()).hexdigest()[:32]
    return config.parts / f"{name}-{config.stamp}.json"


def _set_part(config: SyncConfig, item: ConcurrentSet) -> Path:
    """Who belongs to a set depends on which recordings are listed."""
    name = digest([item.set_id, [[m.recording_id, to_plain(m.concurrent)] for m in item.members]])[:32]
    return config.parts / f"set-{name}-{config.stamp}.json"


def _measure(recording: Recording, config: SyncConfig) -> tuple[Measured, str]:
    """What was measured, and why the recording could not be read, or ""."""
    span = recording.span or TimeSpan(0, 0)
    nothing = recording.absent.get("imu", "the recording has no IMU")
    if recording.imu is None:
        return Measured((nothing_to_compare(recording.recording_id, span, nothing),)), ""
    run, stream = config.run, recording.video
    try:
        media = access.probe(recording, run)
        video = access.usable_video(stream, media, run)
        if media.is_edited:  # a look at pictures takes libavformat's reading, which strays behind a joint
            return Measured((nothing_to_compare(recording.recording_id, video.span, _EDITED),)), ""
        stream = recording.imu
        imu = access.gyro_rows(stream, access.survey(stream, run), run)
        stream = recording.video
        found = measure_imu(
            recording.recording_id,
            video.span,
            recording.joints_ns,
            imu,
            access.looking(stream, media, run),
            config.options,
            video.keyframes_ns,
        )
    except AlignError as error:
        detail = error.naming(stream.uri, stream.name).detail
        row = nothing_to_compare(recording.recording_id, span, f"cannot be read: {detail}")
        return Measured((row,)), detail
    return found, ""


def is_recording(item: Recording | Fault) -> TypeGuard[Recording]:
    """Whether a source's item is a recording."""
    return isinstance(item, Recording)
