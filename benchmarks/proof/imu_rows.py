"""IMU: placement over ten hours, resampling in dB, sensors with instants of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from align import AlignOptions, ClockMap, ClockPiece, Recording, Stream
from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
from benchmarks.proof.job import Result, Shards, run
from benchmarks.proof.media import ffmpeg
from benchmarks.proof.truth import MOTION, Floats, Tones

NS = 1_000_000_000
HOURS_10_S = 36_000
GRAVITY = 9.80665
_BLOCK_S = 600
_TENTH = 0.1


@dataclass(frozen=True)
class Table:
    """An IMU table to write.

    Attributes:
        hz: rows per second of the IMU's own clock.
        clock: pieces of (start, offset) in s and drift in ppm, from the IMU's clock to the recording's.
        jitter_s: each row is measured at most so much earlier or later than on an even grid.
        gaps: spans in seconds of the recording clock without rows.
        windows: only rows within 5 s of these windows (start, end) are written; None writes all of them.
        axes: what is measured, a function of time for each of the six axes.
        accl_hz: the accelerometer's own rate; None where both sensors share their instants.
    """

    hz: float
    clock: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0),)
    jitter_s: float = 0.0
    gaps: tuple[tuple[float, float], ...] = ()
    windows: tuple[tuple[float, float], ...] | None = None
    axes: tuple[Tones, ...] = MOTION
    accl_hz: float | None = None
    end_s: float = HOURS_10_S
    seed: int = field(default=0)

    @property
    def clock_map(self) -> ClockMap:
        """The clock as the pipeline is told it."""
        pieces = (ClockPiece(round(a * NS), round(o * NS), ppm) for a, o, ppm in self.clock)
        return ClockMap(tuple(pieces))

    def true_s(self, stream_s: Floats) -> NDArray[np.longdouble]:
        """Recording time of the IMU's own time, by the definition, in extended precision."""
        own = stream_s.astype(np.longdouble)
        true = own.copy()
        for start, offset, ppm in self.clock:
            after = own >= start if start > self.clock[0][0] else np.ones(len(own), bool)
            true[after] = own[after] + offset + (own[after] - start) * np.longdouble(ppm) / 1_000_000
        return true

    def write(self, path: Path) -> None:
        """Write the table block by block, as EGO4D does: milliseconds, gyroscope before accelerometer."""
        names = ["canonical_timestamp_ms", *(f"{s}_{a}" for s in ("gyro", "accl") for a in "xyz")]
        schema = pa.schema([(n, pa.float64()) for n in names])
        first = self.clock[0][0] - abs(self.clock[0][1]) - 20
        rng = np.random.default_rng([self.seed, 5])
        with csv.CSVWriter(path, schema) as out:
            last = first + self.end_s + 60
            for begin in np.arange(first, last, _BLOCK_S):
                end = min(begin + _BLOCK_S, last)
                gyro = self._instants(begin, end, self.hz, rng)
                if self.accl_hz is None:
                    columns = [gyro * 1e3, *self._values(gyro, range(6))]
                else:
                    columns = _merged(gyro, self._values(gyro, range(3)), *self._accl(begin, end, rng))
                out.write_table(pa.table([pa.array(c, from_pandas=True) for c in columns], schema=schema))

    def _accl(self, begin: float, end: float, rng: np.random.Generator) -> tuple[Floats, list[Floats]]:
        instants = self._instants(begin + 0.0021, end, self.accl_hz or 0.0, rng)
        return instants, self._values(instants, range(3, 6))

    def _instants(self, begin: float, end: float, hz: float, rng: np.random.Generator) -> Floats:
        """Times of the IMU's clock in a block, in s, on its whole nanoseconds, without those not recorded."""
        number = np.arange(np.ceil(begin * hz), np.ceil(end * hz))
        stream = np.round(number / hz + rng.uniform(-1, 1, len(number)) * self.jitter_s, 9)
        true = self.true_s(stream)
        kept = np.ones(len(stream), bool)
        for start, end in self.gaps:
            kept &= (true < start) | (true >= end)
        if self.windows is not None:
            near = np.zeros(len(stream), bool)
            for start, end in self.windows:
                near |= (true >= start - 5) & (true < end + 5)
            kept &= near
        return stream[kept]

    def _values(self, stream: Floats, axes: range) -> list[Floats]:
        true = self.true_s(stream).astype(np.float64)
        values = [np.round(self.axes[a].at(true), 9) for a in axes]
        if axes[-1] == 5:
            values[-1] = values[-1] + GRAVITY
        return values


