"""Whether cost and memory stay flat as recordings get longer, and what a second worker brings.

``python -m benchmarks.long [--part flat|workers]``. ``flat``: the same 240p recording at 10 minutes, 1 h, 2 h
and 10 h (3 GB of disk): CPU seconds per hour of media, less the start-up of a run, and peak memory, which is
the sum of the proportional set sizes of all processes of a run. ``workers``: a job of more than ten CPU
minutes and one of some seconds, with one worker, with two, and with what ``--workers auto`` takes. What was
measured is kept, as by ``benchmarks.run``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
from rich.console import Console
from rich.table import Table

from align.pipeline.config import RunConfig
from align.pipeline.job.resume import look_at_inputs
from align.pipeline.job.workers import workers_for
from benchmarks.figures import Figure, figures, ratios, spread
from benchmarks.recordings import CLIP, CLIPS, FPS, Download, ffmpeg, lay_out, make
from benchmarks.rounds import Taken, Variant, code_version, left, take_rounds
from benchmarks.run import machine
from benchmarks.targets import PEAK_MB
from benchmarks.variants import ONE_WINDOW, START_UP, align_command

PIECE_S, AUDIO_FRAMES, AUDIO_FRAME, AUDIO_RATE = 64, 3000, 1024, 48_000
"""64 s are 3000 frames of AAC at 48 kHz to the sample: pieces join without a gap or an overlap."""

LENGTHS = {"10 min": 600, "1 h": 3600, "2 h": 7200, "10 h": 36_000}
FLAT_ROUNDS, FLAT_ROUNDS_10H = 3, 2
FLAT_WITHIN = 0.05
_EXPECTED_S_PER_H = 30.0

LARGE_COPIES, LARGE_S_PER_H = 60, 242.0
"""1080p at GOP 250: three hours, 12 CPU minutes."""
LARGE_ROUNDS, SMALL_ROUNDS = 1, 3
RATE_OF_TWO = 1.8


def make_long(folder: Path, seconds: int, copies: int) -> Download:
    """A download of 240p recordings of a length, made by copying the packets of a short one."""
    media = folder / f"240p-{seconds}s.mp4"
    if not media.exists():
        unfinished = media.with_name(f"unfinished-{media.name}")
        _repeat(_piece(folder), unfinished, seconds)
        unfinished.rename(media)
    download = Download(folder / f"240p-{seconds}s-x{copies}", media, seconds, copies)
    if not (download.root / "v2/ego4d.json").exists():
        lay_out(download, "h264-240p")
    return download


def _piece(folder: Path) -> Path:
    piece = folder / "240p-piece.mp4"
    clip = CLIPS / CLIP
    if not piece.exists():
        picture, sound = ("testsrc2=s=426x240", "anoisesrc=a=0.1:r=48000")
        real = ("-stream_loop", "-1", "-i", clip, "-map", "0:v:0", "-map", "0:a:0")
        drawn = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound)
        video = ("-vf", f"fps={FPS},scale=426:240,format=yuv420p", "-c:v", "libx264", "-preset", "fast")
        groups = ("-b:v", "250k", "-bf", "3", "-g", "60", "-keyint_min", "60", "-sc_threshold", "0")
        heard = ("-c:a", "aac", "-ar", AUDIO_RATE, "-b:a", "64k", "-write_tmcd", "0", "-threads", "1")
        ffmpeg(piece, *(real if clip.exists() else drawn), *video, *groups, *heard, "-t", PIECE_S + 1)
    return piece


def _repeat(piece: Path, output: Path, seconds: int) -> None:
    """Write a piece's packets again and again, each time as much later as the piece is long."""
    with av.open(str(piece)) as source, av.open(str(output), "w", format="mp4") as target:
        video, audio = source.streams.video[0], source.streams.audio[0]
        streams = {s.index: target.add_stream_from_template(s) for s in (video, audio)}
        taken = [p for p in source.demux(video, audio) if p.pts is not None]
        pictures = [p for p in taken if p.stream is video][: PIECE_S * FPS]
        sounds = [p for p in taken if p.stream is audio and p.pts >= 0][:AUDIO_FRAMES]
        ordered = sorted(pictures + sounds, key=lambda p: p.dts * p.time_base)
        copied = [(p, bytes(p)) for p in ordered]
        for number in range(-(-seconds // PIECE_S)):
            for packet, data in copied:
                later = int(Fraction(number * PIECE_S) / packet.time_base)
                if (packet.pts + later) * packet.time_base < seconds:
                    target.mux(_moved(packet, data, later, streams[packet.stream.index]))


def _moved(packet: Any, data: bytes, later: int, stream: Any) -> Any:
    moved = av.Packet(data)
    moved.pts, moved.dts, moved.duration = packet.pts + later, packet.dts + later, packet.duration
    moved.time_base, moved.stream, moved.is_keyframe = packet.time_base, stream, packet.is_keyframe
    return moved


def flat_variants(folder: Path) -> Iterator[Variant]:
    """A run on each length; the shortest as often as it takes to make an hour."""
    for name, seconds in LENGTHS.items():
        copies = max(1, 3600 // seconds)
        run = (*align_command(make_long(folder, seconds, copies)), "--workers", "1")
        if name == "10 min":
            yield Variant(START_UP, (*run, *ONE_WINDOW), expected_s=5)
        hours = seconds * copies / 3600
        rounds = FLAT_ROUNDS_10H if name == "10 h" else FLAT_ROUNDS
        expected_s = _EXPECTED_S_PER_H * hours + 5
        yield Variant(name, run, hours, START_UP, rounds, expected_s, watch_memory=True)


def worker_variants(folder: Path) -> Iterator[Variant]:
    """A large and a small job with one worker, two, and as many as the command chooses."""
    download = make(folder, "h264-gop250", 3, LARGE_COPIES)
    run = align_command(download)
    for size, copies, rounds in (("large", LARGE_COPIES, LARGE_ROUNDS), ("small", 1, SMALL_ROUNDS)):
        hours = copies * download.seconds / 3600
        # On two cores the large job's auto is two workers.
        for workers in ("1", "auto") if size == "large" and os.cpu_count() == 2 else ("1", "2", "auto"):
            command = (*run, "--workers", workers, "--limit", str(copies))
            seconds = LARGE_S_PER_H * hours / (1 if workers == "1" or size == "small" else 1.8) + 5
            name = f"{size} job, --workers {workers}"
            if workers == "auto":
                config = RunConfig(source="ego4d", input=str(download.root), limit=copies)
                name += f" ({workers_for(look_at_inputs(config).work_s)})"
            yield Variant(name, command, hours, "", rounds, seconds, watch_memory=True)


def show_flat(found: dict[str, Figure]) -> None:
    """Print cost and memory by length."""
    table = Table("240p recordings of", "CPU s per hour", "of 10 min", "target", "peak memory", "target", "")
    for name in LENGTHS:
        if name not in found or "10 min" not in found:
            continue
        figure, first = found[name], found["10 min"]
        against = median(figure.cpu.values()) / median(first.cpu.values())
        met = abs(against - 1) <= FLAT_WITHIN and (figure.peak_mb or 0) <= PEAK_MB
        promise = (f"within {FLAT_WITHIN:.0%}", f"{figure.peak_mb or 0:.0f} MB", f"≤ {PEAK_MB:.0f} MB")
        cost = spread([*figure.cpu.values()], ".1f")
        table.add_row(name, cost, f"{against:.3f}", *promise, "ok" if met else "MISSED")
    Console(width=120).print(table)


def show_workers(found: dict[str, Figure], hours: dict[str, float]) -> None:
    """Print what more workers bring."""
    table = Table("job", "wall s", "CPU s", "rate of one worker", "target", "peak memory", "")
    for name, figure in found.items():
        size = name.partition(" ")[0]
        if f"{size} job, --workers 1" not in found:
            continue
        times = ratios(found[f"{size} job, --workers 1"].wall_s, figure.wall_s)
        aim = {"large": RATE_OF_TWO, "small": 0.95}[size] if not name.endswith("1") else None
        if name.endswith("small job, --workers 2"):
            aim = None
        met = "" if aim is None else "ok" if times and median(times) >= aim else "MISSED"
        cpu = [c * hours[name] for c in figure.cpu.values()]
        table.add_row(
            *(name, spread([*figure.wall_s.values()], ".1f"), spread(cpu, ".1f")),
            *(spread(times, ".2f"), f"≥ {aim}" if aim else "", f"{figure.peak_mb or 0:.0f} MB", met),
        )
    Console(width=140).print(table)


def main() -> None:
    """Make the media, measure, print and write JSON."""
    given = _arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    taken = Taken(given.folder / "rounds.jsonl", f"{code_version()}, long")
    parts = [given.part] if given.part else ["flat", "workers"]
    makers = {"flat": flat_variants, "workers": worker_variants}
    variants = {part: list(makers[part](given.folder)) for part in parts}
    rounds = max(FLAT_ROUNDS, LARGE_ROUNDS, SMALL_ROUNDS) if given.rounds is None else given.rounds
    seconds = sum(v.expected_s for part, some in variants.items() for _, v in left(taken, part, some, rounds))
    print(f"about {timedelta(seconds=round(seconds))} on a quiet machine; load is {os.getloadavg()[0]:.1f}")
    report: dict[str, Any] = {**machine(), "version": code_version()}
    for part, some in variants.items():
        take_rounds(taken, part, some, rounds)
        found = figures(taken, part, some)
        if part == "flat":
            show_flat(found)
        else:
            show_workers(found, {v.name: v.hours for v in some})
        report[part] = [asdict(figure) for figure in found.values()]
    (given.json or given.folder / "long.json").write_text(json.dumps(report, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("flat", "workers"), help="default: both")
    parser.add_argument("--rounds", type=int, help="at most so many; 0 shows what was measured")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "align-benchmark")
    parser.add_argument("--json", type=Path, help="where the figures go (default: FOLDER/long.json)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
