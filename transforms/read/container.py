"""What every container has: a clock, streams with a tick of their own, packets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from align.schemas.errors import AlignError
from align.schemas.time import ticks_to_ns
from align.transforms.read.nominal import lacks_order, presented

ARBITRARY_ORIGIN = frozenset({"mpegts", "mpeg", "flv", "aac", "mp3"})
"""Demuxers whose timestamps begin anywhere: there, the recording clock's 0 is the container's start.

MP3 begins at what its encoder put before the sound, which the header says and decoding leaves out.
"""


def clock_offset_ns(container: InputContainer) -> int:
    """What is subtracted from container times to reach the recording clock; 0 in most formats.

    Where the format's origin is arbitrary, it is the earliest start of a video or audio stream: what
    libavformat calls the container's start time, without its rounding to a microsecond.
    """
    if not ARBITRARY_ORIGIN & set(container.format.name.split(",")):
        return 0
    starts = [
        ticks_to_ns(s.start_time, s.time_base)
        for s in (*container.streams.video, *container.streams.audio)
        if s.start_time is not None and s.time_base
    ]
    return min(starts, default=0)


def time_base(stream: Stream) -> Fraction:
    """Seconds per tick of a stream's timestamps.

    Raises:
        AlignError: ``bad_container`` where the stream has none.
    """
    if not stream.time_base:
        raise AlignError("bad_container", f"stream {stream.index} has no time base", stage="probe")
    return stream.time_base


def packets_of(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet[Stream]]:
    """Packets that hold data, until the data ends or breaks: a file cut short is read as far as it goes.

    Where the container stores no presentation times, they are those of :mod:`~align.transforms.read.nominal`.
    """
    packets = _with_data(container, streams)
    for stream in streams:
        if lacks_order(container, stream):
            packets = presented(packets, stream)
    return packets


def _with_data(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet[Stream]]:
    try:
        for packet in container.demux(streams):
            if packet.size:
                yield packet
    except (av.error.FFmpegError, IndexError):
        # PyAV raises IndexError for a stream that begins in mid-file, as MPEG-TS allows.
        return


def rewind(container: InputContainer) -> None:
    """Go back to the first packet, which may stand before time 0."""
    try:
        container.seek(min(container.start_time or 0, 0) - 60_000_000)
    except av.error.FFmpegError:  # AVI and FLV refuse what lies before the first packet that they have seen
        try:
            container.seek(container.start_time or 0)
        except av.error.FFmpegError:
            container.seek(0, unsupported_byte_offset=True)
