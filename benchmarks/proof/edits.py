"""Edit lists of any stretches, written by hand, and what is due by them at any instant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import floor

from benchmarks.proof.numbered import FPS

NS = 1_000_000_000

Stretch = tuple[Fraction, Fraction | None]
"""Seconds shown, and from which second of the part on; None shows nothing."""


def with_edits(data: bytes, video: Sequence[Stretch], audio: Sequence[Stretch]) -> bytes:
    """An MP4 or MOV of one part whose tracks have other edit lists (ISO/IEC 14496-12, 8.6.6).

    Its ``moov`` is the last box, so that no offset moves. What the writer's own list skips (priming, and how
    long the first picture is reordered) is skipped here, too.
    """
    at = data.rindex(b"moov") - 4
    return data[:at] + _box(b"moov", _edited(data[at + 8 :], iter((video, audio))))


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def _children(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


def _edited(movie: bytes, lists: Iterator[Sequence[Stretch]]) -> bytes:
    scale = int.from_bytes(dict(_children(movie))[b"mvhd"][12:16], "big")
    return b"".join(
        _box(kind, _with_list(content, scale, next(lists)) if kind == b"trak" else content)
        for kind, content in _children(movie)
    )


def _with_list(track: bytes, movie_scale: int, stretches: Sequence[Stretch]) -> bytes:
    inside = dict(_children(track))
    scale = int.from_bytes(dict(_children(inside[b"mdia"]))[b"mdhd"][12:16], "big")
    own = dict(_children(inside.get(b"edts", b""))).get(b"elst", bytes(20))
    skipped = int.from_bytes(own[-8:-4], "big")
    entries = b"".join(
        round(length * movie_scale).to_bytes(4, "big")
        + (-1 if start is None else skipped + round(start * scale)).to_bytes(4, "big", signed=True)
        + b"\0\1\0\0"
        for length, start in stretches
    )
    edts = _box(b"edts", _box(b"elst", bytes(4) + len(stretches).to_bytes(4, "big") + entries))
    boxes = [_box(kind, content) for kind, content in _children(track) if kind != b"edts"]
    return b"".join([*boxes[:1], edts, *boxes[1:]])


def due(edits: Sequence[Stretch], seconds: Fraction) -> tuple[Fraction, Fraction] | None:
    """What is shown at an instant: the stretch's start in the presentation and in the part, or None."""
    at = Fraction(0)
    for length, start in edits:
        if at <= seconds < at + length:
            return None if start is None else (at, start)
        at += length
    return None


def picture_due(edits: Sequence[Stretch], time_ns: int) -> tuple[int, int] | None:
    """Number and time of the frame that is due at an instant."""
    stretch = due(edits, Fraction(time_ns, NS))
    if stretch is None:
        return None
    at, start = stretch
    number = floor((start + Fraction(time_ns + 1, NS) - at) * FPS)  # times are rounded to a nanosecond
    return number, round((at + max(Fraction(number, FPS) - start, Fraction(0))) * NS)
