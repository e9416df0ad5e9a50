"""Makes the benchmark's recordings: an EGO4D download of one file, listed as several recordings.

The picture is a real clip, upscaled to 1080p30 with grain, so that it costs what camera footage costs; where
no clip is at hand it is synthetic. A minute is encoded and repeated by copying packets: that keeps the making
short and leaves every figure as it is: a decoder remembers nothing beyond a group of pictures.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

CLIPS = Path(__file__).parents[2] / "shared/data/ego4d/v2/full_scale"
CLIP = "80187c7e-4c38-5b6c-8891-d6e23814f7c2.mp4"
MINUTE_S = 60
FPS = 30
IMU_HZ = 200
NARRATION_EVERY_S = 3.4
"""On average, at irregular times: 3.85 million sentences on EGO4D's 3,670 hours."""

_IMU_COLUMNS = (
    *("component_idx", "component_timestamp_ms", "canonical_timestamp_ms"),
    *("gyro_x", "gyro_y", "gyro_z", "accl_x", "accl_y", "accl_z"),
)
_X264 = ("-c:v", "libx264", "-preset", "fast", "-b:v", "6M", "-bf", "3")
CODECS = {
    "h264-gop250": (*_X264, "-g", "250", "-sc_threshold", "0"),
    "h264-gop30": (*_X264, "-g", "30", "-keyint_min", "30", "-sc_threshold", "0"),
    "vp9": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "7", "-b:v", "4M", "-g", "240"),
}


@dataclass(frozen=True)
class Download:
    """An EGO4D folder whose recordings all show one media file.

    Attributes:
        root: for ``--input``.
        media: the file.
        seconds: of the file.
        copies: as how many recordings it is listed.
    """

    root: Path
    media: Path
    seconds: int
    copies: int

    @property
    def hours(self) -> float:
        """Of all recordings together."""
        return self.seconds * self.copies / 3600


def make(folder: Path, codec: str, minutes: int, copies: int) -> Download:
    """Make a download, or take the one that an earlier run left there."""
    root = folder / f"{codec}-{minutes}min-x{copies}"
    media = _media(folder, codec, minutes)
    download = Download(root, media, minutes * MINUTE_S, copies)
    lay_out(download, codec)
    return download


def _media(folder: Path, codec: str, minutes: int) -> Path:
    """The media file: a minute of picture, repeated, under sound that runs through."""
    minute, whole = folder / f"{codec}-minute.mp4", folder / f"{codec}-{minutes}min.mp4"
    folder.mkdir(parents=True, exist_ok=True)
    clip = CLIPS / CLIP
    if not minute.exists():
        source = (
            ["-stream_loop", "-1", "-i", clip]
            if clip.exists()
            else ["-f", "lavfi", "-i", "testsrc2=s=960x540"]
        )
        grain = f"fps={FPS},scale=1920:1080:flags=bicubic,noise=alls=7:allf=t,format=yuv420p"
        ffmpeg(minute, *source, "-an", "-t", MINUTE_S, "-vf", grain, "-threads", "2", *CODECS[codec])
    if not whole.exists():
        heard = (
            ["-stream_loop", "-1", "-i", clip]
            if clip.exists()
            else ["-f", "lavfi", "-i", "anoisesrc=a=0.1:r=48000"]
        )
        looped = ["-stream_loop", minutes - 1, "-i", minute, *heard]
        sound = ["-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", "-ar", "48000", "-b:a", "128k"]
        # The camera's timecode track would come along; ffmpeg itself cannot copy it, nor can who calls it.
        ffmpeg(whole, *looped, *sound, "-write_tmcd", "0", "-t", minutes * MINUTE_S)
    return whole


def ffmpeg(output: Path, *arguments: object) -> None:
    """Run ffmpeg; the file appears whole or not at all."""
    unfinished = output.with_name(f"unfinished-{output.name}")
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-nostdin",
        "-y",
        *map(str, arguments),
        str(unfinished),
    ]
    subprocess.run(command, check=True)
    unfinished.rename(output)


def lay_out(download: Download, codec: str) -> None:
    """Metadata, IMU and narrations as EGO4D has them; the media and the IMU are links to one file."""
    version = download.root / "v2"
    for name in ("full_scale", "imu", "annotations"):
        (version / name).mkdir(parents=True, exist_ok=True)
    uids = [str(uuid5(NAMESPACE_URL, f"{codec}-{download.seconds}-{n}")) for n in range(download.copies)]
    table = download.root / "imu.csv"
    _write_imu(table, download.seconds)
    for uid in uids:
        _link(version / f"full_scale/{uid}.mp4", download.media)
        _link(version / f"imu/{uid}.csv", table)
    narrations = {uid: _narrations(download.seconds) for uid in uids}
    (version / "annotations/narration.json").write_text(json.dumps(narrations))
    videos = [_video(uid, download.seconds, codec) for uid in uids]
    (version / "ego4d.json").write_text(json.dumps({"version": "v2.1", "videos": videos, "clips": []}))


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    os.link(target, link)


def _write_imu(path: Path, seconds: int) -> None:
    """Rows at 200 Hz with jitter, an hour at a time."""
    random = np.random.default_rng(0)
    with pa_csv.CSVWriter(path, pa.schema([(name, pa.float64()) for name in _IMU_COLUMNS])) as table:
        for start in range(0, seconds, 3600):
            count = min(3600, seconds - start) * IMU_HZ
            ms = 1000 * (start + np.arange(count) / IMU_HZ) + random.uniform(-0.5, 0.5, count)
            walk = np.cumsum(random.normal(0, 0.02, (6, count)), axis=1) % 2 - 1
            walk[5] += 9.8
            columns = [np.zeros(count), ms.round(4), ms.round(4), *walk.round(6)]
            table.write_batch(pa.record_batch(columns, names=list(_IMU_COLUMNS)))


def _narrations(seconds: int) -> dict[str, object]:
    """Sentences as people tell them: bursts and pauses, so that windows around them overlap."""
    random = np.random.default_rng(1)
    times = 3.0 + np.cumsum(
        0.5 + random.exponential(NARRATION_EVERY_S - 0.5, int(seconds / NARRATION_EVERY_S))
    )
    told = [
        {"timestamp_sec": round(float(t), 6), "narration_text": f"#C C does thing number {n}"}
        for n, t in enumerate(times)
        if t < seconds
    ]
    return {"narration_pass_1": {"narrations": told, "summaries": []}, "status": "complete"}


def _video(uid: str, seconds: int, codec: str) -> dict[str, object]:
    metadata = {
        "fps": FPS, "num_frames": seconds * FPS, "video_codec": codec.partition("-")[0],
        "display_resolution_width": 1920, "display_resolution_height": 1080, "mp4_duration_sec": seconds,
        "video_start_sec": 0.0, "video_duration_sec": seconds,
        "audio_start_sec": 0.0, "audio_duration_sec": seconds,
    }  # fmt: skip
    return {
        "video_uid": uid, "duration_sec": seconds, "scenarios": ["Walking"], "video_metadata": metadata,
        "fb_participant_id": None, "is_stereo": False, "has_imu": True, "has_redacted_regions": False,
        "redacted_intervals": [], "video_components": [], "concurrent_sets": None,
    }  # fmt: skip