def _merged(gyro: Floats, turn: list[Floats], accl: Floats, push: list[Floats]) -> list[Floats]:
    """Rows of both sensors by time; a row holds one of them and leaves the other's cells empty."""
    order = np.argsort(np.concatenate([gyro, accl]), kind="stable")
    none_g, none_a = np.full(len(gyro), np.nan), np.full(len(accl), np.nan)
    columns = [np.concatenate([gyro, accl]) * 1e3]
    columns += [np.concatenate([v, none_a]) for v in turn] + [np.concatenate([none_g, v]) for v in push]
    return [c[order] for c in columns]


def sparse_video(path: Path, seconds: int, fps: str = "1") -> Path:
    """A video with few frames: it gives the recording its clock and its length."""
    source = f"color=gray:size=32x32:rate={fps}:duration={seconds}"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        source,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "600",
        "-threads",
        "1",
        path,
    )
    return path


def _recording(name: str, video: Path, table: Table, folder: Path) -> Recording:
    path = folder / f"{name}.csv"
    table.write(path)
    return Recording(
        "proof", name, name, Stream("video", str(video), video.name),
        imu=Stream("imu", str(path), path.name, clock=table.clock_map, columns=IMU_COLUMNS),
    )  # fmt: skip


def _truth(table: Table, row: dict[str, Any], rate: int) -> tuple[Floats, Floats]:
    """Instants of a window's samples (s) and the true values [6, n]."""
    seconds = row["start_ns"] / NS + np.arange(len(row["imu_mask"])) / rate
    values = np.stack([axis.at(seconds) for axis in table.axes])
    values[5] += GRAVITY
    return seconds, values


# -- Placement -----------------------------------------------------------------------------------------


def placement(folder: Path) -> Iterator[Result]:
    """Windows all over ten hours: how far the IMU stands from where it was measured."""
    stride = 1_200
    options = AlignOptions(window=5, stride=stride, image_size=32, min_coverage=0.1)
    windows = tuple((float(s), s + 5.0) for s in range(0, HOURS_10_S - 4, stride))
    video = sparse_video(folder / "ten_hours.mp4", HOURS_10_S)
    gaps = tuple((s + 1.0, s + 4.0) for s, _ in windows[1::3])
    two = ((0.0, 86.3, 500.0), (18_000.0, 80.0, -500.0))
    tables = {
        "198.625 Hz, every row of 10 h": Table(198.625, ((0.0, -0.35, 20.0),), 0.002, gaps),
        "199.99 Hz, +500 ppm": Table(199.99, ((0.0, 0.75, 500.0),), 0.002, gaps, windows),
        "201.923 Hz, -500 ppm": Table(201.923, ((-40.0, 86.3, -500.0),), 0.002, gaps, windows),
        "198.625 Hz, two clocks, ±500 ppm": Table(198.625, two, 0.002, gaps, windows),
    }
    names = {f"placed_{i}": title for i, title in enumerate(tables)}
    recordings = [_recording(n, video, tables[t], folder) for n, t in names.items()]
    shards = run(recordings, options)
    for name, title in names.items():
        yield _placed(title, tables[title], shards.rows.get(name, []), len(windows))


def _placed(title: str, table: Table, rows: list[dict[str, Any]], expected: int) -> Result:
    worst, wrong = 0.0, 0
    for row in rows:
        if row["imu"] is None:
            wrong += 200 * 5
            continue
        values, mask = np.array(row["imu"]), np.array(row["imu_mask"])
        seconds, _ = _truth(table, row, 200)
        inside = np.ones(len(mask), bool)
        for start, end in table.gaps:
            # the rows on either side of a gap are up to a period and the jitter away from its ends
            inside &= (seconds < start - 0.008) | (seconds > end + 0.008)
        sure = inside.copy()
        for start, end in table.gaps:
            sure |= (seconds >= start) & (seconds < end)
        wrong += int((mask != inside)[sure].sum())
        for axis in range(6):
            got = values[axis][mask] - (GRAVITY if axis == 5 else 0.0)
            worst = max(worst, abs(table.axes[axis].delay_s(got, seconds[mask])))
    return Result(
        f"IMU ↔ video over 10 h: {title}",
        "≤ 0.1 period",
        f"{worst * table.hz:.5f} period ({worst * 1e6:.2f} µs), {wrong} samples wrongly masked",
        worst * table.hz <= _TENTH and wrong == 0 and len(rows) == expected,
    )


