"""Writes media files of known truth with the ffmpeg program, and reads back, independently, what they hold.

The picture is encoded losslessly enough for its bar code, the sound for its phase. What matters is where the
container puts them: that is asked of ffmpeg's own demuxer and decoder, or, for MPEG-TS, of the PES headers.
"""

from __future__ import annotations

import heapq
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from operator import itemgetter
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from benchmarks.proof.truth import HEIGHT, SOUND, WIDTH, picture

_AHEAD_S = 4  # NUT holds no negative times: all are moved by as much, and back when they are muxed
_TS_ORIGIN_S = 10  # MPEG-TS cannot hold negative times either, and its origin is arbitrary
_BLOCK = 1024


@dataclass(frozen=True)
class Recipe:
    """A recording to write.

    Attributes:
        name: of the case; its first word names the container.
        suffix: of the file.
        frames: presentation time of each frame, in seconds, ascending.
        end_s: when the last frame ends.
        audio_start: the first sample, counted from time 0.
        audio_end: the sample after the last.
        codecs: ffmpeg's options for encoders, bit stream filters and muxer.
        tick_s: how coarse the container's own clock is.
        lost: spans in seconds of which the bit stream filter drops every packet it touches.
    """

    name: str
    suffix: str
    frames: tuple[Fraction, ...]
    end_s: Fraction
    audio_start: int
    audio_end: int
    codecs: tuple[str, ...]
    audio_rate: int = 48_000
    tick_s: Fraction = Fraction(0)
    lost: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Held:
    """What a file holds, by an independent reading, on the recording clock.

    Attributes:
        frames: presentation times of the frames in seconds, ascending, those before the edit excluded.
        sound: spans of decoded sound in seconds, ascending, adjoining ones joined.
        origin: the container time that is the recording clock's 0.
        first: the number of the first frame that is shown.
    """

    frames: tuple[Fraction, ...]
    sound: tuple[tuple[Fraction, Fraction], ...]
    origin: Fraction = Fraction(0)
    first: int = 0


@dataclass(frozen=True)
class Written:
    """A recipe, its file and what the file holds."""

    recipe: Recipe
    path: Path
    held: Held = field(repr=False)


def write(recipe: Recipe, folder: Path) -> Written:
    """Write a recording and read back where everything stands.

    Raises:
        RuntimeError: the file does not hold what was meant, within a tick of its container's clock: then
            the rig is wrong, not the pipeline.
    """
    raw, path = folder / f"{recipe.name}.nut", folder / f"{recipe.name}{recipe.suffix}"
    _write_raw(recipe, raw)
    drop = "+".join(
        rf"gt(pts*tb\,{a - 1024 / recipe.audio_rate:.6f})*lt(pts*tb\,{b:.6f})" for a, b in recipe.lost
    )
    moved = (_TS_ORIGIN_S if recipe.suffix == ".ts" else 0) - _AHEAD_S
    ffmpeg(
        "-copyts", "-itsoffset", moved, "-i", raw, "-fps_mode", "passthrough", "-enc_time_base:v", "demux",
        "-threads", "1", *recipe.codecs, *(["-bsf:a", f"noise=drop={drop}"] if drop else []),
        "-avoid_negative_ts", "disabled", "-muxdelay", "0", path,
    )  # fmt: skip
    raw.unlink()
    held = _held_in_ts(path, recipe) if recipe.suffix == ".ts" else _held(path, recipe)
    _check(recipe, held)
    return Written(recipe, path, held)


