"""What the graph's steps do, as plain functions: count shards, write one, commit the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from importlib.metadata import version
from typing import Any

from align.pipeline.config import RunConfig, digest
from align.pipeline.progress import Heartbeat
from align.pipeline.storage import opener_for
from align.pipeline.stores import store
from align.schemas.errors import Fault
from align.schemas.plan import Segment
from align.schemas.sample import Sample
from align.transforms.align.segment import align_segment
from align.transforms.plan.segments import shard_count
from align.transforms.write.card import write_card
from align.transforms.write.commit import Store
from align.transforms.write.manifest import count, manifest, write_failures, write_manifest
from align.transforms.write.shard import ShardReport, ShardSpec, finished_report, write_shard
from align.transforms.write.stats import merge_all, write_stats

ShardKey = tuple[str, int, int]
"""Split, index of the shard within it, number of its shards."""

Losses = tuple[bool, int, tuple[Fault, ...]]
"""Of one recording: whether it was offered at all, its planned windows, and what planning lost of them."""


@dataclass(frozen=True, slots=True)
class SplitTotals:
    """Per split: estimated bytes, estimated CPU seconds, segments."""

    sums: dict[str, tuple[int, float, int]] = field(default_factory=dict)

    def plus(self, segment: Segment) -> SplitTotals:
        """With one segment more."""
        return self._with(segment.split, (segment.cost_bytes, segment.cost_s, 1))

    def _with(self, split: str, more: tuple[int, float, int]) -> SplitTotals:
        size, cost, count = self.sums.get(split, (0, 0.0, 0))
        return SplitTotals({**self.sums, split: (size + more[0], cost + more[1], count + more[2])})

    @classmethod
    def merged(cls, several: Iterable[SplitTotals]) -> SplitTotals:
        """All together."""
        pairs = [pair for totals in several for pair in totals.sums.items()]
        return reduce(lambda total, pair: total._with(*pair), pairs, cls())

    def shards(self, split: str, shard_size: int) -> int:
        """How many shards the split is written to."""
        size, cost, count = self.sums[split]
        return shard_count(size, shard_size, cost, count)


def write_one_shard(
    key: ShardKey, segments: Iterable[Segment], config: RunConfig, heartbeat: Heartbeat
) -> ShardReport:
    """Write the shard of some segments, or take over what an earlier run finished of it."""
    split, index, total = key
    ordered = sorted(segments, key=lambda s: (s.recording.recording_id, s.starts_ns))
    spec = ShardSpec(
        split=split,
        index=index,
        total=total,
        formats=config.formats,  # type: ignore[arg-type]
        seed=config.seed,
        audio_rate=config.options.audio_rate,
        imu_rate=config.options.imu_rate,
        fingerprint=shard_fingerprint(config, ordered),
    )
    target = store(config.output)
    finished = finished_report(target, spec) if config.resume else None
    if finished is not None:
        heartbeat.add(written=finished.samples, lost=len(finished.faults))
        return finished
    return write_shard(spec, _counted(ordered, config, heartbeat), target)


def shard_fingerprint(config: RunConfig, segments: Sequence[Segment]) -> str:
    """Names all that a shard's content depends on: configuration and what its segments read."""
    parts = [[s.recording.video.name, s.key, len(s.starts_ns), s.starts_ns[-1], s.recording.group_id] for s in segments]
    return digest([config.as_manifest(), parts])


def _counted(
    segments: Iterable[Segment], config: RunConfig, heartbeat: Heartbeat
) -> Iterator[Sample | Fault]:
    for segment in segments:
        opener = opener_for(segment.recording.video.uri)
        for item in align_segment(segment, config.options, config.sample_sha256, opener):
            heartbeat.add(**({"lost": 1} if isinstance(item, Fault) else {"written": 1}))
            yield item


def commit_run(config: RunConfig, reports: Sequence[ShardReport], losses: Sequence[Losses]) -> dict[str, Any]:
    """Write statistics, failures, card and, last, the manifest.

    Returns:
        The manifest.

    Raises:
        AlignError: ``lost_windows`` if planned is not written + skipped + failed: nothing is committed then.
    """
    target = store(config.output)
    faults = [fault for _, _, lost in losses for fault in lost]
    faults += [fault for report in reports for fault in report.faults]
    planned = sum(windows for _, windows, _ in losses)
    content = manifest(
        align_version=version("multimodal-align"),
        source=config.source,
        config=config.as_manifest(),
        config_sha256=config.sample_sha256,
        files=[file for report in reports for file in report.files],
        counts=count(sum(offered for offered, _, _ in losses), planned, reports, faults),
    )
    statistics = write_stats(target, merge_all(report.statistics for report in reports))
    write_failures(target, faults)
    write_card(target, content, statistics)
    _remove_others(target, {file["path"] for file in content["shards"]})
    write_manifest(target, content)
    for name in [n for n in target.names() if n.startswith("_work/")]:
        target.remove(name)
    return content


def _remove_others(target: Store, listed: set[str]) -> None:
    """Remove shards of an earlier attempt that cut the same windows differently."""
    shards = {name for name in target.names() if name.endswith((".parquet", ".tar"))}
    for name in sorted(shards - listed):
        target.remove(name)
