"""One recording at a glance: streams, clocks, gaps and faults, from its packets' own times.

Nothing is decoded: timestamps, keyframes and corrupt flags stand on the packets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median_low

import av
from av.packet import Packet

from align.schemas.errors import AlignError
from align.schemas.media import ClosedTrack
from align.schemas.recording import ImuColumns
from align.schemas.time import NS, TimeSpan, ticks_to_ns
from align.transforms.read.container import clock_offset_ns
from align.transforms.read.guard import open_bytes, open_media
from align.transforms.read.nominal import is_nominal, lacks_order, presented
from align.transforms.read.timeline import Timeline, packet_tolerance_ns, tolerance_ns
from align.transforms.read.track import Track
from align.transforms.read.tracks import closed_tracks, track_of, tracks_of
from align.transforms.tables.table import survey_imu

# A packet that starts later than this after the end of the one before leaves a gap.
_TOLERANCE_NS = 2_000_000
_PACKETS = 5_000  # between two signs of life
_MOST_GAPS = 1_000


@dataclass(frozen=True, slots=True)
class StreamView:
    """One stream on the recording clock.

    Attributes:
        name: e.g. ``0 video h264 1920x1080``.
        span: from the first to the end of the last packet; None for a stream without packets.
        facts: what is worth knowing, in words.
        gaps: stretches without packets or rows.
        faults: what is wrong, in words.
    """

    name: str
    span: TimeSpan | None
    facts: tuple[str, ...]
    gaps: tuple[TimeSpan, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(slots=True)
class _Times:
    """Presentation times gathered from packets."""

    spans: list[TimeSpan] = field(default_factory=list)
    keyframes: int = 0
    corrupt: int = 0
    frame_ns: int = 0
    restarts: int = 0
    timeline: Timeline = field(init=False)

    def __post_init__(self) -> None:
        self.timeline = self.new()

    def new(self) -> Timeline:
        """What watches that time goes one way."""
        return Timeline(tolerance_ns(self.frame_ns))


def inspect_media(path: str) -> tuple[StreamView, ...]:
    """Every stream of a media file.

    Raises:
        AlignError: the file cannot be opened.
    """
    with closing(open_media(path)) as container, closing(open_bytes(path)) as file:
        tracks = tracks_of(file, container.format.name)
        offset = clock_offset_ns(container)
        times = {s.index: _Times(frame_ns=_frame_ns(s)) for s in container.streams}
        fault = _gather(container, times, offset)
        closed = {t.index: t for t in closed_tracks(container, tracks)}
        return tuple(
            _view(s, track_of(tracks, s), closed.get(s.index), times[s.index], offset, fault)
            for s in container.streams
        )


def inspect_imu(path: str, columns: ImuColumns) -> StreamView:
    """An IMU table as a stream.

    Raises:
        AlignError: it is no IMU table.
    """
    survey = survey_imu(path, columns)
    rates = f"gyro {survey.gyro_rate_hz:.2f} Hz, accl {survey.accl_rate_hz:.2f} Hz"
    facts = (f"{survey.rows:,} rows", rates)
    return StreamView(f"imu {Path(path).name}", survey.span, facts, survey.gaps, survey.notes)


def _gather(container: av.container.InputContainer, times: dict[int, _Times], offset: int) -> str | None:
    """Take all packets' times; gives what stopped it, if anything did."""
    try:
        packets: Iterator[Packet[av.stream.Stream]] = container.demux()
        for stream in container.streams:
            if lacks_order(container, stream):
                packets = presented((p for p in packets if p.size), stream)
        for packet in packets:
            if packet.pts is None or packet.time_base is None or packet.is_discard:
                continue
            base = Fraction(packet.time_base)
            start = ticks_to_ns(packet.pts, base) - offset
            found = times.setdefault(packet.stream_index, _Times())
            found.spans.append(TimeSpan(start, start + max(ticks_to_ns(packet.duration or 0, base), 0)))
            decoded = start if packet.dts is None else ticks_to_ns(packet.dts, base) - offset
            if found.timeline.ends_before(decoded, packet_tolerance_ns(packet)):
                found.restarts, found.timeline = found.restarts + 1, found.new()
            found.keyframes += packet.is_keyframe
            found.corrupt += packet.is_corrupt
    except av.error.FFmpegError as error:
        return f"reading stopped: {error.strerror}"
    except IndexError:  # PyAV's, of a stream that begins in mid-file, as MPEG-TS allows
        return "reading stopped: a stream begins in mid-file"
    return None


