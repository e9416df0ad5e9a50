"""Video ↔ audio: every container, start offset, edit list, priming, frame structure, drop and gap."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile

from align import AlignOptions, Recording, Stream
from benchmarks.proof.job import Result, run
from benchmarks.proof.media import Recipe, Written, shift_of, write
from benchmarks.proof.truth import SOUND, number_in

NS = 1_000_000_000
EXACT_MS, COARSE_MS = 0.1, 1.0
OPTIONS = AlignOptions(
    window=1, stride=0.73, frames=10, image_size=32, jpeg_quality=95, min_coverage=0.05,
    require=(),
)  # fmt: skip
"""Short overlapping windows, five pictures of each: what is checked is every one of them."""

_MS = Fraction(1, 1_000)
_FPS = Fraction(30_000, 1_001)
_SECONDS = 4
_RATE = 48_000
_SLIVER_S = 0.002  # shorter holes may be there by rounding alone, where a clock ticks in ms
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-g", "24")
_VP9 = (
    "-c:v",
    "libvpx-vp9",
    "-deadline",
    "realtime",
    "-cpu-used",
    "8",
    "-crf",
    "20",
    "-b:v",
    "0",
    "-g",
    "24",
)
B_FRAMES = ("-bf", "3")
AAC = ("-c:a", "aac", "-b:a", "128k")
_FLAC = ("-c:a", "flac")
# MP4 edit lists count in the movie's clock: 1 ms unless it is told otherwise.
_FINE = ("-movie_timescale", "240000", "-video_track_timescale", "30000")
_FRAGMENTED = ("-movflags", "frag_keyframe+empty_moov+delay_moov")

# What a container is written with, the tick of its clock, and whether its media may begin before 0.
_CONTAINERS: dict[str, tuple[str, tuple[str, ...], Fraction, bool]] = {
    "MP4": (".mp4", (*X264, *B_FRAMES, *AAC, *_FINE), Fraction(0), True),
    "MP4 with 1 ms edit lists": (".mp4", (*X264, *B_FRAMES, *AAC), _MS, True),
    "MOV": (".mov", (*X264, *B_FRAMES, "-c:a", "pcm_s16le", *_FINE), Fraction(0), True),
    "fragmented MP4": (".mp4", (*X264, *B_FRAMES, *AAC, *_FINE, *_FRAGMENTED), Fraction(0), True),
    "MKV": (".mkv", (*X264, *B_FRAMES, *_FLAC), _MS, False),
    "WebM": (".webm", (*_VP9, "-c:a", "libopus", "-b:a", "160k"), _MS, False),
    "MPEG-TS": (".ts", (*X264, *B_FRAMES, *AAC), Fraction(0), True),
}
_STARTS_S = [(0, 0), (2, 0), (0, 2), (Fraction("0.3217"), Fraction("1.7"))]
_EARLY_S = [(-2, 0), (0, -2)]


def _frames(start: Fraction | int, seconds: int) -> tuple[Fraction, ...]:
    """Times of a steady recording, on the frame rate's own grid."""
    first = round(start * _FPS)
    return tuple((first + i) / _FPS for i in range(int(seconds * _FPS)))


def _recipe(
    name: str, container: str, starts: tuple[Fraction | int, Fraction | int], seconds: int = _SECONDS
) -> Recipe:
    suffix, codecs, tick, _ = _CONTAINERS[container]
    frames = _frames(starts[0], seconds)
    return Recipe(
        name, suffix, frames, frames[-1] + 1 / _FPS, round(starts[1] * _RATE),
        int((starts[1] + seconds) * _RATE), codecs, tick_s=tick,
    )  # fmt: skip


def _starts() -> Iterator[tuple[str, Recipe]]:
    for container, (*_, may_be_early) in _CONTAINERS.items():
        for i, starts in enumerate(_STARTS_S):
            yield f"{container}, either stream late", _recipe(f"{container} start {i}", container, starts)
        for i, starts in enumerate(_EARLY_S if may_be_early else []):
            # where a container has an origin, what lies before it is cut off by an edit list, in mid-GOP
            yield f"{container}, either stream early", _recipe(f"{container} early {i}", container, starts)


