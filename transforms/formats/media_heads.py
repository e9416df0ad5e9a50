"""What a JPEG or FLAC of a data set says of itself in its first bytes, before a decoder believes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align.schemas.errors import AlignError
from align.schemas.time import count_in

MOST_PIXELS = 64_000_000
"""Of a picture in a data set: the default of ``--max-pixels``, 192 MB decoded."""

_FRAMES = (0xC0, 0xC1)  # SOF0 and SOF1 of ITU-T T.81: sequential; a progressive picture may hide 10⁴ scans
_ALONE = (0x01, *range(0xD0, 0xD8))
_MOST_SEGMENTS = 1000


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height of a sequential JPEG, from its frame header.

    Raises:
        AlignError: ``bad_media``: no such JPEG, or of more than :data:`MOST_PIXELS`.
    """
    at = 2
    if data[:2] != b"\xff\xd8":
        raise _bad("is no JPEG")
    for _ in range(_MOST_SEGMENTS):
        marker, length = data[at + 1 : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at : at + 1] != b"\xff" or not marker or at + 10 > len(data):
            break
        if marker[0] in _FRAMES:
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            if not 0 < width * height <= MOST_PIXELS:
                raise _bad(f"claims {width} x {height} pixels, more than is decoded here")
            return width, height
        if (0xC2 <= marker[0] <= 0xCF and marker[0] not in (0xC4, 0xC8, 0xCC)) or marker[0] in (0xD9, 0xDA):
            raise _bad("is no sequential JPEG")
        at += 1 if marker == b"\xff" else 2 if marker[0] in _ALONE else 2 + length
    raise _bad("is a JPEG without a frame header")


def flac_head(data: bytes) -> tuple[int, int, int]:
    """Channels, rate in Hz and samples, from the STREAMINFO of a FLAC (RFC 9639, section 8.2).

    Raises:
        AlignError: ``bad_media``, it has none.
    """
    if data[:4] != b"fLaC" or len(data) < 42 or data[4] & 0x7F or data[5:8] != b"\0\0\x22":
        raise _bad("is no FLAC")
    packed = int.from_bytes(data[18:26], "big")  # rate 20 bits, channels - 1 3, depth - 1 5, samples 36
    return (packed >> 41 & 7) + 1, packed >> 44, packed & (1 << 36) - 1


def check_heads(row: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Check the media of a row (``image``, ``frames``, ``audio`` as bytes) against the run's options.

    Raises:
        AlignError: ``bad_media``: one claims more than such a run wrote.
    """
    for picture in (row.get("image"), *(row.get("frames") or ())):
        if picture is not None:
            jpeg_size(picture)
    if row.get("audio") is not None:
        rate = options["audio_rate"]
        want = (1, rate, count_in(options["window_ns"], rate))
        if (said := flac_head(row["audio"])) != want:
            raise _bad(f"is a FLAC of {said} channels, Hz and samples, not {want}")


def _bad(detail: str) -> AlignError:
    return AlignError(
        "bad_media", f"a picture or sound cannot be decoded: it {detail}; run align verify", stage="verify"
    )
