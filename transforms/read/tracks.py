"""What a file's header says of its tracks and libavformat does not hand on: codec, lock, visible part.

Some containers say such things: MP4 and QuickTime in sample entries, Matroska in track entries, AVI in
stream headers, MPEG-TS on each packet. Of others nothing is known here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from av.container import InputContainer
from av.stream import Disposition, Stream

from align.schemas.errors import Reason
from align.schemas.media import ClosedTrack
from align.schemas.time import round_ties_up
from align.transforms.read.ebml import matroska_tracks
from align.transforms.read.track import Crop, Track, printable, within

_MOST_BOXES = 100_000
_MOST_ENTRIES = 64
_FIRST_PACKETS = 1_000
_VISUAL, _AUDIO = 86, {0: 36, 1: 52, 2: 72}
"""Bytes of a sample entry before its boxes: ISO/IEC 14496-12, 12.1.3; of sound by version (QuickTime)."""
_LOCKED = frozenset({"encv", "enca", "drmi", "drms"})


def tracks_of(file: BinaryIO, format_name: str) -> dict[int, Track]:
    """The tracks that the header of a file lists.

    Args:
        file: seekable; its position is kept.
        format_name: the demuxer's, as libavformat gives it.

    Returns:
        By ``stream.id`` for MP4 and MPEG-TS, where that is the track's own number, else by ``stream.index``.
        Empty where the header cannot be read: the demuxer is the one to say so.
    """
    names = format_name.split(",")
    kept = file.tell()
    try:
        size = file.seek(0, io.SEEK_END)
        if "mov" in names:
            return dict(_mp4_tracks(file, size))
        if "matroska" in names:
            return dict(enumerate(matroska_tracks(file, size)))
        if "mpegts" in names:
            return dict(_transport_tracks(file))
        if "avi" in names:
            return dict(enumerate(_avi_tracks(file, size)))
    except (struct.error, OverflowError, OSError):
        pass
    finally:
        file.seek(kept)
    return {}


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int  # of its content
    end: int


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """MP4 boxes between two places of a file (ISO/IEC 14496-12, 4.2)."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack(">I4s", _at(file, start, 8))
        head = 8
        if size == 1:
            (size,) = struct.unpack(">Q", _at(file, start + 8, 8))
            head = 16
        if size and size < head:
            return
        after = min(start + size, end) if size else end
        yield _Box(kind, start + head, after)
        start = after


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _child(file: BinaryIO, parent: _Box | None, *path: bytes) -> _Box | None:
    """The first box at a path below another."""
    for kind in path:
        if parent is None:
            return None
        parent = next((b for b in _boxes(file, parent.start, parent.end) if b.kind == kind), None)
    return parent


def _mp4_tracks(file: BinaryIO, size: int) -> Iterator[tuple[int, Track]]:
    movie = _child(file, _Box(b"", 0, size), b"moov")
    for box in _boxes(file, movie.start, movie.end) if movie else ():
        header, media = _child(file, box, b"tkhd"), _child(file, box, b"mdia")
        if box.kind != b"trak" or header is None:
            continue
        kind, entries = _child(file, media, b"hdlr"), _child(file, media, b"minf", b"stbl", b"stsd")
        is_long = _at(file, header.start, 1) == b"\1"
        (number,) = struct.unpack(">I", _at(file, header.start + (20 if is_long else 12), 4))
        handler = _at(file, kind.start + 8, 4) if kind else b""
        found = [*_sample_entries(file, entries, handler)] if entries else []
        if found:
            crop = next((t.crop for t in found if t.crop), None)
            locked = any(t.encrypted for t in found)
            layers = any(t.has_layers for t in found)
            yield number, Track(found[0].codec, locked, crop, len(found), layers)


def _sample_entries(file: BinaryIO, table: _Box, handler: bytes) -> Iterator[Track]:
    for n, entry in enumerate(_boxes(file, table.start + 8, table.end)):
        if n == _MOST_ENTRIES:
            return
        at = entry.start - 8
        children = {}
        if handler in (b"vide", b"soun"):
            version = int.from_bytes(_at(file, at + 16, 2), "big")
            head = _VISUAL if handler == b"vide" else _AUDIO.get(version, _AUDIO[0])
            children = {b.kind: b for b in _boxes(file, at + head, entry.end)}
        lock, aperture = children.get(b"sinf"), children.get(b"clap")
        codec, crop = entry.kind, None
        if lock is not None:
            original = _child(file, lock, b"frma")
            codec = _at(file, original.start, 4) if original else codec
        if aperture is not None and handler == b"vide":
            width, height = struct.unpack(">HH", _at(file, at + 32, 4))
            crop = clean_aperture(_at(file, aperture.start, 32), width, height)
        yield Track(
            printable(codec),
            lock is not None or printable(entry.kind) in _LOCKED,
            crop,
            1,
            b"lhvC" in children,
        )


