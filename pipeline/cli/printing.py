"""The one way to standard output and standard error: control characters in data are shown, never sent.

Everything that a command prints goes through a text stream that makes it printable, so that no single place
has to think of it. Only what rich and click send on their own account, colours and the moves of a progress
bar, passes: the console of :mod:`align.pipeline.cli.console` makes its texts printable one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

from align.schemas.printable import printable


class SafeConsole(Console):
    """A console whose texts hold no control characters; the styles are its own."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """What is to be printed, its texts made printable. Control segments are rich's own."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


class SafeStream:
    """A text stream that makes printable what is written to it, for all that prints without a console."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text as it may be seen."""
        self._stream.write(printable(text, keep="\n\t\r"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
