"""Rows of files that lie about time or keep something back: stale pictures, AVI, crops, new parameters."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from align import AlignOptions, Recording
from align.schemas.recording import Stream
from benchmarks.proof.job import Result, run
from benchmarks.proof.odd_media import X264, clap, numbered, paused, two_entries, with_entry_box
from benchmarks.proof.truth import BAR, HEIGHT, SOUND, number_in

NS = 1_000_000_000
_B = ("-g", "30", "-bf", "3")
_AVI = {
    "H.264": (*X264, "-g", "30", "-bf", "0"),
    "H.264, B-frames": (*X264, *_B, "-x264-params", "b-pyramid=normal:b-adapt=0"),
    "H.264, open GOP": (*X264, *_B, "-x264-params", "open-gop=1:b-adapt=0:scenecut=0"),
}
_PAUSE_S = 20


def rows(folder: Path) -> Iterator[Result]:
    """One run over all files, each against closed form."""
    options = AlignOptions(
        window=0.5, stride=0.5, image_size=HEIGHT, jpeg_quality=95, require=(), min_coverage=0.1
    )
    files = {"paused": paused(folder / "paused.ts", _PAUSE_S)}
    for n, codecs in enumerate(_AVI.values()):
        files[f"avi{n}"] = numbered(folder / f"avi{n}.avi", range(240), *codecs, "-c:a", "pcm_s16le")
    cropped = numbered(folder / "crop.mp4", range(120), *X264, *_B, sound=False)
    files["crop"] = with_entry_box(cropped, b"clap", clap(16 * BAR, HEIGHT, right=-8 * BAR))
    files["entries"] = two_entries(folder / "entries.mp4", 120, 240)
    found = run([_recording(name, path) for name, path in files.items()], options).rows
    yield _stale(found["paused"])
    for n, title in enumerate(_AVI):
        yield _avi(title, found[f"avi{n}"])
    yield _crop(found["crop"])
    yield _entries(found["entries"])


def _recording(name: str, path: Path) -> Recording:
    uri = str(path)
    return Recording(
        "proof", name, name, Stream("video", uri, path.name), audio=Stream("audio", uri, path.name)
    )


def pixels_of(row: dict[str, Any]) -> NDArray[np.uint8]:
    """The picture of a row: uint8 [height, width, 3]."""
    return np.asarray(cv2.imdecode(np.frombuffer(row["image"]["bytes"], np.uint8), 1), np.uint8)


def _stale(found: list[dict[str, Any]]) -> Result:
    centres = [(r, (r["start_ns"] + r["end_ns"]) / 2) for r in found]
    ages = [(c - r["image_time_ns"]) / NS for r, c in centres if r["image"]]
    without = [r for r, _ in centres if r["image"] is None]
    expected = int((_PAUSE_S - 1) * 2)  # windows of half a second, without the first second of the pause
    gap = sum(dict(r["missing"])["image"] == "gap" for r in without)
    return Result(
        f"a pause of {_PAUSE_S} s in MPEG-TS: age of pictures",
        "< 1 s, gap beyond",
        f"at most {max(ages):.3f} s, {gap} of {len(without)} without one for a gap",
        max(ages) < 1 and gap == len(without) and abs(gap - expected) <= 1,
    )


def _avi(title: str, found: list[dict[str, Any]]) -> Result:
    off = [r["image_time_ns"] * 30 / NS - (number_in(pixels_of(r)) or 0) for r in found]
    late = max(abs(_sound_late_s(r)) for r in found if r["audio"])
    nominal = all(r["quality"]["image_time_quality"] == "nominal" for r in found)
    wrong = sum(abs(o - off[0]) > 1e-6 for o in off)
    return Result(
        f"AVI, no times stored: {title}",
        "one constant, 0; nominal",
        f"{wrong} of {len(off)} frames off, constant {abs(off[0]) / 0.03:.3f} ms, sound {late * 1e3:.4f} ms",
        not wrong and abs(off[0]) < 1e-6 and late < 1e-4 and nominal and len(found) == 16,
    )


def _sound_late_s(row: dict[str, Any]) -> float:
    pcm, rate = soundfile.read(BytesIO(row["audio"]["bytes"]))
    return SOUND.delay_s(pcm[1000:-1000], row["start_ns"] / NS + np.arange(1000, len(pcm) - 1000) / rate)


def _crop(found: list[dict[str, Any]]) -> Result:
    """The visible half holds the number's bits alone."""
    wrong = 0
    for row in found:
        pixels = pixels_of(row)
        bits = pixels.reshape(HEIGHT, -1, BAR, 3)[4:-4, :, 2:-2].mean(axis=(0, 2, 3)) > 127
        number = int((bits << np.arange(len(bits))).sum())
        wrong += pixels.shape != (HEIGHT, 16 * BAR, 3) or number != round(row["image_time_ns"] * 30 / NS)
    return Result("clean aperture: the left half", "exact", f"{wrong} of {len(found)} off", not wrong)


def _entries(found: list[dict[str, Any]]) -> Result:
    wrong = 0
    for row in found:
        pixels = pixels_of(row) if row["image"] else np.zeros((HEIGHT, 1, 3), np.uint8)
        frame = round((row["image_time_ns"] or 0) * 30 / NS)
        number = number_in(np.ascontiguousarray(pixels[:, :: 2 if frame >= 120 else 1]))
        wrong += number != frame
    done = len(found) == 16 and not wrong
    return Result("a second sample entry, twice as wide", "exact", f"{wrong} of {len(found)} off", done)
