"""Opens media files, and nothing else: what a file is, its first bytes decide, never its name.

FFmpeg follows playlists, concatenation scripts and image patterns to other files and to the network,
whatever their file name claims. So the demuxer is chosen here, from a short list of self-contained
formats, and forced; a path is handed on as ``file:`` plus an absolute path, so that no character of it
means anything; and the only protocol allowed is the file itself.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from contextlib import closing
from typing import BinaryIO

import av
from av.container import InputContainer

from align.schemas.errors import AlignError, Reason
from align.schemas.media import MediaInfo
from align.transforms.read.file_part import FilePart
from align.transforms.read.tracks import tracks_of

Opener = Callable[[str], BinaryIO]
"""Opens a URI as a seekable binary file object."""

HEAD_BYTES = 1024
MAX_STREAMS = 64
OPTIONS = {"protocol_whitelist": "file", "max_streams": str(MAX_STREAMS)}
"""Of every container. A demuxer that could follow references is not let in; should one, it calls nobody."""

_MOV_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"})
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_RIFF = {b"AVI ": "avi", b"WAVE": "wav"}
_MAGIC = (
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"FLV\x01", "flv"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"ID3", "mp3"),
)


def sniff(head: bytes) -> str | None:
    """The libavformat demuxer for a file that begins with ``head``; None where it is no accepted medium.

    Args:
        head: the first ``HEAD_BYTES`` bytes, or the whole file where it is shorter.
    """
    if len(head) >= 8 and head[4:8] in _MOV_BOXES:
        return "mov"
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(head[8:12])
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if _is_transport_stream(head):
        return "mpegts"
    return _sniff_bare_audio(head)


def _is_transport_stream(head: bytes) -> bool:
    """ISO/IEC 13818-1: packets of 188 bytes, each beginning with 0x47; M2TS puts 4 bytes before each."""
    return any(
        len(head) > offset + 2 * size and all(head[offset + n * size] == 0x47 for n in range(3))
        for offset, size in ((0, 188), (4, 192))
    )


def _is_bare_video(head: bytes) -> bool:
    """Parameter sets, remarks or a delimiter behind a start code (ITU-T H.264 and H.265, Annex B)."""
    start = re.match(rb"\0{2,3}\x01(..)", head, re.DOTALL)
    if start is None:
        return False
    first, second = start[1]
    return first & 0x9F in (6, 7, 9) or (first in (0x40, 0x42, 0x46) and second == 1)


def _sniff_bare_audio(head: bytes) -> str | None:
    """ADTS and MPEG audio: eleven or twelve sync bits, then a layer (ISO/IEC 13818-7, 11172-3)."""
    if len(head) < 4 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:
        return "aac"
    is_mp3 = head[1] & 0xE6 == 0xE2 and head[1] & 0x18 != 0x08 and head[2] >> 4 not in (0, 15)
    return "mp3" if is_mp3 else None


def has_scheme(uri: str) -> bool:
    """Whether ``uri`` names a file system (``gs://…``) and not a local path."""
    return bool(_SCHEME.match(uri))


def local_file(path: str) -> str:
    """The absolute path of a regular, non-empty file.

    Raises:
        AlignError: ``missing_file``, ``not_a_file``, ``empty_file`` or ``unreadable_file``.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise AlignError("missing_file", f"{path!r} is not there", stage="probe") from None
    except (OSError, ValueError) as e:
        raise AlignError("unreadable_file", f"{path!r} cannot be looked at: {_why(e)}", stage="probe") from e
    if not stat.S_ISREG(found.st_mode):
        raise AlignError("not_a_file", f"{path!r} is not a regular file", stage="probe")
    if found.st_size == 0:
        raise AlignError("empty_file", f"{path!r} holds no bytes", stage="probe")
    return os.path.abspath(path)


def open_bytes(uri: str, opener: Opener | None = None) -> BinaryIO:
    """Open a file for reading, through ``opener`` where one is given.

    Raises:
        AlignError: as :func:`local_file`, and ``unreadable_file`` where opening fails.
    """
    if opener is None and has_scheme(uri):
        raise AlignError(
            "unreadable_file", f"{uri!r} is not a local path, and nothing opens it", stage="probe"
        )
    try:
        return opener(uri) if opener is not None else open(local_file(uri), "rb")
    except FileNotFoundError:
        raise AlignError("missing_file", f"{uri!r} is not there", stage="probe") from None
    except OSError as e:
        raise AlignError("unreadable_file", f"{uri!r} cannot be opened: {_why(e)}", stage="probe") from e


def open_media(uri: str, opener: Opener | None = None, *, by_media_time: bool = False) -> InputContainer:
    """Open a medium with the demuxer that its first bytes call for.

    Args:
        uri: a local path, or whatever ``opener`` understands.
        opener: opens the URI as a seekable file object; None reads a local path.
        by_media_time: leave the edit lists of an MP4 to the caller.

    Raises:
        AlignError: ``missing_file``, ``not_a_file``, ``empty_file``, ``unreadable_file``,
            ``unknown_format`` (no accepted medium), ``bad_container`` (the header cannot be read),
            ``encrypted`` (for that reason).
    """
    source = open_bytes(uri, opener)
    try:
        head = source.read(HEAD_BYTES)
        source.seek(0)
    except OSError as e:
        source.close()
        raise AlignError("unreadable_file", f"{uri!r} cannot be read: {_why(e)}", stage="probe") from e
    format_name = sniff(head)
    if not head or format_name is None:
        source.close()
        code, what = ("unknown_format", "is no accepted medium") if head else ("empty_file", "holds no bytes")
        if _is_bare_video(head):
            what = "is bare H.264 or HEVC, and nothing in it says when: put it into a container at its rate, "
            what += "e.g. ffmpeg -framerate 30 -i FILE -c copy FILE.mp4"
        raise AlignError(code, f"{uri!r} {what}", stage="probe")
    try:
        if opener is not None:
            return open_as(format_name, uri, source, by_media_time=by_media_time)
        source.close()
        return open_as(format_name, uri, "file:" + local_file(uri), by_media_time=by_media_time)
    except AlignError as error:
        with closing(open_bytes(uri, opener)) as again:
            if any(track.encrypted for track in tracks_of(again, format_name).values()):
                detail = f"{uri!r} is encrypted, and its header cannot be read; decrypt the file first"
                raise AlignError(Reason.ENCRYPTED, detail, stage="probe") from error
        raise


def open_probed(uri: str, media: MediaInfo, opener: Opener | None = None) -> InputContainer:
    """Open a medium again as it was probed: up to where its clock restarts, with or without edit lists.

    Args:
        uri: as :func:`open_media` takes it.
        media: the same file, probed.
        opener: the same.

    Raises:
        AlignError: as :func:`open_media`.
    """
    return open_media(uri, first_timeline(media, opener), by_media_time=media.is_edited)


def first_timeline(media: MediaInfo, opener: Opener | None = None) -> Opener | None:
    """Opens a probed file up to where its clock restarts; the opener given where it does not."""
    restart = media.restart
    if restart is None:
        return opener
    return lambda uri: FilePart(open_bytes(uri, opener), 0, restart.byte)


def open_as(
    format_name: str, uri: str, source: str | BinaryIO, *, by_media_time: bool = False
) -> InputContainer:
    """Open what is known to be of a format, by libavformat's name of its demuxer.

    Raises:
        AlignError: ``bad_container``: the header cannot be read.
    """
    options = {**OPTIONS, **({"ignore_editlist": "1"} if by_media_time else {})}
    try:
        container = av.open(
            source, mode="r", format=format_name, container_options=options, metadata_errors="replace"
        )
    except (av.error.FFmpegError, OSError, ValueError, OverflowError) as e:
        detail = f"{uri!r} is damaged: its {format_name} header cannot be read ({_why(e)})"
        raise AlignError("bad_container", detail, stage="probe") from e
    for stream in container.streams.video:
        # Threads save no CPU, and whatever they started before a fork hangs after it.
        if stream.codec_context is not None:  # an unknown codec has none
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = "NONE"
    return container


def _why(error: Exception) -> str:
    """What an error says, without the paths and addresses that it also carries."""
    return getattr(error, "strerror", None) or type(error).__name__
