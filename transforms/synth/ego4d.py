"""The EGO4D metadata files of synthetic recordings, as plain JSON values and CSV text."""

from __future__ import annotations

import uuid
from bisect import bisect_left
from itertools import pairwise
from typing import Any

from align.schemas.time import NS
from align.transforms.synth.media import Measured, MeasuredFile
from align.transforms.synth.options import SynthOptions
from align.transforms.synth.truth import RecordingTruth, Truth

_SCENARIO = {"walking": "Walking", "pan": "Looking around", "static": "Standing still"}


def ego4d_json(truth: Truth, files: list[MeasuredFile]) -> dict[str, Any]:
    """The content of ``ego4d.json``; ``files`` are the measured videos, in the order of the recordings."""
    pairs = zip(truth.recordings, files, strict=True)
    return {
        "date": "synthetic",
        "version": "v2.1",
        "description": "synthetic recordings with known truth: see truth.json",
        "videos": [_video(truth.options, recording, found) for recording, found in pairs],
        "clips": [],
        "concurrent_video_sets": _concurrent_sets(truth),
        "physical_settings": [],
    }


def _concurrent_sets(truth: Truth) -> list[dict[str, Any]]:
    """All recordings are of one event, or none; where each begins is known as from a clock on a wall."""
    clocks = [(r.recording_id, r.event_clock) for r in truth.recordings if r.event_clock is not None]
    videos = [
        {
            "concurrent_video_set_id": 1,
            "video_uid": uid,
            "video_start_offset_sec": float(round(clock.at(0) / NS)),
        }
        for uid, clock in clocks
    ]
    return [{"concurrent_video_set_id": 1, "valid": True, "videos": videos}] if videos else []


def narration_json(truth: Truth) -> dict[str, Any]:
    """The content of ``annotations/narration.json``."""
    return {r.recording_id: _narrated(r, float(truth.options.fps)) for r in truth.recordings if r.narrations}


def manifest_csv(folder: str, uids: list[str], kind: str) -> str:
    """The content of a ``manifest.csv``."""
    lines = [f"{uid},s3://synthetic/{folder}/{uid}.{kind},{kind}" for uid in uids]
    return "\n".join(["video_uid,canonical_s3_location,type", *lines, ""])


def _narrated(recording: RecordingTruth, fps: float) -> dict[str, Any]:
    session = str(uuid.uuid5(uuid.UUID(recording.recording_id), "narrations"))
    narrations = [
        {
            "timestamp_sec": time_ns / NS,
            "timestamp_frame": round(time_ns / NS * fps),
            "_unmapped_timestamp_sec": time_ns / NS,
            "narration_text": sentence,
            "annotation_uid": session,
        }
        for time_ns, sentence in recording.narrations or ()
    ]
    return {"narration_pass_1": {"narrations": narrations, "summaries": []}, "status": "complete"}


def _video(options: SynthOptions, recording: RecordingTruth, found: MeasuredFile) -> dict[str, Any]:
    uid, metadata = recording.recording_id, _metadata(options, found)
    imu = f"s3://synthetic/imu/{uid}.csv" if recording.imu_rows else None
    return {
        "video_uid": uid,
        # Where the video ends on the canonical clock; a container that starts late is shorter.
        "duration_sec": recording.end_ns / NS,
        "scenarios": [_SCENARIO[options.motion]],
        "video_metadata": metadata,
        "split_em": None,
        "split_av": None,
        "split_fho": None,
        "s3_path": f"s3://synthetic/full_scale/{uid}.mp4",
        "origin_video_id": f"synthetic-{options.seed}-{recording.index}",
        "video_source": "synthetic",
        "device": "align synth",
        "physical_setting_name": None,
        "fb_participant_id": recording.index + 1,
        "is_stereo": False,
        "has_imu": bool(recording.imu_rows),
        "has_gaze": False,
        "imu_s3_path": imu,
        "imu_manifold_path": None,
        "gaze_s3_path": None,
        "gaze_manifold_path": None,
        "video_components": _components(recording, metadata),
        "concurrent_sets": None,
        "has_redacted_regions": bool(recording.redacted),
        "redacted_intervals": [
            {
                "start_sec": span.start_ns / NS,
                "end_sec": span.end_ns / NS,
                "start_frame": bisect_left(recording.frame_times_ns, span.start_ns),
                "end_frame": bisect_left(recording.frame_times_ns, span.end_ns),
            }
            for span in recording.redacted
        ],
        "gaps": None,
    }


def _components(recording: RecordingTruth, whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The camera files that were joined; their media is not kept, so its start and length are null."""
    bounds = [recording.frame_times_ns[0], *recording.joints_ns, recording.end_ns]
    nulls = {"video_start_sec": None, "video_duration_sec": None} if len(bounds) > 2 else {}
    return [
        {
            "video_component_uid": str(uuid.uuid5(uuid.UUID(recording.recording_id), f"component {k}")),
            "video_uid": recording.recording_id,
            "component_idx": k,
            "redacted": bool(recording.redacted),
            "canonical_video_start_sec": start / NS,
            "canonical_video_end_sec": end / NS,
            "canonical_video_start_frame": bisect_left(recording.frame_times_ns, start),
            "canonical_video_end_frame": bisect_left(recording.frame_times_ns, end) - 1,
            "video_metadata": whole | nulls,
        }
        for k, (start, end) in enumerate(pairwise(bounds))
    ]


def _metadata(options: SynthOptions, found: MeasuredFile) -> dict[str, Any]:
    return {
        "fps": float(options.fps),
        "num_frames": len(found.video.pts),
        "video_codec": options.codec,
        "display_resolution_width": options.width,
        "display_resolution_height": options.height,
        "sample_resolution_width": options.width,
        "sample_resolution_height": options.height,
        "mp4_duration_sec": found.duration_s,
        **_stream("video", found.video),
        **_stream("audio", found.audio),
    }


def _stream(kind: str, found: Measured | None) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(
        ("start_sec", "duration_sec", "start_pts", "duration_pts", "base_numerator", "base_denominator")
    )
    if found is not None:
        values = {
            "start_sec": float(found.start * found.time_base),
            "duration_sec": float(found.duration * found.time_base),
            "start_pts": found.start,
            "duration_pts": found.duration,
            "base_numerator": found.time_base.numerator,
            "base_denominator": found.time_base.denominator,
        }
    return {f"{kind}_{name}": value for name, value in values.items()}
