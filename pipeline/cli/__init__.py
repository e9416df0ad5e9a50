"""The command line: each command is options, one library call, and what to look at next."""

from align.pipeline.cli.main import main

__all__ = ["main"]
