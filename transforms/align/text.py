"""Narrations of one window: sentences with their tags removed."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter

from align.schemas.recording import Narration
from align.schemas.time import TimeSpan

# EGO4D annotation guidelines: "#C C …" is the camera wearer, "#O …" someone else, "#unsure" marks doubt,
# "#summary" a summary. The letter after "#C" names the wearer once more and is part of the tag.
_WEARER = re.compile(r"^\s*#\s*c\s+c\b", re.IGNORECASE)
_TAG = re.compile(r"#\s*\w+")


def strip_tags(raw: str) -> str:
    """The sentence without ``#`` tags, white space folded; other words are left as written."""
    return " ".join(_TAG.sub(" ", _WEARER.sub(" ", raw)).replace("#", " ").split())


def narrations_in(narrations: Sequence[Narration], window: TimeSpan) -> tuple[Narration, ...]:
    """The narrations (ascending in time) whose instant lies in ``[start, end)`` of the window."""
    time = attrgetter("time_ns")
    first = bisect_left(narrations, window.start_ns, key=time)
    return tuple(narrations[first : bisect_left(narrations, window.end_ns, key=time)])
