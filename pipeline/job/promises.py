"""What metadata and tables promise of a recording, against what its file holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from align.schemas.errors import Fault
from align.schemas.media import MediaInfo, VideoInfo
from align.schemas.recording import Recording
from align.schemas.time import NS
from align.transforms.tables.table import ImuSurvey

_FRAMES = 3  # what rounding, and counts that are off by one, explain
_SHORTEST_NS = NS // 10
_SHARE = 500  # a 500th: 30 frames a second for 29.97 are a thousandth
_EPOCH_NS = 10**9 * NS  # September 2001: no recording is that long
_WHOLE_FILE = "duration_sec"  # this one speaks of the longest stream, whichever it is


def promise_notes(recording: Recording, media: MediaInfo) -> Iterator[Fault]:
    """Notes on a file that holds less, or more, than the metadata says, and on sentences beyond its end.

    Args:
        recording: with what is promised of it.
        media: the same, probed.
    """
    video = media.video
    if video is None:
        return
    for code, detail in (*_lengths(recording, media, video), *_sentences(recording, video)):
        yield Fault(recording.recording_id, None, "plan", code, detail, "noted", 0)


def table_notes(recording: Recording, survey: ImuSurvey, video: VideoInfo) -> Iterator[Fault]:
    """A note on an IMU table none of whose rows lie in the video: its times have another origin."""
    imu = recording.imu
    if imu is None:
        return
    start, end = (imu.clock.at(t) for t in (survey.span.start_ns, survey.span.end_ns))
    if start < video.span.end_ns and end > video.span.start_ns:
        return
    dates = f" ({_date(survey.span.start_ns)}, counted from 1970)" if survey.span.start_ns > _EPOCH_NS else ""
    detail = (
        f"{imu.name}: its times run from {_s(start)} to {_s(end)}{dates}, the video from "
        f"{_s(video.span.start_ns)} to {_s(video.span.end_ns)}: no row falls into it; their common origin is "
        "not known"
    )
    yield Fault(recording.recording_id, None, "plan", "imu_elsewhere", detail, "noted", 0)


def _date(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // NS, UTC).isoformat(sep=" ")


def _lengths(recording: Recording, media: MediaInfo, video: VideoInfo) -> Iterator[tuple[str, str]]:
    promised = recording.promised or {}
    ends = {name: _end(name, media, video) for name in promised}
    short = {n: told for n, told in promised.items() if told - ends[n] > _allowed(told, video)}
    if short:
        worst = max(short, key=lambda n: short[n] - ends[n])
        lost = _s(short[worst] - ends[worst])
        yield (
            "shorter_than_metadata",
            f"{recording.video.name} ends at {_s(ends[worst])}, the metadata says {_s(short[worst])} "
            f"({', '.join(short)}): {lost} are not in the file",
        )
    of_video = {n: told for n, told in promised.items() if n != _WHOLE_FILE}
    if not of_video:
        of_video = promised
    if of_video:
        name, told = max(of_video.items(), key=lambda item: item[1])
        more = video.span.end_ns - told
        if more > _allowed(video.span.end_ns, video):
            yield (
                "longer_than_metadata",
                f"{recording.video.name} ends at {_s(video.span.end_ns)}, the metadata says {_s(told)} "
                f"({name}): is it the same recording?",
            )


def _end(name: str, media: MediaInfo, video: VideoInfo) -> int:
    if name != _WHOLE_FILE:
        return video.span.end_ns
    return max(video.span.end_ns, media.end_ns, media.audio.span.end_ns if media.audio else 0)


def _allowed(told_ns: int, video: VideoInfo) -> int:
    return max(_FRAMES * video.frame_ns, _SHORTEST_NS, told_ns // _SHARE)


def _sentences(recording: Recording, video: VideoInfo) -> Iterator[tuple[str, str]]:
    limit = video.span.end_ns + _FRAMES * video.frame_ns
    beyond = [n for n in recording.narrations or () if n.time_ns > limit]
    if beyond:
        last = max(n.time_ns for n in beyond)
        count = "1 narration lies" if len(beyond) == 1 else f"{len(beyond)} narrations lie"
        yield (
            "narrations_beyond_end",
            f"{count} after the video's end at {_s(video.span.end_ns)}, the last at {_s(last)}: in no window",
        )


def _s(time_ns: int) -> str:
    return f"{time_ns / NS:.3f} s"
