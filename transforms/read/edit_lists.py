"""Edit lists of an MP4: which stretches of a track's media are shown, and when (ISO/IEC 14496-12, 8.6.6).

An entry shows ``duration`` of the movie's clock from ``media_time`` of the track's clock on; with
``media_time`` -1 nothing is shown for as long::

    media          |--A--|--B--|--C--|--D--|
    entries        B, nothing, D, B
    presentation   |--B--|·····|--D--|--B--|

A list of one stretch, with or without something empty before it, libavformat applies exactly. Of several
stretches it is not exact: what precedes a keyframe of a later stretch gets times that run ahead and step
back, sound is cut at whole packets. There the file is read by media time, without its lists, and each
stretch gets a clock of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from align.schemas.errors import AlignError
from align.schemas.media import AudioInfo, Edit, Edits, VideoInfo
from align.schemas.time import NS, TimeSpan, round_ties_up
from align.transforms.read.joined import Read, boxes

_MOST_ENTRIES = 1 << 16


@dataclass(frozen=True, slots=True)
class EditList:
    """The edit list of a track.

    Attributes:
        entries: duration in ticks of the movie, media time in ticks of the media, rate.
        movie_scale: ticks of the movie in a second.
        media_scale: ticks of the media in a second.
    """

    entries: tuple[tuple[int, int, Fraction], ...]
    movie_scale: int
    media_scale: int

    @property
    def is_plain(self) -> bool:
        """Whether it shows one stretch at most, and nothing empty but before and after it."""
        shown = [n for n, (_, media_time, _) in enumerate(self.entries) if media_time >= 0]
        return len(shown) <= 1

    @property
    def is_paced(self) -> bool:
        """Whether media is shown at the speed at which it was recorded, as far as we can tell.

        A single stretch of rate 0 is a writer's slip: every player takes it for 1.
        """
        rates = {rate for _, media_time, rate in self.entries if media_time >= 0}
        return rates <= ({Fraction(0), Fraction(1)} if self.is_plain else {Fraction(1)})

    def shown(self, media: TimeSpan) -> tuple[Edit, ...]:
        """The stretches of what the media holds, in the order in which they are shown."""
        found: list[Edit] = []
        at = Fraction(0)
        for duration, media_time, _ in self.entries:
            begin = Fraction(media_time * NS, self.media_scale)
            length = Fraction(duration * NS, self.movie_scale)
            if media_time >= 0:
                length = length or max(media.end_ns - begin, Fraction(0))  # 0: to the end
                low = max(begin, Fraction(media.start_ns))
                high = min(begin + length, Fraction(media.end_ns))
                if low < high:
                    span = TimeSpan(round_ties_up(at + low - begin), round_ties_up(at + high - begin))
                    found.append(Edit(span, round_ties_up(begin - at)))
            at += length
        return tuple(found)


def edit_lists(read: Read, size: int) -> dict[int, EditList]:
    """The edit lists of an MP4's tracks, by track id; tracks without one are left out.

    Args:
        read: bytes of the file.
        size: of the file.
    """
    for kind, at, end in boxes(read, size):
        if kind == b"moov":
            return dict(_of_movie(read, at + 8, end))
    return {}


def _of_movie(read: Read, at: int, end: int) -> Iterator[tuple[int, EditList]]:
    scale = 0
    for kind, begin, stop in boxes(read, end, at):
        if kind == b"mvhd":
            scale = _scale(read(begin + 8, 32))
        elif kind == b"trak":
            inside = _leaves(read, begin + 8, stop)
            entries = tuple(_entries(inside.get(b"elst", b"")))
            track, media_scale = inside.get(b"tkhd", b""), _scale(inside.get(b"mdhd", b""))
            if entries and scale and media_scale and len(track) >= 24:
                place = 20 if track[0] else 12
                yield int.from_bytes(track[place : place + 4], "big"), EditList(entries, scale, media_scale)


def _leaves(read: Read, at: int, end: int) -> dict[bytes, bytes]:
    """The boxes of a track that are needed, without their headers."""
    found: dict[bytes, bytes] = {}
    for kind, begin, stop in boxes(read, end, at):
        if kind in (b"edts", b"mdia"):
            found.update(_leaves(read, begin + 8, stop))
        elif kind in (b"tkhd", b"mdhd", b"elst"):
            found[kind] = read(begin + 8, min(stop - begin - 8, 8 + 20 * _MOST_ENTRIES))
    return found


def _scale(header: bytes) -> int:
    """Ticks in a second, of an ``mvhd`` or ``mdhd``: behind two times of 32 or, in version 1, 64 bits."""
    place = 20 if header[:1] == b"\1" else 12
    return int.from_bytes(header[place : place + 4], "big")


def _entries(box: bytes) -> Iterator[tuple[int, int, Fraction]]:
    """Entries of an ``elst``; those that are cut off are left out."""
    layout = struct.Struct(">QqhH" if box[:1] == b"\1" else ">IihH")
    count = int.from_bytes(box[4:8], "big")
    for n in range(min(count, (len(box) - 8) // layout.size)):
        duration, media_time, whole, part = layout.unpack_from(box, 8 + n * layout.size)
        yield duration, media_time, whole + Fraction(part, 1 << 16)


def refuse_speed(lists: dict[int, EditList], track: int, what: str) -> None:
    """Refuse a track that is shown at another speed.

    Raises:
        AlignError: ``edit_rate``.
    """
    if track in lists and not lists[track].is_paced:
        detail = f"the edit list of its {what} plays a stretch at another speed, or holds one frame"
        raise AlignError("edit_rate", f"{detail}: export it as it is to be seen", stage="probe")


def edited_video(info: VideoInfo, edits: EditList | None) -> VideoInfo:
    """A video probed by media time, as its edit list shows it."""
    shown = _shown(edits, info.span)
    inside = (
        key - edit.offset_ns
        for edit in shown.pieces
        for key in info.keyframes_ns
        if edit.span.holds(key - edit.offset_ns)
    )
    return replace(info, span=_hull(shown), keyframes_ns=tuple(sorted(inside)), edits=shown)


def edited_audio(info: AudioInfo, edits: EditList | None) -> AudioInfo:
    """Sound probed by media time, as its edit list plays it."""
    shown = _shown(edits, info.span)
    return replace(info, span=_hull(shown), edits=shown)


def _shown(edits: EditList | None, media: TimeSpan) -> Edits:
    return Edits(media, (Edit(media, 0),) if edits is None else edits.shown(media))


def _hull(edits: Edits) -> TimeSpan:
    if not edits.pieces:
        return TimeSpan(0, 0)
    return TimeSpan(edits.pieces[0].span.start_ns, max(p.span.end_ns for p in edits.pieces))
