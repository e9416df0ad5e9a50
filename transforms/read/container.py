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

ARBITRARY_ORIGIN = frozenset({"mpegts", "mpeg", "flv", "aac"})
"""Demuxers whose timestamps begin anywhere: there, the recording clock's 0 is the container's start."""


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
    """Packets that hold data, until the data ends or breaks: a file cut short is read as far as it goes."""
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
    except av.error.FFmpegError:  # FLV refuses a time before the first that it has seen
        container.seek(0, unsupported_byte_offset=True)
