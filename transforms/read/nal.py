"""What H.264 and HEVC packets say of themselves: where decoding can begin, and what nothing refers to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from av.packet import Packet
from av.video.stream import VideoStream

PacketTest = Callable[["Packet[VideoStream]"], bool]

_H264_SLICES = frozenset({1, 2, 3, 4, 5})
_H264_REMARKS = frozenset({6, 9, 12})  # supplemental information, delimiter, filler
_HEVC_REMARKS = frozenset({35, 38, 39, 40})


def entry_test(stream: VideoStream) -> PacketTest:
    """Tells the packets at which decoding can begin: keyframes whose picture is complete at once.

    H.264 also marks, as keyframes, points from which a stream refreshed bit by bit recovers only after some
    frames, and then not exactly: recovery point messages with ``recovery_frame_cnt`` above 0 (ITU-T H.264,
    D.2.8). Those are no entries.
    """
    if _codec(stream) != "h264":
        return lambda packet: packet.is_keyframe
    prefix = length_prefix(stream)
    return lambda packet: packet.is_keyframe and not _recovers_late(bytes(packet), prefix)


def disposable_test(stream: VideoStream) -> PacketTest:
    """Tells the packets whose pictures no other picture refers to, so that they need not be decoded.

    H.264 says so of every slice (``nal_ref_idc``, ITU-T H.264, 7.4.1). HEVC says it within a temporal layer
    only (ITU-T H.265, 7.4.2.2), which is enough where there is one: ``numTemporalLayers`` of the ``hvcC``
    box (ISO/IEC 14496-15, 8.3.2.1). VP9 and AV1 carry entropy state through every frame. A packet that holds
    anything but such slices and remarks, parameter sets for one, is kept.
    """
    prefix = length_prefix(stream)
    extradata = stream.codec_context.extradata or b""
    if _codec(stream) == "h264":
        return lambda packet: _all_units(packet, prefix, _is_disposable_h264)
    if _codec(stream) == "hevc" and prefix and (extradata[21] >> 3) & 7 == 1:
        return lambda packet: _all_units(packet, prefix, _is_disposable_hevc)
    return lambda packet: False


def _codec(stream: VideoStream) -> str:
    return stream.codec_context.codec.canonical_name


def length_prefix(stream: VideoStream) -> int:
    """Bytes of the length before each unit (``avcC``, ``hvcC``); 0 where start codes separate them."""
    extradata = stream.codec_context.extradata or b""
    at = {"h264": 4, "hevc": 21}.get(_codec(stream))
    if at is None or len(extradata) <= at or extradata[0] != 1:
        return 0
    return (extradata[at] & 3) + 1


def _all_units(packet: Packet[VideoStream], prefix: int, test: Callable[[bytes], bool | None]) -> bool:
    """Whether at least one unit passes the test and none fails; None is neither."""
    verdicts = {test(unit) for unit in nal_units(bytes(packet), prefix)}
    return True in verdicts and False not in verdicts


def _is_disposable_h264(unit: bytes) -> bool | None:
    kind = unit[0] & 31
    return None if kind in _H264_REMARKS else kind in _H264_SLICES and not unit[0] & 0x60


def _is_disposable_hevc(unit: bytes) -> bool | None:
    kind = unit[0] >> 1 & 63
    return None if kind in _HEVC_REMARKS else kind < 16 and kind % 2 == 0


def _recovers_late(data: bytes, prefix: int) -> bool:
    """Whether an H.264 access unit carries a recovery point that is not the picture itself."""
    for unit in nal_units(data, prefix):
        if unit[0] & 31 in _H264_SLICES:
            return False
        if unit[0] & 31 == 6:
            for kind, payload in _sei_messages(unit[1:]):
                # recovery_frame_cnt, ue(v): a first bit of 1 is the value 0
                if kind == 6 and payload[:1] < b"\x80":
                    return True
    return False


def nal_units(data: bytes, prefix: int) -> Iterator[bytes]:
    """The units of a packet, none empty.

    Args:
        data: the packet.
        prefix: bytes of the length before each unit; 0 where start codes separate them (Annex B).
    """
    if prefix:
        at = 0
        while at + prefix < len(data):
            size = int.from_bytes(data[at : at + prefix], "big")
            if size:
                yield data[at + prefix : at + prefix + size]
            at += prefix + size
    else:
        yield from (unit for unit in data.split(b"\0\0\1")[1:] if unit)


def _sei_messages(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each message (ITU-T H.264, 7.3.2.3.1): a byte of 255 adds to the next."""
    at = 0
    while at + 2 < len(body):
        numbers = []
        for _ in range(2):
            number = 0
            while at < len(body) and body[at] == 255:
                number, at = number + 255, at + 1
            number, at = number + (body[at] if at < len(body) else 0), at + 1
            numbers.append(number)
        kind, size = numbers
        yield kind, body[at : at + size]
        at += size
