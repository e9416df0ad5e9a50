"""The trial rig of ``align sync``: rendered truth, foreign gyros and clocks out of reach, as one table.

    python -m benchmarks.sync_trials FOLDER [--count 5] [--duration 40] [--pairs 500] [--processes 2]

Renders recordings below FOLDER once (minutes), twice as many pans as of other kinds: they look alike most.
Follows their flow once, and pairs pictures with many gyros.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from align.schemas.media import ImuTrack, VideoInfo
from align.schemas.time import NS, ClockMap, TimeSpan
from align.transforms.read.imu_csv import imu_range, read_imu, survey_imu
from align.transforms.read.probe import probe_media
from align.transforms.sync.clocks import ClockRow, clock_map
from align.transforms.sync.flow import Flow
from align.transforms.sync.measure import Measured, measure_imu, moved
from align.transforms.sync.picture import look
from align.transforms.sync.verdict import SyncOptions
from align.transforms.synth.layout import synthesize
from align.transforms.synth.options import SynthOptions
from align.transforms.synth.truth import RecordingTruth, read_truth

NOISY = {"gyro_noise": 0.01, "gyro_bias": (0.01, -0.02, 0.005)}
KINDS = {
    "walking": {"seed": 11, "imu_offset_s": 0.731, "imu_drift_ppm": 120.0, "imu_axes": "yXZ", **NOISY},
    "pan": {"seed": 12, "motion": "pan", "imu_offset_s": -1.2, "imu_drift_ppm": -200.0, **NOISY},
    "walking, object, VFR": {
        "seed": 13,
        "foreground": True,
        "vfr": 0.1,
        "imu_offset_s": 1.9,
        "imu_drift_ppm": 200.0,
        **NOISY,
    },
    "VP9": {"seed": 15, "codec": "vp9", "imu_offset_s": -0.3, "imu_drift_ppm": 50.0, **NOISY},
}
LONE = {
    "pan, 640 x 360": {
        "seed": 12,
        "motion": "pan",
        "width": 640,
        "height": 360,
        "imu_offset_s": -1.2,
        "imu_drift_ppm": -200.0,
        **NOISY,
    },
    "pan, 180 s": {"seed": 18, "motion": "pan", "duration_s": 180.0, "imu_offset_s": 1.2, **NOISY},
    "pan, object, VFR": {
        "seed": 14,
        "motion": "pan",
        "foreground": True,
        "vfr": 0.1,
        "imu_offset_s": -0.6,
        **NOISY,
    },
    "leap at a joint": {"seed": 17, "duration_s": 60.0, "joints_s": (31.0,), "imu_jumps_s": (0.3,), **NOISY},
    "static": {"seed": 16, "motion": "static", **NOISY},
}
"""Measured too, half as many of each, but not paired with others."""


@dataclass
class Trial:
    """A rendered recording, its flow followed once."""

    kind: str
    uri: str
    video: VideoInfo
    imu: ImuTrack
    truth: RecordingTruth
    seen: dict[TimeSpan, list[Flow]] = field(default_factory=dict)
    cpu_s: float = 0.0

    def look(self, spans: Sequence[TimeSpan]) -> list[list[Flow]]:
        """The flow in windows of the picture, from memory where it was followed before."""
        missing = [s for s in spans if s not in self.seen]
        begin = time.process_time()
        if missing:
            self.seen.update(zip(missing, look(self.uri, self.video, missing), strict=True))
        self.cpu_s += time.process_time() - begin
        return [self.seen[s] for s in spans]

    def measured(self, imu: ImuTrack) -> Measured:
        """This picture against any gyro."""
        return measure_imu(
            self.truth.recording_id,
            self.video.span,
            self.truth.joints_ns,
            imu,
            self.look,
            SyncOptions(),
            self.video.keyframes_ns,
        )


def load(folder: Path, kind: str) -> list[Trial]:
    out = []
    for truth in read_truth(folder).recordings:
        uri = str(folder / "v2/full_scale" / f"{truth.recording_id}.mp4")
        table = str(folder / "v2/imu" / f"{truth.recording_id}.csv")
        video, survey = probe_media(uri).video, survey_imu(table)
        if video is None:
            raise ValueError(f"{uri} holds no video")
        imu = read_imu(table, imu_range(survey, survey.span), ClockMap(), survey.span)
        out.append(Trial(kind, uri, video, imu, truth))
    return out


def worst_error_ms(trial: Trial, found: Measured) -> float:
    """Greatest difference from the true clock at any instant of the video."""
    rows = trial.imu.gyro_ns[::20]
    true = trial.truth.imu_clock.to_recording(rows)
    inside = (true >= trial.video.span.start_ns) & (true < trial.video.span.end_ns)
    return float(np.abs(clock_map(found.rows).to_recording(rows) - true)[inside].max()) / 1e6


def matched(trials: list[Trial]) -> None:
    print("| recordings | known | worst error ms, median / max | in 3σ | drift ppm, max | CPU s a minute |")
    for kind in KINDS | LONE:
        mine = [t for t in trials if t.kind == kind]
        begin = time.process_time()
        found = [(t, t.measured(t.imu)) for t in mine]
        minutes = sum(t.video.span.length_ns for t in mine) / NS / 60
        cpu = (time.process_time() - begin) / minutes
        known = [(t, m) for t, m in found if all(r.is_known for r in m.rows)]
        errors = [worst_error_ms(t, m) for t, m in known]
        honest = [
            e <= 3e-6 * max(r.sigma_ns or 0 for r in m.rows) for e, (_, m) in zip(errors, known, strict=True)
        ]
        drift = [abs((m.rows[0].drift_ppm or 0) - t.truth.imu_clock.pieces[0].drift_ppm) for t, m in known]
        figures = (
            f"{np.median(errors):.2f} / {max(errors):.2f} | {sum(honest)} of {len(honest)} | {max(drift):.1f}"
            if known
            else "- | - | -"
        )
        print(f"| {kind} | {len(known)} of {len(mine)} | {figures} | {cpu:.1f} |", flush=True)


_FORKED: list[Trial] = []
"""What the processes of :func:`foreign` inherit: flow is followed once, before they part."""


def _judged(pair: tuple[int, int, int]) -> tuple[tuple[int, int, int], ClockRow]:
    picture, gyro, shift = pair
    found = _FORKED[picture].measured(moved(_FORKED[gyro].imu, shift))
    return pair, next((r for r in found.rows if r.is_known), found.rows[0])


def foreign(trials: list[Trial], count: int, processes: int) -> None:
    """Pictures with the gyros of other recordings, and with their own out of reach."""
    every = range(len(trials))
    pairs = [(a, b, 0) for a in every for b in every if a != b]
    pairs += [(a, a, s * NS) for a in every for s in (9, -12, 17)]
    np.random.default_rng(1).shuffle(pairs)
    verdicts: Counter[str] = Counter()
    _FORKED[:] = trials
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for (a, b, shift), row in pool.imap_unordered(_judged, pairs[:count]):
            verdicts.update([row.status])
            if row.is_known:
                print("FALSE:", trials[a].truth.recording_id, trials[b].truth.recording_id, shift, row)
            if verdicts.total() % 50 == 0:
                print(f"{verdicts.total()} pairs: {dict(verdicts)}", flush=True)
    print(f"foreign or out of reach, {verdicts.total()} pairs: {dict(verdicts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--duration", type=float, default=40.0)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    cv2.setNumThreads(1)  # its threads do not survive a fork
    trials: list[Trial] = []
    for kind, options in (KINDS | LONE).items():
        folder = asked.folder / kind.replace(", ", "-")
        if not (folder / "truth.json").exists():
            count = (
                asked.count * 2 if kind == "pan" else asked.count if kind in KINDS else -(-asked.count // 2)
            )
            asked_for = {"count": count, "duration_s": asked.duration, "width": 320, "height": 180, **options}
            synthesize(folder, SynthOptions(**asked_for))  # type: ignore[arg-type]
        trials += load(folder, kind)
    matched(trials)
    foreign([t for t in trials if t.kind in KINDS], asked.pairs, asked.processes)


if __name__ == "__main__":
    main()
