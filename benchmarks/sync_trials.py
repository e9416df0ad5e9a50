"""The trial rig of ``align sync``: rendered truth, and pairs that must not be believed, as tables.

    python -m benchmarks.sync_trials FOLDER [--count 5] [--duration 40] [--fresh 4] [--pairs 500]
    python -m benchmarks.sync_trials FOLDER --fresh 6 --noise 0.002 --kinds pan "pan, 180 s" --pairs 0

Renders recordings below FOLDER once (minutes), twice as many pans as of other kinds: they look alike most.
Follows their flow once, and pairs pictures with many gyros: their own; gyros of the same motion with other
noise, offsets and drifts (``--fresh`` for each picture and ``--noise``); and, at each noise, such of other
recordings; of their own out of reach; and of pictures whose path was smoothed, as electronic stabilisation
does, with the gyro that was not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
from align.schemas.media import ImuTrack, VideoInfo
from align.schemas.time import NS, ClockMap, TimeSpan
from align.transforms.read.probe import probe_media
from align.transforms.sync.clocks import ClockRow, clock_map
from align.transforms.sync.flow import Flow
from align.transforms.sync.measure import Measured, measure_imu
from align.transforms.sync.picture import look
from align.transforms.sync.verdict import SyncOptions
from align.transforms.synth.clock import imu_clock, imu_rows
from align.transforms.synth.layout import synthesize
from align.transforms.synth.motion import Motion, move
from align.transforms.synth.options import SynthOptions
from align.transforms.synth.sensors import inertial
from align.transforms.synth.story import Story, tell
from align.transforms.synth.truth import RecordingTruth, read_truth
from align.transforms.tables.table import imu_range, read_imu, survey_imu

STRESS, MEMS = 0.01, 0.002
"""Noise of a gyro's rows at 200 Hz, rad/s: five times, and about twice what a BMI160 has by its data sheet.

