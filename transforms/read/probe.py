"""Reads what a container says of itself: its streams, their spans and where the keyframes stand.

Nothing is decoded unless the header leaves the first frame in doubt, and of an MP4 only the header and the
first packets are read: times of later packets follow from its sample tables, so their bytes are not fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice, pairwise
from statistics import median_low
from typing import cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from align.schemas.errors import AlignError
from align.schemas.media import AudioInfo, ClosedTrack, MediaInfo, VideoInfo
from align.schemas.time import NS, TimeSpan, round_ties_up, ticks_to_ns
from align.transforms.read.container import clock_offset_ns, packets_of, rewind, time_base
from align.transforms.read.edit_lists import (
    EditList,
    edit_lists,
    edited_audio,
    edited_video,
    refuse_speed,
)
from align.transforms.read.guard import Opener, open_bytes, open_media
from align.transforms.read.nominal import is_nominal
from align.transforms.read.payload import Payload
from align.transforms.read.restarts import survey_clocks
from align.transforms.read.track import Track
from align.transforms.read.tracks import closed_tracks, track_of, tracks_of

_FIRST_PACKETS = 32
_MANY_SAMPLES, _MOST_SAMPLES = 500_000, 20_000_000
_LEAST_BYTES = 8  # of a picture that is like the one before: some 12 in H.264, 9 in HEVC
_NO_PARSE = 0x20  # AVFMT_FLAG_NOPARSE, libavformat/avformat.h


def probe_media(
    uri: str,
    *,
    video_index: int | None = None,
    audio_index: int | None = None,
    opener: Opener | None = None,
) -> MediaInfo:
    """Probe a media file.

    Args:
        uri: local path, or whatever ``opener`` understands.
        video_index: the stream to take as video; None takes the default one, else the lowest.
        audio_index: the same for audio.
        opener: opens the URI as a seekable file object.

    Returns:
        The streams chosen; ``video`` or ``audio`` is None where the container holds none that has data and
        can be decoded; ``closed`` names those that cannot.

    Raises:
        AlignError: what :func:`~align.transforms.read.guard.open_media` raises; ``no_such_stream`` where an
            index is not of its kind; ``bad_container`` where the packets cannot be read at all.
    """
    file = Payload(open_bytes(uri, opener))
    try:
        media = _probed(uri, file, video_index, audio_index)
        by_tables, remote = _has_tables(media.format, file), opener is not None
        clocks = survey_clocks(file.part, file.size, media, by_tables=by_tables, remote=remote)
        if clocks.restart is None:
            return _sounding_until(clocks.sound_end_ns, media)
        first = Payload(file.part(0, clocks.restart.byte))
        return replace(_probed(uri, first, video_index, audio_index), restart=clocks.restart)
    finally:
        file.close()


def _sounding_until(end_ns: int | None, media: MediaInfo) -> MediaInfo:
    """The same, where sound goes on far beyond what the header tells: live and joined files."""
    audio, offset_ns = media.audio, media.video.clock_offset_ns if media.video is not None else 0
    if audio is None or end_ns is None or end_ns - offset_ns < audio.span.end_ns + NS:
        return media
    span = TimeSpan(audio.span.start_ns, end_ns - offset_ns)
    return replace(media, audio=replace(audio, span=span))


def _probed(uri: str, file: Payload, video_index: int | None, audio_index: int | None) -> MediaInfo:
    """What a file says, whether its clock goes one way or not."""
    container = open_media(uri, lambda _: file)
    try:
        tracks = tracks_of(file, container.format.name)
        closed = {t.index: t for t in closed_tracks(container, tracks)}
        video = choose_stream(container, "video", video_index, closed)
        audio = choose_stream(container, "audio", audio_index, closed)
        found = _Found(file, tracks, tuple(closed.values()))
        lists = _edit_lists(container, file)
        for stream in (video, audio):
            if stream is not None:
                refuse_speed(lists, stream.id, stream.type)
        if not all(lists[s.id].is_plain for s in (video, audio) if s is not None and s.id in lists):
            indexes = [None if s is None else s.index for s in (video, audio)]
            container.close()
            file.seek(0)
            container = open_media(uri, lambda _: file, by_media_time=True)
            return _edited(container, found, lists, *indexes)
        return _described(container, found, video, audio)
    except av.error.FFmpegError as e:
        raise AlignError("bad_container", f"{uri!r} cannot be demuxed: {e.strerror}", stage="probe") from e
    finally:
        container.close()


@dataclass(frozen=True, slots=True)
class _Found:
    """What a file's header says beside what libavformat tells."""

    file: Payload
    tracks: Mapping[int, Track]
    closed: tuple[ClosedTrack, ...]


