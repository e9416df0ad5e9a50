"""The order in which H.264 pictures are shown, read from their slice headers (ITU-T H.264, 7.3 and 8.2.1)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from align.transforms.read.nal import nal_units

_SLICES, _IDR, _SPS = frozenset({1, 2, 5}), 5, 7
_WITH_CHROMA = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_HEADER_BYTES = 64
"""More than any slice header holds before its picture's order."""


class Bits:
    """Reads the bits of a unit, its emulation prevention bytes removed. Past the end come zeros."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def u(self, count: int) -> int:
        """An unsigned number of so many bits."""
        self._left -= count
        shifted = self._bits >> self._left if self._left >= 0 else self._bits << -self._left
        return shifted & ((1 << count) - 1)

    def ue(self) -> int:
        """An Exp-Golomb number (9.1). Of more than 32 bits there is none: it is damage."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("no Exp-Golomb number")
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """A signed Exp-Golomb number (9.1.1)."""
        number = self.ue()
        return (number + 1) // 2 if number % 2 else -(number // 2)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What a sequence parameter set says of its slices' headers.

    Attributes:
        order_bits: of ``pic_order_cnt_lsb``; 0 where pictures are shown as they are decoded.
    """

    has_planes: bool
    frame_bits: int
    order_bits: int
    frames_only: bool


class PictureOrder:
    """Follows the picture order count of a stream's packets, in decoding order.

    Streams of ``pic_order_cnt_type`` 1, which no encoder in use writes, count as shown as they are decoded.

    Args:
        extradata: of the stream.
        prefix: bytes of the length before each unit; 0 for start codes.
    """

    def __init__(self, extradata: bytes, prefix: int) -> None:
        self._prefix = prefix
        self._sequence: _Sequence | None = None
        self._high = self._low = self._count = 0
        for unit in nal_units(extradata, 0) if not prefix else _avcc_sets(extradata):
            self._note(unit)

    def restart(self) -> None:
        """What comes has no past: counts are relative to the next picture."""
        self._high = self._low = 0

    def count(self, packet: bytes) -> int:
        """The picture order count of a packet; of one that cannot be read, that of the packet before."""
        for unit in nal_units(packet, self._prefix):
            self._note(unit)
            if unit[0] & 31 in _SLICES:
                with suppress(ValueError):
                    self._count = self._of_slice(unit)
                break
        return self._count

    def _note(self, unit: bytes) -> None:
        if unit[0] & 31 == _SPS:
            try:
                self._sequence = _sequence(Bits(unit[1:]))
            except ValueError:
                return

    def _of_slice(self, unit: bytes) -> int:
        sequence = self._sequence
        if sequence is None or not sequence.order_bits:
            return self._count + 1
        bits = Bits(unit[1:_HEADER_BYTES])
        for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id
            bits.ue()
        if sequence.has_planes:
            bits.u(2)
        bits.u(sequence.frame_bits)
        if not sequence.frames_only and bits.u(1):
            bits.u(1)
        if unit[0] & 31 == _IDR:
            bits.ue()
            self._high = self._low = 0
        low, span = bits.u(sequence.order_bits), 1 << sequence.order_bits
        high = self._high
        if low < self._low and self._low - low >= span // 2:
            high += span
        elif low > self._low and low - self._low > span // 2:
            high -= span
        if unit[0] & 0x60:  # others refer to it
            self._high, self._low = high, low
        return high + low


def _sequence(bits: Bits) -> _Sequence:
    profile, _, _ = bits.u(8), bits.u(16), bits.ue()
    has_planes = False
    if profile in _WITH_CHROMA:
        chroma = bits.ue()
        has_planes = chroma == 3 and bool(bits.u(1))
        bits.ue()
        bits.ue()
        bits.u(1)
        if bits.u(1):
            for n in range(12 if chroma == 3 else 8):
                if bits.u(1):
                    _skip_scaling_list(bits, 16 if n < 6 else 64)
    frame_bits, kind, order_bits = bits.ue() + 4, bits.ue(), 0
    if kind == 0:
        order_bits = bits.ue() + 4
    elif kind == 1:
        bits.u(1)
        bits.se()
        bits.se()
        for _ in range(min(bits.ue(), 255)):
            bits.se()
    bits.ue()  # max_num_ref_frames
    bits.u(1)
    bits.ue()  # width and height
    bits.ue()
    if frame_bits > 16 or order_bits > 16:
        raise ValueError("no sequence parameter set")
    return _Sequence(has_planes, frame_bits, order_bits, bool(bits.u(1)))


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _avcc_sets(extradata: bytes) -> list[bytes]:
    """The sequence parameter sets of an ``avcC`` box (ISO/IEC 14496-15, 5.3.3.1)."""
    sets, at = [], 6
    for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
        size = int.from_bytes(extradata[at : at + 2], "big")
        sets.append(extradata[at + 2 : at + 2 + size])
        at += 2 + size
    return [unit for unit in sets if unit]
