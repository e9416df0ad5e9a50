"""``align synth``: recordings with known truth, to try things on."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from align.pipeline.cli.echo import echo


class _Pair(click.ParamType[Any]):
    """Two numbers with a colon between them."""

    name = "A:B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        try:
            first, second = (float(part) for part in str(value).split(":"))
        except ValueError:
            self.fail(
                f"{value!r} is not two numbers of seconds with a colon between them, such as 3:1.5",
                param,
                ctx,
            )
        return first, second


class _Rate(click.ParamType[Any]):
    """A frame rate, exact."""

    name = "RATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is not a rate such as 30, 29.97 or 30000/1001", param, ctx)


class _Size(click.ParamType[Any]):
    """A picture size."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(value))
        if not found:
            self.fail(f"{value!r} is not a size such as 640x360", param, ctx)
        return int(found[1]), int(found[2])


_NUMBERED: dict[str, Any] = {"type": int, "multiple": True, "metavar": "INDEX"}


@click.command(context_settings={"show_default": True})
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--count", type=int, default=3, help="Recordings.")
@click.option("--duration", "duration_s", type=float, default=20.0, help="Seconds of video in each.")
@click.option("--seed", type=int, default=0, help="The same seed and options give the same bytes.")
@click.option(
    "--motion",
    type=click.Choice(["walking", "pan", "static"]),
    default="walking",
    help="How the camera turns; pan is 20°/s rms.",
)
@click.option("--foreground", is_flag=True, help="An object moves through the picture on its own.")
@click.option(
    "--stabilised",
    "stabilised_s",
    type=float,
    default=0.0,
    help="The picture is steadied over so many s.",
)
@click.option("--size", type=_Size(), default="640x360", help="Picture size in pixels.")
@click.option("--fps", type=_Rate(), default="30", help="Frames per second, e.g. 30000/1001.")
@click.option("--codec", type=click.Choice(["h264", "vp9"]), default="h264", help="Video codec.")
@click.option("--gop", type=int, default=30, help="Most frames from keyframe to keyframe.")
@click.option("--bframes", type=int, default=2, help="Most consecutive B-frames (h264).")
@click.option(
    "--vfr", type=float, default=0.0, help="Share of frames to drop, in bursts; the rest keep their times."
)
@click.option("--video-start", "video_start_s", type=float, default=0.0, help="Time of the first frame, s.")
@click.option(
    "--audio-start", "audio_start_s", type=float, default=0.0, help="Time of the first sound sample, s."
)
@click.option("--audio-rate", type=int, default=48_000, help="Hz.")
@click.option("--audio-gap", "audio_gaps", type=_Pair(), multiple=True, help="No sound from A s on, for B s.")
@click.option("--imu-rate", "imu_rate_hz", type=float, default=200.0, help="IMU rows per second.")
@click.option(
    "--imu-jitter", "imu_jitter_ms", type=float, default=0.0, help="Uneven rows: up to this many ms."
)
@click.option(
    "--imu-offset",
    "imu_offset_s",
    type=float,
    default=0.0,
    help="Seconds to add to the written IMU times to be true; 0 means they are.",
)
@click.option(
    "--imu-drift", "imu_drift_ppm", type=float, default=0.0, help="How the IMU's clock runs slow, ppm."
)
@click.option("--imu-gap", "imu_gaps", type=_Pair(), multiple=True, help="No IMU rows from A s on, for B s.")
@click.option("--imu-axes", default="XYZ", help="Camera axis of each written axis; lower case: its negative.")
@click.option("--gyro-noise", type=float, default=0.0, help="White noise, rad/s.")
@click.option("--gyro-bias", type=float, nargs=3, default=(0.0, 0.0, 0.0), help="Constant error, rad/s.")
@click.option("--accl-noise", type=float, default=0.0, help="White noise, m/s².")
@click.option("--joint", "joints_s", type=float, multiple=True, help="Camera files were joined here, s.")
@click.option(
    "--imu-jump", "imu_jumps_s", type=float, multiple=True, help="Leap of the IMU's clock at each joint, s."
)
@click.option("--redact", "redacted", type=_Pair(), multiple=True, help="Blank the picture from A s to B s.")
@click.option("--no-audio", **_NUMBERED, help="This recording (0 is the first) has no sound.")
@click.option("--no-imu", **_NUMBERED, help="This recording has no IMU.")
@click.option("--no-narration", **_NUMBERED, help="This recording has no narrations.")
@click.option(
    "--event-offset",
    "event_offsets_s",
    type=float,
    multiple=True,
    help="Once for each recording: all hear one event; where its time 0 stands on the event's clock, s.",
)
@click.option(
    "--event-drift",
    "event_drifts_ppm",
    type=float,
    multiple=True,
    help="Once for each recording: how its clock runs slow against the event's, ppm.",
)
@click.option("--event-snr", "event_snr_db", type=float, default=20.0, help="Event over camera noise, dB.")
@click.option("--force", is_flag=True, help="Replace synthetic recordings that are already there.")
def synth(folder: Path, size: tuple[int, int], force: bool, **options: Any) -> None:
    """Make EGO4D-layout recordings with known truth.

    A camera turns inside a textured room. Its gyroscope and accelerometer, its microphone and its
    narrations tell of the same course of events; now and then a flash, a click and a tap happen at one
    instant. DIR/truth.json states every event, frame time, clock and gap in nanoseconds on the
    recording clock.

    \b
    Examples:
      align synth demo
      align synth hard --codec vp9 --fps 30000/1001 --vfr 0.1 --imu-offset 0.4 --imu-drift 50 --no-audio 1
    """
    from align.transforms.synth.layout import synthesize
    from align.transforms.synth.options import SynthOptions

    wanted = SynthOptions(width=size[0], height=size[1], **options)
    with click.progressbar(
        length=wanted.count * wanted.frames, label="Rendering frames", update_min_steps=10
    ) as bar:
        truth = synthesize(
            folder, wanted, force=force, progress=lambda done, total: bar.update(done - bar.pos)
        )
    written = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    events = sum(len(r.events) for r in truth.recordings)
    echo(
        f"Recordings: {wanted.count} of {wanted.duration_s:g} s, {events} events in all, "
        f"{written / 1e6:.1f} MB in {folder}",
        f"What is true of them: {folder / 'truth.json'}",
        f"Next: align run --source ego4d --input {folder} --output OUT",
    )
