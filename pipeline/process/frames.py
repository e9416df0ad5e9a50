"""How a process and its decoder talk: frames of one byte of kind, four of length (big-endian), the payload.

Records travel as JSON, samples as Arrow record batches: nothing is pickled, so that a decoder taken over by a
hostile file can send data, but no code. Requests and what was read for the child go to its standard input;
replies, and what it wants read, come from its standard output.
"""

from __future__ import annotations

import json
from typing import BinaryIO

REQUEST = b"Q"
BYTES, SIZE, REFUSED = b"B", b"N", b"X"
"""To the child, beside requests: bytes of a file, its size, why it cannot be read."""

SAMPLE, COUNTS, FAULT, MEDIA, KEYFRAMES, SOUND, PART, ERROR, DEFECT, DONE = (
    bytes([c]) for c in b"SCFMKAPEXD"
)
READY, OPEN, READ = b"H", b"O", b"R"
"""From the child, beside replies: it has started; it wants a remote file opened, or bytes of one."""

HEADER_BYTES = 5
MOST_READ = 8 << 20
"""Bytes of a remote file that a child may ask for at once."""


def send(stream: BinaryIO, kind: bytes, payload: bytes) -> None:
    """Write one frame."""
    stream.write(header(kind, len(payload)))
    stream.write(payload)
    stream.flush()


def header(kind: bytes, size: int) -> bytes:
    """What stands before a payload."""
    return kind + size.to_bytes(4, "big")


def receive(stream: BinaryIO) -> tuple[bytes, bytes] | None:
    """Read one frame that is trusted, whatever its size; None at the end.

    Raises:
        EOFError: the pipe was closed within a frame.
    """
    head = stream.read(HEADER_BYTES)
    if not head:
        return None
    size = int.from_bytes(head[1:], "big")
    payload = stream.read(size)
    if len(head) < HEADER_BYTES or len(payload) < size:
        raise EOFError("the pipe was closed within a frame")
    return head[:1], payload


def to_json(value: object) -> bytes:
    """A value as the payload of a frame."""
    return json.dumps(value).encode("ascii")
