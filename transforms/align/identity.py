"""What of a sample follows from its segment alone, without a look at any media."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from align.schemas.plan import Segment
from align.schemas.sample import Provenance
from align.schemas.time import TimeSpan
from align.transforms.align.text import narrations_in, strip_tags
from align.transforms.plan.windows import sample_key
from align.transforms.write.row import well_formed


def provenance(segment: Segment, config_sha256: str) -> Provenance:
    """What made the samples of a segment."""
    recording, media = segment.recording, segment.media
    info, imu = segment.audio, recording.imu
    audio = recording.audio if info else None
    return Provenance(
        video=recording.video.name,
        video_stream=media.video.index if media.video else 0,
        audio=audio.name if audio else None,
        audio_stream=info.index if audio and info else None,
        imu=imu.name if imu else None,
        clock_offset_ns=media.video.clock_offset_ns if media.video else 0,
        imu_clock=None if imu is None or imu.clock.is_identity else repr(imu.clock.pieces),
        config_sha256=config_sha256,
    )


def columns_of_segment(segment: Segment, config_sha256: str) -> dict[str, Any]:
    """The columns that all rows of a segment share."""
    recording = segment.recording
    return {
        "source": recording.source,
        "recording_id": well_formed(recording.recording_id),
        "group_id": well_formed(recording.group_id),
        "split": segment.split,
        "scenarios": well_formed(list(recording.scenarios)),
        "provenance": well_formed(asdict(provenance(segment, config_sha256))),
    }


def columns_of_window(segment: Segment, window: TimeSpan) -> dict[str, Any]:
    """The columns of one row that are known beside those of its segment, before anything is read."""
    recording = segment.recording
    told = None if recording.narrations is None else narrations_in(recording.narrations, window)
    return {
        "key": sample_key(recording.source, recording.recording_id, window.start_ns),
        "start_ns": window.start_ns,
        "end_ns": window.end_ns,
        "text": None if told is None else [well_formed(strip_tags(n.raw)) for n in told],
        "text_raw": None if told is None else [well_formed(n.raw) for n in told],
        "text_times_ns": None if told is None else [n.time_ns for n in told],
    }
