"""Large JSON files, item by item, in the memory of one item.

The standard decoder runs over a growing buffer: as fast as ijson's C backend, and unlike it at home with what
Python programs write. NaN, invalid UTF-8 and lone surrogates cost a number or a character, not the rest of
the file.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import BinaryIO

from align.schemas.errors import AlignError

_CHUNK = 1 << 20
_LARGEST_ITEM = 1 << 28
_NEAR_END = 64
"""An error this close to the buffer's end may be due to the cut: only strings are longer than this."""


def stream_items(file: BinaryIO, name: str) -> Iterator[tuple[str, object]]:
    """The members of the object that the file holds, arrays unrolled.

    Args:
        file: bytes of UTF-8 JSON, with or without a byte order mark.
        name: what messages call the file.

    Yields:
        ``(key, value)`` for each member, in file order; ``(key, item)`` for each item of a member that is an
        array.

    Raises:
        AlignError: ``bad_metadata``; the file is cut short or is not a JSON object. Items before the
            fault have been given.
    """
    text = _Buffer(file, name)
    text.take("{")
    while text.peek() != "}":
        key = text.value()
        if not isinstance(key, str):
            raise text.malformed("a member has no name")
        text.take(":")
        if text.peek() == "[":
            yield from ((key, item) for item in _array(text))
        else:
            yield key, text.value()
        if text.peek() != "}":
            text.take(",")


def _array(text: _Buffer) -> Iterator[object]:
    text.take("[")
    while text.peek() != "]":
        yield text.value()
        if text.peek() != "]":
            text.take(",")
    text.take("]")


class _Buffer:
    """The part of the file that is being decoded."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._to_text = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._decode = json.JSONDecoder(strict=False).raw_decode
        self._text = ""
        self._at = 0
        self._dropped = 0
        self._ended = False

    def malformed(self, why: str) -> AlignError:
        where = self._dropped + self._at
        return AlignError(
            "bad_metadata",
            f"{self._name} is not valid JSON after {where} characters ({why}): download it again",
            stage="source",
        )

    def peek(self) -> str:
        """The next character that is no white space."""
        while True:
            rest = len(self._text)
            while self._at < rest and self._text[self._at] in " \t\n\r":
                self._at += 1
            if self._at < rest:
                return self._text[self._at]
            if self._ended:
                raise self.malformed("it ends early")
            self._read(_CHUNK)

    def take(self, char: str) -> None:
        """Step over a character that must come next."""
        if self.peek() != char:
            raise self.malformed(f"{char!r} expected, {self._text[self._at]!r} found")
        self._at += 1

    def value(self) -> object:
        """Decode the value that comes next."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as e:
                if self._ended:
                    raise self.malformed("it ends early" if self._may_be_cut(e) else e.msg) from e
                if not self._may_be_cut(e):
                    raise self.malformed(e.msg) from e
            except (RecursionError, ValueError) as e:
                raise self.malformed("it nests too deep or holds an absurd number") from e
            else:
                # A number before the cut may go on behind it, be it after "." or "e+".
                if end + 2 < len(self._text) or self._ended:
                    self._at = end
                    return value
            # Doubling keeps the repeated attempts at a large item linear in its size.
            self._read(max(_CHUNK, len(self._text) - self._at))

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or error.pos > len(self._text) - _NEAR_END

    def _read(self, size: int) -> None:
        if len(self._text) - self._at > _LARGEST_ITEM:
            raise self.malformed(f"an item is larger than {_LARGEST_ITEM >> 20} million characters")
        data = self._file.read(size)
        self._ended = not data
        self._dropped += self._at
        self._text = self._text[self._at :] + self._to_text.decode(data, final=self._ended)
        self._at = 0
