"""Plain lines to standard output and standard error, without what a terminal would obey."""

from __future__ import annotations

import click

from align.schemas.printable import printable


def echo(*lines: str, err: bool = False) -> None:
    """Print lines as they may be seen; a line break inside one is shown, and starts no other."""
    click.echo("\n".join(map(printable, lines)), err=err)
