"""What is true of synthetic recordings, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align.schemas.time import ClockMap, ClockPiece, TimeSpan
from align.transforms.synth.options import SynthOptions

FORMAT = "align-synth"
FILE = "truth.json"


@dataclass(frozen=True, slots=True)
class Event:
    """A flash, a click and a tap at one instant.

    Attributes:
        time_ns: when.
        frame_ns: time of the frame that was on screen and is all white; None where the picture is redacted.
        sound: whether the click was recorded.
        imu: whether the whole tap was recorded.
    """

    time_ns: int
    frame_ns: int | None
    sound: bool
    imu: bool


@dataclass(frozen=True, slots=True)
class RecordingTruth:
    """One recording, on its recording clock.

    Attributes:
        index: its number, from 0.
        frame_times_ns: of every frame in the file, as measured in it.
        end_ns: end of the last frame.
        audio_start_ns: time of the first sound sample; None without sound.
        audio_gaps: sound that is not there, as measured between the file's packets.
        imu_rows: rows written; 0 without IMU.
        imu_clock: from the written IMU times to the recording clock.
        imu_gaps: no IMU row lies in these.
        joints_ns: where original camera files were joined.
        redacted: blanked picture.
        events: what all sensors noticed.
        narrations: (time, sentence), ascending; None without narrations.
        activities: the course of the latents, as JSON values.
        motion: the rotation's parameters, as JSON values.
        camera: fx, fy, cx, cy in pixels.
        event_clock: from the recording clock to that of the event that all recordings hear; None without one.
    """

    recording_id: str
    index: int
    frame_times_ns: tuple[int, ...]
    end_ns: int
    audio_start_ns: int | None
    audio_gaps: tuple[TimeSpan, ...]
    imu_rows: int
    imu_clock: ClockMap
    imu_gaps: tuple[TimeSpan, ...]
    joints_ns: tuple[int, ...]
    redacted: tuple[TimeSpan, ...]
    events: tuple[Event, ...]
    narrations: tuple[tuple[int, str], ...] | None
    activities: list[dict[str, Any]]
    motion: dict[str, Any]
    camera: tuple[float, float, float, float]
    event_clock: ClockMap | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of a folder of synthetic recordings."""

    options: SynthOptions
    recordings: tuple[RecordingTruth, ...]

    def write(self, folder: Path) -> None:
        """Write ``truth.json`` at the folder's root."""
        content = {
            "format": FORMAT,
            "version": 1,
            "clock": "integer nanoseconds on the presentation timeline of each recording's video file",
            "options": self.options.as_dict(),
            "recordings": [asdict(r) for r in self.recordings],
        }
        (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_truth(folder: Path) -> Truth:
    """The truth of a folder that :func:`align.transforms.synth.layout.synthesize` wrote.

    Raises:
        OSError: there is no such file.
        ValueError: the file is not a truth of this format.
    """
    content = _read(folder)
    return Truth(SynthOptions.from_dict(content["options"]), tuple(map(_recording, content["recordings"])))


def is_synthetic(folder: Path) -> bool:
    """Whether the folder holds the truth of an earlier synthesis, of whatever version."""
    try:
        _read(folder)
    except (OSError, ValueError):
        return False
    return True


def _read(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{folder / FILE} was not written by align synth")
    return content


def _recording(values: dict[str, Any]) -> RecordingTruth:
    spans = {k: tuple(TimeSpan(**s) for s in values[k]) for k in ("audio_gaps", "imu_gaps", "redacted")}
    said = values["narrations"]
    typed = {
        "frame_times_ns": tuple(values["frame_times_ns"]),
        "imu_clock": _clock(values["imu_clock"]),
        "event_clock": (heard := values.get("event_clock")) and _clock(heard),
        "joints_ns": tuple(values["joints_ns"]),
        "events": tuple(Event(**e) for e in values["events"]),
        "narrations": None if said is None else tuple((int(t), str(s)) for t, s in said),
        "camera": tuple(values["camera"]),
    }
    return RecordingTruth(**values | spans | typed)


def _clock(values: dict[str, Any]) -> ClockMap:
    return ClockMap(tuple(ClockPiece(**p) for p in values["pieces"]))
