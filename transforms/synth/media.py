"""Encoding with timestamps that are known to the tick, and measuring what was really written.

Frames and sound reach ffmpeg through a pipe as NUT, a container that carries exact timestamps; the MP4's time
scales are chosen such that every one of them is a whole number of ticks.
"""

from __future__ import annotations

import heapq
import math
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

import av
import ffmpeg
import imageio_ffmpeg
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from align.schemas.errors import AlignError
from align.schemas.time import NS, TimeSpan, round_ties_up, seconds_to_ns, ticks_to_ns
from align.transforms.synth.options import SynthOptions

Timed = tuple[Fraction, int, av.VideoFrame | av.AudioFrame]
"""When (seconds), 0 for picture and 1 for sound, and what: sorts by time without looking at the frame."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the frames and the sound stand.

    Attributes:
        time_base: of the video track; every frame's time is a whole number of it.
        ticks: presentation time of each frame that is shown, ascending.
        end_tick: the end of the last frame.
        audio_start: index of the first sample, counted from time 0 at the audio rate.
        audio_end: index after the last sample.
    """

    time_base: Fraction
    ticks: tuple[int, ...]
    end_tick: int
    audio_start: int
    audio_end: int

    @property
    def frame_times_ns(self) -> tuple[int, ...]:
        """Presentation times of the frames, recording clock."""
        return tuple(ticks_to_ns(t, self.time_base) for t in self.ticks)

    @property
    def end_ns(self) -> int:
        """End of the video, recording clock."""
        return ticks_to_ns(self.end_tick, self.time_base)


def timing(options: SynthOptions, rng: np.random.Generator) -> Timing:
    """Times of all frames and samples of a recording; ``rng`` draws the frames to drop."""
    scale = options.fps.numerator
    while scale < 10_000:  # ffmpeg's own rule, so 30 fps gets EGO4D's 15360
        scale *= 2
    step = int(scale / options.fps)
    start = round_ties_up(Fraction(repr(float(options.video_start_s))) * scale)
    end = start + options.frames * step
    shown = np.flatnonzero(_kept(options, rng))
    return Timing(
        Fraction(1, scale),
        tuple(start + int(i) * step for i in shown),
        end,
        round_ties_up(Fraction(seconds_to_ns(float(options.audio_start_s)) * options.audio_rate, NS)),
        round_ties_up(Fraction(end * options.audio_rate, scale)),
    )


