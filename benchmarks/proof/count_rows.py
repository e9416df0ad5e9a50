"""Sample counts: exact in every window, in the tenth hour as in the first."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, lcm
from pathlib import Path

import soundfile

from align import AlignOptions
from align.schemas.time import count_in, ticks_to_ns
from benchmarks.proof.job import Result, run
from benchmarks.proof.media import Recipe, Written, write
from benchmarks.proof.media_rows import AAC, B_FRAMES, X264, judge, recording_of

NS = 1_000_000_000
_START_S, _SECONDS = 35_990, 10
_FPS = {
    "29.97": Fraction(30_000, 1_001),
    "59.94": Fraction(60_000, 1_001),
    "23.976": Fraction(24_000, 1_001),
}
_RATES = (44_100, 48_000, 32_000)
_OUT_HZ = (16_000, 22_050, 44_100)


def rows(folder: Path) -> Iterator[Result]:
    """Real files that end after ten hours, then the arithmetic of every window before."""
    pairs = zip(_FPS.items(), _RATES, strict=True)
    written = [write(_late(name, fps, rate), folder) for (name, fps), rate in pairs]
    options = AlignOptions(window=1, stride=0.73, frames=10, image_size=32, jpeg_quality=95, require=())
    shards = run([recording_of(w) for w in written], options)
    for one in written:
        yield _counted(one, shards.rows.get(recording_of(one).recording_id, []), options)
    for name, fps in _FPS.items():
        yield _frames_per_window(name, fps)
    for rate in _RATES:
        yield _samples_per_window(rate)


def _late(name: str, fps: Fraction, rate: int) -> Recipe:
    """Ten seconds that begin at 35 990 s, every frame on the grid that began at 0."""
    first = ceil(_START_S * fps)
    frames = tuple((first + i) / fps for i in range(int(_SECONDS * fps)))
    clock = lcm(fps.numerator, rate)
    fine = ("-movie_timescale", clock, "-video_track_timescale", fps.numerator)
    codecs = (*X264, *B_FRAMES, *AAC, *map(str, fine))
    return Recipe(
        f"{name} fps and {rate / 1e3:g} kHz", ".mp4", frames, frames[-1] + 1 / fps,
        _START_S * rate, (_START_S + _SECONDS) * rate, codecs, audio_rate=rate,
    )  # fmt: skip


def _counted(written: Written, rows: list[dict], options: AlignOptions) -> Result:  # type: ignore[type-arg]
    judged = judge(written, rows, options)
    span = written.recipe.end_s - written.recipe.frames[0]
    expected = int((span * NS - options.window_ns) // options.stride_ns) + 1
    counts = {len(soundfile.read(_bytes(row))[0]) for row in rows if row["audio"]}
    return Result(
        f"in the tenth hour: {written.recipe.name}",
        "exact",
        f"{len(rows)} of {expected} windows, {sorted(counts)} samples, {judged.wrong_frames} frames and "
        f"{judged.apart_ms:.4f} ms off",
        len(rows) == expected and counts == {16_000} and not judged.wrong_frames and judged.apart_ms <= 0.1,
    )


def _bytes(row: dict) -> object:  # type: ignore[type-arg]
    from io import BytesIO

    return BytesIO(row["audio"]["bytes"])


def _frames_per_window(name: str, fps: Fraction) -> Result:
    """Of each of 7200 windows of 5 s, the first frame and the number of frames, against whole numbers."""
    base, wrong = 1 / Fraction(fps.numerator), 0
    step = fps.denominator
    for k in range(7_200):
        start, end = 5 * k, 5 * (k + 1)
        first, last = -(-start * fps.numerator // step), -(-end * fps.numerator // step) - 1
        inside = [ticks_to_ns(n * step, base) for n in (first - 1, first, last, last + 1)]
        wrong += not (inside[0] < start * NS <= inside[1] and inside[2] < end * NS <= inside[3])
    return Result(
        f"frames per window over 10 h: {name} fps", "exact", f"{wrong} of 7200 windows off", not wrong
    )


def _samples_per_window(rate: int) -> Result:
    """Windows of whole frames at 29.97 fps: counts and running total against whole numbers."""
    wrong = total = 0
    for out in (*_OUT_HZ, rate):
        for k in range(7_200):
            start, end = (ticks_to_ns(150 * 1_001 * n, Fraction(1, 30_000)) for n in (k, k + 1))
            exact = (2 * (end - start) * out + NS) // (2 * NS)
            wrong += count_in(end - start, out) != exact
            total += 1
    return Result(
        f"samples per window over 10 h: {rate / 1e3:g} kHz",
        "exact",
        f"{wrong} of {total} windows off",
        not wrong,
    )
