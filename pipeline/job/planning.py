"""From one recording's metadata to its segments: probes the header, plans windows, surveys the IMU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from align.pipeline.config import RunConfig
from align.pipeline.process.isolation import borrow
from align.pipeline.sources import SourceOptions, find_source
from align.pipeline.storage.files import leaves, opener_for
from align.schemas.errors import AlignError, Fault, Reason, UsageError
from align.schemas.media import MediaInfo, VideoInfo
from align.schemas.plan import ImuRange, Segment
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS, TimeSpan
from align.transforms.align.margins import IMU_MARGIN_NS
from align.transforms.plan.segments import plan_segments
from align.transforms.plan.splits import parse_splits, split_of
from align.transforms.plan.windows import plan_windows
from align.transforms.read.probe import probe_media
from align.transforms.tables.table import ImuSurvey, imu_range, survey_imu


@dataclass(frozen=True, slots=True)
class RecordingPlan:
    """What one recording contributes: ``windows`` planned = in segments + in faults.

    ``offered`` is False for a fault of the source that belongs to no usable recording.
    """

    recording_id: str
    windows: int
    segments: tuple[Segment, ...]
    faults: tuple[Fault, ...]
    offered: bool = True


def source_options(config: RunConfig) -> SourceOptions:
    """The part of the configuration that selects recordings."""
    return SourceOptions(
        input=config.input,
        media=config.media,
        recordings=config.recordings,
        limit=config.limit,
        scenarios=config.scenarios,
        exclude=config.exclude,
    )


def list_recordings(config: RunConfig) -> Iterator[Recording | Fault]:
    """What the source knows, from metadata alone.

    Raises:
        UsageError: a file of splits puts recordings of one group into different splits; the table of clocks
            is none.
    """
    if config.clocks:
        from align.pipeline.job.measured_clocks import measured_clocks

        measured_clocks(config)
    offered = find_source(config.source)(source_options(config))
    return _assigned(offered, config) if config.assignments else offered


def _assigned(offered: Iterator[Recording | Fault], config: RunConfig) -> Iterator[Recording | Fault]:
    """What the file of splits names; the rest is noted."""
    splits: dict[str, str] = {}
    for item in offered:
        split = _split(item, config) if isinstance(item, Recording) else None
        if isinstance(item, Recording) and split is None:
            detail = f"the file of splits names neither it nor its group {item.group_id}"
            yield Fault(item.recording_id, None, "plan", "no_split", detail, "noted", 0)
        elif isinstance(item, Recording) and splits.setdefault(item.group_id, str(split)) != split:
            other = splits[item.group_id]
            detail = (
                f"recording {item.recording_id} is in {split}, others of its group {item.group_id} in {other}"
            )
            raise UsageError(f"--split: {detail}; a group (participant) must stay on one side")
        else:
            yield item


def _split(recording: Recording, config: RunConfig) -> str | None:
    """The recording's split; None where a file of splits does not name it."""
    if config.assignments:
        named = config.assignments
        return named.get(recording.recording_id) or named.get(recording.group_id)
    return split_of(recording.group_id, parse_splits(config.splits), config.seed)


def plan_recording(recording: Recording, config: RunConfig, *, survey: bool = True) -> RecordingPlan:
    """Plan one recording; a recording that cannot be read is a fault that accounts for its windows.

    Args:
        recording: from the source.
        config: the run.
        survey: read through the IMU table to learn its units, rates and where its rows lie.
    """
    if config.clocks:
        from align.pipeline.job.measured_clocks import with_measured_clock

        recording = with_measured_clock(recording, config)
    try:
        media = _claimed(recording) if config.trust_metadata else _probe(recording.video, config)
        video = _check_video(recording, media, config)
        plan = plan_windows(recording, video.span, video.keyframes_ns, config.options)
    except AlignError as error:
        return _unreadable(recording, config, error)
    faults = [*_notes(recording, video, config, plan.planned), *_restarts(recording, media)]
    faults += [
        Fault(recording.recording_id, start, "plan", code, detail, "skipped")
        for start, code, detail in plan.skipped
    ]
    split = _split(recording, config) or ""
    segments = plan_segments(recording, media, plan, config.options, split=split, segment_s=config.segment_s)
    if survey and recording.imu is not None and plan.starts_ns:
        imu, notes = _survey(recording, config)
        faults += notes
        segments = (replace(s, imu=_rows_of(s, imu)) for s in segments)
    return RecordingPlan(recording.recording_id, plan.planned, tuple(segments), tuple(faults))