0.007 °/s/√Hz over the 100 Hz that such rows hold are 0.0012 rad/s.
"""
NOISY = {"gyro_noise": STRESS, "gyro_bias": (0.01, -0.02, 0.005)}
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
STABILISED = {
    f"{motion}, smoothed over {sigma} s": {"seed": 30, "motion": motion, "stabilised_s": sigma, **NOISY}
    for motion in ("walking", "pan")
    for sigma in (0.2, 0.5, 1.0, 3.0)
}
"""Pictures that do not show what their gyros hold; half as many of each."""
BEYOND_S = (5.4, 9.0, -6.0, -12.0, 17.0)
"""True offsets out of a reach of 5 s."""


@dataclass
class Trial:
    """A rendered recording, its flow followed once."""

    kind: str
    uri: str
    video: VideoInfo
    imu: ImuTrack
    truth: RecordingTruth
    options: SynthOptions
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

    def motion(self) -> tuple[Story, Motion]:
        """What the camera did."""
        story = tell(self.options, self.truth.index)
        return story, move(self.options, self.truth.index, story)

    def renewed(self, number: int, noise: float, offset_s: float | None = None) -> tuple[ImuTrack, ClockMap]:
        """Another gyro of the motion: noise (rad/s), offset (±2 s or as given), drift (±200 ppm) are new."""
        rng = np.random.default_rng([number, self.truth.index, self.options.seed])
        offset, drift = float(rng.uniform(-2, 2)), float(rng.uniform(-200, 200))
        offset = offset if offset_s is None else offset_s
        seed = int(rng.integers(1 << 30))
        options = replace(self.options, seed=seed, imu_offset_s=offset, imu_drift_ppm=drift, gyro_noise=noise)
        rows = imu_rows(options, self.truth.index, self.video.span.start_ns, self.video.span.end_ns)
        values = inertial(rows.true_ns, options, self.truth.index, *self.motion())
        track = ImuTrack(rows.written_ns, values[:, :3], rows.written_ns, values[:, 3:], 200.0, 200.0)
        return track, imu_clock(options)

    def bound(self, noise: float) -> tuple[float, float]:
        """Least standard errors that gyro noise (rad/s) alone allows: offset at the ends (s), drift.

        White noise of density S beside a rate ω(t + offset + drift·t): the inverse of Fisher's information
        1/S · ∫ |dω/dt|² (1, t)ᵀ(1, t) dt.
        """
        step = 0.01
        span = self.video.span
        seconds = np.arange(span.start_ns / NS, span.end_ns / NS, step)
        rate = self.motion()[1].angular_velocity(seconds)
        power = (np.gradient(rate, step, axis=0) ** 2).sum(axis=1)
        since = np.stack([np.ones_like(seconds), seconds - seconds.mean()])
        density = noise**2 / self.options.imu_rate_hz
        covariance = density * np.linalg.inv((since * power) @ since.T * step)
        ends = [float(np.sqrt(since[:, k] @ covariance @ since[:, k])) for k in (0, -1)]
        return max(ends), float(np.sqrt(covariance[1, 1]))


def load(folder: Path, kind: str) -> list[Trial]:
    out = []
    whole = read_truth(folder)
    for truth in whole.recordings:
        uri = str(folder / "v2/full_scale" / f"{truth.recording_id}.mp4")
        table = str(folder / "v2/imu" / f"{truth.recording_id}.csv")
        video, survey = probe_media(uri).video, survey_imu(table, IMU_COLUMNS)
        if video is None:
            raise ValueError(f"{uri} holds no video")
        imu = read_imu(table, imu_range(survey, survey.span), ClockMap(), survey.span, IMU_COLUMNS)
        out.append(Trial(kind, uri, video, imu, truth, whole.options))
    return out


def worst_error_ms(trial: Trial, found: Measured, imu: ImuTrack, clock: ClockMap) -> float:
    """Greatest difference from the true clock at any instant of the video."""
    rows = imu.gyro_ns[::20]
    true = clock.to_recording(rows)
    inside = (true >= trial.video.span.start_ns) & (true < trial.video.span.end_ns)
    return float(np.abs(clock_map(found.rows).to_recording(rows) - true)[inside].max()) / 1e6


def matched(trials: list[Trial], kinds: Sequence[str], fresh: int, noises: Sequence[float]) -> None:
    """Own gyros, then fresh ones: what is found of what is true."""
    names = "recordings | known | worst error ms: median / 95 % / max | in 3σ | drift error ppm: median / max"
    print(f"| {names} | s looked at | bound: σ ms, ppm | CPU s a minute |")
    for kind in kinds:
        mine = [t for t in trials if t.kind == kind]
        own = [(t, t.imu, t.truth.imu_clock) for t in mine]
        print(_row(kind, own, mine[0].options.gyro_noise), flush=True)
        for noise in noises if fresh else ():
            pairs = [(t, *t.renewed(k, noise)) for t in mine for k in range(fresh)]
            print(_row(f"{kind}, fresh gyros, {noise:g} rad/s", pairs, noise), flush=True)


def _row(name: str, pairs: list[tuple[Trial, ImuTrack, ClockMap]], noise: float) -> str:
    begin = time.process_time()
    found = [(t, t.measured(imu), imu, clock) for t, imu, clock in pairs]
    cpu = (time.process_time() - begin) / (sum(t.video.span.length_ns for t, _, _ in pairs) / NS / 60)
    known = [f for f in found if all(r.is_known for r in f[1].rows)]
    if not known:
        return f"| {name} | 0 of {len(found)} | - | - | - | - | - | {cpu:.1f} |"
    error = np.array([worst_error_ms(*f) for f in known])
    sigma = np.array([max(r.sigma_ns or 0 for r in m.rows) / 1e6 for _, m, _, _ in known])
    drift = np.abs([(m.rows[0].drift_ppm or 0) - c.pieces[0].drift_ppm for _, m, _, c in known])
    seen = np.median([m.seconds_seen for _, m, _, _ in known])
    ends, slope = np.median([t.bound(noise) for t, _, _, _ in known], axis=0)
    cells = (
        name,
        f"{len(known)} of {len(found)}",
        f"{np.median(error):.2f} / {np.quantile(error, 0.95):.2f} / {error.max():.2f}",
        f"{(error <= 3 * sigma).sum()} of {len(error)}",
        f"{np.median(drift):.1f} / {drift.max():.1f}",
        f"{seen:.0f}",
        f"{ends * 1e3:.2f}, {slope * 1e6:.1f}",
        f"{cpu:.1f}",
    )
    return f"| {' | '.join(cells)} |"


_FORKED: list[Trial] = []
"""What the processes of :func:`unbelievable` inherit: flow is followed once, before they part."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture and a fresh gyro that must not be believed beside it: numbers of trials, rad/s, seconds."""

    sort: str
    picture: int
    gyro: int
    noise: float
    offset_s: float | None = None


