"""Where in a tar file each sample and each of its parts lies."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from typing import IO

_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
"""webdataset's rule: the key ends at the first dot of the base name, the rest is the part's name."""
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Part:
    """One file in a tar: ``name`` without the key, and the place of its content in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TarSample:
    """Neighbouring files of one key; ``[start, end)`` in bytes, headers and padding included."""

    key: str
    start: int
    end: int
    parts: tuple[Part, ...]


def scan(stream: IO[bytes]) -> list[TarSample]:
    """The samples of a tar file in its order; reads headers only."""
    found: list[TarSample] = []
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            name = _NAME.fullmatch(member.name)
            if not member.isreg() or name is None:
                continue
            key, part = name[1], Part(name[2], member.offset_data, member.size)
            end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
            if found and found[-1].key == key:
                last = found[-1]
                found[-1] = TarSample(key, last.start, end, (*last.parts, part))
            else:
                found.append(TarSample(key, member.offset, end, (part,)))
    return found
