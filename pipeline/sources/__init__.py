"""One file per data set; each gives recordings from metadata alone.

To add a source, write a function from :class:`SourceOptions` to recordings and faults, in a file of its own,
and name it in :data:`SOURCES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from align.pipeline.storage.files import absolute, open_binary
from align.schemas.errors import Fault
from align.schemas.option import did_you_mean, integer, option, refuse, settle

if TYPE_CHECKING:
    from align.schemas.recording import Recording


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where a data set lies and which of its recordings are meant.

    Attributes:
        excluded: the ids that the file ``exclude`` names; read once, when the options are first made.
        clocks_sha256: of the content of ``clocks``; the same.
    """

    source: str = option("", "Data set layout to read: ego4d.", metavar="NAME")
    input: str = option("", "Folder (or gs://, s3://) with the recordings.", metavar="DIR")
    media: str = option("full_scale", "Which rendition, where there are several: video_540ss, clips.")
    recordings: tuple[str, ...] = option((), "Only these recordings.", metavar="UID,UID")
    limit: int | None = option(None, "Only the first N recordings.", integer, metavar="N", low=1)
    scenario: tuple[str, ...] = option((), "Only recordings of these scenarios.", metavar="NAME,NAME")
    exclude: str = option("", "A file of recording ids to leave out, one a line.", metavar="FILE")
    allow_symlinks: bool = option(False, "Follow links that leave the input folder.")
    clocks: str = option("", "Correct the IMU's clocks by what align sync measured.", metavar="FILE")
    excluded: tuple[str, ...] = ()
    clocks_sha256: str = ""

    def __post_init__(self) -> None:
        settle(self)
        if self.exclude and not self.excluded:
            lines = (line.strip() for line in read_text("exclude", self.exclude).splitlines())
            kept = dict.fromkeys(line for line in lines if line and not line.startswith("#"))
            object.__setattr__(self, "excluded", tuple(kept))
        if self.clocks and not self.clocks_sha256:
            sha256 = hashlib.sha256(read_file("clocks", self.clocks)).hexdigest()
            object.__setattr__(self, "clocks_sha256", sha256)


def read_file(name: str, path: str) -> bytes:
    """The content of a file that an option names.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with open_binary(absolute(path)) as stream:
            return stream.read()
    except OSError as error:
        raise refuse(name, f"{path} cannot be read: {error.strerror or error}") from None


def read_text(name: str, path: str) -> str:
    """The text of a file that an option names, in UTF-8.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        return read_file(name, path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(name, f"{path} is not UTF-8: {error}") from None


Source = Callable[[SourceOptions], "Iterator[Recording | Fault]"]


def _late(module: str) -> Source:
    """A source whose module is imported when it is first used."""

    def recordings(options: SourceOptions) -> Iterator[Recording | Fault]:
        source = cast("Source", import_module(f"{__name__}.{module}").recordings)
        return source(options)

    return recordings


SOURCES: dict[str, Source] = {"ego4d": _late("ego4d")}


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    if name not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise refuse("source", f"{name!r} is not known{did_you_mean(name, SOURCES)}; known: {known}")
    return SOURCES[name]
