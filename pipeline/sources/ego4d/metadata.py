"""What one entry of EGO4D's ``ego4d.json`` says.

Field names and their meaning: the EGO4D documentation's ``data/metadata.md``, ``data/videos.md`` and
``data/imu.md``. Seconds are trusted, ``*_frame`` fields are not: they are off by one in places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice

from align.pipeline.sources import json_fields as fields
from align.pipeline.sources.json_fields import Fields
from align.schemas.errors import AlignError
from align.schemas.media import AudioInfo, MediaInfo, VideoInfo
from align.schemas.printable import printable
from align.schemas.recording import Concurrent
from align.schemas.time import NS, TimeSpan, round_ties_up

_AUDIO_FIELDS = ("audio_start_sec", "audio_duration_sec", "audio_duration_pts", "audio_base_denominator")
_BYTES_PER_S = 7e12 / (3670 * 3600)
"""What EGO4D's full-scale videos come to: 7 TB for 3,670 hours."""
_LONGEST_NAME = 240
"""Bytes: with an extension, what file systems allow for a name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A video or clip, with times on the recording clock, which is its own file's.

    Attributes:
        recording_id: the video's or clip's uid.
        video_uid: the canonical video; IMU and narrations go by it.
        origin_ns: where the recording clock's 0 lies on the canonical video's clock; 0 for videos.
        has_audio: False only where the metadata says that there is none.
        hides_redaction: parts are said to be blanked, but not which.
        claimed: what is said of the file.
        promised: what says so -> when the file's video or, as ``duration_sec``, the whole file ends, ns.
        bad: numbers that cannot be meant and were taken as absent, in words.
    """

    recording_id: str
    video_uid: str
    origin_ns: int
    span: TimeSpan | None
    has_audio: bool
    has_imu: bool
    stereo: bool
    scenarios: tuple[str, ...]
    joints_ns: tuple[int, ...]
    redacted: tuple[TimeSpan, ...]
    hides_redaction: bool = False
    claimed: MediaInfo | None = None
    promised: dict[str, int] = field(default_factory=dict)
    bad: tuple[str, ...] = ()


def read_uid(entry: Fields, name: str) -> str:
    """The uid of an entry; it may not be fit for a file name yet.

    Raises:
        AlignError: ``bad_metadata``; it has none.
    """
    uid = fields.text(entry, name)
    if uid is None:
        raise fields.wrong(name, uid, "a string")
    return uid


def check_file_name(uid: str) -> None:
    """Refuse a uid that could lead out of its folder or that no file can have.

    Raises:
        AlignError: ``bad_id``.
    """
    why = None
    if uid in ("", ".", ".."):
        why = "is no name"
    elif fields.clean(uid) != uid:
        why = "is not valid Unicode"
    elif any(c in "/\\" for c in uid) or printable(uid) != uid:
        why = "holds a separator, a control character or a mark of direction"
    elif len(uid.encode()) > _LONGEST_NAME:
        why = f"is longer than {_LONGEST_NAME} bytes"
    if why:
        raise AlignError("bad_id", f"the uid {uid[:80]!a} {why}, so it cannot name a file", stage="source")


def read_video(entry: Fields) -> Entry:
    """An item of ``videos``.

    Raises:
        AlignError: ``bad_metadata``; names the field.
    """
    media = fields.block(entry, "video_metadata")
    uid = read_uid(entry, "video_uid")
    bad: list[str] = []
    duration = _length(entry, "duration_sec", bad)
    span = _span(media, duration, bad)
    components = fields.blocks(entry, "video_components")
    redacted = tuple(_redacted(entry))
    tuple(links(entry))  # a video whose ties cannot be read could end up on both sides of a split
    return Entry(
        recording_id=uid,
        video_uid=uid,
        origin_ns=0,
        span=span,
        has_audio=_has_audio(media),
        has_imu=fields.flag(entry, "has_imu"),
        stereo=fields.flag(entry, "is_stereo"),
        scenarios=fields.texts(entry, "scenarios"),
        joints_ns=_joints(components, bad),
        redacted=redacted,
        hides_redaction=fields.flag(entry, "has_redacted_regions") and not redacted,
        claimed=_claimed(media, span),
        promised=_promised(media, duration, span, components),
        bad=tuple(dict.fromkeys(bad)),
    )


