"""From the sound of two recordings of one event to the rows of a clock that they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from align.schemas.errors import AlignError
from align.schemas.media import AudioInfo, AudioTrack, MediaInfo
from align.schemas.recording import SyncStatus
from align.schemas.time import NS, SAME_CLOCK, ClockMap, TimeSpan
from align.transforms.align.audio_clock import needed_span, sound_on
from align.transforms.read.container import clock_offset_ns
from align.transforms.read.demux import WindowMedia, WindowRequest, read_media
from align.transforms.read.edited import decode_sound
from align.transforms.read.guard import Opener, open_probed
from align.transforms.sync.clocks import ClockRow
from align.transforms.sync.gcc_phat import COARSE_RATE, Sound
from align.transforms.sync.sound_match import SoundMatch, match
from align.transforms.sync.sound_search import Hear
from align.transforms.sync.verdict import SyncOptions

_PIECE_NS = 20 * 60 * NS
"""A quartz follows the room's temperature: over much longer its drift is no straight line to 0.1 ms."""

_FARTHEST_S = 60.0  # on both sides: what is searched is held in memory

_LISTENED, _LISTEN_NS = 7, 4 * NS


@dataclass(frozen=True, slots=True)
class Listener:
    """A recording's sound.

    Attributes:
        recording_id: of the recording.
        span: where it has sound, recording clock.
        joints_ns: where camera files were joined: there the clock may leap.
        hear: decodes some spans.
    """

    recording_id: str
    span: TimeSpan
    joints_ns: tuple[int, ...]
    hear: Hear

    def hears_anything(self) -> bool:
        """Whether it is not silent wherever one listens."""
        last = max(self.span.end_ns - _LISTEN_NS, self.span.start_ns)
        starts = sorted({round(t) for t in np.linspace(self.span.start_ns, last, _LISTENED)})
        spans = [TimeSpan(t, min(t + _LISTEN_NS, self.span.end_ns)) for t in starts]
        sounds = list(self.hear(spans, COARSE_RATE))  # all of them: a decoder that is not heard out is lost
        return not all(sound.is_silent for sound in sounds)


@dataclass(frozen=True, slots=True)
class SoundPiece:
    """A stretch of a recording on one line.

    Attributes:
        span: recording clock.
        match: the reference's clock against the recording's: its line takes away what the row adds.
    """

    span: TimeSpan
    match: SoundMatch


@dataclass(frozen=True, slots=True)
class MeasuredSound:
    """What was measured of a recording's clock against another's.

    Attributes:
        rows: for ``clocks.parquet``.
        pieces: what they rest on.
    """

    rows: tuple[ClockRow, ...]
    pieces: tuple[SoundPiece, ...] = ()


def hearing_file(
    uri: str, media: MediaInfo, opener: Opener | None = None, clock: ClockMap = SAME_CLOCK
) -> Hear:
    """Hears what is in a file; only packets around the spans are read and decoded.

    Args:
        uri: of the file.
        media: the same file, probed, with sound.
        opener: opens the URI as a seekable file object.
        clock: from the file's clock to the recording clock, which spans are on.
    """
    info = media.audio
    if info is None:
        raise AlignError("no_audio", f"{uri!r} holds no audio stream", stage="probe")

    def hear(spans: Sequence[TimeSpan], rate: int) -> Iterator[Sound]:
        requests = [WindowRequest(s, audio=needed_span(s, clock)) for s in spans]
        with closing(open_probed(uri, media, opener)) as container:
            offset_ns = clock_offset_ns(container)
            for found in read_media(container, replace(media, video=None), requests):
                span = found.request.window
                samples = sound_on(_decoded(found, info, offset_ns), clock, span, rate)
                yield Sound(rate, span.start_ns / NS, samples)

    return hear


def _decoded(found: WindowMedia, info: AudioInfo, offset_ns: int) -> AudioTrack:
    """A window's sound; silence where it cannot be decoded: that costs no more than the window."""
    span = found.request.audio
    assert span is not None
    if found.audio_stream is not None and (found.audio_packets or found.audio_pieces):
        try:
            return decode_sound(found, found.audio_stream, info, offset_ns)
        except AlignError:
            pass
    return AudioTrack(info.rate or COARSE_RATE, Fraction(span.start_ns), np.empty(0, np.float32))


