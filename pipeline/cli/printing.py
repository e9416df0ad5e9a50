"""Tables, styles and bars on a terminal: control characters in data are shown, never sent.

Names, paths and messages come from files that others wrote. Every command prints through :data:`console` or
:func:`~align.pipeline.cli.echo.echo`, so that no single place has to think of it; a test holds that there is
no other way. Nothing in a text is markup: styles are arguments, or :class:`rich.text.Text`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from align.schemas.printable import printable


class SafeConsole(Console):
    """A console that knows no markup, and whose texts hold no control characters; styles are its own."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """A string as text: before rich drops some controls without a word."""
        return super().render_str(printable(text), **how)

    def render(self, *given: Any, **how: Any) -> Iterable[Segment]:
        """What is to be printed. Control segments, which move a progress bar, are rich's own."""
        for segment in super().render(*given, **how):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                yield Segment("\n".join(map(printable, segment.text.split("\n"))), segment.style)


console = SafeConsole()