def _judged(pair: Pair) -> tuple[Pair, ClockRow]:
    imu, _ = _FORKED[pair.gyro].renewed(0, pair.noise, pair.offset_s)
    found = _FORKED[pair.picture].measured(imu)
    return pair, next((r for r in found.rows if r.is_known), found.rows[0])


def wrong_pairs(trials: list[Trial], count: int, noises: Sequence[float]) -> list[Pair]:
    """``count`` pairs none of which may be verified, as many as there are of the rarer sorts first."""
    plain = [i for i, t in enumerate(trials) if t.kind in KINDS]
    smooth = [i for i, t in enumerate(trials) if t.kind in STABILISED]
    rare = [Pair("stabilised", i, i, n) for i in smooth for n in noises]
    rare += [Pair("out of reach", i, i, n, s) for i in plain for s in BEYOND_S for n in noises]
    others = [Pair("foreign", a, b, n) for a in plain + smooth for b in plain if a != b for n in noises]
    chosen = np.random.default_rng(1).permutation(len(others))[: max(0, count - len(rare))]
    return rare + [others[i] for i in chosen]


def unbelievable(trials: list[Trial], count: int, noises: Sequence[float], processes: int) -> None:
    """Pairs none of which may be verified, by fresh gyros, and what is said of them."""
    pairs = wrong_pairs(trials, count, noises)
    verdicts = {(p.sort, p.noise): Counter[str]() for p in pairs}
    _FORKED[:] = trials
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for done, (pair, row) in enumerate(pool.imap_unordered(_judged, pairs), start=1):
            verdicts[pair.sort, pair.noise].update([row.status])
            if row.is_known:
                print(f"FALSE: {trials[pair.picture].kind}, {trials[pair.gyro].kind}, {pair}, {row}")
            if done % 50 == 0:
                print(f"{done} pairs so far", flush=True)
    for (sort, noise), seen in verdicts.items():
        print(f"{sort}, {noise:g} rad/s, {seen.total()} pairs: {dict(seen)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--duration", type=float, default=40.0)
    parser.add_argument("--fresh", type=int, default=4)
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[STRESS, MEMS], help="of fresh gyros, rad/s"
    )
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, *LONE, *STABILISED], help="these alone")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    cv2.setNumThreads(1)  # its threads do not survive a fork
    trials: list[Trial] = []
    kinds = [k for k in KINDS | LONE | STABILISED if not asked.kinds or k in asked.kinds]
    for kind in kinds:
        options = (KINDS | LONE | STABILISED)[kind]
        folder = asked.folder / kind.replace(", ", "-")
        if not (folder / "truth.json").exists():
            count = asked.count if kind in KINDS else -(-asked.count // 2)
            asked_for = {"duration_s": asked.duration, "width": 320, "height": 180, **options}
            asked_for["count"] = 2 * count if kind == "pan" else count
            synthesize(folder, SynthOptions(**asked_for))  # type: ignore[arg-type]
        trials += load(folder, kind)
    matched(trials, [k for k in kinds if k not in STABILISED], asked.fresh, asked.noise)
    if asked.pairs:
        unbelievable(trials, asked.pairs, asked.noise, asked.processes)


if __name__ == "__main__":
    main()
