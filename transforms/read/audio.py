"""Decoding one window's sound and placing it by presentation time.

The samples are a pure function of (file, window): decoding starts at a packet that the window alone picks,
with a decoder that remembers nothing. For AAC that needs a new decoder: its noise substitution draws from a
generator that ``flush_buffers`` does not reset.

A **run** is decoded sound without a break. Neighbouring frames belong to one run when the second's
timestamp is within the tolerance of the first's end::

    pts         |--------|--------|--------|          |--------|--------|
    run         [------- one placement --------]      [-- another ------]
                 median(pts - samples so far)    gap

Containers round timestamps (Matroska to 1 ms), so a run is placed as a whole by the median over its frames:
rounding neither jitters nor accumulates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from math import ceil
from statistics import median
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from numpy.typing import NDArray

from align.schemas.errors import AlignError
from align.schemas.media import AudioInfo, AudioTrack
from align.schemas.time import NS, TimeSpan, round_ties_up

PRE_ROLL_NS = 200_000_000
"""Sound decoded before a span so that the decoder has settled: Opus asks for 80 ms (RFC 7845, 4.6), an MP3
frame may reach back 9 frames, AAC needs one."""

_JITTER_NS = Fraction(NS, 5000)  # 0.2 ms: less between two frames is a capture clock's jitter, not a gap
_SELF_CONTAINED = frozenset(
    "aac aac_latm ac3 alac eac3 flac mp1float mp2float mp3 mp3float opus libopus vorbis libvorbis".split()
)  # decoders that need nothing but the extradata
_SCALE = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63, "f4": 1.0, "f8": 1.0}


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
    corrupt, leave a gap. The longest run sets the sample grid; others are moved to it by at most half a
    sample.

    Args:
        packets: compressed packets around the span in file order, from ``PRE_ROLL_NS`` before it, or from the
            stream's start; more on either side changes nothing.
        stream: the stream they came from.
        info: what the header says of it.
        span: recording clock.
        clock_offset_ns: subtracted from container times to give recording times.

    Returns:
        Mono float32 at the native rate, the samples whose instants lie in the span.

    Raises:
        AlignError: ``audio_rate_change``: the rate changes within the span.
    """
    wanted = _needed(packets, span, info.time_base, clock_offset_ns)
    frames = list(_decode(wanted, _decoder(stream), info.time_base, clock_offset_ns))
    rates = {f.rate for f in frames}
    if len(rates) > 1:
        raise AlignError(
            "audio_rate_change",
            f"audio stream {info.index} has rates of {' and '.join(map(str, sorted(rates)))} Hz within "
            f"[{span.start_ns}, {span.end_ns}) ns; re-encode it at one rate",
        )
    rate = rates.pop() if rates else info.rate
    return _lay_out(_runs(frames, rate, info.time_base), rate, span)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Decoded samples [channels, n] as the codec gives them; ``start_ns`` is that of the first, if known."""

    start_ns: Fraction | None
    rate: int
    samples: NDArray[np.generic]


@dataclass(slots=True)
class _Run:
    """Frames without a break, and for each of them where its timestamp puts the run's first sample."""

    frames: list[_Frame] = field(default_factory=list)
    starts_ns: list[Fraction] = field(default_factory=list)
    end_ns: Fraction = Fraction(0)  # by the last timestamp
    count: int = 0

    def add(self, frame: _Frame, start_ns: Fraction, rate: int) -> None:
        length = frame.samples.shape[1]
        self.frames.append(frame)
        self.starts_ns.append(start_ns - Fraction(self.count * NS, rate))
        self.end_ns = start_ns + Fraction(length * NS, rate)
        self.count += length

    @property
    def start_ns(self) -> Fraction:
        return median(self.starts_ns)


def _needed(
    packets: Sequence[av.Packet[Any]], span: TimeSpan, time_base: Fraction, offset_ns: int
) -> Sequence[av.Packet[Any]]:
    """From the last packet at or before the pre-roll's start, up to the first one past the span."""
    ticks = time_base * NS
    times = [None if p.pts is None else p.pts * ticks - offset_ns for p in packets]
    from_ns = span.start_ns - PRE_ROLL_NS
    first = max((i for i, t in enumerate(times) if t is not None and t <= from_ns), default=0)
    past = (i for i, t in enumerate(times) if i > first and t is not None and t >= span.end_ns)
    return packets[first : next(past, len(packets))]


def _decoder(stream: AudioStream) -> AudioCodecContext:
    """A decoder without a past. Samples to skip are left to us: it lacks the time base to do so rightly."""
    own = stream.codec_context
    if own.name in _SELF_CONTAINED:
        decoder = av.CodecContext.create(own.name, "r")
        assert isinstance(decoder, AudioCodecContext)  # for the type checker
        decoder.extradata = own.extradata
        decoder.thread_count = 1
    else:
        decoder = own
        decoder.flush_buffers()
    decoder.flags2 |= Flags2.skip_manual
    return decoder


