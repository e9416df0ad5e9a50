"""Segments, the unit of reading."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from align.schemas.media import MediaInfo
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment, SoundFile
from align.schemas.recording import Narration, Recording, SyncPiece
from align.schemas.time import NS, TimeSpan
from align.transforms.plan.cost import estimate
from align.transforms.plan.windows import WindowPlan

SEGMENT_S = 300.0
SEGMENT_COST_S = 60.0


def plan_segments(
    recording: Recording,
    media: MediaInfo,
    plan: WindowPlan,
    options: AlignOptions,
    *,
    segment_cost_s: float = SEGMENT_COST_S,
    segment_s: float = SEGMENT_S,
    split: str = "train",
    sound: SoundFile | None = None,
) -> Iterator[Segment]:
    """Cut the kept windows into runs of about equal length.

    There are as many runs as keep each within ``segment_s`` of media from its first to its last start and, on
    average, within ``segment_cost_s``. Segments are references: they carry only what reading their windows
    needs, because they are what is shuffled.

    Args:
        recording: from the source.
        media: the file as probed.
        plan: its windows.
        options: for the window's length and the estimate.
        segment_cost_s: CPU seconds that one segment should take at most.
        segment_s: seconds of media that one segment should span at most.
        split: the split of the recording's group.
        sound: the recording's own file of sound, if it has one.

    Yields:
        Segments in the order of time; each kept window is in exactly one.
    """
    starts = plan.starts_ns
    if not starts:
        return
    narrations = recording.narrations
    bare = replace(recording, joints_ns=(), claimed=None)
    bare_media = replace(media, video=media.video and replace(media.video, keyframes_ns=()))
    own = sound.media.audio if sound is not None and sound.media is not None else None
    read = media if recording.sound_file is None else replace(media, audio=own)
    total = estimate(read, starts, options, apart=own is not None)
    for part in _cut(starts, max(total.cpu_s / segment_cost_s, (starts[-1] - starts[0]) / (segment_s * NS))):
        cost = estimate(read, part, options, apart=own is not None)
        reach = TimeSpan(part[0], part[-1] + options.window_ns)
        yield Segment(
            recording=replace(
                bare,
                narrations=_inside(narrations, part, options.window_ns),
                imu_sync=_holding(recording, reach),
                redacted=tuple(r for r in recording.redacted if r.touches(reach)),
            ),
            media=bare_media,
            window_ns=options.window_ns,
            starts_ns=part,
            split=split,
            cost_s=round(cost.cpu_s, 3),
            cost_bytes=cost.output_bytes,
            sound=sound,
        )


def _cut(starts: tuple[int, ...], parts: float) -> Iterator[tuple[int, ...]]:
    """Runs whose starts fall into the same one of equal parts of time, at least ``parts`` of them."""
    count = int(parts) + 1
    first, reach = starts[0], starts[-1] - starts[0] + 1
    for _, run in groupby(starts, key=lambda start: (start - first) * count // reach):
        yield tuple(run)


def _holding(recording: Recording, reach: TimeSpan) -> tuple[SyncPiece, ...]:
    """The pieces of the IMU's clock that instants of the span fall into."""
    first = recording.imu_sync_at(reach.start_ns)
    return tuple(p for p in recording.imu_sync if p == first or reach.holds(p.start_ns))


def _inside(
    narrations: tuple[Narration, ...] | None, starts: Sequence[int], length: int
) -> tuple[Narration, ...] | None:
    """Those that lie in at least one of the windows."""
    if narrations is None:
        return None
    low = bisect_left(narrations, starts[0], key=_time)
    high = bisect_left(narrations, starts[-1] + length, key=_time)
    # Among windows of one length, the last to begin by an instant reaches furthest beyond it.
    return tuple(
        n for n in narrations[low:high] if starts[bisect_right(starts, n.time_ns) - 1] + length > n.time_ns
    )


def _time(narration: Narration) -> int:
    return narration.time_ns
