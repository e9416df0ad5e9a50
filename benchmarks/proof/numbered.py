"""Files that lie about time, made of parts of known content: numbered frames and a sound of the part's own.

Each part is a recording: frame n of it shows the number ``first + n``, its sound is a sum of sines drawn from
its seed. A written window says by its picture and its sound which part, and which instant of it, it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.proof.truth import HEIGHT, WIDTH, Floats, Tones, picture

FPS, RATE = 30, 48_000
_BLOCK = 1024
_GROUP = 12  # frames between keyframes: less than a second


@dataclass(frozen=True)
class Container:
    """How a container is written: by which muxer, codecs and options.

    Attributes:
        starts_anywhere: whether a part's times may begin elsewhere than at 0.
    """

    suffix: str
    muxer: str
    video: str = "libx264"
    audio: str = "aac"
    options: dict[str, str] = field(default_factory=dict)
    encoder: dict[str, str] = field(default_factory=dict)
    starts_anywhere: bool = True


_X264 = {"preset": "ultrafast", "bf": "2", "b-adapt": "0"}
_VP8 = {"deadline": "realtime", "cpu-used": "8"}
_FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof+frag_discont"}
CONTAINERS = {
    "MP4": Container(".mp4", "mp4", encoder=_X264, starts_anywhere=False),
    "MOV": Container(".mov", "mov", audio="pcm_s16le", encoder=_X264, starts_anywhere=False),
    "fragmented MP4": Container(".mp4", "mp4", options=_FRAGMENTED, encoder=_X264),
    "MPEG-TS": Container(".ts", "mpegts", encoder=_X264),
    "MPEG-PS": Container(".mpg", "vob", "mpeg2video", "mp2", encoder={"bf": "2"}),
    "MKV": Container(".mkv", "matroska", encoder=_X264),
    "WebM": Container(".webm", "webm", "libvpx", "libopus", {"live": "1"}, _VP8),
    "FLV": Container(".flv", "flv", encoder=_X264),
    "Ogg": Container(".ogv", "ogg", "libvpx", "libopus", encoder=_VP8, starts_anywhere=False),
    "AVI": Container(".avi", "avi", "mpeg4", "pcm_s16le", encoder={"bf": "0"}, starts_anywhere=False),
}


@dataclass(frozen=True)
class Part:
    """A recording that stands in a file.

    Attributes:
        first: number of its first frame.
        frames: how many.
        seed: of its sound.
        start_s: time of its first frame and sample, where the container can say so.
        scale: how many times the picture's usual width and height: a part with other codec parameters.
    """

    first: int = 0
    frames: int = 120
    seed: int = 0
    start_s: Fraction = Fraction(0)
    scale: int = 1

    @property
    def seconds(self) -> Fraction:
        """How long it lasts."""
        return Fraction(self.frames, FPS)


@lru_cache(maxsize=32)
def sound_of(seed: int) -> Tones:
    """The sound of a part, as a function of the seconds since its start."""
    return Tones.drawn(300, 3_400, 40, rms=0.15, seed=1_000 + seed)


@lru_cache(maxsize=32)
def _pcm(seed: int, count: int) -> NDArray[np.int16]:
    sound = sound_of(seed).at(np.arange(count) / RATE)
    return np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int16)


def write_part(part: Part, container: Container, path: Path) -> Path:
    """Write one part as a file of its own."""
    with av.open(str(path), "w", format=container.muxer, options=container.options) as out:
        size = {"width": WIDTH * part.scale, "height": HEIGHT * part.scale}
        video = out.add_stream(container.video, rate=FPS, options={**container.encoder, "threads": "1"})
        video.width, video.height, video.pix_fmt = size["width"], size["height"], "yuv420p"
        video.gop_size, video.bit_rate = _GROUP, 1_500_000
        video.time_base = video.codec_context.time_base = Fraction(1, FPS)
        audio = out.add_stream(container.audio, rate=RATE, layout="mono")
        audio.time_base = Fraction(1, RATE)
        if audio.codec_context.name in ("aac", "mp2"):
            audio.bit_rate = 128_000
        start = part.start_s
        blocks = _blocks(part)
        for number in range(part.frames):
            for at, block in blocks:
                block.pts = round(start * RATE) + at
                out.mux(audio.encode(block))
                if Fraction(at, RATE) > Fraction(number, FPS):
                    break
            out.mux(video.encode(_picture(part, number, round(start * FPS) + number)))
        for at, block in blocks:
            block.pts = round(start * RATE) + at
            out.mux(audio.encode(block))
        for stream in (video, audio):
            out.mux(stream.encode(None))
    if start and "movflags" in container.options:
        path.write_bytes(_moved(path.read_bytes(), start))
    return path


def _moved(data: bytes, start: Fraction) -> bytes:
    """A fragmented MP4 whose fragments are decoded later: ffmpeg's muxer begins each file at 0.

    ISO/IEC 14496-12: ``mdhd`` 8.4.2, ``tfhd`` 8.8.7, ``tfdt`` 8.8.12.
    """
    moved, tracks = bytearray(data), list(_found(data, b"mdhd"))
    scales = [int.from_bytes(data[at + 16 : at + 20], "big") for at in tracks]
    for header, time in zip(_found(data, b"tfhd"), _found(data, b"tfdt"), strict=True):
        track = int.from_bytes(data[header + 8 : header + 12], "big")
        ticks = int.from_bytes(data[time + 8 : time + 16], "big") + int(start * scales[track - 1])
        moved[time + 8 : time + 16] = ticks.to_bytes(8, "big")
    return bytes(moved)


def _found(data: bytes, kind: bytes) -> Iterator[int]:
    """Where boxes of a type have their type."""
    at = data.find(kind)
    while at >= 0:
        yield at
        at = data.find(kind, at + 4)


def _picture(part: Part, number: int, pts: int) -> av.VideoFrame:
    planes = picture(part.first + number).repeat(part.scale, 0).repeat(part.scale, 1)
    if part.scale > 1:  # planar: luma and chroma are scaled on their own
        luma = picture(part.first + number)[:HEIGHT].repeat(part.scale, 0).repeat(part.scale, 1)
        planes[:] = 128
        planes[: len(luma)] = luma
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.pts, frame.time_base = pts, Fraction(1, FPS)
    return frame


def _blocks(part: Part) -> Iterator[tuple[int, Any]]:
    end = round(part.seconds * RATE)
    for at in range(0, end, _BLOCK):
        pcm = _pcm(part.seed, end)[None, at : at + _BLOCK]
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm), format="s16", layout="mono")
        block.sample_rate, block.time_base = RATE, Fraction(1, RATE)
        yield at, block


def write_parts(parts: Sequence[Part], container: Container, path: Path) -> Path:
    """Write parts one after another into one file, as ``cat`` does."""
    path.write_bytes(b"".join(_written(part, container, path) for part in parts))
    return path


_known: dict[tuple[Part, str], bytes] = {}


def _written(part: Part, container: Container, path: Path) -> bytes:
    """A part as it stands in a joined file; each is made once in a process."""
    key = part, repr(container)
    if key not in _known:
        piece = write_part(part, container, path.with_name(f"{path.name}.part{container.suffix}"))
        data = piece.read_bytes()
        piece.unlink()
        goes_on = container.muxer == "flv" and part.start_s  # without the header of a further file
        _known[key] = data[13:] if goes_on else data
    return _known[key]


def heard_part(pcm: Floats, rate: int, seeds: Sequence[int]) -> int | None:
    """Which part's sound is in the middle of this, whatever instant of it; None where it is none's."""
    middle, reach = len(pcm) // 2, rate // 30
    pcm = pcm[max(middle - reach, 0) : middle + reach]
    power = max(float(pcm @ pcm), 1e-12)
    shares = {s: float(((_tones(s, len(pcm), rate).T @ pcm) ** 2).sum()) / power for s in seeds}
    best = max(shares, key=lambda seed: shares[seed])
    return best if shares[best] > 0.8 else None


@lru_cache(maxsize=64)
def _tones(seed: int, count: int, rate: int) -> Floats:
    """What a part's tones span, of any gain and phase: orthonormal, float64 [count, 80]."""
    angles = 2 * np.pi * sound_of(seed).hz * np.arange(count)[:, None] / rate
    return np.asarray(np.linalg.qr(np.concatenate([np.sin(angles), np.cos(angles)], axis=1)).Q)