def _decode(
    packets: Iterable[av.Packet[Any]], decoder: AudioCodecContext, time_base: Fraction, offset_ns: int
) -> Iterator[_Frame]:
    """Decode packet by packet, cutting what the container says to skip (priming, padding, edit lists)."""
    skip = 0
    for packet in (*packets, None):  # None drains the decoder
        if packet is not None and packet.is_corrupt:
            continue
        try:
            decoded = decoder.decode(packet)
        except av.FFmpegError:
            continue
        for frame in decoded:
            head, tail = _to_skip(frame)
            skip += head
            cut = min(skip, frame.samples)
            skip -= cut
            shown = not (frame.is_corrupt or (packet is not None and packet.is_discard))
            if shown and cut < frame.samples - tail:
                yield _taken(frame, time_base, offset_ns, cut, frame.samples - tail)


def _to_skip(frame: AudioFrame) -> tuple[int, int]:
    """Samples to cut at the start and at the end (AV_FRAME_DATA_SKIP_SAMPLES: two little-endian u32, ...)."""
    data: Any = frame.side_data.get("SKIP_SAMPLES")
    if data is None:
        return 0, 0
    head, tail = np.frombuffer(bytes(data)[:8], "<u4")
    return int(head), int(tail)


def _taken(frame: AudioFrame, time_base: Fraction, offset_ns: int, cut: int, end: int) -> _Frame:
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, -1).T
    start = (
        None if frame.pts is None else (frame.pts * time_base + Fraction(cut, frame.rate)) * NS - offset_ns
    )
    return _Frame(start, frame.rate, samples[:, cut:end])


def _runs(frames: Iterable[_Frame], rate: int, time_base: Fraction) -> list[_Run]:
    """Split where a timestamp is off its predecessor's end by more than rounding and jitter explain."""
    tolerance = max(2 * time_base * NS, _JITTER_NS)
    runs: list[_Run] = []
    for frame in frames:
        start = frame.start_ns if frame.start_ns is not None or not runs else runs[-1].end_ns
        if start is None:
            continue  # no timestamp yet: it cannot be placed
        if not runs or abs(start - runs[-1].end_ns) > tolerance:
            runs.append(_Run())
        runs[-1].add(frame, start, rate)
    return runs


def _lay_out(runs: list[_Run], rate: int, span: TimeSpan) -> AudioTrack:
    """Put runs on one sample grid; what none of them fills is a gap."""
    base = max(runs, key=lambda r: r.count).start_ns if runs else Fraction(span.start_ns)
    first = ceil((span.start_ns - base) * rate / NS)  # the grid's index of the span's first sample
    count = max(ceil((span.end_ns - base) * rate / NS) - first, 0)
    samples, filled = np.zeros(count, np.float32), np.zeros(count, np.bool_)
    for run in runs:
        at = round_ties_up((run.start_ns - base) * rate / NS) - first
        low, high = max(at, 0), min(at + run.count, count)
        if low < high:
            free = ~filled[low:high]
            samples[low:high][free] = _mono(run.frames)[low - at : high - at][free]
            filled[low:high] = True
    start_ns = base + Fraction(first * NS, rate)
    return AudioTrack(rate, start_ns, samples, _gaps(filled, start_ns, rate, span))


def _mono(frames: Iterable[_Frame]) -> NDArray[np.float32]:
    """The mean of the channels, in [-1, 1]."""
    parts = []
    for _, alike in groupby(frames, lambda f: (f.samples.dtype, len(f.samples))):
        block = np.concatenate([f.samples for f in alike], axis=1)
        centre = 128.0 if block.dtype == np.uint8 else 0.0  # 8-bit PCM is unsigned
        mean = (block.mean(axis=0, dtype=np.float64) - centre) / _SCALE[block.dtype.str[1:]]
        parts.append(mean.astype(np.float32))
    sound: NDArray[np.float32] = np.concatenate(parts)
    sound[~np.isfinite(sound)] = 0.0
    return sound


def _gaps(filled: NDArray[np.bool_], start_ns: Fraction, rate: int, span: TimeSpan) -> tuple[TimeSpan, ...]:
    """The stretches that are not filled; those at the ends reach the span's ends."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], filled, [True])).astype(np.int8)))
    gaps = []
    for low, high in edges.reshape(-1, 2).tolist():
        start = span.start_ns if low == 0 else round_ties_up(start_ns + Fraction(low * NS, rate))
        end = span.end_ns if high == len(filled) else round_ties_up(start_ns + Fraction(high * NS, rate))
        gaps.append(TimeSpan(start, end))
    if not len(filled) and span.length_ns:
        gaps.append(span)
    return tuple(gaps)