def _refuse_links(stream: Stream, config: RunConfig) -> None:
    if not config.allow_symlinks and leaves(stream.uri, config.input):
        detail = f"{stream.name} is a link out of the input folder; add --allow-symlinks if it is meant"
        raise AlignError("link_outside", detail, stage="probe")


def _claimed(recording: Recording) -> MediaInfo:
    if recording.claimed is None:
        detail = f"the metadata says nothing of {recording.video.name}; plan without --trust-metadata"
        raise AlignError("no_metadata", detail, stage="plan")
    return recording.claimed


def _probe(stream: Stream, config: RunConfig) -> MediaInfo:
    _refuse_links(stream, config)
    if not config.isolate:
        return probe_media(stream.uri, video_index=stream.index, opener=opener_for(stream.uri))
    with borrow(config) as decoder:
        return decoder.probe(stream.uri, stream.index)


def _check_video(recording: Recording, media: MediaInfo, config: RunConfig) -> VideoInfo:
    name, video = recording.video.name, media.video
    if video is None:
        raise AlignError("no_video", f"{name} holds no video stream; check the file", stage="probe")
    if video.width * video.height > config.options.max_pixels:
        detail = f"{name} is {video.width} x {video.height} pixels; raise --max-pixels to decode it"
        raise AlignError("too_many_pixels", detail, stage="probe")
    return video


def _unreadable(recording: Recording, config: RunConfig, error: AlignError) -> RecordingPlan:
    try:
        windows = plan_windows(recording, recording.span, (), config.options).planned if recording.span else 0
    except AlignError:
        windows = 0
    named = error.naming(recording.video.uri, recording.video.name)
    fault = Fault(recording.recording_id, None, named.stage, named.code, named.detail, "failed", windows)
    return RecordingPlan(recording.recording_id, windows, (), (fault,))


def _notes(recording: Recording, video: VideoInfo, config: RunConfig, planned: int) -> Iterator[Fault]:
    """What costs no window and yet should be known."""
    notes = [(f"no_{kind}", why) for kind, why in recording.absent.items()]
    if config.options.anchor == "keyframe" and not video.keyframes_ns:
        notes.append(("no_keyframes", f"{recording.video.name} lists no keyframes; use --anchor grid"))
    if video.shortfall_ns > video.frame_ns:
        lost, name = f"the last {video.shortfall_ns / NS:.3f} s", recording.video.name
        notes.append(
            ("shorter_than_header", f"{name}: {lost} of what its header promises are not in the file")
        )
    if not planned:
        shown = f"{video.span.length_ns / NS:.3f} s of video, {config.options.window_ns / NS:g} s a window"
        notes.append(("no_windows", f"no window lies wholly inside {recording.video.name}: {shown}"))
    for code, detail in notes:
        yield Fault(recording.recording_id, None, "plan", code, detail, "noted", 0)


def _restarts(recording: Recording, media: MediaInfo) -> Iterator[Fault]:
    """What of the file belongs to another clock."""
    restart = media.restart
    if restart is not None:
        detail = (
            f"{recording.video.name}: the clock restarts at byte {restart.byte}; "
            f"{restart.lost_ns / NS:.3f} s in {restart.lost_bytes} bytes from there on are not used; "
            "cut the file there to use them"
        )
        yield Fault(recording.recording_id, None, "plan", "clock_restarted", detail, "noted", 0)


def _survey(recording: Recording, config: RunConfig) -> tuple[ImuSurvey | ImuRange, list[Fault]]:
    assert recording.imu is not None
    try:
        _refuse_links(recording.imu, config)
        survey = survey_imu(recording.imu.uri, opener=opener_for(recording.imu.uri))
    except AlignError as found:
        error = found.naming(recording.imu.uri, recording.imu.name)
        fault = Fault(recording.recording_id, None, "probe", error.code, error.detail, "noted", 0)
        return ImuRange(missing=Reason.INVALID, detail=error.detail), [fault]
    return survey, [
        Fault(recording.recording_id, None, "probe", "imu_note", n, "noted", 0) for n in survey.notes
    ]


def _rows_of(segment: Segment, imu: ImuSurvey | ImuRange) -> ImuRange:
    if isinstance(imu, ImuRange):
        return imu
    stream = segment.recording.imu
    assert stream is not None
    first, last = segment.starts_ns[0], segment.starts_ns[-1] + segment.window_ns
    reach = TimeSpan(first, last).widened(IMU_MARGIN_NS)
    return imu_range(imu, stream.clock.span_on_stream(reach))