def read_clip(entry: Fields, video: Entry) -> Entry:
    """An item of ``clips``: times of its video, moved to the clip's own clock and cut to it.

    Raises:
        AlignError: ``bad_metadata``; names the field.
    """
    media = fields.block(entry, "clip_metadata")
    start = fields.seconds(entry, "video_start_sec")
    end = fields.seconds(entry, "video_end_sec")
    if start is None or end is None or end < start:
        raise fields.wrong("video_start_sec, video_end_sec", (start, end), "an interval")
    start = max(start, Fraction(0))  # starts of -4e-7 s have been seen
    origin_ns = round_ties_up(start * NS)
    bad: list[str] = list(video.bad)
    span = _span(media, end - start, bad)
    inside = TimeSpan(0, round_ties_up((end - start) * NS))
    moved = (TimeSpan(s.start_ns - origin_ns, s.end_ns - origin_ns) for s in video.redacted)
    return Entry(
        recording_id=read_uid(entry, "clip_uid"),
        video_uid=video.video_uid,
        origin_ns=origin_ns,
        span=span,
        has_audio=_has_audio(media),
        has_imu=video.has_imu,
        stereo=video.stereo,
        scenarios=video.scenarios,
        joints_ns=tuple(j - origin_ns for j in video.joints_ns if 0 < j - origin_ns < inside.end_ns),
        redacted=tuple(cut for s in moved if (cut := s.cut_to(inside))),
        hides_redaction=video.hides_redaction,
        claimed=_claimed(media, span),
        promised=_promised(media, None, span, []),
        bad=tuple(dict.fromkeys(bad)),
    )


def links(entry: Fields) -> Iterator[str]:
    """What ties a video to others: participant, concurrent sets, footage it is made of.

    ``fb_participant_id`` is taken as one numbering for all universities. Were it one for each, groups would
    be larger than need be, which leaks nothing.
    """
    participant = fields.integer(entry, "fb_participant_id")
    if participant is not None:
        yield f"participant-{participant}"
    yield from (f"set-{number}" for number in _concurrent_sets(entry.get("concurrent_sets")))
    origin = fields.text(entry, "origin_video_id")
    if origin:
        yield f"origin-{fields.text(entry, 'video_source')}-{origin}"
    for component in fields.blocks(entry, "video_components"):
        # A grouped video names the components of the videos that it is composed of.
        for name in ("video_component_uid", "video_uid"):
            value = fields.text(component, name)
            if value:
                yield f"footage-{value}"


def set_members(entry: Fields) -> Iterator[tuple[str, str]]:
    """An item of ``concurrent_video_sets``: each of its videos, with the link that the set is.

    Sets marked as not valid count too: their clocks may be wrong, but they still show one event.
    """
    for number in _concurrent_sets(entry.get("concurrent_video_set_id")):
        for video in fields.blocks(entry, "videos"):
            yield read_uid(video, "video_uid"), f"set-{number}"


def concurrent(entry: Fields) -> dict[str, Concurrent]:
    """An item of ``concurrent_video_sets``: uid of each of its videos -> its place in the set.

    ``video_start_offset_sec`` is documented by its name alone: it is taken as where the video's start
    stands on a clock that the set's videos share.

    Raises:
        AlignError: ``bad_metadata``; an offset is no number.
    """
    return {
        read_uid(video, "video_uid"): Concurrent(
            str(number), round_ties_up((fields.seconds(video, "video_start_offset_sec") or Fraction(0)) * NS)
        )
        for number in islice(_concurrent_sets(entry.get("concurrent_video_set_id")), 1)
        for video in fields.blocks(entry, "videos")
    }


def _concurrent_sets(value: object) -> Iterator[int | str]:
    """Ids in a field whose type the documentation leaves open."""
    if isinstance(value, dict):
        yield from _concurrent_sets(value.get("concurrent_video_set_id"))
    elif isinstance(value, list):
        for item in value:
            yield from _concurrent_sets(item)
    elif isinstance(value, int | str) and not isinstance(value, bool) and value != "":
        yield value


def _has_audio(media: Fields) -> bool:
    told = [name for name in _AUDIO_FIELDS if name in media]
    return not told or any(media[name] is not None for name in told)


def _length(entry: Fields, name: str, bad: list[str]) -> Fraction | None:
    """Seconds that are positive: a recording of no length cannot be meant."""
    length = fields.optional(fields.seconds, entry, name, bad)
    if length is not None and length <= 0:
        bad.append(fields.wrong(name, float(length), "positive").detail)
        return None
    return length