# -- Resampling ----------------------------------------------------------------------------------------


def resampling(folder: Path) -> Iterator[Result]:
    """Signal to error of band-limited motion, and what is left of a vibration beyond the target rate."""
    video = sparse_video(folder / "minute.mp4", 40)
    for rate in (50, 100, 200, 400):
        options = AlignOptions(window=5, stride=5, image_size=32, imu_rate=rate)
        for ms, least in ((0.5, 80), (2.0, 65)):
            axes = tuple(Tones.drawn(0.1, 0.2 * min(rate, 200), 60, 1.0, 30 + a) for a in range(6))
            table = Table(200.0, jitter_s=ms / 1e3, axes=axes, end_s=40)
            found = run([_recording(f"jitter_{rate}_{ms}", video, table, folder)], options)
            yield _snr(f"200 → {rate} Hz, {ms:g} ms jitter", table, found, rate, least)
    for rate, ms, hz in ((50, 0, (26, 60, 95)), (100, 0, (51, 75, 95)), (50, 0.5, (26, 45, 60))):
        options = AlignOptions(window=5, stride=5, image_size=32, imu_rate=rate)
        axes = tuple(Tones(np.array([float(hz[a % 3])]), np.array([a / 2]), 1.0) for a in range(6))
        table = Table(200.0, jitter_s=ms / 1e3, axes=axes, end_s=40)
        found = run([_recording(f"alias_{rate}_{ms}", video, table, folder)], options)
        yield _alias(f"200 → {rate} Hz, {ms:g} ms jitter, {hz[0]} to {hz[-1]} Hz", found)


def _interior(shards: Shards) -> list[dict[str, Any]]:
    """All windows but the first and last; the run holds one recording."""
    return next(iter(shards.rows.values()))[1:-1]


def _snr(title: str, table: Table, shards: Shards, rate: int, least: int) -> Result:
    worst = np.inf
    for row in _interior(shards):
        _, truth = _truth(table, row, rate)
        error = np.array(row["imu"]) - truth
        signal = truth - np.array([0, 0, 0, 0, 0, GRAVITY])[:, None]
        power = np.mean(signal**2, axis=1) / np.mean(error**2, axis=1)
        worst = min(worst, float(10 * np.log10(power.min())))
    return Result(f"IMU resampling: {title}", f"≥ {least} dB", f"{worst:.1f} dB", worst >= least)


def _alias(title: str, shards: Shards) -> Result:
    left = 0.0
    for row in _interior(shards):
        values = np.array(row["imu"]) - np.array([0, 0, 0, 0, 0, GRAVITY])[:, None]
        left = max(left, float(np.sqrt(np.mean(values**2, axis=1)).max()))
    db = 20 * np.log10(left + 1e-15)
    return Result(f"IMU aliasing: {title}", "≤ -80 dB", f"{db:.1f} dB", db <= -80)


def own_instants(folder: Path) -> Iterator[Result]:
    """A gyroscope at 397.5 Hz and an accelerometer at 198.8 Hz on instants of its own, as in a HERO5."""
    video = sparse_video(folder / "minute.mp4", 40)
    axes = tuple(Tones.drawn(0.1, 39.0, 60, 1.0, 50 + a) for a in range(6))
    table = Table(397.5, jitter_s=0.0005, axes=axes, accl_hz=198.8, end_s=40)
    options = AlignOptions(window=5, stride=5, image_size=32)
    shards = run([_recording("hero5", video, table, folder)], options)
    yield replace(
        _snr("", table, shards, 200, 80), what="gyro 397.5 Hz, accel 198.8 Hz, each from its own instants"
    )
    worst = 0.0
    for row in _interior(shards):
        seconds, _ = _truth(table, row, 200)
        for axis, values in enumerate(np.array(row["imu"])):
            got = values - (GRAVITY if axis == 5 else 0.0)
            worst = max(worst, abs(table.axes[axis].delay_s(got, seconds)))
    yield Result(
        "gyro and accel apart in time", "≤ 0.1 period", f"{worst * 397.5:.6f} period ({worst * 1e6:.3f} µs)",
        worst * 397.5 <= _TENTH,
    )  # fmt: skip


def rows(folder: Path) -> Iterator[Result]:
    """All rows of this kind."""
    yield from resampling(folder)
    yield from own_instants(folder)
    yield from placement(folder)
