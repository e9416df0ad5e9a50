"""What is compared on one kind of media: our runs, the decoder's own limits, and others at the same work."""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

import imageio_ffmpeg

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings
from align.pipeline.job.run import plan
from align.schemas.options import AlignOptions
from align.schemas.recording import Recording
from align.schemas.time import TimeSpan
from align.transforms.align.window import anchor_time, frame_times
from align.transforms.plan.windows import plan_windows
from align.transforms.read.probe import probe_media
from benchmarks.recordings import Download, ffmpeg
from benchmarks.rounds import Variant

FULL = "full decode, PyAV, one thread"
JOBS_START_UP = "start-up of the jobs"
OPENCV_START_UP = "start-up of OpenCV and librosa"
START_UP = "align: start-up (one window)"
START_UP_NOT_ISOLATED = "align: start-up, --isolate off"
HELP = "align --help"
NOT_ISOLATED = "align: 1 frame per 5 s, --isolate off"
FFMPEG, OPENCV = "one ffmpeg process per window", "OpenCV reading every frame, librosa"
VIDEO2DATASET = "video2dataset 1.3.0, {} cuts"

PEER_ROUNDS = 2
ONE_WINDOW = ("--limit", "1", "--anchor", "keyframe", "--window", "1", "--stride", "3600")

DEAR_ROUNDS = 1
DEAR_S = 20
"""video2dataset takes hours for an hour: one round, of a piece of this length."""


@dataclass(frozen=True)
class Kind:
    """A way to place windows, and what it is called.

    Attributes:
        name: of our run.
        floor: of decoding only what its frames need.
        words: command line options.
        options: the same, parsed.
        copies: how many recordings a round goes through: few where each takes long.
        dear: roughly, CPU seconds per hour of 1080p H.264 at GOP 30, GOP 250, and of VP9.
    """

    name: str
    floor: str
    words: tuple[str, ...]
    options: AlignOptions
    copies: int
    dear: dict[str, float]


def _dear(gop30: float, gop250: float, vp9: float) -> dict[str, float]:
    return {"h264-gop30": gop30, "h264-gop250": gop250, "vp9": vp9}


GRID, TEN, KEYFRAME, NARRATION = KINDS = (
    Kind("align: 1 frame per 5 s", "floor: 1 frame per 5 s", (), AlignOptions(), 4, _dear(76, 242, 353)),
    Kind(
        *("align: 10 frames per 5 s", "floor: 10 frames per 5 s", ("--frames", "10")),
        *(AlignOptions(frames=10), 2, _dear(390, 430, 600)),
    ),
    Kind(
        *("align: keyframe-anchored", "floor: keyframe-anchored", ("--anchor", "keyframe")),
        *(AlignOptions(anchor="keyframe"), 4, _dear(38, 23, 18)),
    ),
    Kind(
        *("align: narration-centred", "floor: narration-centred", ("--anchor", "narration")),
        *(AlignOptions(anchor="narration"), 4, _dear(90, 250, 380)),
    ),
)
_FULL_S_PER_H = _dear(640, 540, 590)


