"""Text as a terminal may safely be given it: what would move the cursor or turn the line is shown instead."""

from __future__ import annotations

import re

# C0 and C1 controls and DEL; marks that turn the writing direction; line and paragraph separators; what is no
# character: lone surrogates.
_SENT_NOWHERE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb"
    r"\ud800-\udfff]|[\t\n]"
)


def printable(text: str, keep: str = "\n\t") -> str:
    """The text with control characters and direction marks as escapes such as ``\\x1b``.

    Args:
        text: of whatever origin.
        keep: which of line break and tab stay as they are.
    """
    return _SENT_NOWHERE.sub(lambda found: found[0] if found[0] in keep else _shown(found[0]), text)


def one_line(text: str) -> str:
    """The same on one line: runs of white space become a blank."""
    return printable(" ".join(text.split()), keep="")


def _shown(character: str) -> str:
    return ascii(character)[1:-1]
