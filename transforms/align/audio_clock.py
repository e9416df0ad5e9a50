"""Sound of a microphone with a clock of its own, brought to the recording clock.

A clock map is made of straight pieces. Within each, output samples stand at equal steps of the microphone's
time, which no rate fits where the clock drifts::

    recording    |--------- window ---------|
    microphone      [ piece 1 )   [ piece 2 )      each rendered by itself

Where pieces overlap on the recording clock, the earlier one stands; between them is a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from align.schemas.media import AudioTrack
from align.schemas.time import NS, ClockMap, ClockPiece, TimeSpan, count_in
from align.transforms.align.audio import (
    WindowAudio,
    finished,
    gaps_in,
    grid_index,
    merged,
    resampled,
    resampled_at,
    window_audio,
)
from align.transforms.align.margins import AUDIO_MARGIN_NS

_NEVER_NS = 1 << 62


def needed_span(window: TimeSpan, clock: ClockMap) -> TimeSpan:
    """What is to be decoded for a window, margins included, on the microphone's clock."""
    return clock.span_on_stream(window.widened(AUDIO_MARGIN_NS))


def window_audio_on(track: AudioTrack, clock: ClockMap, window: TimeSpan, rate: int) -> WindowAudio:
    """:func:`~align.transforms.align.audio.window_audio` of a track that stands on a clock of its own.

    Args:
        track: on the microphone's clock; what it does not hold counts as a gap.
        clock: from there to the recording clock.
        window: recording clock.
        rate: Hz of the output.
    """
    if clock.is_identity:
        return window_audio(track, window, rate)
    return finished(*_rendered(track, clock, window, rate), window, rate)


def sound_on(track: AudioTrack, clock: ClockMap, window: TimeSpan, rate: int) -> NDArray[np.float64]:
    """The same before rounding, without regard to gaps."""
    return resampled(track, window, rate) if clock.is_identity else _rendered(track, clock, window, rate)[0]


def _rendered(
    track: AudioTrack, clock: ClockMap, window: TimeSpan, rate: int
) -> tuple[NDArray[np.float64], tuple[TimeSpan, ...]]:
    sound, told = np.zeros(count_in(window.length_ns, rate)), window.start_ns
    gaps: list[TimeSpan] = []
    for piece, stretch in _stretches(clock, window):
        gaps.append(TimeSpan(told, stretch.start_ns))
        first, past = (min(grid_index(t, window, rate), len(sound)) for t in _ends(stretch))
        alone = ClockMap((piece,))
        if piece.drift_ppm == 0.0:
            moved = _moved(track, piece.offset_ns)
            sound[first:past] = resampled(moved, window, rate)[first:past]
            gaps += gaps_in(moved, stretch)
        else:
            start, step = _place(piece, window.start_ns + Fraction(first * NS, rate)), _step(piece, rate)
            sound[first:past] = resampled_at(track, start, step, past - first, rate)
            there = TimeSpan(*(alone.to_stream(t) for t in _ends(stretch)))
            gaps += [g for gap in gaps_in(track, there) if (g := _on(alone, gap).cut_to(stretch))]
        told = stretch.end_ns
    gaps.append(TimeSpan(told, window.end_ns))
    return sound, merged(sorted(g for g in gaps if g.length_ns))


def _stretches(clock: ClockMap, window: TimeSpan) -> Iterator[tuple[ClockPiece, TimeSpan]]:
    """The pieces that lead into a window, and the part of it that is each one's, ascending and disjoint."""
    told = window.start_ns
    for k, (piece, following) in enumerate(pairwise([*clock.pieces, None])):
        assert piece is not None
        alone = ClockMap((piece,))
        start = alone.at(piece.start_ns) if k else -_NEVER_NS
        end = alone.at(following.start_ns) if following else _NEVER_NS
        part = TimeSpan(max(start, told), max(end, start, told)).cut_to(window)
        if part is not None and part.length_ns:
            yield piece, part
            told = part.end_ns


def _ends(span: TimeSpan) -> tuple[int, int]:
    return span.start_ns, span.end_ns


def _on(clock: ClockMap, span: TimeSpan) -> TimeSpan:
    return TimeSpan(*(clock.at(t) for t in _ends(span)))


def _place(piece: ClockPiece, time_ns: Fraction) -> Fraction:
    """The exact stream time of a recording time."""
    return piece.start_ns + (time_ns - piece.start_ns - piece.offset_ns) / _gain(piece)


def _step(piece: ClockPiece, rate: int) -> Fraction:
    return Fraction(NS, rate) / _gain(piece)


def _gain(piece: ClockPiece) -> Fraction:
    return 1 + Fraction(piece.drift_ppm) / 10**6


def _moved(track: AudioTrack, offset_ns: int) -> AudioTrack:
    gaps = tuple(TimeSpan(g.start_ns + offset_ns, g.end_ns + offset_ns) for g in track.gaps)
    return replace(track, start_ns=track.start_ns + offset_ns, gaps=gaps)