def _described(
    container: InputContainer, found: _Found, video: Stream | None, audio: Stream | None
) -> MediaInfo:
    shown = None
    if isinstance(video, VideoStream):
        shown = _video_info(container, video, found.file, track_of(found.tracks, video))
    return MediaInfo(
        format=container.format.name,
        video=shown,
        audio=_audio_info(container, audio) if isinstance(audio, AudioStream) else None,
        streams=tuple(_describe(s) for s in container.streams),
        closed=found.closed or None,
        end_ns=_header_end_ns(container),
    )


def _edit_lists(container: InputContainer, file: Payload) -> dict[int, EditList]:
    if not _has_tables(container.format.name, file):
        return {}
    whole = file.part(0, None)

    def read(at: int, size: int) -> bytes:
        whole.seek(at)
        return whole.read(size)

    return edit_lists(read, file.size)


def _edited(
    container: InputContainer,
    found: _Found,
    lists: dict[int, EditList],
    video: int | None,
    audio: int | None,
) -> MediaInfo:
    """The same, of a file that was opened without its edit lists; they are applied to what is found."""
    streams = [None if index is None else container.streams[index] for index in (video, audio)]
    media = _described(container, found, *streams)
    shown, played = media.video, media.audio
    if shown is not None:
        shown = edited_video(shown, lists.get(container.streams[shown.index].id))
    if played is not None:
        played = edited_audio(played, lists.get(container.streams[played.index].id))
    return replace(media, video=shown, audio=played)


def _has_tables(format_name: str, file: Payload) -> bool:
    """Whether a header lists all packets, as that of an MP4 without fragments."""
    return "mov" in format_name.split(",") and not file.is_fragmented


def choose_stream(
    container: InputContainer, kind: str, index: int | None, closed: Mapping[int, ClosedTrack]
) -> Stream | None:
    """The stream asked for; else the first one marked default, else the first; never a cover picture.

    Streams that cannot be decoded are passed over.
    """
    if index is not None:
        if index in closed and closed[index].kind == kind:
            return None
        asked = container.streams[index] if 0 <= index < len(container.streams) else None
        if asked is None or asked.type != kind or asked.codec_context is None:
            raise AlignError(
                "no_such_stream", f"stream {index} is not {kind} of a known codec", stage="probe"
            )
        return asked
    real = [s for s in container.streams if s.type == kind and not s.disposition & Disposition.attached_pic]
    filled = [s for s in real if s.index not in closed and s.time_base and not _is_empty(s)]
    return min(filled, key=lambda s: (not s.disposition & Disposition.default, s.index), default=None)


def no_video(media: MediaInfo, name: str) -> AlignError:
    """Why a medium gives no picture: it holds none, or none that can be decoded."""
    closed = media.closed_of("video")
    if closed is None:
        return AlignError("no_video", f"{name} holds no video stream; check the file", stage="probe")
    return AlignError(closed.reason, f"{name}: {closed}", stage="probe")


def _is_empty(stream: Stream) -> bool:
    """An MP4 track without samples: declared, with a duration, but never recorded."""
    return (
        "mov" in stream.container.format.name and stream.start_time is None and not len(stream.index_entries)
    )


def _header_end_ns(container: InputContainer) -> int:
    """The total of libavformat leaves out subtitles and data, which a movie's header counts."""
    ends = [
        ticks_to_ns((s.start_time or 0) + s.duration, s.time_base)
        for s in container.streams
        if s.duration and s.time_base
    ]
    if container.duration is not None:
        ends.append(ticks_to_ns((container.start_time or 0) + container.duration, Fraction(1, av.time_base)))
    return max(max(ends, default=0) - clock_offset_ns(container), 0)


def _describe(stream: Stream) -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
    return f"{stream.index} {stream.type} {codec}"


@dataclass(frozen=True, slots=True)
class _Timed:
    """A packet's times in ticks of its stream, its size, and the byte of the file after it.

    ``delay`` is how long after its decoding it is shown.
    """

    pts: int
    duration: int
    keyframe: bool
    shown: bool
    size: int
    ends_at: int
    delay: int


def _timed_packets(container: InputContainer, stream: Stream) -> Iterator[_Timed]:
    """Packets with a presentation time."""
    for packet in packets_of(container, [stream]):
        if packet.pts is not None:
            shown, size = not packet.is_discard, packet.size
            ends_at = (packet.pos or 0) + size
            delay = 0 if packet.dts is None else packet.pts - packet.dts
            yield _Timed(packet.pts, packet.duration or 0, packet.is_keyframe, shown, size, ends_at, delay)