def _frame_ns(stream: av.stream.Stream) -> int:
    rate = stream.average_rate if isinstance(stream, av.VideoStream) else None
    return round(NS / rate) if rate else 0


def _name(stream: av.stream.Stream, track: Track) -> str:
    """What a stream is; of what cannot be decoded, what the header calls it."""
    is_known = stream.codec_context is not None
    if not is_known:
        word = "unknown codec" if stream.type in ("video", "audio") else "no decoder"
        called = f" ({track.codec})" if track.codec else ""
        return f"{stream.index} {stream.type} {word}{called}"
    size = f" {stream.width}x{stream.height}" if isinstance(stream, av.VideoStream) else ""
    return f"{stream.index} {stream.type} {stream.codec_context.name}{size}"


def _view(
    stream: av.stream.Stream,
    track: Track,
    closed: ClosedTrack | None,
    times: _Times,
    offset: int,
    fault: str | None,
) -> StreamView:
    name = _name(stream, track)
    faults = [f"{closed.reason}: {closed}"] if closed else []
    faults += [fault] if fault else []
    if times.corrupt:
        faults.append(f"{times.corrupt} corrupt packets")
    if times.restarts:
        faults.append(f"clock restarts: {times.restarts}; only what precedes the first is used")
    if not times.spans:
        return StreamView(name, None, ("no packets",), faults=tuple(faults))
    times.spans.sort()
    gaps = list(_gaps(times.spans)) if stream.type in ("video", "audio") else []
    if len(gaps) > _MOST_GAPS:
        faults.append(f"{len(gaps):,} gaps, of which the {_MOST_GAPS:,} longest are shown")
        gaps = sorted(sorted(gaps, key=lambda g: -g.length_ns)[:_MOST_GAPS])
    span = TimeSpan(times.spans[0].start_ns, max(s.end_ns for s in times.spans))
    claimed = stream.duration and ticks_to_ns(stream.duration, Fraction(stream.time_base or 0))
    if claimed and span.length_ns < 0.98 * claimed:
        faults.append(f"the header claims {claimed / NS:.3f} s, {span.length_ns / NS:.3f} s are there")
    return StreamView(name, span, tuple(_facts(stream, track, times, offset)), tuple(gaps), tuple(faults))


def _facts(stream: av.stream.Stream, track: Track, times: _Times, offset: int) -> Iterator[str]:
    if isinstance(stream, av.VideoStream):
        steps = [b.start_ns - a.start_ns for a, b in pairwise(times.spans)]
        step = median_low(steps) if steps else 0
        if step:
            varies = max(steps) - min(steps) > step // 2
            yield f"{NS / step:.3f} fps{', variable' if varies else ''}"
        yield f"{len(times.spans):,} frames, {times.keyframes:,} keyframes"
        if is_nominal(stream.container):
            yield "times by the container's grid, none of their own"
        if track.crop:
            left, top, width, height = track.crop
            yield f"{width}x{height} of it to be seen, from {left}, {top} on"
    elif isinstance(stream, av.AudioStream) and stream.codec_context is not None:
        yield f"{stream.codec_context.sample_rate} Hz, {stream.codec_context.channels} channels"
    else:
        yield f"{len(times.spans):,} packets"
    if offset:
        yield f"clock moved by {-offset / NS:+.6f} s"


def _gaps(spans: list[TimeSpan]) -> Iterator[TimeSpan]:
    """Stretches that no packet covers."""
    end = spans[0].end_ns
    for before, span in pairwise(spans):
        if span.start_ns - end > max(_TOLERANCE_NS, before.length_ns // 2):
            yield TimeSpan(end, span.start_ns)
        end = max(end, span.end_ns)


def looks_like_dataset(path: str) -> bool:
    """Whether a folder holds a committed data set.

    Raises:
        AlignError: the path is not there, or a folder without a manifest.
    """
    if not Path(path).exists():
        raise AlignError("missing_file", f"{path} is not there", stage="usage")
    if Path(path).is_dir() and not (Path(path) / "manifest.json").is_file():
        detail = f"{path} is a folder without a manifest.json: name a media file, or a finished data set"
        raise AlignError("not_a_dataset", detail, stage="usage")
    return Path(path).is_dir()
