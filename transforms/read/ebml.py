"""Matroska's track entries (RFC 9559): codec, encryption and the crop of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from align.transforms.read.track import Crop, Track, printable, within

_SEGMENT, _TRACKS, _CLUSTER, _ENTRY = 0x18538067, 0x1654AE6B, 0x1F43B675, 0xAE
_CODEC, _VIDEO, _ENCODINGS, _ENCODING, _KIND = 0x86, 0xE0, 0x6D80, 0x6240, 0x5033
_WIDTH, _HEIGHT = 0xB0, 0xBA
_BOTTOM, _TOP, _LEFT, _RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD
_ENCRYPTION = 1
_MOST_ELEMENTS = 100_000

_Element = tuple[int, int, int]
"""Id, and where the content begins and ends."""


def matroska_tracks(file: BinaryIO, size: int) -> Iterator[Track]:
    """Every track entry, in file order; none where they stand behind the clusters.

    Args:
        file: seekable.
        size: bytes.
    """
    segment = next((e for e in _elements(file, 0, size) if e[0] == _SEGMENT), None)
    for kind, start, end in _elements(file, segment[1], segment[2]) if segment else ():
        if kind == _CLUSTER:
            return
        if kind == _TRACKS:
            yield from (_track(file, e) for e in _elements(file, start, end) if e[0] == _ENTRY)
            return


def _track(file: BinaryIO, entry: _Element) -> Track:
    parts = {kind: (start, end) for kind, start, end in _elements(file, *entry[1:])}
    codec = printable(_content(file, parts.get(_CODEC)).rstrip(b"\0"))
    crop = _crop(file, parts[_VIDEO]) if _VIDEO in parts else None
    encodings = _elements(file, *parts[_ENCODINGS]) if _ENCODINGS in parts else ()
    return Track(codec, any(_is_encryption(file, e) for e in encodings if e[0] == _ENCODING), crop)


def _is_encryption(file: BinaryIO, encoding: _Element) -> bool:
    return any(
        kind == _KIND and _number(file, (start, end)) == _ENCRYPTION
        for kind, start, end in _elements(file, *encoding[1:])
    )


def _crop(file: BinaryIO, video: tuple[int, int]) -> Crop | None:
    values = {kind: (start, end) for kind, start, end in _elements(file, *video)}
    if not values.keys() & {_BOTTOM, _TOP, _LEFT, _RIGHT}:
        return None
    width, height, left, top, right, bottom = (
        _number(file, values.get(kind)) for kind in (_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM)
    )
    return within(left, top, width - right, height - bottom, width, height)


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[_Element]:
    """EBML elements between two places (RFC 8794): a size of all ones reaches to the end."""
    for _ in range(_MOST_ELEMENTS):
        kind, after_id = _varint(file, start, keep_marker=True)
        length, at = _varint(file, after_id, keep_marker=False)
        if start >= end or not kind or at == after_id:
            return
        is_open = length == (1 << 7 * (at - after_id)) - 1
        past = end if is_open else min(at + length, end)
        yield kind, at, past
        start = past


def _varint(file: BinaryIO, place: int, *, keep_marker: bool) -> tuple[int, int]:
    """A number and the place after it; the same place where none can be read."""
    file.seek(place)
    head = file.read(8)
    if not head or not head[0]:
        return 0, place
    length = 9 - head[0].bit_length()
    number = int.from_bytes(head[:length], "big")
    return (number if keep_marker else number & ((1 << 7 * length) - 1)), place + length


def _content(file: BinaryIO, place: tuple[int, int] | None) -> bytes:
    if place is None:
        return b""
    file.seek(place[0])
    return file.read(min(place[1] - place[0], 256))


def _number(file: BinaryIO, place: tuple[int, int] | None) -> int:
    return int.from_bytes(_content(file, place)[:8], "big")
