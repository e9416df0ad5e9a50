"""From one recording's metadata to its segments: probes the header, plans windows, surveys the IMU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from align.pipeline import access
from align.pipeline.config import RunConfig
from align.pipeline.job.input_files import look, streams_of
from align.pipeline.job.promises import promise_notes, table_notes
from align.pipeline.sources import find_source
from align.schemas.errors import AlignError, Fault, Reason, UsageError
from align.schemas.media import MediaInfo, VideoInfo
from align.schemas.plan import ImuRange, Segment, SoundFile
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS, TimeSpan
from align.transforms.align.margins import IMU_MARGIN_NS
from align.transforms.plan.segments import plan_segments
from align.transforms.plan.splits import parse_splits, split_of
from align.transforms.plan.windows import plan_windows
from align.transforms.tables.table import ImuSurvey, imu_range


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


def list_recordings(config: RunConfig) -> Iterator[Recording | Fault]:
    """What the source knows, from metadata alone.

    Raises:
        UsageError: a file of splits puts recordings of one group into different splits; the table of clocks
            is none.
    """
    if config.inputs.clocks:
        from align.pipeline.job.measured_clocks import measured_clocks

        measured_clocks(config)
    offered = find_source(config.inputs.source)(config.inputs)
    return _assigned(offered, config) if config.outputs.assignments else offered


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
    if config.outputs.assignments:
        named = config.outputs.assignments
        return named.get(recording.recording_id) or named.get(recording.group_id)
    return split_of(recording.group_id, parse_splits(config.outputs.split), config.outputs.seed)


def plan_recording(recording: Recording, config: RunConfig, *, survey: bool = True) -> RecordingPlan:
    """Plan one recording; a recording that cannot be read is a fault that accounts for its windows.

    Args:
        recording: from the source.
        config: the run.
        survey: read through the IMU table to learn its units, rates and where its rows lie.
    """
    if config.inputs.clocks:
        from align.pipeline.job.measured_clocks import with_measured_clock

        recording = with_measured_clock(recording, config)
    inputs = tuple(look(stream) for stream in streams_of(recording)) if survey else ()
    try:
        media = _claimed(recording) if config.execution.trust_metadata else access.probe(recording, config)
        video = access.usable_video(recording.video, media, config)
        payload = (
            None if config.execution.trust_metadata else round(video.bytes_per_s * video.span.length_ns / NS)
        )
        plan = plan_windows(recording, video.span, video.keyframes_ns, config.sample, payload=payload)
    except AlignError as error:
        return _unreadable(recording, config, error)
    faults = [*_notes(recording, media, video, config, plan.planned), *_restarts(recording, media)]
    if not config.execution.trust_metadata:
        faults += promise_notes(recording, media)
    recording = replace(recording, promised=None)
    faults += [
        Fault(recording.recording_id, start, "plan", code, detail, "skipped")
        for start, code, detail in plan.skipped
    ]
    split = _split(recording, config) or ""
    sound, notes = _sound(recording, config)
    faults += notes
    segments = plan_segments(
        recording, media, plan, config.sample, split=split, segment_s=config.outputs.segment, sound=sound
    )
    if survey and recording.imu is not None and plan.starts_ns:
        imu, notes = _survey(recording, config)
        faults += notes
        if isinstance(imu, ImuSurvey):
            faults += table_notes(recording, imu, video)
        segments = (replace(s, imu=_rows_of(s, imu)) for s in segments)
    segments = (replace(s, inputs=inputs) for s in segments)
    return RecordingPlan(recording.recording_id, plan.planned, tuple(segments), tuple(faults))


def _claimed(recording: Recording) -> MediaInfo:
    if recording.claimed is None:
        detail = f"the metadata says nothing of {recording.video.name}; plan without --trust-metadata"
        raise AlignError("no_metadata", detail, stage="plan")
    return recording.claimed


def _unreadable(recording: Recording, config: RunConfig, error: AlignError) -> RecordingPlan:
    try:
        windows = plan_windows(recording, recording.span, (), config.sample).planned if recording.span else 0
    except AlignError:
        windows = 0
    named = error.naming(recording.video.uri, recording.video.name)
    fault = Fault(recording.recording_id, None, named.stage, named.code, named.detail, "failed", windows)
    return RecordingPlan(recording.recording_id, windows, (), (fault,))


def _notes(
    recording: Recording, media: MediaInfo, video: VideoInfo, config: RunConfig, planned: int
) -> Iterator[Fault]:
    """What costs no window and yet should be known."""
    notes = [(f"no_{kind}", why) for kind, why in recording.absent.items()]
    if video.is_nominal:
        detail = (
            f"{recording.video.name} is an AVI: its pictures have places on a grid, and no times of their own"
        )
        notes.append(("nominal_times", detail))
    if video.has_layers:
        detail = f"{recording.video.name} is spatial video (MV-HEVC): its pictures are the base view"
        notes.append(("base_view", detail))
    closed = media.closed_of("audio") if recording.audio is not None and media.audio is None else None
    if closed is not None:
        notes.append((closed.reason, f"{recording.video.name}: {closed}"))
    if config.sample.anchor == "keyframe" and not video.keyframes_ns:
        notes.append(("no_keyframes", f"{recording.video.name} lists no keyframes; use --anchor grid"))
    if video.shortfall_ns > video.frame_ns:
        lost, name = f"the last {video.shortfall_ns / NS:.3f} s", recording.video.name
        notes.append(
            ("shorter_than_header", f"{name}: {lost} of what its header promises are not in the file")
        )
    if not planned:
        shown = f"{video.span.length_ns / NS:.3f} s of video, {config.sample.window_ns / NS:g} s a window"
        notes.append(("no_windows", f"no window lies wholly inside {recording.video.name}: {shown}"))
    for code, detail in notes:
        yield Fault(recording.recording_id, None, "plan", code, detail, "noted", 0)


def _sound(recording: Recording, config: RunConfig) -> tuple[SoundFile | None, list[Fault]]:
    """The recording's own file of sound; a note where it cannot be read."""
    stream = recording.sound_file
    if stream is None or config.execution.trust_metadata:
        return None, []
    try:
        media = access.probe_sound(stream, config)
    except AlignError as found:
        reason = Reason.NOT_RECORDED if found.code == "no_audio" else Reason.INVALID
        return SoundFile(None, reason), [_noted(recording, stream, found)]
    return SoundFile(replace(media, video=None)), []


def _noted(recording: Recording, stream: Stream, found: AlignError) -> Fault:
    error = found.naming(stream.uri, stream.name)
    return Fault(recording.recording_id, None, "probe", error.code, error.detail, "noted", 0)


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
        survey = access.survey(recording.imu, config)
    except AlignError as found:
        fault = _noted(recording, recording.imu, found)
        return ImuRange(missing=Reason.INVALID, detail=fault.detail), [fault]
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
