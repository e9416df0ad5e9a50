"""Clocks that are not what they are called: stretched and jittered sound, IMU rows with shared timestamps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import soundfile

from align import AlignOptions, Recording, Stream
from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
from benchmarks.proof.imu_rows import GRAVITY, sparse_video
from benchmarks.proof.job import Result, run
from benchmarks.proof.media import ffmpeg
from benchmarks.proof.truth import MOTION, SOUND, Floats

NS = 1_000_000_000
_RATE = 48_000
_SECONDS = 18
_OPTIONS = AlignOptions(window=5, stride=5, image_size=32)
_STRETCHES = ("0.98", "0.998", "1.000139", "1.0005", "1.002", "1.008", "1.02")
_ENCODERS = {
    "aac": ("m4a", "-c:a", "aac", "-b:a", "192k"),
    "flac": ("mkv", "-c:a", "flac"),
    "opus": ("mp4", "-c:a", "libopus", "-b:a", "160k"),
}
_FILES: tuple[
    tuple[str, str, float], ...
] = (  # container, codec, the most that a tenth of a window may be off, ms
    ("mp4", "aac", 0.1),
    ("mp4", "flac", 0.1),
    ("mp4", "opus", 0.1),
    ("ts", "aac", 0.1),
    ("mkv", "aac", 1.0),
    ("mkv", "flac", 1.0),
    ("webm", "opus", 1.0),
)


def rows(folder: Path) -> Iterator[Result]:
    """All rows of this kind."""
    h264, vp9 = sparse_video(folder / "video.mp4", _SECONDS), folder / "video.webm"
    ffmpeg("-i", h264, "-c:v", "libvpx-vp9", "-threads", "1", vp9)
    for container, codec, most in _FILES:
        video = vp9 if container == "webm" else h264
        worst = _stretched(folder, video, container, codec)
        yield Result(
            f"sound stretched 0.98 to 1.02: {codec.upper()} in {container.upper()}",
            f"≤ {most:g} ms in each tenth",
            f"{worst:.4f} ms",
            worst <= most,
        )
    for video, (container, codec, _) in ((h264, _FILES[0]), (vp9, _FILES[-1])):
        yield _jittered(folder, video, container, codec)
    yield batched(folder, sparse_video(folder / "short.mp4", 20))


def _stretched(folder: Path, video: Path, container: str, codec: str) -> float:
    """The worst of the tenths of the windows, ms."""
    moved: dict[Path, float] = {}
    for stretch in _STRETCHES:
        source = _encoded(folder, codec, float(stretch))
        path = folder / f"{codec}_by_{stretch}.{container}"
        moved[path] = _restamped(video, source, path, lambda t, s=Fraction(stretch): t * s)
    late = [
        abs(t) for path, rows in _windows(*moved).items() for row in rows for t in _late_s(row, moved[path])
    ]
    return 1e3 * max(late)


def _jittered(folder: Path, video: Path, container: str, codec: str) -> Result:
    rng, path = np.random.default_rng(11), folder / f"jittered.{container}"
    source = _encoded(folder, codec, 1.0)
    moved = _restamped(video, source, path, lambda t: t + Fraction(float(rng.uniform(-0.01, 0.01) + 0.05)))
    wow, ppm, least = 0.0, 0.0, 1.0
    for row in _windows(path)[path]:
        late = _late_s(row, moved)
        wow = max(wow, max(late) - min(late))
        ppm = max(ppm, abs(row["quality"]["audio_rate_ppm"]))
        least = min(least, row["quality"]["audio_coverage"])
    return Result(
        f"timestamps of sound jittered by ±10 ms: {codec.upper()} in {container.upper()}",
        "one rate over a window, no gap",
        f"tenths {1e3 * wow:.4f} ms apart, {ppm:g} ppm, coverage {least:g}",
        wow < 1e-4 and ppm == 0 and least == 1.0,
    )


def _encoded(folder: Path, codec: str, stretch: float) -> Path:
    """Sound that is the truth at the instants to which its samples will be moved."""
    suffix, *args = _ENCODERS[codec]
    path = folder / f"{codec}_{stretch}.{suffix}"
    if not path.exists():
        sound = SOUND.at(np.arange(_SECONDS * _RATE) * stretch / _RATE)
        soundfile.write(folder / "sound.wav", sound, _RATE, subtype="PCM_24")
        ffmpeg("-i", folder / "sound.wav", *args, "-threads", "1", path)
    return path


def _restamped(video: Path, sound: Path, path: Path, stamp: Callable[[Fraction], Fraction]) -> float:
    """Join video and sound, each packet of sound at its stamp; by how much the muxer moved all of them, s."""
    told: list[Fraction] = []
    with av.open(str(video)) as v, av.open(str(sound)) as a, av.open(str(path), "w") as out:
        streams = [out.add_stream_from_template(c.streams[0]) for c in (v, a)]
        packets: list[tuple[Fraction, Any]] = []
        for source, stream in zip((v, a), streams, strict=True):
            for packet in source.demux(source.streams[0]):
                if packet.dts is None or packet.pts is None or packet.time_base is None:
                    continue
                at = Fraction(packet.pts * packet.time_base)
                if source is a:
                    at = stamp(at)
                    told.append(at)
                    packet.time_base = Fraction(1, _RATE)
                    packet.pts = packet.dts = round(at * _RATE)
                packet.stream = stream
                packets.append((at, packet))
        for _, packet in sorted(packets, key=lambda p: p[0]):
            out.mux(packet)
    with av.open(str(path)) as back:
        stream = back.streams.audio[0]
        held = [p.pts * p.time_base for p in back.demux(stream) if p.size and p.pts is not None]
    return float(median(h - t for h, t in zip(held, told, strict=False)))


def _windows(*paths: Path) -> dict[Path, list[dict[str, Any]]]:
    """The windows of each file, the first and the last left out."""
    recordings = []
    for path in paths:
        video, audio = Stream("video", str(path), path.name), Stream("audio", str(path), path.name)
        recordings.append(Recording("proof", path.name, path.name, video, audio=audio))
    shards = run(recordings, _OPTIONS)
    return {path: shards.rows[path.name][1:-1] for path in paths}


def _late_s(row: dict[str, Any], moved: float) -> list[float]:
    """By how much the sound of the first, middle and last tenth stands too late, s."""
    sound, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
    start = (row["start_ns"] + row["provenance"]["clock_offset_ns"]) / NS - moved
    tenth = len(sound) // 10
    firsts = (0, (len(sound) - tenth) // 2, len(sound) - tenth)
    times = [start + np.arange(f, f + tenth) / rate for f in firsts]
    return [SOUND.delay_s(sound[f : f + tenth], t) for f, t in zip(firsts, times, strict=True)]


def batched(folder: Path, video: Path) -> Result:
    """200 Hz rows of which twenty share the time of the first."""
    true = np.arange(-400, 20 * 200 + 400) / 200
    values = [axis.at(true) for axis in MOTION]
    values[5] = values[5] + GRAVITY
    table: Floats = np.stack([np.floor(true * 10 + 1e-6) * 100, *values], axis=1)
    head = "canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"
    np.savetxt(folder / "batched.csv", table, "%.9f", ",", header=head, comments="")
    imu = Stream("imu", str(folder / "batched.csv"), "batched.csv", columns=IMU_COLUMNS)
    recording = Recording("proof", "r", "r", Stream("video", str(video), video.name), imu=imu)
    worst, least, said = 0.0, 1.0, set()
    for row in run([recording], _OPTIONS).rows["r"]:
        seconds = row["start_ns"] / NS + np.arange(len(row["imu_mask"])) / 200
        for axis, got in zip(MOTION, np.array(row["imu"]), strict=True):
            gravity = GRAVITY if axis is MOTION[5] else 0.0
            worst = max(worst, abs(axis.delay_s(got - gravity, seconds)))
        least = min(least, row["quality"]["imu_coverage"])
        said.add(row["quality"]["imu_time_quality"])
    return Result(
        "IMU rows that share timestamps, 20 in 100 ms",
        "≤ 0.1 period, said",
        f"{worst * 200:.4f} period, coverage {least:g}, {', '.join(sorted(said))}",
        worst * 200 <= 0.1 and said == {"spread"},
    )
