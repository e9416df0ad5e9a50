"""Files that lie about time: clocks that restart, step back or jump, and edit lists of several stretches."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile

from align import AlignOptions, Recording, Stream
from benchmarks.proof.edits import Stretch, picture_due, with_edits
from benchmarks.proof.job import Result, Shards, run
from benchmarks.proof.numbered import (
    CONTAINERS,
    FPS,
    Container,
    Part,
    heard_part,
    sound_of,
    write_part,
    write_parts,
)
from benchmarks.proof.truth import number_in

NS = 1_000_000_000
OPTIONS = AlignOptions(window=0.5, stride=0.5, image_size=32, jpeg_quality=95, min_coverage=0.05, require=())
_FIRST = Part(0, 96, 0)
_ACCOUNTED_S = 0.04
_HALF = Fraction(1, 2)
_THREE: list[Stretch] = [(_HALF * 2, _HALF), (Fraction(7, 10), Fraction(2)), (Fraction(1), Fraction(3))]
_REPEAT: list[Stretch] = [(Fraction(12, 10), Fraction(1)), (Fraction(12, 10), Fraction(1))]
_EMPTY: list[Stretch] = [(_HALF, None), (_HALF * 2, _HALF), (_HALF, None), (_HALF * 2, Fraction(27, 10))]


@dataclass(frozen=True)
class _Case:
    """A joined file: its parts, and how many of them stand on the first timeline."""

    path: Path
    parts: tuple[Part, ...]
    kept: int

    @property
    def recording(self) -> Recording:
        return _recording(self.path)


def rows(folder: Path) -> Iterator[Result]:
    """A row for each container, and for each form of edit list."""
    for name, container in CONTAINERS.items():
        yield _joined(name, _cases(name, container, folder))
    plain = write_part(Part(0, 120, 3), CONTAINERS["MP4"], folder / "plain.mp4").read_bytes()
    lists = {"three stretches": _THREE, "a stretch repeated": _REPEAT, "nothing shown between": _EMPTY}
    for title, edits in lists.items():
        path = folder / f"{title.replace(' ', '_')}.mp4"
        path.write_bytes(with_edits(plain, edits, edits))
        yield _edited(title, path, edits)


def _recording(path: Path) -> Recording:
    name = path.stem
    video, audio = Stream("video", str(path), path.name), Stream("audio", str(path), path.name)
    return Recording("proof", name, name, video, audio=audio)


def _cases(name: str, container: Container, folder: Path) -> list[_Case]:
    second = Part(200, 72, 5)
    goes_on = 2 if name == "AVI" else 1  # it has no clock of its own
    made = [("joined", second, goes_on), ("other", Part(200, 45, 5, scale=2), 1)]
    if container.starts_anywhere:
        made.append(("back", replace(second, start_s=_FIRST.seconds - 1), 1))
        made.append(("ahead", replace(second, start_s=_FIRST.seconds + 60), 2))
    return [
        _Case(
            write_parts([_FIRST, part], container, folder / f"{name}_{kind}.bin".replace(" ", "_")),
            (_FIRST, part),
            kept,
        )
        for kind, part, kept in made
    ]


def _joined(name: str, cases: Sequence[_Case]) -> Result:
    shards = run([c.recording for c in cases], OPTIONS)
    windows = wrong = 0
    untold = 0.0
    for case in cases:
        found = shards.rows.get(case.recording.recording_id, [])
        windows += len(found)
        wrong += _wrong(found, case.parts[: case.kept])
        lost = float(sum(p.seconds for p in case.parts[case.kept :]))
        untold = max(untold, abs(lost - _told_s(shards, case)))
    return Result(
        f"clock that restarts, steps back, jumps: {name}",
        f"no window wrong or mixed, losses told to {_ACCOUNTED_S} s",
        f"{wrong} of {windows} windows wrong, losses told to {untold:.3f} s",
        wrong == 0 and windows > 0 and untold <= _ACCOUNTED_S,
    )


def _told_s(shards: Shards, case: _Case) -> float:
    """Seconds that the notes of a recording say are lost."""
    details = (f["detail"] for f in shards.faults if f["recording_id"] == case.recording.recording_id)
    return sum(float(s) for detail in details for s in re.findall(r"([\d.]+) s in \d+ bytes", detail))


def _wrong(found: Sequence[dict[str, Any]], parts: Sequence[Part]) -> int:
    """Windows whose picture is not that of its time, or whose sound is of another part."""
    begins: dict[int, float] = {}
    wrong = 0
    for row in found:
        if row["image"] is None:
            continue
        number = _number(row)
        part = next((p for p in parts if number is not None and p.first <= number < p.first + p.frames), None)
        if part is None or number is None:
            wrong += 1
            continue
        at = row["image_time_ns"] / NS - (number - part.first) / FPS
        wrong += abs(at - begins.setdefault(part.seed, at)) > 2e-3
        inside = 3 <= number - part.first < part.frames - 3 and row["quality"]["image_offset_ns"] > -NS // 10
        if row["audio"] is not None and inside and row["quality"]["audio_coverage"] > 0.999:
            pcm, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
            wrong += heard_part(pcm, rate, [p.seed for p in (*parts, Part(seed=5))]) != part.seed
    return wrong + (0 if len(begins) == len(parts) else len(found))


def _number(row: dict[str, Any]) -> int | None:
    pixels = cv2.imdecode(np.frombuffer(row["image"]["bytes"], np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else number_in(np.asarray(pixels, np.uint8))


def _edited(title: str, path: Path, edits: Sequence[Stretch]) -> Result:
    options = replace(OPTIONS, stride=(NS // 5) / NS, audio_rate=48_000)
    found = run([_recording(path)], options).rows.get(path.stem, [])
    wrong, late = 0, [0.0]
    for row in found:
        due = picture_due(edits, row["start_ns"] + options.window_ns // 2)
        if row["image"] is None or due is None:
            wrong += (row["image"] is None) != (due is None)
        else:
            wrong += _number(row) != due[0] or abs(row["image_time_ns"] - due[1]) > 1
        if row["audio"] is not None:
            late += _lateness(row, edits)
    return Result(
        f"edit list, B-frames: {title}",
        "≤ 0.02 ms, no frame off",
        f"{max(late) * 1e3:.4f} ms, {wrong} of {len(found)} frames off",
        wrong == 0 and len(found) > 5 and len(late) > 5 and max(late) <= 0.02e-3,
    )


def _lateness(row: dict[str, Any], edits: Sequence[Stretch]) -> Iterator[float]:
    """How late the sound of each stretch stands in a window, away from the joints."""
    pcm, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
    times, at = row["start_ns"] / NS + np.arange(len(pcm)) / rate, Fraction(0)
    for length, start in edits:
        inside = (times > float(at) + 0.02) & (times < float(at + length) - 0.02)
        if start is not None and inside.sum() > rate // 10:
            yield abs(sound_of(3).delay_s(pcm[inside], times[inside] - float(at - start), reach_s=0.5))
        at += length
