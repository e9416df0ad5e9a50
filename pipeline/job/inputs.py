"""What a run reads: the facts that it begins with, and what differs from those of an earlier one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from align.pipeline.config import RunConfig, digest
from align.pipeline.job.input_files import Stamps, look, streams_of
from align.pipeline.job.planning import list_recordings
from align.pipeline.job.workers import ALONE_BELOW_S, claimed_work_s
from align.schemas.errors import Fault, UsageError
from align.schemas.plan import InputFile, Segment
from align.schemas.recording import Recording
from align.schemas.wire import to_plain

_THREADS = 8  # that wait for a disk or a bucket
_AT_ONCE = 256  # recordings

Facts = dict[str, Any]
"""Of each recording: a hash of its metadata, and of each of its files [size, fingerprint, time of change]."""


@dataclass
class Inputs:
    """What a run is about to read.

    Attributes:
        facts: by recording id.
        work_s: CPU seconds that reading them should take, counted until one process is clearly too few.
        fault: the first fault of the source, in words.
    """

    facts: Facts = field(default_factory=dict)
    work_s: float = 0.0
    fault: str = ""


def look_at_inputs(config: RunConfig) -> Inputs:
    """List the recordings and look at their files; memory grows with recordings (some 400 bytes each).

    Raises:
        UsageError: there are none.
    """
    found, stamps = Inputs(), Stamps()
    items = list_recordings(config)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(items, _AT_ONCE)):
            recordings = [item for item in some if isinstance(item, Recording)]
            files = [(r.recording_id, s) for r in recordings for s in streams_of(r)]
            looks = pool.map(lambda entry: look(entry[1], stamps), files)
            by_recording: dict[str, dict[str, list[Any]]] = {}
            for (name, _), file in zip(files, looks, strict=True):
                by_recording.setdefault(name, {})[file.name] = as_fact(file)
            for item in some:
                if isinstance(item, Fault):
                    found.fault = found.fault or item.detail
                    continue
                facts = {"metadata": _metadata(item), "files": by_recording[item.recording_id]}
                found.facts[item.recording_id] = facts
                if found.work_s <= ALONE_BELOW_S:
                    found.work_s += claimed_work_s(item, config)
    if not found.facts:
        why = f": {found.fault}" if found.fault else ""
        raise UsageError(f"no recordings to align in {config.inputs.input}{why}")
    return found


def _metadata(recording: Recording) -> str:
    plain = to_plain(recording)
    for kind in ("video", "audio", "imu"):
        plain[kind] = plain[kind] and {**plain[kind], "uri": ""}
    return digest(plain)[:16]


def as_fact(file: InputFile) -> list[Any]:
    """A file as ``_work/run.json`` keeps it; nothing where it is not there."""
    return [file.size, file.content, file.stamp] if file.size is not None else []


# -- What has changed between two looks ----------------------------------------------------------------


def changed_inputs(then: Facts, now: Facts) -> Iterator[tuple[str, str]]:
    """Recordings that are not what they were: their id, and what differs, in words."""
    for name in sorted(then.keys() | now.keys()):
        old, new = then.get(name), now.get(name)
        if old is None or new is None:
            yield name, f"recording {name} {'is new' if old is None else 'is gone'}"
        else:
            yield from ((name, what) for what in _changed_recording(name, old, new))


def _changed_recording(name: str, old: Facts, new: Facts) -> Iterator[str]:
    if old["metadata"] != new["metadata"]:
        yield f"metadata of {name}"
    for file in sorted(old["files"].keys() & new["files"].keys()):
        a, b = old["files"][file], new["files"][file]
        if a[:1] != b[:1]:
            yield f"{file}: {_size(a)} then, {_size(b)} now"
        elif a[1:2] != b[1:2]:
            yield f"{file} has other content"
        elif a[: len(b)] != b[: len(a)]:  # a finished run keeps no times
            yield f"{file} was written anew"


def _size(facts: Sequence[Any]) -> str:
    return f"{facts[0]} bytes" if facts else "not there"


def without_times(facts: Facts) -> Facts:
    """What a finished run keeps: equal runs stay equal."""
    return {
        name: {**known, "files": {file: fact[:2] for file, fact in known["files"].items()}}
        for name, known in facts.items()
    }


def hold_times(facts: Facts) -> bool:
    """Whether there is a time of change among them."""
    return any(len(file) > 2 for known in facts.values() for file in known["files"].values())


# -- While the run goes on -----------------------------------------------------------------------------


def contents_of(segments: Iterable[Segment], facts: Facts) -> list[Any]:
    """What the files of some segments held when the run began: a part of the shard's fingerprint."""
    return [
        [
            [file.name, _known(facts, segment, file)[:2] or [file.size, file.content]]
            for file in segment.inputs
        ]
        for segment in segments
    ]


def _known(facts: Facts, segment: Segment, file: InputFile) -> list[Any]:
    known: Mapping[str, Any] = facts.get(segment.recording.recording_id, {"files": {}})
    found: list[Any] = known["files"].get(file.name, [])
    return found


def replaced_since_start(segment: Segment, facts: Facts) -> str | None:
    """The name of a file that planning found other than the launcher had; None where all are the same."""
    for file in segment.inputs:
        known = _known(facts, segment, file)
        seen = [file.size, file.content or (known[1] if known else ""), file.stamp]
        if known and seen[: len(known)] != known:
            return file.name
    return None
