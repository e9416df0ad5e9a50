"""The members of a tar file as a run writes it: regular files, one after the other, and nothing else.

General readers follow what a header claims: a GNU sparse member of 1,536 bytes unfolds to gigabytes, a PAX
record replaces a size, a member may be a link or a device. Ours are USTAR headers (POSIX 1003.1, ``pax``) of
regular files, with a PAX header only where a name is longer than 100 bytes; all else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_END
from typing import IO

from align.schemas.errors import AlignError

BLOCK = 512
_MOST_BYTES = 256 << 20
_MOST_PAX = 1 << 16
_PAX = b"x"
_OCTAL = re.compile(rb"[ 0]*([0-7]{1,11})[ \0]*|[ \0]*")
_RECORD = re.compile(rb"(\d{1,5}) path=([^\n\0]*)\n")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a tar.

    Attributes:
        name: as it is written, not yet checked.
        start: of its headers, in bytes.
        offset: of its content.
        size: of its content, padding left out.
    """

    name: str
    start: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where the next member starts."""
        return self.offset + -(-self.size // BLOCK) * BLOCK


def members(stream: IO[bytes]) -> Iterator[Member]:
    """The members in their order. After each, the stream stands at its content, which may be read or not.

    Raises:
        AlignError: ``bad_shard``: broken, cut off, or a member that a run does not write.
    """
    size = stream.seek(0, SEEK_END)
    at = stream.seek(0)
    while True:
        member = _member(stream, at, size)
        if member is None:
            return
        yield member
        at = member.end
        stream.seek(at)


def content(stream: IO[bytes], member: Member) -> bytes:
    """What a member holds; the stream must stand at its content."""
    if member.size > _MOST_BYTES:
        raise _bad(member.start, f"is larger than {_MOST_BYTES >> 20} MB")
    return stream.read(member.size)


def _member(stream: IO[bytes], start: int, size: int) -> Member | None:
    header, at, name = _header(stream, start), start, None
    if header is None:
        return None
    if header[156:157] == _PAX:
        held = _number(header[124:136], at)
        if not 0 < held <= _MOST_PAX:
            raise _bad(start, "has a PAX header of an unlikely size")
        name = _pax_name(stream.read(-(-held // BLOCK) * BLOCK)[:held], start)
        at += BLOCK + -(-held // BLOCK) * BLOCK
        header = _header(stream, at)
    if header is None or header[156:157] not in (b"0", b"\0"):
        raise _bad(start, "is no regular file")
    member = Member(name or _name(header), start, at + BLOCK, _number(header[124:136], start))
    if member.end > size:
        raise _bad(start, f"claims {member.size} bytes, more than the file has")
    return member


def _header(stream: IO[bytes], at: int) -> bytes | None:
    """A header block whose sum holds; None at the end of the archive."""
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        raise _bad(at, "is cut off")
    if not block.strip(b"\0"):
        return None
    if sum(block[:148]) + sum(block[156:]) + 8 * ord(" ") != _number(block[148:156], at):
        raise _bad(at, "has a header whose sum does not hold")
    if block[257:263] != b"ustar\0":
        raise _bad(at, "has no USTAR header")
    return block


def _number(field: bytes, at: int) -> int:
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise _bad(at, "has a number that is not octal")
    return int(found[1] or b"0", 8)


def _name(header: bytes) -> str:
    name, prefix = (header[a:b].split(b"\0", 1)[0] for a, b in ((0, 100), (345, 500)))
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _pax_name(data: bytes, start: int) -> str:
    """The name in a PAX header that holds nothing else."""
    found = _RECORD.fullmatch(data)
    if found is None or int(found[1]) != len(data):
        raise _bad(start, "has a PAX header that says more than a name")
    return found[2].decode("utf-8", "surrogateescape")


def _bad(at: int, detail: str) -> AlignError:
    return AlignError(
        "bad_shard", f"tar member at byte {at} {detail}; align wrote no such file", stage="verify"
    )
