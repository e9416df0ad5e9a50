"""Decodes packets of sound and keeps the samples as the codec gives them, each frame with its timestamp."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.format import AudioFormat
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from numpy.typing import NDArray

from align.transforms.read.side_data import side_data

MOST_PLANES = 8
"""So many AVFrame.data has. PyAV 18.1 looks for their end beyond it, and ``to_ndarray`` crashes at 8."""

_SELF_CONTAINED = frozenset(
    "aac aac_latm ac3 alac eac3 flac mp1float mp2float mp3 mp3float opus libopus vorbis libvorbis".split()
)  # decoders that need nothing but the extradata
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
_SCALE = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63, "f4": 1.0, "f8": 1.0}


class Block:
    """Samples of one rate, format and number of channels, in the order of decoding.

    They are copied out of each frame at once: libavcodec then decodes the next one into the same memory.

    Args:
        rate: Hz.
        sample_format: as libavutil names it; a "p" at the end stands for planar.
        channels: how many.
    """

    def __init__(self, rate: int, sample_format: str, channels: int) -> None:
        self.kind = rate, sample_format, channels
        self.rate = rate
        self.length = 0
        self._is_planar = sample_format.endswith("p")
        self._dtype = np.dtype(_DTYPES[sample_format.removesuffix("p")])
        self._planes = [bytearray() for _ in range(channels if self._is_planar else 1)]
        self._step = self._dtype.itemsize * (1 if self._is_planar else channels)

    def append(self, frame: AudioFrame, cut: int, end: int) -> int:
        """Take a frame's samples ``[cut, end)`` and return the index of the first of them."""
        at, low, high = self.length, cut * self._step, end * self._step
        for own, plane in zip(self._planes, frame.planes, strict=False):  # PyAV may see a plane too many
            own += memoryview(plane)[low:high]
        self.length += end - cut
        return at

    @cached_property
    def mono(self) -> NDArray[np.float32]:
        """The mean of the channels, in [-1, 1]: float32 [length], 0 where it is not finite."""
        width, planes = self.kind[2], [np.frombuffer(p, self._dtype) for p in self._planes]
        channels = planes if self._is_planar else planes[0].reshape(-1, width).T
        total = channels[0].astype(np.float64)
        for channel in channels[1:]:
            total += channel
        if self._dtype == np.uint8:  # 8-bit PCM is unsigned
            total -= 128.0 * width
        total /= width * _SCALE[self._dtype.str[1:]]
        sound = total.astype(np.float32)
        sound[~np.isfinite(sound)] = 0.0
        return sound


class Frame(NamedTuple):
    """``length`` samples from index ``at`` of a block on; the first is ``cut`` samples past the timestamp."""

    pts: int | None
    cut: int
    length: int
    block: Block
    at: int


def decode_frames(packets: Iterable[av.Packet[Any]], stream: AudioStream) -> list[Frame]:
    """Decode packet by packet, cutting what the container says to skip (priming, padding, edit lists).

    Args:
        packets: of the stream, in file order; those that do not decode, or are flagged as corrupt, give none.
        stream: says how to decode.
    """
    decoder = _decoder(stream)
    frames: list[Frame] = []
    block: Block | None = None
    skip = 0
    for packet in (*packets, None):  # None drains the decoder
        if packet is not None and packet.is_corrupt:
            continue
        try:
            decoded = decoder.decode(packet)
        except av.FFmpegError:
            continue
        is_hidden = packet is not None and packet.is_discard
        for frame in decoded:
            head, tail = _to_skip(frame)
            skip += head
            cut, end = min(skip, frame.samples), frame.samples - tail
            skip -= cut
            if is_hidden or frame.is_corrupt or cut >= end or planes_of(frame) > MOST_PLANES:
                continue
            kind = frame.rate, frame.format.name, frame.layout.nb_channels
            if block is None or kind != block.kind:
                block = Block(*kind)
            frames.append(Frame(frame.pts, cut, end - cut, block, block.append(frame, cut, end)))
    return frames


def planes_of(sound: AudioFrame | AudioCodecContext) -> int:
    """How many planes hold the channels; the most that there can be where the format is not known yet.

    It is not for a stream of which the first look at the file met no packet, as where it begins late.
    """
    known: AudioFormat | None = sound.format
    return 1 if known is not None and known.is_packed else sound.layout.nb_channels


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


def _to_skip(frame: AudioFrame) -> tuple[int, int]:
    """Samples to cut at the start and at the end (AV_FRAME_DATA_SKIP_SAMPLES: two little-endian u32, ...)."""
    data = side_data(frame, "SKIP_SAMPLES")
    if data is None:
        return 0, 0
    head, tail = np.frombuffer(data[:8], "<u4")
    return int(head), int(tail)