def clean_aperture(content: bytes, width: int, height: int) -> Crop | None:
    """The visible part of a picture by its ``clap`` box (ISO/IEC 14496-12, 12.1.4).

    The box states width, height and the offset of the centre as fractions; each of the four edges that follow
    is rounded to the nearest pixel, ties up, and kept within the picture.

    Args:
        content: of the box.
        width: of the stored picture, pixels.
        height: likewise.

    Returns:
        None where all of the picture is visible, or the box makes no sense.
    """
    if len(content) < 32:
        return None
    wide, w_per, high, h_per, right, r_per, down, d_per = struct.unpack(">IIIIiIiI", content[:32])
    if not (w_per and h_per and r_per and d_per):
        return None
    edges = []
    for whole, size, offset in (
        (width, Fraction(wide, w_per), Fraction(right, r_per)),
        (height, Fraction(high, h_per), Fraction(down, d_per)),
    ):
        first = (whole - size) / 2 + offset
        edges.append((round_ties_up(first), round_ties_up(first + size)))
    (left, past), (top, under) = edges
    return within(left, top, past, under, width, height)


def _transport_tracks(file: BinaryIO) -> Iterator[tuple[int, Track]]:
    """Tracks whose first packets are scrambled (ISO/IEC 13818-1, 2.4.3.3). M2TS puts 4 bytes before each."""
    data = _at(file, 0, _FIRST_PACKETS * 192)
    ahead = 4 if data[4:5] == b"\x47" and data[196:197] == b"\x47" and data[388:389] == b"\x47" else 0
    scrambled: dict[int, list[bool]] = {}
    for at in range(ahead, len(data) - 3, 188 + ahead):
        if data[at] != 0x47:
            return
        if data[at + 3] & 0x10:  # there is a payload
            number = int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF
            scrambled.setdefault(number, []).append(data[at + 3] >= 0x80)
    for number, marks in scrambled.items():
        if 2 * sum(marks) > len(marks):
            yield number, Track("", encrypted=True)


def _avi_tracks(file: BinaryIO, size: int) -> Iterator[Track]:
    """Stream headers of an AVI: ``LIST hdrl`` holds a ``LIST strl`` with ``strh`` and ``strf`` for each."""
    for _, start, end in _chunks(file, 12, size, b"hdrl"):
        for _, inside, past in _chunks(file, start, end, b"strl"):
            chunks = {kind: at for kind, at, _ in _chunks(file, inside, past)}
            header, shape = chunks.get(b"strh"), chunks.get(b"strf")
            if header is None or shape is None:
                yield Track("")
            elif _at(file, header, 4) == b"vids":
                yield Track(printable(_at(file, shape + 16, 4)))
            else:
                yield Track(f"0x{int.from_bytes(_at(file, shape, 2), 'little'):04x}")
        return


def _chunks(
    file: BinaryIO, start: int, end: int, of_list: bytes | None = None
) -> Iterator[tuple[bytes, int, int]]:
    """RIFF chunks: kind, start and end of the content; with ``of_list``, only lists of that type."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        kind, size = struct.unpack("<4sI", _at(file, start, 8))
        after = min(start + 8 + size, end)
        if of_list is None:
            yield kind, start + 8, after
        elif kind == b"LIST" and _at(file, start + 8, 4) == of_list:
            yield of_list, start + 12, after
        start += 8 + size + size % 2


def track_of(tracks: Mapping[int, Track], stream: Stream) -> Track:
    """What the header says of a stream; nothing where it says nothing."""
    has_number = {"mov", "mpegts"} & set(stream.container.format.name.split(","))
    place = stream.id if has_number else stream.index
    return tracks.get(place, Track(""))


def closed_tracks(container: InputContainer, tracks: Mapping[int, Track]) -> Iterator[ClosedTrack]:
    """Tracks of picture and sound that cannot be decoded: encrypted, or of a codec that is not known here."""
    for stream in container.streams:
        if stream.type not in ("video", "audio") or stream.disposition & Disposition.attached_pic:
            continue
        track = track_of(tracks, stream)
        known = stream.codec_context is not None
        codec = stream.codec_context.name if known else track.codec
        if track.encrypted or not known:
            reason = Reason.ENCRYPTED if track.encrypted else Reason.UNSUPPORTED
            yield ClosedTrack(stream.index, stream.type, codec or "unknown", reason)
