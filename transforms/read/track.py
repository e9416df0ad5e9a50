"""One track of a file as its header describes it."""

from __future__ import annotations

from dataclasses import dataclass

Crop = tuple[int, int, int, int]
"""Left, top, width, height of the visible part of a stored picture, pixels."""


@dataclass(frozen=True, slots=True)
class Track:
    """A track.

    Attributes:
        codec: what the header calls it; "" where it does not say.
        encrypted: its samples cannot be read without a key.
        crop: the visible part, where that is not all.
        entries: how many sets of decoder parameters its samples refer to.
        has_layers: HEVC with further layers beside the base view (``lhvC``, ISO/IEC 14496-15): spatial video.
    """

    codec: str
    encrypted: bool = False
    crop: Crop | None = None
    entries: int = 1
    has_layers: bool = False


def printable(code: bytes) -> str:
    """A codec's name as it can be shown: bytes that are no letter, digit or sign become ``?``."""
    return "".join(chr(c) if 32 < c < 127 else "?" for c in code)


def within(left: int, top: int, past: int, under: int, width: int, height: int) -> Crop | None:
    """A visible part by its edges, kept within the picture; None where that is nothing, or all."""
    left, past = (min(max(edge, 0), width) for edge in (left, past))
    top, under = (min(max(edge, 0), height) for edge in (top, under))
    if left >= past or top >= under or (past - left, under - top) == (width, height):
        return None
    return left, top, past - left, under - top
