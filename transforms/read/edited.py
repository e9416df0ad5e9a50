"""Reads what an edit list of several stretches shows: each stretch by a clock of its own, piece by piece.

Media is read by its own times; a stretch of an edit list is then nothing but another offset between those and
the recording clock, for as long as it lasts::

    media        0···|=A=|···········|===B===|···
    recording        |=A=|===B===|               A: media - a;  B: media - b

A window that crosses a joint takes its pictures and its sound from both sides. The frame at an instant is the
last one whose media time is not after it, as everywhere; one that began before its stretch does is shown
from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from av.audio.stream import AudioStream

from align.schemas.media import AudioInfo, AudioTrack, Edit, Edits, MediaInfo, VideoInfo
from align.schemas.time import NS, TimeSpan, round_ties_up
from align.transforms.read.audio import decode_audio
from align.transforms.read.frames import DecodedFrame
from align.transforms.read.requests import AudioPiece, WindowMedia, WindowRequest

ReadOne = Callable[[MediaInfo, WindowRequest, int], WindowMedia]
"""Reads one window of one stream: media, window, and what is subtracted from media times."""


def read_edited(
    read: ReadOne, media: MediaInfo, requests: Iterable[WindowRequest], sound: AudioStream | None
) -> Iterator[WindowMedia]:
    """Read windows, in the order given.

    Args:
        read: reads a window by one clock.
        media: the file, probed, with edits.
        requests: on the recording clock.
        sound: the stream of the sound.
    """
    for request in requests:
        frames, error = _frames(read, media, request)
        pieces = _sound(read, media, request)
        stream = None if pieces is None else sound
        yield WindowMedia(request, frames, (), stream, error, pieces)


def _frames(
    read: ReadOne, media: MediaInfo, request: WindowRequest
) -> tuple[tuple[DecodedFrame | None, ...], str]:
    found: dict[int, DecodedFrame | None] = {}
    error = ""
    if media.video is not None and media.video.edits is not None:
        for edit in media.video.edits.pieces:
            targets = tuple(t for t in request.targets_ns if edit.span.holds(t))
            if not targets:
                continue
            alone = MediaInfo(media.format, _unedited(media.video, media.video.edits, edit), None)
            part = read(alone, WindowRequest(request.window, targets), edit.offset_ns)
            error = error or part.frame_error
            found.update((t, _shown(f, edit)) for t, f in zip(targets, part.frames, strict=True))
    return tuple(found.get(t) for t in request.targets_ns), error


def _unedited(info: VideoInfo, edits: Edits, edit: Edit) -> VideoInfo:
    """The whole of the media on a stretch's clock."""
    span = _moved(edits.media, edit)
    return replace(info, span=span, clock_offset_ns=edit.offset_ns, keyframes_ns=(), edits=None)


def _moved(media: TimeSpan, edit: Edit) -> TimeSpan:
    return TimeSpan(media.start_ns - edit.offset_ns, media.end_ns - edit.offset_ns)


def _shown(frame: DecodedFrame | None, edit: Edit) -> DecodedFrame | None:
    """A frame that began before its stretch is shown from the stretch's start on."""
    if frame is None or frame.time_ns >= edit.span.start_ns:
        return frame
    return DecodedFrame(edit.span.start_ns, frame.frame)


def _sound(read: ReadOne, media: MediaInfo, request: WindowRequest) -> tuple[AudioPiece, ...] | None:
    info, wanted = media.audio, request.audio
    if info is None or info.edits is None or wanted is None:
        return None
    pieces = []
    for edit in info.edits.pieces:
        span = edit.span.cut_to(wanted)
        if span is not None and span.length_ns:
            own = replace(info, span=_moved(info.edits.media, edit), edits=None)
            part = read(MediaInfo(media.format, None, own), WindowRequest(span, (), span), edit.offset_ns)
            pieces.append(AudioPiece(span, edit.offset_ns, part.audio_packets))
    return tuple(pieces)


def decode_sound(found: WindowMedia, stream: AudioStream, info: AudioInfo, offset_ns: int) -> AudioTrack:
    """A window's sound, of one stretch or of several.

    Args:
        found: the window's packets.
        stream: the stream they came from.
        info: of the sound.
        offset_ns: subtracted from container times where there are no edits.

    Raises:
        AlignError: as :func:`~align.transforms.read.audio.decode_audio`.
    """
    span = found.request.audio
    assert span is not None
    if found.audio_pieces is None:
        return decode_audio(found.audio_packets, stream, info, span, clock_offset_ns=offset_ns)
    tracks = [
        (p.span, decode_audio(p.packets, stream, info, p.span, clock_offset_ns=p.offset_ns))
        for p in found.audio_pieces
    ]
    return _joined(tracks, span, info.rate)


def _joined(tracks: Sequence[tuple[TimeSpan, AudioTrack]], span: TimeSpan, rate: int) -> AudioTrack:
    """Pieces of one rate on one sample grid, a layer for each rate, that of the longest piece first."""
    if not tracks:
        return AudioTrack(rate, Fraction(span.start_ns), np.empty(0, np.float32), (span,))
    parts = [(part, one) for part, track in tracks for one in (track, *track.layers)]
    longest = max((track for _, track in tracks), key=lambda t: len(t.samples))
    rates = dict.fromkeys([longest.rate, *(one.rate for _, one in parts)])
    layers = [_alike([(part, one) for part, one in parts if one.rate == each]) for each in rates]
    recorded = [r for part, track in tracks for r in _without(part, track.gaps)]
    gaps = tuple(g for g in _without(span, recorded) if g.length_ns > NS // rate)
    return replace(layers[0], gaps=gaps, rate_ppm=longest.rate_ppm, layers=tuple(layers[1:]))


def _alike(tracks: Sequence[tuple[TimeSpan, AudioTrack]]) -> AudioTrack:
    """Pieces on the sample grid of the longest; others are moved to it by at most half a sample."""
    base = max((t for _, t in tracks), key=lambda t: len(t.samples))
    rate = base.rate
    places = [round_ties_up((t.start_ns - base.start_ns) * rate / NS) for _, t in tracks]
    first = min(places)
    count = max(p + len(t.samples) for p, (_, t) in zip(places, tracks, strict=True)) - first
    samples, filled = np.zeros(count, np.float32), np.zeros(count, np.bool_)
    for place, (_, track) in zip(places, tracks, strict=True):
        part = slice(place - first, place - first + len(track.samples))
        np.copyto(samples[part], track.samples, where=~filled[part])
        filled[part] = True
    holes = np.flatnonzero(~filled[1:-1] & filled[:-2] & filled[2:]) + 1  # by rounding at a joint
    samples[holes] = (samples[holes - 1] + samples[holes + 1]) / 2
    return AudioTrack(rate, base.start_ns + first * NS / Fraction(rate), samples)


def _without(span: TimeSpan, taken: Iterable[TimeSpan]) -> Iterator[TimeSpan]:
    """What of a span other spans do not cover."""
    at = span.start_ns
    for other in sorted(taken):
        if other.start_ns > at:
            yield TimeSpan(at, min(other.start_ns, span.end_ns))
        at = min(max(at, other.end_ns), span.end_ns)
    if at < span.end_ns:
        yield TimeSpan(at, span.end_ns)
