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
rounding neither jitters nor accumulates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from math import ceil, floor, lcm
from statistics import median_high, median_low
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.format import AudioFormat
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from numpy.typing import NDArray

from align.schemas.errors import AlignError
from align.schemas.media import AudioInfo, AudioTrack
from align.schemas.time import NS, TimeSpan, round_ties_up
from align.transforms.read.side_data import side_data

PRE_ROLL_NS = 200_000_000
"""Sound decoded before a span so that the decoder has settled: Opus asks for 80 ms (RFC 7845, 4.6), an MP3
frame may reach back 9 frames, AAC needs one."""

_SILENT_RATE = 48_000  # of nothing, where not even the header says: a stream that begins late in MPEG-TS
_JITTER_HZ = 5_000  # 0.2 ms or less between two frames is a capture clock's jitter, not a gap
_SELF_CONTAINED = frozenset(
    "aac aac_latm ac3 alac eac3 flac mp1float mp2float mp3 mp3float opus libopus vorbis libvorbis".split()
)  # decoders that need nothing but the extradata
_DAMAGED_SHARE = 0.05  # of a span's frames may claim another rate
_MOST_PLANES = (
    8  # AVFrame.data; PyAV 18.1 looks for the planes' end beyond it, and ``to_ndarray`` crashes at 8
)
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
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
        AlignError: ``audio_rate_change``: the rate changes within the span; ``audio_channels``: the stream
            has more than 8 channels in planes of their own.
    """
    if _planes(stream.codec_context) > _MOST_PLANES:
        raise AlignError(
            "audio_channels",
            f"audio stream {info.index} has {info.channels} channels; of {info.codec} at most {_MOST_PLANES} "
            "can be read: mix it down first",
        )
    wanted = _needed(packets, span, info.time_base, clock_offset_ns)
    frames = list(_decode(wanted, _decoder(stream)))
    rate = _one_rate(frames, info, span)
    frames = [f for f in frames if f.rate == rate]
    runs = _runs(frames, _Clock.of(info.time_base, rate, clock_offset_ns))
    return _lay_out(runs, rate, span)


def _one_rate(frames: Sequence[_Frame], info: AudioInfo, span: TimeSpan) -> int:
    """The rate of all frames but a few: damage can make a frame claim any rate."""
    counts = Counter(f.rate for f in frames)
    rate, alike = counts.most_common(1)[0] if frames else (info.rate or _SILENT_RATE, 0)
    if len(frames) - alike > _DAMAGED_SHARE * len(frames):
        raise AlignError(
            "audio_rate_change",
            f"audio stream {info.index} has rates of {' and '.join(map(str, sorted(counts)))} Hz within "
            f"[{span.start_ns}, {span.end_ns}) ns; re-encode it at one rate",
        )
    return rate


@dataclass(frozen=True, slots=True)
class _Frame:
    """Decoded samples, channel by channel, as the codec gives them, ``cut`` samples past the timestamp."""

    pts: int | None
    cut: int
    rate: int
    channels: tuple[NDArray[np.generic], ...]


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


@dataclass(slots=True)
class _Run:
    """Frames without a break, and for each of them where its timestamp puts the run's first sample."""

    clock: _Clock
    frames: list[_Frame] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    end: int = 0  # by the last timestamp
    count: int = 0

    def add(self, frame: _Frame, start: int) -> None:
        length = len(frame.channels[0])
        self.frames.append(frame)
        self.starts.append(start - self.count * self.clock.sample)
        self.end = start + length * self.clock.sample
        self.count += length

    @property
    def start_ns(self) -> Fraction:
        return self.clock.ns(Fraction(median_low(self.starts) + median_high(self.starts), 2))


def _needed(
    packets: Sequence[av.Packet[Any]], span: TimeSpan, time_base: Fraction, offset_ns: int
) -> Sequence[av.Packet[Any]]:
    """From the last packet at or before the pre-roll's start to the last one before the span's end."""
    from_pts = floor((span.start_ns - PRE_ROLL_NS + offset_ns) / (time_base * NS))
    past_pts = ceil((span.end_ns + offset_ns) / (time_base * NS))
    first = max((i for i, p in enumerate(packets) if p.pts is not None and p.pts <= from_pts), default=0)
    last = max((i for i, p in enumerate(packets) if p.pts is None or p.pts < past_pts), default=first)
    return packets[first : last + 1]


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


def _decode(packets: Iterable[av.Packet[Any]], decoder: AudioCodecContext) -> Iterator[_Frame]:
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
            hidden = frame.is_corrupt or (packet is not None and packet.is_discard)
            if not hidden and cut < frame.samples - tail and (planes := _planes(frame)) <= _MOST_PLANES:
                yield _taken(frame, planes, cut, frame.samples - tail)


def _to_skip(frame: AudioFrame) -> tuple[int, int]:
    """Samples to cut at the start and at the end (AV_FRAME_DATA_SKIP_SAMPLES: two little-endian u32, ...)."""
    data = side_data(frame, "SKIP_SAMPLES")
    if data is None:
        return 0, 0
    head, tail = np.frombuffer(data[:8], "<u4")
    return int(head), int(tail)


def _planes(sound: AudioFrame | AudioCodecContext) -> int:
    """How many planes hold the channels; the most that there can be where the format is not known yet.

    It is not for a stream of which the first look at the file met no packet, as where it begins late.
    """
    known: AudioFormat | None = sound.format
    return 1 if known is not None and known.is_packed else sound.layout.nb_channels


def _taken(frame: AudioFrame, planes: int, cut: int, end: int) -> _Frame:
    dtype = _DTYPES[frame.format.name.removesuffix("p")]  # "p" is for planar
    channels = [np.frombuffer(memoryview(p), dtype) for p in frame.planes[:planes]]
    if planes == 1 and (width := frame.layout.nb_channels) > 1:
        channels = list(channels[0][: frame.samples * width].reshape(-1, width).T)
    return _Frame(frame.pts, cut, frame.rate, tuple(c[cut:end] for c in channels))


def _runs(frames: Iterable[_Frame], clock: _Clock) -> list[_Run]:
    """Split where a timestamp is off its predecessor's end by more than rounding and jitter explain."""
    runs: list[_Run] = []
    for frame in frames:
        if frame.pts is not None:
            start = frame.pts * clock.tick + frame.cut * clock.sample
        elif runs:
            start = runs[-1].end
        else:
            continue  # no timestamp yet: it cannot be placed
        if not runs or abs(start - runs[-1].end) > clock.tolerance:
            runs.append(_Run(clock))
        runs[-1].add(frame, start)
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
    for (dtype, width), alike in groupby(frames, lambda f: (f.channels[0].dtype, len(f.channels))):
        block = list(alike)
        total = np.concatenate([f.channels[0] for f in block], dtype=np.float64)
        for c in range(1, width):
            total += np.concatenate([f.channels[c] for f in block])
        if dtype == np.uint8:  # 8-bit PCM is unsigned
            total -= 128.0 * width
        total /= width * _SCALE[dtype.str[1:]]
        parts.append(total.astype(np.float32))
    sound: NDArray[np.float32] = parts[0] if len(parts) == 1 else np.concatenate(parts)
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
