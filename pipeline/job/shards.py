"""What the graph's steps do, as plain functions: count shards, write one, commit the run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from itertools import zip_longest
from typing import Any

from align.pipeline.config import RunConfig, digest
from align.pipeline.job.input_files import Watch
from align.pipeline.job.inputs import Facts, contents_of, replaced_since_start
from align.pipeline.job.owned import (
    DESCRIBING,
    STARTED,
    foreign_to_commit,
    former,
    read_or_none,
    remember,
)
from align.pipeline.job.resume import keep_for_later
from align.pipeline.process.isolation import borrow
from align.pipeline.process.progress import Heartbeat
from align.pipeline.storage.files import opener_for
from align.pipeline.storage.stores import store
from align.schemas.errors import AlignError, Fault
from align.schemas.plan import Segment
from align.schemas.wire import to_plain
from align.transforms.index.loaders import make_loader_indexes
from align.transforms.plan.shards import Load, place_of
from align.transforms.store.publish import Store
from align.transforms.write.card import write_card
from align.transforms.write.manifest import (
    count,
    described,
    disjoint_splits,
    listed,
    manifest,
    write_failures,
    write_manifest,
)
from align.transforms.write.names import index_names, leftovers_of
from align.transforms.write.shard import REPORTS, Item, ShardReport, ShardSpec, finished_report, write_shard
from align.transforms.write.stats import merge_all, write_stats
from align.transforms.write.versions import library_versions

_THREADS = 8  # that look at finished shards; each holds the pictures of one row group

ShardKey = tuple[str, int, int]
"""Split, index of the shard within it, number of its shards."""

Losses = tuple[bool, int, tuple[Fault, ...]]
"""Of one recording: whether it was offered at all, its planned windows, and what planning lost of them."""


Loads = dict[str, Load]
"""Per split: what its segments add up to."""


def add_loads(several: Iterable[Loads]) -> Loads:
    """All together."""
    total: Loads = {}
    for loads in several:
        for split, load in loads.items():
            total[split] = total[split] + load if split in total else load
    return total


def refuse_too_many(loads: Loads, config: RunConfig) -> Loads:
    """What all segments add up to, if it is no more than a run may hold: known before any is decoded.

    Raises:
        AlignError: ``too_many_windows``.
    """
    windows = sum(load.windows for load in loads.values())
    if windows > config.execution.max_windows:
        detail = (
            f"{windows} windows are planned, more than --max-windows {config.execution.max_windows}: look at "
            "align plan, take a larger --stride, or raise --max-windows"
        )
        raise AlignError("too_many_windows", detail, stage="plan")
    return loads


def shard_key(segment: Segment, config: RunConfig, loads: Loads) -> ShardKey:
    """The shard of a segment, given what all segments add up to."""
    load = loads[segment.split]
    shards = load.shards(config.outputs.shard_size)
    return segment.split, load.shard_of(place_of(segment.key, config.outputs.seed), shards), shards


def lost_by(faults: Iterable[Fault]) -> dict[str, int]:
    """Windows that faults account for, by outcome, for the progress display."""
    windows = Counter[str]()
    for fault in faults:
        windows[fault.outcome] += fault.windows
    return {outcome: windows[outcome] for outcome in ("skipped", "failed")}


def number_shards(used: Iterable[ShardKey]) -> dict[ShardKey, ShardKey]:
    """Numbers without holes for the shards that hold a segment: readers expect ``{000000..000007}``."""
    by_split: dict[str, list[ShardKey]] = {}
    for place in sorted(used):
        by_split.setdefault(place[0], []).append(place)
    return {
        place: (split, rank, len(places))
        for split, places in by_split.items()
        for rank, place in enumerate(places)
    }


def write_one_shard(
    key: ShardKey, segments: Iterable[Segment], config: RunConfig, heartbeat: Heartbeat
) -> ShardReport:
    """Write the shard of some segments, or take over what an earlier run finished of it."""
    split, index, total = key
    target = store(config.outputs.output)
    facts: Facts = (read_or_none(target, STARTED) or {}).get("inputs", {})
    ordered = sorted(segments, key=lambda s: (s.recording.recording_id, s.starts_ns))
    spec = ShardSpec(
        split=split,
        index=index,
        total=total,
        formats=config.outputs.format,  # type: ignore[arg-type]
        seed=config.outputs.seed,
        audio_rate=config.sample.audio_rate,
        imu_rate=config.sample.imu_rate,
        fingerprint=shard_fingerprint(config, ordered, facts),
    )
    finished = finished_report(target, spec) if config.execution.resume else None
    if finished is not None:
        heartbeat.add(written=finished.samples, **lost_by(finished.faults))
        return finished
    return write_shard(spec, _counted(ordered, config, heartbeat, facts), target)


def shard_fingerprint(config: RunConfig, segments: Sequence[Segment], facts: Facts) -> str:
    """Names all that a shard's content depends on: libraries, configuration, what its segments read.

    Args:
        config: the run.
        segments: those of the shard.
        facts: what the run found of its inputs when it began.
    """
    plain = to_plain([replace(segment, inputs=()) for segment in segments])
    contents = contents_of(segments, facts)
    return digest([library_versions(), config.as_manifest(), _without_places(plain), contents])


def _without_places(plain: Any) -> Any:
    """Plain values without URIs: an input that was moved is still the same input."""
    if isinstance(plain, dict):
        return {key: _without_places(value) for key, value in plain.items() if key != "uri"}
    return [_without_places(value) for value in plain] if isinstance(plain, list) else plain


def _counted(
    segments: Sequence[Segment], config: RunConfig, heartbeat: Heartbeat, facts: Facts
) -> Iterator[Item]:
    for item in (_isolated if config.execution.isolate else _here)(segments, config, facts):
        heartbeat.add(**(lost_by([item]) if isinstance(item, Fault) else {"written": 1}))
        yield item


def _isolated(segments: Sequence[Segment], config: RunConfig, facts: Facts) -> Iterator[Item]:
    for segment, following in zip_longest(segments, segments[1:]):
        same = following is not None and following.recording.video.uri == segment.recording.video.uri
        if name := replaced_since_start(segment, facts):
            yield from _all_changed(segment, name)
            continue
        with borrow(config) as decoder:
            samples = decoder.samples(segment, config.sample, config.sample_sha256, keep_open=same)
            yield from unchanged(segment, samples)


def unchanged(segment: Segment, items: Iterable[Item]) -> Iterator[Item]:
    """What was made of a segment's windows as long as its files stay what planning saw; then faults.

    A file is looked at when the segment begins, and after each window was decoded, before it is passed on.
    All items are taken: the decoder's last word comes after the last window.
    """
    watch = Watch(segment)
    name = watch.changed()
    for item, start in zip(items, segment.starts_ns, strict=False):
        name = name or watch.changed()
        yield item if name is None else _changed(segment, start, name)


def _all_changed(segment: Segment, name: str) -> Iterator[Fault]:
    return (_changed(segment, start, name) for start in segment.starts_ns)


def _changed(segment: Segment, start_ns: int, name: str) -> Fault:
    detail = (
        f"{name} was replaced or written to while the run went on; --resume --retry-failed reads it again"
    )
    return Fault(segment.recording.recording_id, start_ns, "read", "input_changed", detail)


def _here(segments: Sequence[Segment], config: RunConfig, facts: Facts) -> Iterator[Item]:
    from align.transforms.align.segment import align_segment  # heavy, and the child's own otherwise
    from align.transforms.read.kept_file import KeptFile

    with closing(KeptFile()) as file:
        for segment in segments:
            if name := replaced_since_start(segment, facts):
                yield from _all_changed(segment, name)
                continue
            opener = opener_for(segment.recording.video.uri)
            samples = align_segment(segment, config.sample, config.sample_sha256, opener, file)
            yield from unchanged(segment, samples)


def commit_run(config: RunConfig, reports: Sequence[ShardReport], losses: Sequence[Losses]) -> dict[str, Any]:
    """Write statistics, failures, card and, last, the manifest.

    Returns:
        The manifest.

    Raises:
        AlignError: ``lost_windows`` if planned is not written + skipped + failed, ``leak`` if a group is in
            two splits, ``foreign_file``: nothing is committed then.
    """
    target = store(config.outputs.output)
    faults = [fault for _, _, lost in losses for fault in lost]
    faults += [fault for report in reports for fault in report.faults]
    planned = sum(windows for _, windows, _ in losses)
    content = manifest(
        align_version=version("multimodal-align"),
        source=config.inputs.source,
        config=config.as_manifest(),
        config_sha256=config.sample_sha256,
        config_sha256_of=config.sample_options,
        versions=library_versions(),
        files=[file for report in reports for file in report.files],
        counts=count(sum(offered for offered, _, _ in losses), planned, reports, faults),
    )
    sums = merge_all(report.statistics for report in reports)
    content["splits"] = disjoint_splits(sums)
    _refuse_lost(target, content)
    _refuse_foreign(target)
    remember(target, [*DESCRIBING, *index_names(content["shards"], config.outputs.index_kinds)])
    content |= _indexes(target, content["shards"], config)
    statistics = write_stats(target, sums)
    write_failures(target, faults + _alike_across(content))
    write_card(target, content, statistics)
    content["files"] = described(target, DESCRIBING)
    mine = {f"{REPORTS}/{report.name}.json" for report in reports}
    _leave_only(target, content, mine)
    write_manifest(target, content)
    keep_for_later(target, mine)
    return content


def _indexes(target: Store, shards: Sequence[Mapping[str, Any]], config: RunConfig) -> dict[str, Any]:
    """Make the indexes beside the shards, if there are any, and return what the manifest says of them."""
    kinds = config.outputs.index_kinds
    made: dict[str, Any] = {"indexes": sorted(kinds)}
    if shards and "balance" in kinds:
        from align.transforms.index.balance import make_index  # SciPy's graphs take a while to import

        threads = min(config.execution.workers or os.cpu_count() or 1, _THREADS)
        made |= make_index(target, shards, threads=threads)
    if shards and kinds - {"balance"}:
        made["loader_index"] = make_loader_indexes(target, shards, kinds - {"balance"})
    return made


def _alike_across(content: Mapping[str, Any]) -> list[Fault]:
    """A note where windows of different splits look alike: a leak that no grouping can prevent."""
    across = content.get("balance", {}).get("across_splits", 0)
    detail = f"{across} windows look like one of another split; the index says which (duplicate_of)"
    return [Fault("", None, "commit", "alike_across_splits", detail, "noted", 0)] if across else []


def _refuse_lost(target: Store, content: Mapping[str, Any]) -> None:
    """Check that every shard is there.

    Raises:
        AlignError: ``lost_shards``: what was finished has gone meanwhile.
    """
    if lost := sorted({shard["path"] for shard in content["shards"]}.difference(target.names())):
        detail = f"{lost[0]} was finished, but is no longer there: was the output touched? Run with --resume"
        raise AlignError("lost_shards", detail, stage="commit")


def _refuse_foreign(target: Store) -> None:
    """Check that no file of somebody else's lies where the commit writes.

    Raises:
        AlignError: ``foreign_file``: one was put there while the run went on.
    """
    if others := foreign_to_commit(target, target.names()):
        detail = f"{others[0]} is not of this run, but has a name that it needs; move it away, then --resume"
        raise AlignError("foreign_file", detail, stage="commit")


def _leave_only(target: Store, content: Mapping[str, Any], reports: set[str]) -> None:
    """Remove shards and indexes of attempts that cut the windows differently, and temporary files of ours."""
    known = {file["path"] for file in listed(content)}
    for name in [*former(target, known, reports), *leftovers_of(target)]:
        target.remove(name)
