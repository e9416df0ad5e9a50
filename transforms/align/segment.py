"""One segment in, its samples out: opens each stream once and builds window after window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from typing import BinaryIO

from av.container import InputContainer

from align.schemas.errors import AlignError, Fault, Reason
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.sample import Sample
from align.schemas.time import TimeSpan
from align.transforms.align.margins import AUDIO_MARGIN_NS, IMU_MARGIN_NS
from align.transforms.align.sound_file import own_sounds
from align.transforms.align.window import ImuSource, WindowBuilder, WindowSound, anchor_time, frame_times
from align.transforms.read.demux import WindowMedia, WindowRequest, read_media
from align.transforms.read.guard import open_probed
from align.transforms.read.kept_file import KeptFile
from align.transforms.stages import count, stage
from align.transforms.tables.table import read_imu

Opener = Callable[[str], BinaryIO]

# What a required modality lacks for these reasons was lost to a fault, not left out by a rule.
_FAULTY = (Reason.DECODE_ERROR, Reason.INVALID)


def align_segment(
    segment: Segment,
    options: AlignOptions,
    config_sha256: str,
    opener: Opener | None = None,
    file: KeptFile | None = None,
) -> Iterator[Sample | Fault]:
    """The samples of a segment's windows, in order; a window that gives none gives a fault.

    Every window ends as exactly one sample or one fault that accounts for one window.

    Args:
        segment: what to read.
        options: what a window is and what is taken from it.
        config_sha256: names the configuration in each sample's provenance.
        opener: opens remote files; None reads local paths.
        file: keeps the media file open for the next segment; without it, it is closed.
    """
    done = 0
    try:
        for item in _samples(segment, options, config_sha256, opener, file):
            done += 1
            yield item
    except AlignError as error:
        for start in segment.starts_ns[done:]:
            yield _failed(segment, start, error)


def _samples(
    segment: Segment, options: AlignOptions, config_sha256: str, opener: Opener | None, file: KeptFile | None
) -> Iterator[Sample | Fault]:
    requests = [_request(segment, window, options) for window in segment.windows]
    imu = _imu_source(segment, opener)
    own = own_sounds(segment, opener)
    video = segment.media.video
    kept = None if video is not None and video.is_reconfigured else file  # a new one knows where it stands
    with _opened(segment, opener, kept) as container, closing(own):
        for media in read_media(container, segment.media, requests, max_pixels=options.max_pixels):
            sound = _sound_within(segment, media) if segment.recording.sound_file is None else next(own)
            builder = WindowBuilder(segment, options, media, sound, imu, config_sha256)
            count("align", 1)
            try:
                yield _unless_required(builder.sample(), options.require)
            except AlignError as error:
                yield _failed(segment, media.request.window.start_ns, error)


def _opened(
    segment: Segment, opener: Opener | None, file: KeptFile | None
) -> AbstractContextManager[InputContainer]:
    uri, media = segment.recording.video.uri, segment.media
    return closing(open_probed(uri, media, opener)) if file is None else file.open(uri, opener, media)


def _request(segment: Segment, window: TimeSpan, options: AlignOptions) -> WindowRequest:
    with_audio = segment.recording.sound_file is None and segment.audio is not None
    return WindowRequest(
        window=window,
        targets_ns=tuple(sorted({anchor_time(window), *frame_times(window, options.frames)})),
        audio=window.widened(AUDIO_MARGIN_NS) if with_audio else None,
    )


def _sound_within(segment: Segment, media: WindowMedia) -> WindowSound:
    """The sound that the master file holds."""
    video = segment.media.video
    closed = segment.media.closed_of("audio") if segment.recording.audio is not None else None
    return WindowSound(
        segment.audio,
        media,
        video.clock_offset_ns if video else 0,
        missing=Reason.NOT_RECORDED if closed is None else Reason(closed.reason),
    )


def _imu_source(segment: Segment, opener: Opener | None) -> ImuSource:
    stream, where = segment.recording.imu, segment.imu
    if stream is None or stream.columns is None or where is None:
        return ImuSource(missing=Reason.NOT_RECORDED)
    if where.missing is not None:
        return ImuSource(missing=where.missing)
    reach = TimeSpan(segment.starts_ns[0], segment.starts_ns[-1] + segment.window_ns)
    try:
        with stage("read"):
            wide = reach.widened(IMU_MARGIN_NS)
            track = read_imu(stream.uri, where, stream.clock, wide, stream.columns, opener)
    except AlignError:
        return ImuSource(missing=Reason.DECODE_ERROR)
    at = stream.clock.at
    span = where.span and TimeSpan(at(where.span.start_ns), at(where.span.end_ns))
    return ImuSource(track, span)


def _unless_required(sample: Sample, require: tuple[str, ...]) -> Sample | Fault:
    for modality in require:
        reason = sample.missing.get(modality)
        if reason is None and (modality != "text" or sample.text):
            continue
        detail = f"{modality} is required and the window has none ({reason or 'no narration inside'})"
        place = (sample.recording_id, sample.window.start_ns, "align")
        if reason in _FAULTY:
            return Fault(*place, str(reason), detail, "failed")
        code = reason if reason == Reason.REDACTED else f"missing_{modality}"
        return Fault(*place, str(code), detail, "skipped")
    return sample


def _failed(segment: Segment, start_ns: int, error: AlignError) -> Fault:
    video = segment.recording.video
    named = error.naming(video.uri, video.name)
    return Fault(segment.recording.recording_id, start_ns, named.stage, named.code, named.detail)
