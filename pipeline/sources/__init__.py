"""One file per data set; each gives recordings from metadata alone.

To add a source, write a function from :class:`SourceOptions` to recordings and faults, in a file of its own,
and name it in :data:`SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import cast

from align.schemas.errors import Fault, UsageError
from align.schemas.recording import Recording


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where a data set lies and which of its recordings are meant.

    Attributes:
        input: its folder, a local path or a URI.
        media: which rendition of the media, for sources that have several.
        recordings: only these ids; empty for all.
        limit: at most so many recordings, the first ones.
        scenarios: only recordings with one of these labels, whatever their case; empty for all.
        exclude: never these ids.
    """

    input: str
    media: str = "full_scale"
    recordings: tuple[str, ...] = ()
    limit: int | None = None
    scenarios: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


Source = Callable[[SourceOptions], Iterator[Recording | Fault]]


def _late(module: str) -> Source:
    """A source whose module is imported when it is first used."""

    def recordings(options: SourceOptions) -> Iterator[Recording | Fault]:
        source = cast(Source, import_module(f"{__name__}.{module}").recordings)
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
        raise UsageError(f"unknown --source {name!r}{did_you_mean(name, SOURCES)}; known: {known}")
    return SOURCES[name]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the closest known name, or nothing."""
    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