def compared(
    download: Download, codec: str, *, peers: bool, video2dataset: str, memory: bool
) -> Iterator[Variant]:
    """All variants of one kind of media.

    Args:
        download: the recordings.
        codec: names their media.
        peers: others at the same work, too.
        video2dataset: a Python that has it; empty to leave it out.
        memory: watch how much our runs take.
    """
    media, hours = str(download.media), download.seconds / 3600
    second, piece = _cut(download, 1), _cut(download, DEAR_S)
    nothing = download.root / "wanted-nothing.json"
    nothing.write_text("[]")
    yield Variant(JOBS_START_UP, _job("floor", second, str(nothing)))
    yield Variant(
        FULL, _job("full_decode", media), hours, JOBS_START_UP, expected_s=_FULL_S_PER_H[codec] * hours
    )
    for kind in KINDS:
        wanted = download.root / f"wanted-{kind.floor.replace(' ', '-').replace(':', '')}.json"
        wanted.write_text(json.dumps(wanted_frames(download, kind.options)))
        command = _job("floor", media, str(wanted))
        expected_s = 0.8 * kind.dear[codec] * hours
        yield Variant(kind.floor, command, hours, JOBS_START_UP, expected_s=expected_s)
    run = align_command(download)
    one = (*run, "--workers", "1", *ONE_WINDOW)
    yield Variant(HELP, (*run[:3], "--help"), expected_s=0.2)
    yield Variant(START_UP, one, expected_s=5, watch_memory=memory)
    for kind in KINDS:
        yield _ours(download, kind, codec, memory)
    if codec == "h264-gop30":  # where decoding is cheapest, handing over what was decoded shows most
        off = ("--isolate", "off")
        ours = _ours(download, GRID, codec, memory)
        yield Variant(START_UP_NOT_ISOLATED, (*one, *off), expected_s=4)
        yield replace(ours, name=NOT_ISOLATED, command=(*ours.command, *off), start_up=START_UP_NOT_ISOLATED)
    if not peers:
        return
    yield Variant(
        *(FFMPEG, _job("ffmpeg_per_window", media), hours, JOBS_START_UP, PEER_ROUNDS),
        expected_s=1.5 * GRID.dear[codec] * hours + 3,
    )
    if codec != "vp9":
        # Closest to ours where keyframes are rare.
        rounds = PEER_ROUNDS if codec == "h264-gop250" else DEAR_ROUNDS
        yield Variant(OPENCV_START_UP, _job("cv2_and_librosa", second), rounds=rounds, expected_s=3)
        command = _job("cv2_and_librosa", media)
        yield Variant(OPENCV, command, hours, OPENCV_START_UP, rounds, expected_s=1200 * hours)
    if video2dataset and codec == "h264-gop30":
        # Where keyframes are rarer than windows, copying finds fewer clips than asked for, and it fails.
        for precision in ("exact", "low"):
            command = (video2dataset, "-m", "benchmarks.video2dataset_job", precision, piece, "{out}")
            name = VIDEO2DATASET.format(precision)
            expected_s = DEAR_S * (4.0 if precision == "exact" else 0.6)
            whole = (*command, imageio_ffmpeg.get_ffmpeg_exe())
            yield Variant(name, whole, DEAR_S / 3600, rounds=DEAR_ROUNDS, expected_s=expected_s)


def align_command(download: Download) -> tuple[str, ...]:
    """The command of a run on a download."""
    program = (sys.executable, "-m", "align.pipeline.cli")
    return (*program, "run", "--source", "ego4d", "--input", str(download.root), "--output", "{out}")


def _ours(download: Download, kind: Kind, codec: str, memory: bool) -> Variant:
    copies = min(kind.copies if codec == "h264-gop30" or kind is KEYFRAME else 2, download.copies)
    hours = download.seconds * copies / 3600
    command = (*align_command(download), "--workers", "1", "--limit", str(copies), *kind.words)
    expected_s = kind.dear[codec] * hours + 5
    return Variant(kind.name, command, hours, START_UP, expected_s=expected_s, watch_memory=memory)


def _job(name: str, media: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks.jobs", name, media, "{out}", *arguments)


def _cut(download: Download, seconds: int) -> str:
    """The first seconds of the media, copied."""
    piece = download.media.with_name(f"{download.media.stem}-first-{seconds}s.mp4")
    if not piece.exists():
        ffmpeg(piece, "-i", download.media, "-map", "0:v", "-map", "0:a", "-c", "copy", "-t", seconds)
    return str(piece)


def wanted_frames(download: Download, options: AlignOptions) -> list[int]:
    """The instants (ns, ascending) whose frames a run on one of the recordings asks for."""
    media = probe_media(str(download.media))
    assert media.video is not None
    starts = plan_windows(_first(download), media.video.span, media.video.keyframes_ns, options).starts_ns
    windows = [TimeSpan(start, start + options.window_ns) for start in starts]
    return sorted({t for w in windows for t in (anchor_time(w), *frame_times(w, options.frames))})


def needed_groups(download: Download, options: AlignOptions) -> int:
    """How many groups of pictures hold a frame that is asked for."""
    video = probe_media(str(download.media)).video
    assert video is not None
    return len({bisect_right(video.keyframes_ns, t) for t in wanted_frames(download, options)})


def estimated(download: Download, options: AlignOptions) -> float:
    """What ``align plan`` says: CPU seconds per hour of media."""
    config = RunConfig(source="ego4d", input=str(download.root), sample=options, limit=1, isolate=False)
    return plan(config).cpu_s * 3600 / download.seconds


def _first(download: Download) -> Recording:
    offered = list_recordings(RunConfig(source="ego4d", input=str(download.root), limit=1))
    return next(item for item in offered if isinstance(item, Recording))