def _first_packets(container: InputContainer, stream: Stream) -> list[_Timed]:
    """Packets up to the first few that are shown: an edit list may hide a whole group of pictures."""
    first: list[_Timed] = []
    shown = 0
    for packet in _timed_packets(container, stream):
        first.append(packet)
        shown += packet.shown
        if shown == _FIRST_PACKETS:
            break
    return first


def _video_info(
    container: InputContainer, stream: VideoStream, file: Payload, track: Track
) -> VideoInfo | None:
    first = _first_packets(container, stream)
    if not first:
        return None
    offset = clock_offset_ns(container)
    base = time_base(stream)
    frame_ticks = _frame_ticks(first, stream)
    shown = (p.pts for p in first if p.shown)
    start = _first_shown(container, stream, first)
    by_tables = _has_tables(container.format.name, file)
    survey = _survey_tables(container, stream, file) if by_tables else _survey_tail(container, stream)
    # A duration far below the frame distance is a muxer's placeholder (Matroska written without one).
    end = survey.last_pts + (survey.last_ticks if 2 * survey.last_ticks >= frame_ticks else frame_ticks)
    span = TimeSpan(ticks_to_ns(start, base) - offset, ticks_to_ns(max(end, start), base) - offset)
    # Sample tables may claim any size, and many samples may lie in the same bytes.
    size = min(survey.size, file.size) or max(container.size, 0)
    return VideoInfo(
        index=stream.index,
        codec=stream.codec_context.codec.canonical_name,
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        time_base=base,
        span=span,
        frame_ns=max(1, round_ties_up(frame_ticks * base * NS)),
        clock_offset_ns=offset,
        frames=stream.frames,
        keyframes_ns=tuple(ticks_to_ns(k, base) - offset for k in survey.keyframes),
        keyframe_delay_ns=None if survey.delay is None else ticks_to_ns(survey.delay, base),
        bytes_per_s=size * NS / span.length_ns if span.length_ns else 0.0,
        sample_aspect=stream.sample_aspect_ratio or Fraction(1),
        shortfall_ns=ticks_to_ns(max(survey.promised - survey.held, 0), base),
        crop=track.crop,
        is_reconfigured=track.entries > 1 or None,
        has_layers=track.has_layers or None,
        is_nominal=is_nominal(container) or None,
        slow_age_ns=_slow_age_ns([*(() if by_tables else shown), *survey.times], base),
    )


def _frame_ticks(packets: list[_Timed], stream: VideoStream) -> int:
    """The usual distance of frames: measured, since headers of some muxers claim 1000 frames a second."""
    shown = sorted({p.pts for p in packets if p.shown})
    if len(shown) > 1:
        return median_low(b - a for a, b in pairwise(shown))
    rate = stream.average_rate
    return packets[0].duration or (round(1 / (rate * time_base(stream))) if rate else 1) or 1


def _slow_age_ns(times: Sequence[int], base: Fraction) -> int | None:
    """Three median distances of frames where that is more than a second: of time-lapses, slides, webcams."""
    if len(times) < 2 or 6 * (max(times) - min(times)) * base <= len(times) - 1:
        return None  # no more than half of the distances can be as long as twice their mean
    ascending = sorted(set(times))
    age_ns = round_ties_up(3 * median_low(b - a for a, b in pairwise(ascending)) * base * NS)
    return age_ns if age_ns > NS else None


def _first_shown(container: InputContainer, stream: VideoStream, packets: list[_Timed]) -> int:
    """Presentation time of the first frame that a decoder puts out.

    It is the lowest time of the first packets. Only where they do not begin with a keyframe, or where
    pictures precede that keyframe in display order (and may refer to others that were cut off), is it found
    by decoding.
    """
    lowest = min((p.pts for p in packets if p.shown), default=packets[0].pts)
    head = packets[0]
    if head.keyframe and (not head.shown or lowest >= head.pts):
        return lowest
    decoded = _first_decoded(container, stream)
    return lowest if decoded is None else decoded


def _first_decoded(container: InputContainer, stream: VideoStream, packets: int = 300) -> int | None:
    rewind(container)
    for packet in islice(packets_of(container, [stream]), packets):
        try:
            frames = stream.codec_context.decode(cast("Packet[VideoStream]", packet))
        except av.error.FFmpegError:
            continue
        for frame in frames:
            if frame.pts is not None and not frame.is_corrupt:
                return frame.pts
    return None


