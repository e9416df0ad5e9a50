"""Frames on a pipe: one byte of kind, four of length (big-endian), the payload."""

from __future__ import annotations

from typing import BinaryIO

Frame = tuple[bytes, bytes]
"""Kind and payload."""


def send(stream: BinaryIO, kind: bytes, payload: bytes) -> None:
    """Write one frame.

    Raises:
        OSError: nobody reads any more.
    """
    stream.write(kind + len(payload).to_bytes(4, "big"))
    stream.write(payload)
    stream.flush()


def receive(stream: BinaryIO) -> Frame | None:
    """Read one frame; None where the other side has closed the pipe.

    Raises:
        EOFError: it was closed within a frame.
    """
    header = stream.read(5)
    if not header:
        return None
    size = int.from_bytes(header[1:], "big")
    payload = stream.read(size) if len(header) == 5 else b""
    if len(header) < 5 or len(payload) < size:
        raise EOFError("the pipe was closed within a frame")
    return header[:1], payload