def _kept(options: SynthOptions, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which frames are shown: bursts of 1 to 5 are dropped, never the first or the last."""
    kept = np.ones(options.frames, bool)
    left = min(round(options.vfr * options.frames), options.frames - 2)
    while left > 0:
        at, burst = int(rng.integers(1, options.frames - 1)), int(rng.integers(1, 6))
        dropped = slice(at, min(at + burst, options.frames - 1))
        left -= int(kept[dropped].sum())
        kept[dropped] = False
    return kept


def encode(
    path: Path,
    options: SynthOptions,
    plan: Timing,
    pictures: Iterable[NDArray[np.uint8]],
    sound: Iterable[Timed],
) -> None:
    """Write an MP4.

    Args:
        path: of the file, which is overwritten.
        options: codec, rates and gaps.
        plan: when each frame is shown.
        pictures: uint8 [height · 3 / 2, width], planar YUV 4:2:0, one for each of ``plan.ticks``.
        sound: blocks made by :func:`block`, ascending; empty for a file without sound.

    Raises:
        AlignError: ffmpeg failed (``encode_failed``).
    """
    blocks = iter(sound)
    first = next(blocks, None)
    queue = heapq.merge(
        _frames(plan, pictures), *([] if first is None else [_chain(first, blocks)]), key=_when
    )
    with tempfile.TemporaryFile() as log:
        command = _command(path, options, plan, with_audio=first is not None)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        failure: Exception | None = None
        try:
            _send(process, options, plan, queue, with_audio=first is not None)
        except (OSError, av.FFmpegError) as error:  # the pipe broke: ffmpeg has said why
            failure = error
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
        if process.returncode or failure:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            detail = (
                f"ffmpeg could not encode {path.name}: {said[-1] if said else failure or 'it gave no reason'}"
            )
            raise AlignError("encode_failed", detail, stage="write") from failure


def block(start: int, samples: NDArray[np.int16], rate: int) -> Timed:
    """Sound to encode: int16 [n], mono, whose first sample is the ``start``-th since time 0."""
    frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    return Fraction(start, rate), 1, frame


def _when(item: Timed) -> tuple[Fraction, int]:
    return item[:2]


def _chain(first: Timed, rest: Iterator[Timed]) -> Iterator[Timed]:
    yield first
    yield from rest


def _frames(plan: Timing, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[Timed]:
    for tick, picture in zip(plan.ticks, pictures, strict=True):
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = tick, plan.time_base
        yield tick * plan.time_base, 0, frame


def _send(
    process: subprocess.Popen[bytes],
    options: SynthOptions,
    plan: Timing,
    queue: Iterable[Timed],
    *,
    with_audio: bool,
) -> None:
    pipe = cast(IO[bytes], process.stdin)
    with pipe, av.open(pipe, "w", format="nut") as nut:
        video = nut.add_stream("rawvideo", rate=options.fps)
        video.width, video.height, video.pix_fmt = options.width, options.height, "yuv420p"
        video.time_base = video.codec_context.time_base = plan.time_base
        streams: list[Any] = [video]
        if with_audio:
            streams.append(nut.add_stream("pcm_s16le", rate=options.audio_rate, layout="mono"))
        for _, which, frame in queue:
            nut.mux(streams[which].encode(frame))
        for stream in streams:
            nut.mux(stream.encode(None))


def _command(path: Path, options: SynthOptions, plan: Timing, *, with_audio: bool) -> list[str]:
    scale = plan.time_base.denominator
    settings: dict[str, object] = {
        "format": "mp4",
        "fps_mode": "passthrough",
        "enc_time_base:v": f"1/{scale}",
        "video_track_timescale": scale,
        # Edit lists count in this clock; by default it is 1 ms, to which all starts would round.
        "movie_timescale": math.lcm(scale, options.audio_rate),
        "threads": 1,
        "fflags": "+bitexact",
        "flags:v": "+bitexact",
        "map_metadata": -1,
        **_CODECS[options.codec],
        "g": options.gop,
    }
    if options.codec == "h264":
        settings["bf"] = options.bframes
    if with_audio:
        settings |= {"acodec": "aac", "audio_bitrate": "128k", "flags:a": "+bitexact"}
        if options.audio_gaps:
            settings["bsf:a"] = f"noise=drop={_inside(options)}"
    stream = ffmpeg.output(ffmpeg.input("pipe:0", format="nut"), f"file:{path.absolute()}", **settings)
    # -copyts: without it, the first timestamp would be moved to 0.
    stream = stream.global_args("-copyts", "-hide_banner", "-loglevel", "error").overwrite_output()
    command: list[str] = stream.compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())
    return command


_CODECS: dict[str, dict[str, object]] = {
    "h264": {"vcodec": "libx264", "preset": "veryfast", "crf": 23},
    "vp9": {
        "vcodec": "libvpx-vp9",
        "deadline": "realtime",
        "cpu-used": 8,
        "crf": 33,
        "b:v": 0,
        "lag-in-frames": 0,
    },
}


def _inside(options: SynthOptions) -> str:
    """An ffmpeg expression: whether a packet of 1024 samples touches a gap."""
    packet = 1024 / options.audio_rate
    spans = ((start - packet, start + length) for start, length in options.audio_gaps)
    return "+".join(rf"gt(pts*tb\,{a:.9f})*lt(pts*tb\,{b:.9f})" for a, b in spans)


@dataclass(frozen=True, slots=True)
class Measured:
    """One stream as the file has it; times in ticks of ``time_base``."""

    time_base: Fraction
    start: int
    duration: int
    pts: tuple[int, ...]

    def times_ns(self) -> tuple[int, ...]:
        """Presentation times of the packets, ascending, recording clock."""
        return tuple(ticks_to_ns(p, self.time_base) for p in self.pts)


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """A written file, read back."""

    duration_s: float
    video: Measured
    audio: Measured | None


def measure(path: Path) -> MeasuredFile:
    """Read back the times of every packet."""
    with av.open(str(path), format="mp4") as container:
        pts: dict[int, list[int]] = {s.index: [] for s in container.streams}
        for packet in container.demux():
            if packet.pts is not None:
                pts[packet.stream_index].append(packet.pts)

        def stream(s: VideoStream | av.AudioStream) -> Measured:
            base = s.time_base
            assert base is not None
            return Measured(base, s.start_time or 0, s.duration or 0, tuple(sorted(pts[s.index])))

        audio = container.streams.audio
        duration = (container.duration or 0) / av.time_base
        return MeasuredFile(duration, stream(container.streams.video[0]), stream(audio[0]) if audio else None)


def check(path: Path, plan: Timing, found: MeasuredFile) -> None:
    """Make sure that the file says what was meant.

    Raises:
        AlignError: the number of frames differs, or one is off by more than 1 ms (``untrue_timestamps``).
    """
    meant, measured = plan.frame_times_ns, found.video.times_ns()
    worst = max((abs(a - b) for a, b in zip(meant, measured, strict=False)), default=0)
    if len(meant) != len(measured) or worst > NS // 1000:
        counts = f"{len(measured)} frames instead of {len(meant)}, the worst {worst / 1e6:.3f} ms off"
        detail = f"{path.name} holds {counts}: this ffmpeg cannot write these options"
        raise AlignError("untrue_timestamps", detail, stage="write")


def audio_gaps(found: Measured, plan: Timing, rate: int) -> tuple[TimeSpan, ...]:
    """The stretches of the planned sound that no packet fills, start and end included."""
    packet = round_ties_up(Fraction(1024, rate) / found.time_base)
    start, end = (
        round_ties_up(Fraction(n, rate) / found.time_base) for n in (plan.audio_start, plan.audio_end)
    )
    held = [(start - packet, start), *((p, p + packet) for p in found.pts), (end, end + packet)]
    empty = ((before[1], after[0]) for before, after in pairwise(held) if after[0] > before[1] + 1)
    return tuple(TimeSpan(*(ticks_to_ns(t, found.time_base) for t in span)) for span in empty)
