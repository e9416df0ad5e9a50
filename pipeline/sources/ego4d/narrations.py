"""EGO4D's narrations, joined to videos by uid in bounded memory.

The file holds millions of sentences, in an order of its own. One pass over it leaves what is needed in a
temporary file, about a third of the size, and in memory only where each video's part lies there.
Format: the EGO4D documentation's ``annotations-schemas.md``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from tempfile import TemporaryFile
from typing import IO

from align.pipeline.sources.json_fields import LONGEST_S, clean, is_number
from align.pipeline.sources.json_stream import stream_items
from align.pipeline.storage.files import open_input
from align.schemas.errors import AlignError, Fault
from align.schemas.recording import Narration
from align.schemas.time import NS, TimeSpan

_HALF = Decimal("0.5")


@dataclass(frozen=True, slots=True)
class Told:
    """What was narrated of one recording.

    Attributes:
        narrations: sorted by time; None where nobody narrated it.
        malformed: sentences dropped because they have no text or no finite time.
        outside: sentences dropped because their time lies outside the recording.
    """

    narrations: tuple[Narration, ...] | None
    malformed: int = 0
    outside: int = 0


class Narrations:
    """The narrations of many videos, spooled. Close it, or use it as a context manager.

    Args:
        uri: ``narration.json``, or None where there is none.
        wanted: uids of the videos that will be asked for.

    Attributes:
        faults: what was wrong with the file as a whole.
        absence: why a video that the file does not name has no narrations, in words.
    """

    def __init__(self, uri: str | None, name: str, wanted: Collection[str]) -> None:
        self.faults: list[Fault] = []
        self.absence = f"{name} is not there" if uri is None else f"{name} does not name it"
        self._places: dict[str, tuple[int, int]] = {}
        self._spool: IO[bytes] = TemporaryFile(prefix="align-narrations-")  # noqa: SIM115
        if uri is not None:
            self._fill(uri, name, wanted)

    def __enter__(self) -> Narrations:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def of(self, video_uid: str, origin_ns: int, span: TimeSpan | None) -> Told:
        """The sentences about one recording.

        Args:
            video_uid: the canonical video.
            origin_ns: where the recording clock's 0 lies on the canonical video's clock.
            span: the recording on its own clock, as far as known. A sentence about an instant before the
                first frame or at the very end still belongs to it.
        """
        if video_uid not in self._places:
            return Told(None)
        offset, length = self._places[video_uid]
        self._spool.seek(offset)
        rows, malformed = json.loads(self._spool.read(length))
        if rows is None:
            return Told(None, malformed)
        end_ns = LONGEST_S * NS if span is None else span.end_ns
        moved = ((time_ns - origin_ns, raw) for time_ns, raw in rows)
        inside = sorted((t, raw) for t, raw in moved if 0 <= t <= end_ns)
        return Told(tuple(Narration(t, raw) for t, raw in inside), malformed, len(rows) - len(inside))

    def _fill(self, uri: str, name: str, wanted: Collection[str]) -> None:
        try:
            with open_input(uri) as file:
                for uid, entry in stream_items(file, name):
                    if uid in wanted and uid not in self._places:
                        self._places[uid] = self._write(entry)
                    if len(self._places) == len(wanted):
                        break  # a few recordings of many: no need to read on
        except (AlignError, OSError) as e:
            # What stands before the fault is sound, and text is one modality of several.
            self.absence = f"{name} is damaged and does not name it before the damage"
            why = e.strerror if isinstance(e, OSError) else e  # an OSError's text holds the absolute path
            self.faults.append(Fault("", None, "source", "bad_narrations", f"{name}: {why}", "noted", 0))

    def _write(self, entry: object) -> tuple[int, int]:
        offset = self._spool.tell()
        return offset, self._spool.write(json.dumps(_compact(entry)).encode())


def _compact(entry: object) -> tuple[list[tuple[int, str]] | None, int]:
    """Times and texts of all passes, and how many sentences are malformed; None for no pass at all."""
    passes = list(_passes(entry))
    rows, malformed = [], 0
    for sentences in passes:
        if not isinstance(sentences, list):
            malformed += 1
            continue
        for sentence in sentences:
            row = _row(sentence)
            if row is None:
                malformed += 1
            else:
                rows.append(row)
    return (rows if passes else None), malformed


def _passes(entry: object) -> Iterator[object]:
    """What the annotators' passes hold: two annotators narrate each video, and either may be absent."""
    for key, value in entry.items() if isinstance(entry, dict) else ():
        if key.startswith("narration_pass_") and value is not None:
            yield value.get("narrations", []) if isinstance(value, dict) else value


def _row(sentence: object) -> tuple[int, str] | None:
    if not isinstance(sentence, dict):
        return None
    time_s, raw = sentence.get("timestamp_sec"), sentence.get("narration_text")
    if not is_number(time_s) or abs(time_s) > LONGEST_S or not isinstance(raw, str):
        return None
    return nanoseconds(time_s), clean(raw)


def nanoseconds(value: float) -> int:
    """What ``seconds_to_ns`` gives, six times as fast: there are millions of these.

    Exact because a float prints at most 17 digits, and the decimal context keeps 28.
    """
    return math.floor(Decimal(repr(value)) * NS + _HALF)
