"""One event, three sensors, one instant: what a synthetic recording holds must come out where it was put.

A flash is one white frame, a click a burst at 4 kHz, a tap a pulse on the forward axis; truth.json says when.
"""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from align.schemas.time import NS
from align.transforms.synth import sensors
from align.transforms.synth.truth import Event, RecordingTruth, read_truth

WINDOW_NS = 2 * NS
# At the centres of 60 parts of 2 s, each frame of a 30 fps video is on screen once.
FRAMES = 60

CASES = {
    "H.264 with B-frames": {"codec": "h264", "bframes": 2, "gop": 30},
    "VP9": {"codec": "vp9"},
    "a video that starts late, at 29.97 fps": {
        "codec": "h264",
        "video_start_s": 0.35,
        "fps": Fraction(30000, 1001),
    },
    "another IMU rate, frames dropped": {"codec": "h264", "imu_rate_hz": 198.625, "vfr": 0.1},
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys(), scope="module")
def told(
    request: pytest.FixtureRequest, synth_folder: Callable[..., Path], align_run: Callable[..., Path]
) -> tuple[RecordingTruth, list[dict[str, Any]]]:
    """The truth about one recording, and the rows that were made of it."""
    folder = synth_folder(duration_s=8.0, **request.param)
    options = {"window": WINDOW_NS / NS, "stride": WINDOW_NS / NS, "frames": FRAMES}
    out = align_run(folder, options=options)
    rows = [row for file in sorted(out.glob("data/*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert rows
    return read_truth(folder).recordings[0], rows


def inside(recording: RecordingTruth, row: dict[str, Any], margin_ns: int) -> list[Event]:
    reach = range(row["start_ns"] + margin_ns, row["end_ns"] - margin_ns)
    return [event for event in recording.events if event.time_ns in reach]


def centroid(weight: np.ndarray, times: np.ndarray) -> float:
    return float((weight * times).sum() / weight.sum())


def test_flashes_are_in_the_very_frame_and_in_no_other(
    told: tuple[RecordingTruth, list[dict[str, Any]]],
) -> None:
    recording, rows = told
    found = 0
    for row in rows:
        frames = zip(row["frames"], row["frame_times_ns"], strict=True)
        grey = {
            t: cv2.imdecode(np.frombuffer(f["bytes"], np.uint8), cv2.IMREAD_GRAYSCALE).mean()
            for f, t in frames
        }
        assert set(grey) <= set(recording.frame_times_ns)
        white = {t for t, mean in grey.items() if mean > 200}
        assert white == {e.frame_ns for e in recording.events} & set(grey)
        found += len(white)
    assert found


def test_clicks_are_within_a_sample_of_their_place(told: tuple[RecordingTruth, list[dict[str, Any]]]) -> None:
    recording, rows = told
    offsets = []
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        assert len(samples) == 2 * rate
        spectrum = np.fft.rfft(samples)
        frequency = np.fft.rfftfreq(len(samples), 1 / rate)
        burst = np.fft.irfft(np.where((frequency > 2200) & (frequency < 5800), spectrum, 0), len(samples))
        for event in inside(recording, row, NS // 100):
            late = np.arange(len(samples)) - (event.time_ns - row["start_ns"]) * rate / NS
            offsets.append(centroid(np.where(np.abs(late) < 0.002 * rate, burst**2, 0), late))
    assert offsets
    assert np.abs(offsets).max() < 1


def test_taps_are_within_a_sample_of_their_place(told: tuple[RecordingTruth, list[dict[str, Any]]]) -> None:
    recording, rows = told
    offsets = []
    for row in rows:
        assert row["quality"]["imu_coverage"] == 1.0
        forward = np.array(row["imu"][5])
        rate = len(forward) * NS / WINDOW_NS
        for event in inside(recording, row, NS // 10):
            late = np.arange(len(forward)) / rate - (event.time_ns - row["start_ns"]) / NS
            near = np.abs(late) < 0.1
            quiet = near & (np.abs(late) > 4 * sensors.TAP_SIGMA_S)
            pulse = forward - np.polyval(np.polyfit(late[quiet], forward[quiet], 2), late)
            offsets.append(centroid(np.where(near & ~quiet, pulse, 0), late) * rate)
    assert offsets
    assert np.abs(offsets).max() < 1
