"""Offset and drift between two recordings of one event, from their sound.

As for the gyro, agreement decides: windows are searched one by one over all offsets, and only where enough of
them arrive at one line by themselves is that line believed. How well it is known depends on the paths of the
sound. Between microphones that stand still, all windows agree to a fraction of a millisecond. Between people
who move and speak by turns, each metre of difference shifts what is heard by 2.9 ms.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from align.schemas.media import AudioTrack
from align.schemas.recording import SyncStatus
from align.schemas.time import NS, TimeSpan, seconds_to_ns
from align.transforms.align.audio import resampled
from align.transforms.sync.gcc_phat import Floats, Sound
from align.transforms.sync.line import MAX_DRIFT, Candidate, Line, fit_line
from align.transforms.sync.sound_search import (
    AGREES,
    LEAST_WINDOWS,
    LIKE_BEST,
    WINDOW_S,
    CloseLook,
    Hear,
    Search,
)

_MOST_WINDOWS = 60
_SHARE = 0.6  # of the windows in which both are heard must agree
_UNHEARD = 0.25  # a share of agreeing windows below which nothing is shared
_RIVALRY = 0.8
_ECHO = 0.55  # an echo this loud beside the common peak: in one room it misleads all windows alike
_PATHS_SIGMA = 4e-3  # seconds; what moving paths may leave in a line, however many windows there are
_SHARPEST = 10e-3  # seconds; a vaguer line is no measurement


@dataclass(frozen=True, slots=True)
class SoundMatch:
    """How one sound's clock leads to another's.

    Attributes:
        status: ``verified``, ``refuted`` (both are heard, and share nothing) or ``unobservable``.
        line: seconds to add to the other's times, over this one's time; None unless verified.
        windows: in how many both are heard.
        agreeing: how many of them agree with one line.
        reason: in words.
        centres: float64 [windows], seconds.
        offsets: float64 [windows], what each window says by itself, seconds.
        agrees: bool [windows].
    """

    status: SyncStatus
    line: Line | None
    windows: int
    agreeing: int
    reason: str
    centres: Floats = field(default_factory=lambda: np.empty(0))
    offsets: Floats = field(default_factory=lambda: np.empty(0))
    agrees: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))


def match_sounds(here: Sound, there: Sound, reach: float = 5.0) -> SoundMatch:
    """Offset and drift of ``there`` against ``here``, both in memory.

    Args:
        here: the clock to reach.
        there: at most ``reach`` seconds and 1000 ppm away.
        reach: seconds searched on both sides.
    """
    return match(hearing(here), hearing(there), here.start, here.end, reach=reach)


def hearing(sound: Sound) -> Hear:
    """Hears what is in memory."""
    start_ns = seconds_to_ns(Fraction(sound.start))
    track = AudioTrack(round(sound.rate), Fraction(start_ns), np.asarray(sound.samples, np.float32))
    return lambda spans, rate: (heard(track, span, rate) for span in spans)


def heard(track: AudioTrack, span: TimeSpan, rate: int) -> Sound:
    """A span of a track, at another rate."""
    return Sound(rate, span.start_ns / NS, resampled(track, span, rate))


def match(
    here: Hear, there: Hear, start: float, end: float, *, expected: float = 0.0, reach: float = 5.0
) -> SoundMatch:
    """Offset and drift of ``there`` against ``here``; decodes only what some windows need.

    Args:
        here: the clock to reach.
        there: the clock to measure.
        start: of what both may hold, seconds of ``here``.
        end: of the same.
        expected: seconds to add to the times of ``there``, as far as known.
        reach: seconds searched on both sides of it.
    """
    count = int(min((end - start) // WINDOW_S, _MOST_WINDOWS))
    if count < LEAST_WINDOWS:
        reason = f"too short: {max(count, 0)} windows of {WINDOW_S:g} s, {LEAST_WINDOWS} are needed"
        return SoundMatch("unobservable", None, max(count, 0), 0, reason)
    search = Search.over(here, there, np.linspace(start, end - WINDOW_S, count), expected, reach)
    found = search.line()
    if found is None or len(search.starts) < LEAST_WINDOWS:
        reason = f"both are heard in {len(search.starts)} of {count} windows only"
        return SoundMatch("unobservable", None, len(search.starts), 0, reason)
    close = CloseLook.along(found.line, here, there, search)
    if len(close.search.starts) < LEAST_WINDOWS:
        reason = f"both are heard in {len(close.search.starts)} of {count} windows only"
        return SoundMatch("unobservable", None, len(close.search.starts), 0, reason)
    return _judged(found, close, reach)


def _judged(found: Candidate, close: CloseLook, reach: float) -> SoundMatch:
    search, count = close.search, len(close.search.starts)
    agrees = np.abs(search.own - np.array([found.line.offset_at(c) for c in search.centres])) <= AGREES
    needed = max(LEAST_WINDOWS, _SHARE * count)
    both = agrees & close.near
    closely = int(both.sum()) >= needed
    agrees = both if closely else agrees
    number = int(agrees.sum())
    of = f"{number} of {count} windows agree with one line"
    shown = search.centres, np.where(agrees, close.offsets, search.own), agrees

    def told(status: SyncStatus, reason: str, line: Line | None = None) -> SoundMatch:
        return SoundMatch(status, line, count, number, reason, *shown)

    if number < needed:
        alike = int((search.likeness(found.line) >= LIKE_BEST).sum()) >= needed
        if alike and found.rivalry > _RIVALRY:
            return told("unobservable", "the sound repeats itself: many offsets fit alike")
        # By an offset of all the reach, so many windows at one end have nothing to agree with.
        spare = int(np.ceil(reach / WINDOW_S)) + 1
        if number <= max(2, _UNHEARD * count) and count >= LEAST_WINDOWS + spare:
            return told("refuted", f"both are heard, but within ±{reach:g} s only {of}")
        return told("unobservable", f"only {of}")
    evidence = float(np.median(search.curves.max(axis=1)[agrees]))
    if found.rivalry > _RIVALRY:
        reason = f"{of}, but another line fits {found.rivalry:.0%} as well"
        return told("unobservable", reason)
    if search.only(agrees).repeats_itself(evidence):
        return told("unobservable", f"{of}, but the sound repeats itself")
    if closely and close.echo > _ECHO:
        reason = f"{of}, but echoes are {close.echo:.0%} as loud as what they hear"
        return told("unobservable", reason)
    line = close.line if closely else _through_paths(search.centres[agrees], close.offsets[agrees])
    if abs(line.drift) > MAX_DRIFT:
        return told("unobservable", f"{of}, but it would mean a drift of {line.drift * 1e6:.0f} ppm")
    sigma = max(line.sigma_at(c) for c in (search.centres[0], search.centres[-1]))
    if sigma > _SHARPEST:
        return told("unobservable", f"{of}, but the line is uncertain by {sigma * 1e3:.1f} ms")
    closeness = "" if closely else f" to within {AGREES * 1e3:g} ms: the paths of the sound change"
    return told("verified", of + closeness, line)


def _through_paths(centres: Floats, offsets: Floats) -> Line:
    """The line through windows that hear the sound over changing paths."""
    line = fit_line(centres, offsets, np.full(len(centres), _PATHS_SIGMA))
    return replace(line, covariance=line.covariance + np.diag([_PATHS_SIGMA**2, 0.0]))
