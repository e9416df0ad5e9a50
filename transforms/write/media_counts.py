"""How often each value occurs in one sample's picture and sound: all that statistics need of its media.

It is counted where the media were encoded, so that whoever writes shards decodes nothing. Between processes
it travels as bytes that are checked on arrival: a decoding process that a hostile file has taken over can
send wrong counts, but none that are impossible.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from align.schemas.errors import AlignError
from align.schemas.sample import EncodedAudio
from align.schemas.time import NS
from align.transforms.write.quantiles import stepped

# One thread: more save no CPU here, and a child forked from a process that started them would hang.
cv2.setNumThreads(1)

LOUDEST = 1 << 15
AUDIO_STEP = 1 << 5
"""Of the histogram of sound: 0.001 of full scale."""

_LEVELS = 256
_MOST = 1 << 32  # pixels or samples of one window
_HEAD = 5  # int64: has pixels, has sound, and of the sound: low, sum, squares


@dataclass(frozen=True, slots=True)
class SoundCounts:
    """16-bit samples that were recorded, summed up.

    Attributes:
        low: the multiple of ``AUDIO_STEP`` that ``counts`` begins with.
        counts: int64 [n], samples nearest to ``low``, ``low + 1``, … steps.
        total: sum of the samples.
        squares: sum of their squares.
    """

    low: int
    counts: NDArray[np.int64]
    total: int
    squares: int


@dataclass(frozen=True, slots=True)
class MediaCounts:
    """Of one sample.

    Attributes:
        pixels: int64 [3, 256], pixels of the anchor's decoded JPEG by channel (RGB) and level; None without.
        sound: None where the sample has no sound.
    """

    pixels: NDArray[np.int64] | None = None
    sound: SoundCounts | None = None

    def to_bytes(self) -> bytes:
        """What :meth:`from_bytes` reads: five int64, then the counts as uint32, all little-endian."""
        sound = self.sound
        told = (0, 0, 0) if sound is None else (sound.low, sound.total, sound.squares)
        head = np.array([self.pixels is not None, sound is not None, *told], "<i8")
        parts = [] if self.pixels is None else [self.pixels.reshape(-1)]
        parts += [] if sound is None else [sound.counts]
        return head.tobytes() + b"".join(part.astype("<u4").tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> MediaCounts:
        """The counts of another process.

        Raises:
            ValueError: no sample has such counts.
        """
        if len(data) < 8 * _HEAD or len(data) % 4:
            raise ValueError("counts of this length there are not")
        has_pixels, has_sound, low, total, squares = np.frombuffer(data, "<i8", _HEAD).tolist()
        counts = np.frombuffer(data, "<u4", offset=8 * _HEAD).astype(np.int64)
        size = 3 * _LEVELS if has_pixels else 0
        if (
            not {has_pixels, has_sound} <= {0, 1}
            or len(counts) < size
            or (len(counts) > size and not has_sound)
        ):
            raise ValueError("counts of something else than a picture and sound")
        pixels = counts[:size].reshape(3, _LEVELS) if has_pixels else None
        if pixels is not None and len(set(pixels.sum(axis=1).tolist())) != 1:
            raise ValueError("the channels of one picture differ in size")
        sound = _sound_of(low, counts[size:], total, squares) if has_sound else None
        return cls(pixels, sound)


def _sound_of(low: int, counts: NDArray[np.int64], total: int, squares: int) -> SoundCounts:
    """The counts, if samples of 16 bits can add up so.

    Raises:
        ValueError: they cannot.
    """
    reach, n = LOUDEST // AUDIO_STEP, int(counts.sum())
    if low < -reach or low + len(counts) > reach + 1:
        raise ValueError("sound beyond full scale")
    if n >= _MOST or abs(total) > n * LOUDEST or not total * total <= n * squares <= (n * LOUDEST) ** 2:
        raise ValueError("samples of 16 bits do not add up so")
    return SoundCounts(low, counts, total, squares)


def media_counts(row: Mapping[str, Any], sound: EncodedAudio | None = None) -> MediaCounts:
    """Count what a row of the output schema shows and plays.

    Args:
        row: its JPEG is decoded, as every reader will.
        sound: what its FLAC was made of, where that is at hand: FLAC is lossless, so decoding it gives the
            same counts.

    Raises:
        AlignError: ``bad_media``, its JPEG or FLAC cannot be decoded.
    """
    return MediaCounts(_pixels(row), _sound(row, sound))


def _pixels(row: Mapping[str, Any]) -> NDArray[np.int64] | None:
    if row["image"] is None:
        return None
    pixels = cv2.imdecode(np.frombuffer(row["image"]["bytes"], np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise AlignError("bad_media", f"the JPEG of {row['key']} cannot be decoded", stage="write")
    return np.stack([np.bincount(values, minlength=_LEVELS) for values in pixels.reshape(-1, 3).T])


def _sound(row: Mapping[str, Any], sound: EncodedAudio | None) -> SoundCounts | None:
    if row["audio"] is None:
        return None
    if sound is not None and sound.samples is not None:
        samples, rate = sound.samples, sound.rate
    else:
        samples, rate = _decoded(row)
    recorded = np.ones(len(samples), np.bool_)
    for gap in row["audio_gaps"] or ():
        first, last = (_sample_at(gap[end] - row["start_ns"], rate) for end in ("start_ns", "end_ns"))
        recorded[max(first, 0) : max(last, 0)] = False
    counts = np.bincount(samples[recorded].astype(np.intp) + LOUDEST, minlength=2 * LOUDEST)
    levels = np.arange(-LOUDEST, LOUDEST)
    low, steps = stepped(-LOUDEST, counts, AUDIO_STEP)
    there = np.flatnonzero(steps)
    first, past = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)
    return SoundCounts(low + first, steps[first:past], int(counts @ levels), int(counts @ (levels * levels)))


def _decoded(row: Mapping[str, Any]) -> tuple[NDArray[np.int16], int]:
    try:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
    except soundfile.LibsndfileError as error:
        raise AlignError("bad_media", f"the FLAC of {row['key']} cannot be decoded", stage="write") from error
    return samples, rate


def _sample_at(offset_ns: int, rate: int) -> int:
    """Index of the first sample at or after an offset from the window's start."""
    return -(-offset_ns * rate // NS)
