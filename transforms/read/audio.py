"""Decoding one window's sound and placing it by presentation time.

The samples are a pure function of (file, window): decoding starts at a packet that the window alone picks,
with a decoder that remembers nothing. For AAC that needs a new decoder: its noise substitution draws from a
generator that ``flush_buffers`` does not reset.

A **run** is decoded sound without a break. Neighbouring frames belong to one run when the second's
timestamp is within 0.2 ms, or two ticks of the container's clock, of the first's end::

    pts         |--------|--------|--------|          |--------|--------|
    run         [------- one placement --------]      [-- another ------]
                 median(pts - samples so far)    gap

Containers round timestamps (Matroska to 1 ms), so a run is placed as a whole by the median over its frames:
rounding neither jitters nor accumulates. Where the nominal rate does not explain a run's timestamps, the
rate is fitted too, and what counts as a break follows the way the stream ticks
(:mod:`~align.transforms.read.audio_line`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import reduce
from itertools import accumulate, groupby, pairwise
from math import ceil, floor, lcm
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from align.schemas.errors import AlignError
from align.schemas.media import AudioInfo, AudioTrack
from align.schemas.time import NS, TimeSpan, round_ties_up
from align.transforms.read.audio_frames import MOST_PLANES, Frame, decode_frames, planes_of
from align.transforms.read.audio_line import Breaks, Line, Scale, explains, fit, nominal, ticking

PRE_ROLL_NS = 200_000_000
"""Sound decoded before a span so that the decoder has settled: Opus asks for 80 ms (RFC 7845, 4.6), an MP3
frame may reach back 9 frames, AAC needs one."""

_SILENT_RATE = 48_000  # of nothing, where not even the header says: a stream that begins late in MPEG-TS
_JITTER_HZ = 5_000  # 0.2 ms or less between two frames is a capture clock's jitter, not a gap
_DAMAGED_SHARE = 0.05  # of a span's frames may claim another rate
_SCARCE = 24  # so many frames for each break, or the breaks may be the way the stream ticks


def decode_audio(
    packets: Sequence[av.Packet[Any]],
    stream: AudioStream,
    info: AudioInfo,
    span: TimeSpan,
    *,
    clock_offset_ns: int = 0,
) -> AudioTrack:
    """Decode what packets hold of a span.

    Sound that two runs both claim is the earlier one's. Packets that do not decode, or are flagged as
    corrupt, leave a gap. The longest run sets the sample grid and its rate; others that tick alike are moved
    to it by at most half a sample, and those that do not are layers of their own.

    Args:
        packets: compressed packets around the span in file order, from ``PRE_ROLL_NS`` before it, or from the
            stream's start; more on either side changes nothing.
        stream: the stream they came from.
        info: what the header says of it.
        span: recording clock.
        clock_offset_ns: subtracted from container times to give recording times.

    Returns:
        Mono float32 at the native rate as the timestamps measure it, the samples whose instants lie in the
        span.

    Raises:
        AlignError: ``audio_rate_change``: the rate changes within the span; ``audio_channels``: the stream
            has more than 8 channels in planes of their own.
    """
    if planes_of(stream.codec_context) > MOST_PLANES:
        raise AlignError(
            "audio_channels",
            f"audio stream {info.index} has {info.channels} channels; of {info.codec} at most {MOST_PLANES} "
            "can be read: mix it down first",
        )
    frames = decode_frames(_needed(packets, span, info.time_base, clock_offset_ns), stream)
    rate = _one_rate(frames, info, span)
    frames = [f for f in frames if f.block.rate == rate]
    clock = _Clock.of(info.time_base, rate, clock_offset_ns)
    runs = _runs(frames, clock, mend=info.codec == "vorbis")
    return _lay_out(runs, clock, rate, span)


def _one_rate(frames: Sequence[Frame], info: AudioInfo, span: TimeSpan) -> int:
    """The rate of all frames but a few: damage can make a frame claim any rate."""
    counts = Counter(f.block.rate for f in frames)
    rate, alike = counts.most_common(1)[0] if frames else (info.rate or _SILENT_RATE, 0)
    if len(frames) - alike > _DAMAGED_SHARE * len(frames):
        raise AlignError(
            "audio_rate_change",
            f"audio stream {info.index} has rates of {' and '.join(map(str, sorted(counts)))} Hz within "
            f"[{span.start_ns}, {span.end_ns}) ns; re-encode it at one rate",
        )
    return rate


@dataclass(frozen=True, slots=True)
class _Clock:
    """Counts time so finely that a container's ticks and samples are both whole: exact, and all integers."""

    hz: int
    tick: int
    sample: int
    offset_ns: int

    @classmethod
    def of(cls, time_base: Fraction, rate: int, offset_ns: int) -> _Clock:
        hz = lcm(time_base.denominator, rate)
        return cls(hz, time_base.numerator * hz // time_base.denominator, hz // rate, offset_ns)

    def ns(self, time: Fraction) -> Fraction:
        return time * NS / self.hz - self.offset_ns

    @property
    def tolerance(self) -> int:
        """How far a frame may stand from its predecessor's end before that is a gap, or an overlap."""
        return max(2 * self.tick, self.hz // _JITTER_HZ)

    @property
    def scale(self) -> Scale:
        return Scale(self.hz, self.tick, self.sample)


@dataclass(slots=True)
class _Run:
    """Frames without a break, and the line that their timestamps follow.

    ``at`` says how many samples of the run lie before the instant of each of ``stamps``; samples cut from a
    frame's head lie after it.
    """

    clock: _Clock
    frames: list[Frame] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    end: int = 0  # by the last timestamp
    count: int = 0
    line: Line = Line(Fraction(0), Fraction(1))

    def add(self, frame: Frame, start: int) -> None:
        self.frames.append(frame)
        self.at.append(self.count - frame.cut)
        self.stamps.append(start - frame.cut * self.clock.sample)
        self.end = start + frame.length * self.clock.sample
        self.count += frame.length

    @property
    def is_explained(self) -> bool:
        """Whether the nominal rate is enough."""
        sample = self.clock.sample
        offsets = [y - x * sample for x, y in zip(self.at, self.stamps, strict=True)]
        return explains(offsets, self.clock.scale)

    def follows(self, sample: Fraction) -> bool:
        """Whether samples so long explain the timestamps as well as the run's own line does."""
        own, other = (
            [float(y - self.stamps[0] - x * s) for x, y in zip(self.at, self.stamps, strict=True)]
            for s in (self.line.sample, sample)
        )
        allowed = max(1.25 * (max(own) - min(own)), self.clock.scale.explained)
        return max(other) - min(other) <= allowed

    @property
    def start_ns(self) -> Fraction:
        return self.clock.ns(self.line.start)

    def sound(self) -> NDArray[np.float32]:
        """Its samples, mono."""
        parts = []
        for block, frames in groupby(self.frames, lambda f: f.block):
            alike = list(frames)
            parts.append(block.mono[alike[0].at : alike[-1].at + alike[-1].length])
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _needed(
    packets: Sequence[av.Packet[Any]], span: TimeSpan, time_base: Fraction, offset_ns: int
) -> Sequence[av.Packet[Any]]:
    """From the last packet at or before the pre-roll's start to the last one before the span's end."""
    from_pts = floor((span.start_ns - PRE_ROLL_NS + offset_ns) / (time_base * NS))
    past_pts = ceil((span.end_ns + offset_ns) / (time_base * NS))
    first = max((i for i, p in enumerate(packets) if p.pts is not None and p.pts <= from_pts), default=0)
    last = max((i for i, p in enumerate(packets) if p.pts is None or p.pts < past_pts), default=first)
    return packets[first : last + 1]


def _runs(frames: Sequence[Frame], clock: _Clock, *, mend: bool) -> list[_Run]:
    """Runs and their lines. Those of a longest run that ticks alike take its rate."""
    runs = _split(frames, clock, Breaks(0.0, clock.tolerance, by_frames=False), mend=mend)
    is_plain = len(runs) <= 1 + len(frames) // _SCARCE and all(r.is_explained for r in runs)
    if not is_plain and (breaks := _ticking(frames, clock)) is not None:
        runs = _split(frames, clock, breaks, mend=mend)
    for run in runs:
        run.line = fit(run.at, run.stamps, clock.scale)
    main = max(runs, key=lambda r: r.count, default=None)
    for run in runs:
        if main is not None and run.line.sample != main.line.sample and run.follows(main.line.sample):
            run.line = nominal(run.at, run.stamps, main.line.sample)
    return runs


def _ticking(frames: Sequence[Frame], clock: _Clock) -> Breaks | None:
    stamped = [f for f in frames if f.pts is not None]
    at = list(accumulate((f.cut + f.length for f in stamped), initial=0))
    stamps = [f.pts * clock.tick for f in stamped if f.pts is not None]
    return ticking(at, stamps, clock.tolerance, clock.scale)


def _split(frames: Iterable[Frame], clock: _Clock, breaks: Breaks, *, mend: bool) -> list[_Run]:
    """Split where a timestamp is off its predecessor's end by more than the way the stream ticks explains.

    With ``mend``, a stamp that both neighbours contradict is not believed: libavformat stamps Vorbis in Ogg
    so, where the size of the blocks changes.
    """
    runs: list[_Run] = []
    for frame, following in pairwise([*frames, None]):
        assert frame is not None
        start, after = _stamp(frame, clock), _stamp(following, clock)
        if start is None or (mend and runs and _misplaced(start, runs[-1].end, frame, after, clock)):
            if not runs:
                continue  # no timestamp yet: it cannot be placed
            start = runs[-1].end
        last = runs[-1] if runs else None
        if last is None or breaks.between(start - last.end, last.frames[-1].length * clock.sample):
            runs.append(_Run(clock))
        runs[-1].add(frame, start)
    return runs


def _stamp(frame: Frame | None, clock: _Clock) -> int | None:
    if frame is None or frame.pts is None:
        return None
    return frame.pts * clock.tick + frame.cut * clock.sample


def _misplaced(start: int, end: int, frame: Frame, after: int | None, clock: _Clock) -> bool:
    """Whether a frame's stamp alone is wrong: by both neighbours, it follows on the one before."""
    fits = after is not None and abs(after - end - frame.length * clock.sample) <= clock.tolerance
    return fits and abs(start - end) > clock.tolerance


def _lay_out(runs: list[_Run], clock: _Clock, rate: int, span: TimeSpan) -> AudioTrack:
    """Put runs on sample grids, one for each rate, the longest run's first; what none fills is a gap."""
    lines = [r.line.sample for r in sorted(runs, key=lambda r: -r.count)] or [Fraction(clock.sample)]
    layers: list[AudioTrack] = []
    for sample in dict.fromkeys(lines):
        alike = [r for r in runs if r.line.sample == sample]
        measured = rate if sample == clock.sample else clock.hz / sample
        layers.append(_layer(alike, measured, span, layers))
    if len(layers) == 1 and lines[0] == clock.sample:
        return layers[0]
    ppm = float((Fraction(layers[0].rate) / rate - 1) * 1_000_000)
    gaps = reduce(_both, (layer.gaps for layer in layers))
    return replace(layers[0], gaps=gaps, rate_ppm=ppm, layers=tuple(layers[1:]))


def _layer(
    runs: list[_Run], rate: int | Fraction, span: TimeSpan, before: Sequence[AudioTrack]
) -> AudioTrack:
    """The runs of one rate on one grid, but for what the layers before it hold."""
    base = max(runs, key=lambda r: r.count).start_ns if runs else Fraction(span.start_ns)
    first = ceil((span.start_ns - base) * rate / NS)  # the grid's index of the span's first sample
    count = max(ceil((span.end_ns - base) * rate / NS) - first, 0)
    samples, filled = np.zeros(count, np.float32), np.zeros(count, np.bool_)
    for run in runs:
        at = round_ties_up((run.start_ns - base) * rate / NS) - first
        low, high = max(at, 0), min(at + run.count, count)
        if low < high:
            free = ~filled[low:high]
            np.copyto(samples[low:high], run.sound()[low - at : high - at], where=free)
            filled[low:high] = True
    start_ns = base + first * NS / Fraction(rate)
    for layer in before:
        taken = np.ones(count, np.bool_)
        for gap in layer.gaps:
            low, high = (max(ceil((t - start_ns) * rate / NS), 0) for t in (gap.start_ns, gap.end_ns))
            taken[low:high] = False
        samples[taken], filled[taken] = 0.0, False
    return AudioTrack(rate, start_ns, samples, _gaps(filled, start_ns, rate, span))


def _both(some: tuple[TimeSpan, ...], others: tuple[TimeSpan, ...]) -> tuple[TimeSpan, ...]:
    """What lies in gaps of the one and of the other."""
    cuts = (gap.cut_to(other) for gap in some for other in others)
    return tuple(sorted(cut for cut in cuts if cut is not None))


def _gaps(
    filled: NDArray[np.bool_], start_ns: Fraction, rate: int | Fraction, span: TimeSpan
) -> tuple[TimeSpan, ...]:
    """The stretches that are not filled; those at the ends reach the span's ends."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], filled, [True])).astype(np.int8)))
    gaps = []
    for low, high in edges.reshape(-1, 2).tolist():
        start = span.start_ns if low == 0 else round_ties_up(start_ns + low * NS / Fraction(rate))
        end = span.end_ns if high == len(filled) else round_ties_up(start_ns + high * NS / Fraction(rate))
        gaps.append(TimeSpan(start, end))
    if not len(filled) and span.length_ns:
        gaps.append(span)
    return tuple(gaps)
