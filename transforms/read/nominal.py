"""Presentation times for packets whose container stores none.

AVI lists when chunks are decoded, and not when their pictures are shown. libavformat guesses, which for H.264
gives times in decoding order. Here the pictures of each keyframe take the places of its packets on the
container's grid in the order in which they are shown::

    decoded        K0  P3  b1  b2  P6  b4  b5 | K7 ...
    on the grid    0   1   2   3   4   5   6    7
    shown          0   3   1   2   6   4   5    7

A picture's time is then a function of its group alone, wherever reading began; picture n of a file without
dropped frames stands at n periods. A chunk without data keeps its place on the grid and shows nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from av.container import Container
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from align.transforms.read.nal import length_prefix
from align.transforms.read.picture_order import PictureOrder

_P = TypeVar("_P", bound="Packet[Stream]")

MAX_HELD_BYTES = 256 << 20
"""Packets are held until their group is complete; a longer one is given its times piece by piece."""


def is_nominal(container: Container) -> bool:
    """Whether the container gives pictures places on a grid and no times of their own."""
    return container.format.name == "avi"


def lacks_order(container: Container, stream: Stream) -> bool:
    """Whether the order in which a stream's pictures are shown has to be found."""
    return (
        is_nominal(container)
        and isinstance(stream, VideoStream)
        and stream.codec_context is not None
        and stream.codec_context.codec.canonical_name == "h264"
    )


def presented(packets: Iterator[_P], stream: Stream) -> Iterator[_P]:
    """Give the packets of one stream presentation times; all come in the order in which they came.

    Args:
        packets: of this and other streams, each with data, in file order.
        stream: whose packets have decoding times alone.
    """
    assert isinstance(stream, VideoStream)  # for the type checker
    order = PictureOrder(stream.codec_context.extradata or b"", length_prefix(stream))
    held: list[_P] = []
    size = 0
    for packet in packets:
        is_own = packet.stream_index == stream.index
        if held and (size > MAX_HELD_BYTES or (is_own and packet.is_keyframe)):
            yield from _timed(held, stream.index, order)
            held, size = [], 0
        if held or is_own:
            held.append(packet)
            size += packet.size
        else:
            yield packet
    yield from _timed(held, stream.index, order)


def _timed(held: list[_P], index: int, order: PictureOrder) -> list[_P]:
    own = [p for p in held if p.stream_index == index]
    order.restart()
    counts = [order.count(bytes(p)) for p in own]
    places = sorted(p.dts for p in own if p.dts is not None)
    if len(places) == len(own):
        for place, n in zip(places, sorted(range(len(own)), key=counts.__getitem__), strict=True):
            own[n].pts = place
    return held