def _structures() -> Iterator[tuple[str, Recipe]]:
    plain = _recipe("", "MP4", (0, 0))

    def made(name: str, **changes: Any) -> tuple[str, Recipe]:
        return name, replace(plain, name=name, **changes)

    yield made("AAC priming 1024")
    # A sound that begins 1088 samples early and is cut there by the edit list: 1024 + 1088.
    yield made("AAC priming 2112", audio_start=-1_088)
    open_gop = "open_gop=1:keyint=24:min-keyint=24:scenecut=0:bframes=3:b-adapt=0"
    yield made("open GOP", codecs=(*X264, *B_FRAMES, "-x264-params", open_gop, *AAC, *_FINE))
    yield made("no B-frames", codecs=(*X264, "-bf", "0", *AAC, *_FINE))
    rng = np.random.default_rng(3)
    steps = np.cumsum(rng.integers(300, 3_000, 120))
    yield made("variable frame rate", frames=tuple(Fraction(int(t), 30_000) for t in steps))
    kept = np.ones(len(plain.frames), bool)
    kept[30:60] = kept[80:83] = False
    dropped = tuple(t for t, k in zip(plain.frames, kept, strict=True) if k)
    yield made("frame drops", frames=dropped)
    for container in ("MKV", "WebM", "MPEG-TS"):
        suffix, codecs, tick, _ = _CONTAINERS[container]
        yield made(f"frame drops, {container}", frames=dropped, suffix=suffix, codecs=codecs, tick_s=tick)
    yield made("audio gaps", lost=((1.0, 1.9), (2.7, 2.75)))
    fragmented = _CONTAINERS["fragmented MP4"][1]
    yield made("audio gaps, fragmented MP4", codecs=fragmented, lost=((1.0, 1.9), (2.7, 2.75)))
    yield made("audio gaps, MKV", suffix=".mkv", codecs=_CONTAINERS["MKV"][1], tick_s=_MS, lost=((1.0, 1.9),))


def _codecs() -> Iterator[tuple[str, Recipe]]:
    plain = _recipe("", "MP4", _STARTS_S[-1])
    x265 = (
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-crf",
        "12",
        "-x265-params",
        "log-level=none:keyint=24",
    )
    streams = {
        "HEVC": (*x265, "-pix_fmt", "yuv420p", *AAC),
        "MPEG-4": ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2", "-g", "24", *AAC),
        "Opus": (*X264, *B_FRAMES, "-c:a", "libopus", "-b:a", "160k"),
        "MP3": (*X264, *B_FRAMES, "-c:a", "libmp3lame", "-b:a", "192k"),
        "FLAC": (*X264, *B_FRAMES, "-c:a", "flac", "-strict", "-2"),
        "ALAC": (*X264, *B_FRAMES, "-c:a", "alac"),
    }
    for name, codecs in streams.items():
        yield "MP4, other codecs", replace(plain, name=name, codecs=(*codecs, *_FINE))


def _far() -> Iterator[tuple[str, Recipe]]:
    for container in _CONTAINERS:
        yield f"{container}, reached by seeking", _recipe(f"{container} far", container, _STARTS_S[-1], 45)


def awkward() -> Iterator[Recipe]:
    """One recording of each container, each stream with a start of its own."""
    for container in _CONTAINERS:
        yield _recipe(f"{container} awkward", container, _STARTS_S[-1])


@dataclass(frozen=True)
class Judged:
    """The worst of a recording's windows."""

    sound_ms: float
    picture_ms: float
    apart_ms: float
    gap_ms: float
    wrong_frames: int
    pictures: int


def rows(folder: Path) -> Iterator[Result]:
    """The rows of the table, one per case; its recordings are written to ``folder``."""
    yield from _run([*_starts(), *_structures(), *_codecs()], OPTIONS, folder)
    yield from _run([*_far()], replace(OPTIONS, stride=14.1), folder)


def _run(cases: Sequence[tuple[str, Recipe]], options: AlignOptions, folder: Path) -> Iterator[Result]:
    written = [(title, write(recipe, folder)) for title, recipe in cases]
    shards = run([recording_of(w) for _, w in written], options)
    judged = [(t, w, judge(w, shards.rows.get(_id(w), []), options)) for t, w in written]
    for title in dict.fromkeys(t for t, *_ in judged):
        yield _result(title, [(w, j) for t, w, j in judged if t == title])


def _id(written: Written) -> str:
    return written.recipe.name.replace(" ", "_").replace(",", "")


def recording_of(written: Written) -> Recording:
    """What a source would say of the file."""
    uri, name = str(written.path), written.path.name
    return Recording(
        "proof", _id(written), _id(written), Stream("video", uri, name), audio=Stream("audio", uri, name)
    )


