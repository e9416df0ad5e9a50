"""Where in a tar file each sample and each of its parts lies."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from align.schemas.errors import AlignError
from align.transforms.formats.tar_members import Member, members

_NAME = re.compile(r"([A-Za-z0-9_-]+)[.]([A-Za-z0-9_.-]+)")
"""webdataset's rule: the key ends at the first dot of the base name, the rest is the part's name. Here
without folders, control characters, or quotes: these names go into the indexes of other loaders."""


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
    """The samples of a tar file in its order; reads headers only.

    Raises:
        AlignError: ``bad_shard``, it is no tar that a run writes.
    """
    found: list[TarSample] = []
    for key, group in itertools.groupby(_named(stream), key=lambda named: named[0]):
        held = list(group)
        parts = tuple(Part(kind, member.offset, member.size) for _, kind, member in held)
        found.append(TarSample(key, held[0][2].start, held[-1][2].end, parts))
    return found


def _named(stream: IO[bytes]) -> Iterator[tuple[str, str, Member]]:
    for member in members(stream):
        name = _NAME.fullmatch(member.name)
        if name is None:
            detail = f"tar member {member.name!r} is no part of a sample; run align verify"
            raise AlignError("bad_shard", detail, stage="verify")
        yield name[1], name[2], member