@dataclass(frozen=True, slots=True)
class _Survey:
    """What lies between the first packets and the end; times in ticks.

    Attributes:
        last_pts: time of the last frame.
        last_ticks: its duration.
        keyframes: times of those that an index lists.
        size: bytes of all packets; 0 where that is not known.
        promised: when the video ends by the header; 0 where it does not say.
        held: when what the file holds ends.
        delay: a keyframe is shown at most so long after its decoding; None where that is not known.
        times: of all frames, or of those at the end where only the ends of the file were read.
    """

    last_pts: int
    last_ticks: int
    keyframes: tuple[int, ...]
    size: int = 0
    promised: int = 0
    held: int = 0
    delay: int | None = None
    times: Sequence[int] = ()


def _survey_tables(container: InputContainer, stream: VideoStream, file: Payload) -> _Survey:
    """Every packet of an MP4 with complete sample tables, at some 3 µs each and without reading any.

    The index itself would not do: it holds decoding times. Parsers are off, for they would see zeros.
    """
    _refuse_sample_bomb(stream, file)
    file.blank = True
    container.flags |= _NO_PARSE
    rewind(container)
    last, size, keyframes, held = (stream.start_time or 0, 0), 0, [], None
    times: list[int] = []
    delay, least = 0, 0  # of keyframes the longest, of all packets the shortest
    for packet in _timed_packets(container, stream):
        size += packet.size
        least = min(least, packet.delay)
        if packet.shown:
            last = max(last, (packet.pts, packet.duration))
            times.append(packet.pts)
            if packet.keyframe:
                keyframes.append(packet.pts)
                delay = max(delay, packet.delay)
            if packet.ends_at > file.size:
                held = packet.pts if held is None else min(held, packet.pts)
    end = sum(last)
    held = end if held is None else held
    return _Survey(*last, tuple(sorted(keyframes)), size, end, held, None if least < 0 else delay, times)


def _refuse_sample_bomb(stream: VideoStream, file: Payload) -> None:
    """Refuse more pictures than a file of that size can hold: looking at each would take minutes.

    Raises:
        AlignError: ``bad_container``.
    """
    count = max(stream.frames, len(stream.index_entries))
    if count > _MANY_SAMPLES and (count > _MOST_SAMPLES or file.size < count * _LEAST_BYTES):
        detail = f"its header lists {count} pictures in {file.size} bytes: it is damaged or made to be"
        raise AlignError("bad_container", detail, stage="probe")


def _survey_tail(container: InputContainer, stream: VideoStream) -> _Survey:
    """The packets after the last keyframe that can be sought; the keyframes, where an index lists them."""
    # Matroska's cues are presentation times; other formats here keep no index before they are read.
    cues = stream.index_entries if "matroska" in container.format.name else ()
    keyframes = tuple(sorted({e.timestamp for e in cues if e.is_keyframe}))
    for seek in (_seek_near_end, rewind):
        try:
            seek(container)
        except av.error.FFmpegError:
            continue
        shown = [(p.pts, p.duration) for p in _timed_packets(container, stream) if p.shown]
        if shown:
            last = max(shown)
            times = [pts for pts, _ in shown]
            return _Survey(*last, keyframes, promised=_tagged_end(stream), held=sum(last), times=times)
    return _Survey(stream.start_time or 0, stream.duration or 0, keyframes)


def _tagged_end(stream: VideoStream) -> int:
    """When the video ends by the tag that Matroska's muxers write of each track, in ticks; 0 without one."""
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag is None:
        return 0
    hours, minutes, seconds = (Fraction(part) for part in tag.groups())
    return int((hours * 3600 + minutes * 60 + seconds) / time_base(stream))


def _seek_near_end(container: InputContainer) -> None:
    end = (container.start_time or 0) + (container.duration or 0)
    container.seek(max(end - 2_000_000, container.start_time or 0))


def _audio_info(container: InputContainer, stream: AudioStream) -> AudioInfo:
    base = time_base(stream)
    offset = clock_offset_ns(container)
    start = ticks_to_ns(stream.start_time or 0, base)
    if stream.duration is not None:
        end = start + ticks_to_ns(stream.duration, base)
    else:
        microseconds = (container.start_time or 0) + (container.duration or 0)
        end = ticks_to_ns(microseconds, Fraction(1, av.time_base))
    return AudioInfo(
        index=stream.index,
        codec=stream.codec_context.codec.canonical_name,
        rate=stream.codec_context.sample_rate,
        channels=stream.codec_context.channels,
        time_base=base,
        span=TimeSpan(start - offset, max(end, start) - offset),
    )
