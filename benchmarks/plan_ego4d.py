"""Plans all of EGO4D from made-up metadata of its size: ``python -m benchmarks.plan_ego4d``.

9,645 recordings, 3,670 hours, 2.6 million windows, 3.85 million sentences. Prints the planner's CPU time,
wall time and peak memory, then deletes what it made. ``--windows-times 100`` plans a hundred times as many
windows.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from uuid import UUID

from benchmarks.measure import measure

RECORDINGS = 9_645
HOURS = 3_670
SENTENCES = 3_850_000


def write_metadata(root: Path, recordings: int = RECORDINGS) -> None:
    """An EGO4D folder with everything but media: a tenth of the recordings has IMU, all are narrated."""
    draw = random.Random(0)
    weights = [draw.lognormvariate(0, 0.8) for _ in range(recordings)]
    scale = HOURS * 3600 * recordings / RECORDINGS / sum(weights)
    lengths = {str(UUID(int=draw.getrandbits(128), version=4)): round(w * scale, 6) for w in weights}
    version = root / "v2"
    for name in ("full_scale", "annotations", "imu"):
        (version / name).mkdir(parents=True)
    videos = [_video(uid, seconds, n) for n, (uid, seconds) in enumerate(lengths.items())]
    (version / "ego4d.json").write_text(json.dumps({"version": "v2.1", "videos": videos, "clips": []}))
    every_s = HOURS * 3600 / SENTENCES
    with (version / "annotations/narration.json").open("w") as file:
        for number, (uid, seconds) in enumerate(lengths.items()):
            (version / f"full_scale/{uid}.mp4").touch()
            file.write(
                f"{', ' if number else '{'}{json.dumps(uid)}: {json.dumps(_told(seconds, every_s, draw))}"
            )
        file.write("}")


def _told(seconds: float, every_s: float, draw: random.Random) -> dict[str, object]:
    times = [draw.uniform(0, seconds) for _ in range(int(seconds / every_s))]
    narrations = [
        {
            "timestamp_sec": time,
            "timestamp_frame": round(time * 30),
            "_unmapped_timestamp_sec": time,
            "narration_text": f"#C C picks thing {round(time)} up from the table",
            "annotation_uid": "980c283c-b24e-5bbb-aec0-077440f10f7a",
        }
        for time in times
    ]
    return {"narration_pass_1": {"narrations": narrations, "summaries": []}, "status": "complete"}


def _video(uid: str, seconds: float, number: int) -> dict[str, object]:
    metadata = {
        "fps": 30.0, "num_frames": round(seconds * 30), "video_codec": "vp9",
        "display_resolution_width": 1920, "display_resolution_height": 1080, "mp4_duration_sec": seconds,
        "video_start_sec": 0.0, "video_duration_sec": seconds,
        "audio_start_sec": 0.0, "audio_duration_sec": seconds,
    }  # fmt: skip
    component = {
        "video_component_uid": f"{uid}-0", "video_uid": uid, "component_idx": 0, "video_metadata": metadata,
        "canonical_video_start_sec": 0.0, "canonical_video_end_sec": seconds,
    }  # fmt: skip
    return {
        "video_uid": uid, "duration_sec": seconds, "scenarios": ["Walking"], "video_metadata": metadata,
        "fb_participant_id": number % 931, "is_stereo": False, "has_imu": number % 10 == 0,
        "has_redacted_regions": False, "redacted_intervals": [], "concurrent_sets": None,
        "video_components": [component],
    }  # fmt: skip


def main() -> None:
    """Make the metadata, plan, print, delete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows-times", type=int, default=1, help="plan so many times as many windows")
    parser.add_argument("--recordings", type=int, default=RECORDINGS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="align-ego4d-") as folder:
        root = Path(folder)
        write_metadata(root, given.recordings)
        print(
            f"narration.json: {(root / 'v2/annotations/narration.json').stat().st_size / 1e6:,.0f} MB",
            flush=True,
        )
        command = (
            sys.executable,
            "-m",
            "align.pipeline.cli",
            "plan",
            "--trust-metadata",
            "--source",
            "ego4d",
        )
        options = ("--input", folder, "--stride", str(5 / given.windows_times))
        used = measure([*command, *options], show=True)
    print(f"CPU {used.cpu_s:.1f} s, wall {used.wall_s:.1f} s, peak {used.peak_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