def measure_sound(
    own: Listener, reference: Listener, expected_ns: int, options: SyncOptions
) -> MeasuredSound:
    """Measure a recording's clock against that of another of the same event.

    Args:
        own: the recording.
        reference: the other one.
        expected_ns: what the metadata adds to the recording's times to stand on the other's clock.
        options: ``reach_s``, at most 60, is searched on both sides; off by more than ``threshold_s`` means
            ``corrected``.
    """
    found = _measured(own, reference, expected_ns, expected_ns, options)
    if any(r.is_known for r in found.rows) or 2 * abs(expected_ns) < options.reach_s * NS:
        return found
    # Whether an offset is to be added or taken away, metadata rarely says.
    turned = _measured(own, reference, -expected_ns, expected_ns, options)
    return turned if any(r.is_known for r in turned.rows) else found


def _measured(
    own: Listener, reference: Listener, around_ns: int, expected_ns: int, options: SyncOptions
) -> MeasuredSound:
    there = TimeSpan(reference.span.start_ns - around_ns, reference.span.end_ns - around_ns)
    common = own.span.cut_to(there)
    if common is None:
        row = _row(own, reference, own.span, _unlike("by the metadata the two do not overlap"), 0, options)
        return MeasuredSound((row,))
    joints = {*own.joints_ns, *(j - around_ns for j in reference.joints_ns)}
    pieces: list[SoundPiece] = []
    for span in _evenly(common):
        whole = _matched(own, reference, span, around_ns, options)
        parts = _between(span, joints)
        if whole.line is None and len(parts) > 1:
            pieces += [SoundPiece(p, _matched(own, reference, p, around_ns, options)) for p in parts]
        else:
            pieces.append(SoundPiece(span, whole))
    rows = (_row(own, reference, p.span, p.match, expected_ns, options) for p in pieces)
    return MeasuredSound(tuple(rows), tuple(pieces))


def _matched(
    own: Listener, reference: Listener, span: TimeSpan, around_ns: int, options: SyncOptions
) -> SoundMatch:
    ends = span.start_ns / NS, span.end_ns / NS
    return match(
        own.hear, reference.hear, *ends, expected=-around_ns / NS, reach=min(options.reach_s, _FARTHEST_S)
    )


def _evenly(span: TimeSpan) -> list[TimeSpan]:
    count = max(1, -(-span.length_ns // _PIECE_NS))
    edges = [span.start_ns + span.length_ns * k // count for k in range(count + 1)]
    return [TimeSpan(a, b) for a, b in pairwise(edges)]


def _between(span: TimeSpan, joints_ns: set[int]) -> list[TimeSpan]:
    inner = sorted(j for j in joints_ns if span.start_ns < j < span.end_ns)
    return [TimeSpan(a, b) for a, b in pairwise([span.start_ns, *inner, span.end_ns])]


def _unlike(reason: str) -> SoundMatch:
    return SoundMatch("unobservable", None, 0, 0, reason)


def _row(
    own: Listener,
    reference: Listener,
    span: TimeSpan,
    found: SoundMatch,
    expected_ns: int,
    options: SyncOptions,
) -> ClockRow:
    """The row of a piece: with the match's line, a recording's time t is the reference's t - line(t)."""
    status: SyncStatus = found.status
    offset_ns, drift_ppm, sigma_ns = None, None, None
    if found.line is not None:
        ends = [span.start_ns / NS, span.end_ns / NS]
        offset_ns, end_ns = (round(-found.line.offset_at(t) * NS) for t in ends)
        drift_ppm = -found.line.drift * 1e6
        sigma_ns = round(max(found.line.sigma_at(t) for t in ends) * NS)
        worst_ns = max(abs(offset_ns - expected_ns), abs(end_ns - expected_ns))
        status = "corrected" if worst_ns > options.threshold_s * NS else "verified"
    return ClockRow(
        own.recording_id,
        "audio",
        span.start_ns,
        span.end_ns,
        status,
        offset_ns,
        drift_ppm,
        sigma_ns,
        found.windows,
        found.agreeing,
        f"compared with {reference.recording_id}: {found.reason}",
        reference.recording_id,
    )