def _span(media: Fields, duration: Fraction | None, bad: list[str]) -> TimeSpan | None:
    start = _instant(media, "video_start", bad) or Fraction(0)
    length = _instant(media, "video_duration", bad)
    if length is not None and length < 0:
        bad.append(fields.wrong("video_duration", float(length), "positive").detail)
        length = None
    if length is None:
        length = duration
    if length is None:
        return None
    return TimeSpan(round_ties_up(start * NS), round_ties_up((start + length) * NS))


def _promised(
    media: Fields, duration: Fraction | None, span: TimeSpan | None, components: list[Fields]
) -> dict[str, int]:
    """What says when the file ends -> when, ns. Numbers that cannot be meant say nothing."""
    unheard: list[str] = []
    start = _instant(media, "video_start", unheard) or Fraction(0)
    length = _instant(media, "video_duration", unheard)
    frames = fields.optional(fields.integer, media, "num_frames", unheard)
    fps = media.get("fps")
    ends = [
        e
        for c in components
        if (e := fields.optional(fields.seconds, c, "canonical_video_end_sec", unheard)) is not None
    ]
    told = {
        "duration_sec": duration,
        "video_duration": None if length is None or span is None else start + length,
        "num_frames": start + Fraction(frames) / Fraction(fps)
        if frames and frames > 0 and fields.is_number(fps) and fps > 0
        else None,
        "video_components": max(ends, default=None),
    }
    limit = fields.LONGEST_S
    return {what: round_ties_up(s * NS) for what, s in told.items() if s is not None and 0 < s <= limit}


def _claimed(media: Fields, span: TimeSpan | None) -> MediaInfo | None:
    """The file as the metadata describes it, for estimates: what is not told is what most of EGO4D has."""
    if span is None:
        return None

    def told(name: str, usual: float) -> float:
        value = media.get(name)
        return value if fields.is_number(value) and 0 < value < 1 << 20 else usual

    video = VideoInfo(
        index=0,
        codec=str(media.get("video_codec") or "h264"),
        width=int(told("display_resolution_width", 1920)),
        height=int(told("display_resolution_height", 1080)),
        time_base=Fraction(1, 90_000),
        span=span,
        frame_ns=round(NS / told("fps", 30)),
        bytes_per_s=_BYTES_PER_S,
    )
    audio = AudioInfo(1, "aac", 48_000, 2, Fraction(1, 48_000), span) if _has_audio(media) else None
    return MediaInfo("mp4", video, audio)


def _instant(media: Fields, name: str, bad: list[str]) -> Fraction | None:
    """Seconds from ticks and their time base, which are exact, else from the rounded seconds."""
    ticks = fields.optional(fields.integer, media, f"{name}_pts", bad)
    numerator = fields.optional(fields.integer, media, "video_base_numerator", bad)
    denominator = fields.optional(fields.integer, media, "video_base_denominator", bad)
    told = fields.optional(fields.seconds, media, f"{name}_sec", bad)
    if ticks is None or not numerator or not denominator:
        return told
    exact = Fraction(ticks * numerator, denominator)
    if abs(exact) > fields.LONGEST_S:
        bad.append(fields.wrong(f"{name}_pts", float(exact), "a plausible number of seconds").detail)
        return told
    return exact


def _joints(components: list[Fields], bad: list[str]) -> tuple[int, ...]:
    """Boundaries between components; the first one's start and the last one's end are none."""
    spans = []
    for component in components:
        start = fields.optional(fields.seconds, component, "canonical_video_start_sec", bad)
        end = fields.optional(fields.seconds, component, "canonical_video_end_sec", bad)
        if start is not None and end is not None:
            spans.append((start, end))
    spans.sort()
    inner = {start for start, _ in spans[1:]} | {end for _, end in spans[:-1]}
    return tuple(sorted({round_ties_up(second * NS) for second in inner}))


def _redacted(entry: Fields) -> Iterator[TimeSpan]:
    spans = []
    for interval in fields.blocks(entry, "redacted_intervals"):
        ends = [fields.seconds(interval, name) for name in ("start_sec", "end_sec")]
        known = sorted(max(end, Fraction(0)) for end in ends if end is not None)
        if len(known) < 2:
            # Guessing would show what somebody asked to have blanked.
            raise fields.wrong("redacted_intervals", dict(interval), "a pair of start_sec and end_sec")
        spans.append(TimeSpan(round_ties_up(known[0] * NS), round_ties_up(known[1] * NS)))
    yield from sorted(spans)