def ffmpeg(*args: object) -> bytes:
    """Run the ffmpeg program; what it writes to its standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, args)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


def _write_raw(recipe: Recipe, path: Path) -> None:
    """Frames and sound as they are, at their times, in NUT."""
    base = Fraction(1, int(np.lcm.reduce([t.denominator for t in recipe.frames])))
    with av.open(str(path), "w", format="nut") as nut:
        video = nut.add_stream("rawvideo", rate=30)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.time_base = video.codec_context.time_base = base
        audio = nut.add_stream("pcm_s16le", rate=recipe.audio_rate, layout="mono")
        for _, stream, frame in heapq.merge(
            _pictures(recipe, base, video), _blocks(recipe, audio), key=itemgetter(0)
        ):
            nut.mux(stream.encode(frame))
        for stream in (video, audio):
            nut.mux(stream.encode(None))


_Timed = tuple[Fraction, Any, av.VideoFrame | av.AudioFrame]


def _pictures(recipe: Recipe, base: Fraction, stream: VideoStream) -> Iterator[_Timed]:
    for number, time in enumerate(recipe.frames):
        frame = av.VideoFrame.from_ndarray(picture(number), format="yuv420p")
        frame.pts, frame.time_base = int((time + _AHEAD_S) / base), base
        yield time, stream, frame


def _blocks(recipe: Recipe, stream: AudioStream) -> Iterator[_Timed]:
    rate = recipe.audio_rate
    for start in range(recipe.audio_start, recipe.audio_end, _BLOCK):
        sample = np.arange(start, min(start + _BLOCK, recipe.audio_end))
        pcm = np.rint(SOUND.at(sample / rate) * 32767).astype(np.int16)
        block = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = rate, start + _AHEAD_S * rate, Fraction(1, rate)
        yield Fraction(start, rate), stream, block


def _held(path: Path, recipe: Recipe) -> Held:
    """By ffmpeg's own decoding: each frame's and each block's time after edit lists and priming."""
    video = _listed(path, "-map", "0:v:0", "-fps_mode", "passthrough", "-enc_time_base:v", "demux")
    sound = _listed(path, "-map", "0:a:0", "-c:a", "pcm_s16le")
    frames = tuple(start for start, _ in video)
    first = next(i for i, t in enumerate(recipe.frames) if abs(t - frames[0]) <= Fraction(1, 500))
    return Held(frames, _joined([(a, a + n) for a, n in sound], recipe), first=first)


def _listed(path: Path, *args: str) -> list[tuple[Fraction, Fraction]]:
    """Time and duration of what ffmpeg puts out, ascending."""
    text = ffmpeg("-copyts", "-i", path, *args, "-f", "framecrc", "-").decode()
    base = Fraction(next(line for line in text.splitlines() if line.startswith("#tb")).split()[-1])
    rows = (line.split(",") for line in text.splitlines() if not line.startswith("#"))
    return sorted((int(row[2]) * base, int(row[3]) * base) for row in rows)


def _held_in_ts(path: Path, recipe: Recipe) -> Held:
    """By the PES headers of an MPEG-TS file (ISO/IEC 13818-1, 2.4.3.6).

    The ffmpeg program that imageio-ffmpeg ships crashes on reading any.
    """
    times: dict[bool, list[int]] = {True: [], False: []}
    data = path.read_bytes()
    for at in range(0, len(data), 188):
        packet = data[at : at + 188]
        body = packet[5 + packet[4] :] if packet[3] & 0x20 else packet[4:]
        if not packet[1] & 0x40 or body[:3] != b"\0\0\1" or not body[7] & 0x80:
            continue
        a, b, c, d, e = body[9:14]
        pts = (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
        times[body[3] & 0xF0 == 0xE0].append(pts)
    video, audio = (sorted(Fraction(t, 90_000) for t in times[kind]) for kind in (True, False))
    origin = min(video[0], audio[0])
    # A PES packet of sound holds several frames and only the first one's time. The encoder puts one frame of
    # priming first, and fills the last.
    count = ceil(Fraction(recipe.audio_end - recipe.audio_start, 1024)) + 1
    start = audio[0] - origin
    sound = (start, start + Fraction(count * 1024, recipe.audio_rate))
    return Held(tuple(t - origin for t in video), (sound,), origin)


def _joined(
    spans: Sequence[tuple[Fraction, Fraction]], recipe: Recipe
) -> tuple[tuple[Fraction, Fraction], ...]:
    joined = [spans[0]]
    for start, end in spans[1:]:
        if start - joined[-1][1] <= max(recipe.tick_s, Fraction(1, 1_000)):
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _check(recipe: Recipe, held: Held) -> None:
    shift = shift_of(recipe, held)
    meant = recipe.frames[held.first :]
    worst = max(abs(a + shift - b) for a, b in zip(meant, held.frames, strict=True))
    if worst > max(recipe.tick_s, Fraction(1, 50_000)):
        raise RuntimeError(f"{recipe.name}: a frame stands {float(worst) * 1e3:.3f} ms from where it was put")


def shift_of(recipe: Recipe, held: Held) -> Fraction:
    """What is added to meant times to give recording times: other than 0 where the origin is arbitrary."""
    return held.frames[0] - recipe.frames[held.first] if held.origin else Fraction(0)
