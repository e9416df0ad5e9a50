"""Synthetic recordings as the ``ego4d`` command lays them on disk, and their truth.

The metadata states what was measured in the written files, not what was asked for. Field names follow the
EGO4D documentation (docs/data/metadata, videos, imu, annotations-schemas).
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from align.schemas.errors import UsageError
from align.schemas.time import NS, TimeSpan, seconds_to_ns
from align.transforms.synth import event, media, motion, scene, sensors
from align.transforms.synth.clock import Rows, imu_clock, imu_rows, joints_ns, spans
from align.transforms.synth.ego4d import ego4d_json, manifest_csv, narration_json
from align.transforms.synth.options import SynthOptions
from align.transforms.synth.story import Story, generator, tell
from align.transforms.synth.truth import FILE, Event, RecordingTruth, Truth, is_synthetic

Progress = Callable[[int, int], None]
IMU_COLUMNS = ("gyro_x", "gyro_y", "gyro_z", "accl_x", "accl_y", "accl_z")
_TAP_REACH_NS = round(3 * sensors.TAP_SIGMA_S * NS)
_NAMESPACE = uuid.UUID("6f1d3c1e-6a52-5d0c-9a3b-4f2f0f6f5a11")


def synthesize(
    folder: Path, options: SynthOptions, *, force: bool = False, progress: Progress | None = None
) -> Truth:
    """Write recordings in EGO4D v2 layout, and ``truth.json`` last.

    Args:
        folder: made if it is not there.
        options: what to write.
        force: replace an earlier output of this function.
        progress: told (frames done, frames in all) now and then.

    Raises:
        UsageError: the folder holds something else, or something at all without ``force``.
        AlignError: ffmpeg failed, or wrote other timestamps than it was told.
    """
    _clear(folder, force=force)
    v2 = folder / "v2"
    try:
        for name in ("full_scale", "imu", "annotations"):
            (v2 / name).mkdir(parents=True)
        told = progress or (lambda done, total: None)
        made = [_recording(v2, options, index, told) for index in range(options.count)]
        truth = Truth(options, tuple(recording for recording, _ in made))
        _write_metadata(v2, truth, [found for _, found in made])
        truth.write(folder)
    except BaseException:
        # Half an output has no truth: a later call could not tell it from somebody's data.
        shutil.rmtree(v2, ignore_errors=True)
        raise
    return truth


def recording_uid(options: SynthOptions, index: int) -> str:
    """The uid of recording ``index``: a function of (seed, index)."""
    return str(uuid.uuid5(_NAMESPACE, f"{options.seed}/{index}"))


def _clear(folder: Path, *, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name a folder")
    held = {p.name for p in folder.iterdir()} if folder.exists() else set()
    if not held:
        return
    if not force:
        raise UsageError(
            f"{folder} is not empty: name a new folder, or add --force to replace synthetic recordings"
        )
    if not (held <= {"v2", FILE} and is_synthetic(folder)):
        raise UsageError(
            f"{folder} holds other things than synthetic recordings: --force will not delete them"
        )
    (folder / FILE).unlink()
    shutil.rmtree(folder / "v2", ignore_errors=True)


def _recording(
    v2: Path, options: SynthOptions, index: int, progress: Progress
) -> tuple[RecordingTruth, media.MeasuredFile]:
    uid, story = recording_uid(options, index), tell(options, index)
    camera = motion.move(options, index, story)
    plan = media.timing(options, generator(options, index, 5))
    rows = imu_rows(options, index, plan.frame_times_ns[0], plan.end_ns)
    if index in options.no_imu:
        rows = Rows(
            *(values[:0] for values in (rows.true_ns, rows.written_ns, rows.component, rows.component_ns))
        )
    else:
        values = sensors.inertial(rows.true_ns, options, index, story, camera)
        _write_imu(v2 / "imu" / f"{uid}.csv", rows, values)

    path = v2 / "full_scale" / f"{uid}.mp4"
    redacted = tuple(TimeSpan(*(seconds_to_ns(float(t)) for t in pair)) for pair in options.redacted)
    flashes = _on_screen(plan.frame_times_ns, story.events_ns)
    pictures = _pictures(options, index, plan, story, camera, flashes, redacted, progress)
    voice = sensors.voice(story, event.scene(options, index) if options.event_offsets_s else None)
    sound = iter(()) if index in options.no_audio else _sound(options, plan, voice)
    media.encode(path, options, plan, pictures, sound)
    found = media.measure(path)
    media.check(path, plan, found)

    sound_gaps = media.audio_gaps(found.audio, plan, options.audio_rate) if found.audio else ()
    # AAC blocks overlap: beside a gap, a packet's worth of sound is not what was played.
    spoiled = 2048 * NS // options.audio_rate
    fx, fy, cx, cy = (float(scene.camera_matrix(options)[k]) for k in ((0, 0), (1, 1), (0, 2), (1, 2)))
    times = found.video.times_ns()
    truth = RecordingTruth(
        recording_id=uid,
        index=index,
        frame_times_ns=times,
        end_ns=plan.end_ns,
        audio_start_ns=_ns(plan.audio_start, options.audio_rate) if found.audio else None,
        audio_gaps=sound_gaps,
        imu_rows=len(rows.true_ns),
        imu_clock=imu_clock(options),
        imu_gaps=spans(options.imu_gaps),
        joints_ns=joints_ns(options),
        redacted=redacted,
        events=tuple(
            Event(
                time_ns=t,
                frame_ns=None if any(r.holds(times[k]) for r in redacted) else times[k],
                sound=found.audio is not None and not any(g.widened(spoiled).holds(t) for g in sound_gaps),
                imu=index not in options.no_imu
                and not any(g.widened(_TAP_REACH_NS).holds(t) for g in spans(options.imu_gaps)),
            )
            for t, k in zip(story.events_ns, flashes, strict=True)
        ),
        narrations=None if index in options.no_narration else _narrations(story, times[0], plan.end_ns),
        activities=[asdict(a) for a in story.activities],
        motion={"kind": options.motion, **camera.as_dict()},
        camera=(fx, fy, cx, cy),
        event_clock=event.event_clock(options, index),
    )
    return truth, found


def _ns(sample: int, rate: int) -> int:
    return seconds_to_ns(Fraction(sample, rate))


def _on_screen(frame_times_ns: tuple[int, ...], events_ns: tuple[int, ...]) -> list[int]:
    """Index of the frame on screen at each event: the last one whose time is not after it."""
    return [int(k) - 1 for k in np.searchsorted(np.array(frame_times_ns), events_ns, side="right")]


def _pictures(
    options: SynthOptions,
    index: int,
    plan: media.Timing,
    story: Story,
    camera: motion.Motion,
    flashes: list[int],
    redacted: tuple[TimeSpan, ...],
    progress: Progress,
) -> Iterator[NDArray[np.uint8]]:
    """Every frame, rendered at its own presentation time."""
    world, flash = scene.build(options, index), set(flashes)
    seconds = np.array(plan.frame_times_ns) / NS
    steady = options.stabilised_s
    orientations = camera.steadied(seconds, steady) if steady else camera.orientation(seconds)
    hues, paces = story.hue(seconds), story.pace(seconds)
    step = (plan.end_tick - plan.ticks[0]) // options.frames
    for k, time_ns in enumerate(plan.frame_times_ns):
        if any(r.holds(time_ns) for r in redacted):
            yield scene.blank(options.width, options.height, luma=scene.BLACK)
        elif k in flash:
            yield scene.blank(options.width, options.height, luma=scene.WHITE)
        else:
            yield world.render(orientations[k], float(hues[k]), float(paces[k]), float(seconds[k]))
        done = (plan.ticks[k] - plan.ticks[0]) // step + 1
        progress(index * options.frames + done, options.count * options.frames)


def _sound(options: SynthOptions, plan: media.Timing, voice: sensors.Sound) -> Iterator[media.Timed]:
    rate = options.audio_rate
    for start in range(plan.audio_start, plan.audio_end, rate):
        samples = np.arange(start, min(start + rate, plan.audio_end), dtype=np.int64)
        # Whole seconds apart, so that nanoseconds fit an int64 for days.
        times = samples // rate * NS + np.rint(samples % rate * (NS / rate)).astype(np.int64)
        yield media.block(start, voice.at(times), rate)


def _narrations(story: Story, start_ns: int, end_ns: int) -> tuple[tuple[int, str], ...]:
    """One for each activity, in its middle as far as the video shows it, and one for each event."""
    said = [(t, "#C C sees a white flash, hears a click and feels a tap") for t in story.events_ns]
    for activity in story.activities:
        part = TimeSpan(activity.start_ns, activity.end_ns).cut_to(TimeSpan(start_ns, end_ns))
        if part:
            said.append((part.center_ns, activity.sentence))
    return tuple(sorted(said))


def _write_imu(path: Path, rows: Rows, values: NDArray[np.float64]) -> None:
    columns: dict[str, Any] = {
        "component_idx": rows.component,
        "component_timestamp_ms": rows.component_ns / 1e6,
        "canonical_timestamp_ms": rows.written_ns / 1e6,
        **{name: values[:, k] for k, name in enumerate(IMU_COLUMNS)},
    }
    csv.write_csv(pa.table(columns), path, csv.WriteOptions(quoting_header="none"))


def _write_metadata(v2: Path, truth: Truth, files: list[media.MeasuredFile]) -> None:
    def dump(path: Path, content: dict[str, Any]) -> None:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    dump(v2 / "ego4d.json", ego4d_json(truth, files))
    dump(v2 / "annotations" / "narration.json", narration_json(truth))
    everyone = [r.recording_id for r in truth.recordings]
    measured = [r.recording_id for r in truth.recordings if r.imu_rows]
    (v2 / "full_scale" / "manifest.csv").write_text(manifest_csv("full_scale", everyone, "mp4"))
    (v2 / "imu" / "manifest.csv").write_text(manifest_csv("imu", measured, "csv"))
