"""Text as a terminal may safely be given it: what would move the cursor or turn the line is shown instead."""

from __future__ import annotations

import re

# C0 and C1 controls and DEL; marks that turn the writing direction; line and paragraph separators; marks of
# annotations; and what is no character: lone surrogates.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""The text on one line, with control characters and direction marks as escapes such as ``\x1b``."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)