def judge(written: Written, rows: Sequence[dict[str, Any]], options: AlignOptions = OPTIONS) -> Judged:
    """Compare a recording's windows, of 1 s and ten frames each, with its truth."""
    held, shift = written.held, shift_of(written.recipe, written.held)
    sound, shown, apart, gaps = [0.0], [0.0], [0.0], [0.0]
    span_ns = (held.frames[-1] - held.frames[0]) * NS
    wrong = 11 * max(int((span_ns - options.window_ns) // options.stride_ns) + 1 - len(rows), 0)
    pictures = wrong
    for row in rows:
        late = [_late_ms(written, *picture) for picture in _pictures(row)]
        there = [ms for ms in late if ms is not None]
        pictures += len(late)
        wrong += len(late) - len(there)
        shown += map(abs, there)
        gaps.append(_gap_error_ms(row, held.sound))
        if row["audio"] is not None:
            delay_ms = _delay_ms(row, float(shift))
            sound.append(abs(delay_ms))
            apart += [abs(delay_ms - picture_ms) for picture_ms in there]
    return Judged(max(sound), max(shown), max(apart), max(gaps), wrong, pictures)


def _pictures(row: dict[str, Any]) -> Iterator[tuple[dict[str, Any] | None, int | None, int]]:
    """The anchor and the frames of a window: picture, its time, and the instant it was taken for."""
    yield row["image"], row["image_time_ns"], row["start_ns"] + NS // 2
    frames, times = row["frames"] or [], row["frame_times_ns"] or []
    for k in range(10):
        there = len(frames) == 10
        target = row["start_ns"] + NS * (2 * k + 1) // 20
        yield frames[k] if there else None, times[k] if there else None, target


def _late_ms(
    written: Written, image: dict[str, Any] | None, time_ns: int | None, target_ns: int
) -> float | None:
    """How late a picture stands; None if it is another than the one on screen at the target."""
    held, recipe = written.held, written.recipe
    times_ns = [round(t * NS) for t in held.frames]
    due = max(bisect_right(times_ns, target_ns) - 1, 0)
    if image is None or time_ns is None or abs(time_ns - times_ns[due]) > 1:
        return None
    if number_in(_pixels(image)) != due + held.first:
        return None
    meant = recipe.frames[due + held.first] + shift_of(recipe, held)
    return float(Fraction(time_ns, NS) - meant) * 1e3


def _pixels(image: dict[str, Any]) -> Any:
    return cv2.imdecode(np.frombuffer(image["bytes"], np.uint8), cv2.IMREAD_COLOR)


def _delay_ms(row: dict[str, Any], shift_s: float) -> float:
    """How late the window's sound stands, measured away from where gaps begin and end."""
    pcm, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
    seconds = row["start_ns"] / NS + np.arange(len(pcm)) / rate
    sure = np.ones(len(pcm), bool)
    for gap in row["audio_gaps"]:
        sure &= (seconds < gap["start_ns"] / NS - 0.05) | (seconds > gap["end_ns"] / NS + 0.05)
    return SOUND.delay_s(pcm[sure], seconds[sure] - shift_s) * 1e3 if sure.sum() > rate // 20 else 0.0


def _gap_error_ms(row: dict[str, Any], sound: Sequence[tuple[Fraction, Fraction]]) -> float:
    """The largest error of a gap's edge; a whole second where a gap is missed or made up."""
    holes = _holes(sound, row["start_ns"] / NS, row["end_ns"] / NS)
    if row["audio"] is None:
        recorded = 1 - sum(b - a for a, b in holes)
        return 0.0 if recorded < OPTIONS.min_coverage + 1e-6 else 1e3
    listed = [(g["start_ns"] / NS, g["end_ns"] / NS) for g in row["audio_gaps"]]
    meant, got = (
        [edge for a, b in spans if b - a > _SLIVER_S for edge in (a, b)] for spans in (holes, listed)
    )
    if len(meant) != len(got):
        return 1e3
    return max((abs(a - b) * 1e3 for a, b in zip(meant, got, strict=True)), default=0.0)


def _holes(sound: Sequence[tuple[Fraction, Fraction]], start: float, end: float) -> list[tuple[float, float]]:
    """What of a window no sound covers."""
    holes, at = [], start
    for a, b in sound:
        if a > at:
            holes.append((at, min(float(a), end)))
        at = min(max(at, float(b)), end)
    return [(a, b) for a, b in [*holes, (at, end)] if b > a]


def _result(title: str, cases: Sequence[tuple[Written, Judged]]) -> Result:
    limit = COARSE_MS if any(w.recipe.tick_s for w, _ in cases) else EXACT_MS
    worst = max(j.apart_ms for _, j in cases)
    gap = max(j.gap_ms for _, j in cases)
    wrong, pictures = (sum(getattr(j, name) for _, j in cases) for name in ("wrong_frames", "pictures"))
    return Result(
        f"video ↔ audio: {title}",
        f"≤ {limit:g} ms, no frame off",
        f"{worst:.4f} ms, gaps {gap:.3f} ms, {wrong} of {pictures} frames off",
        worst <= limit and wrong == 0 and pictures > 0 and gap <= limit,
    )
