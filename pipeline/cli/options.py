"""The options that ``run`` and ``plan`` share, and how they become a configuration.

Imports nothing heavy: ``align --help`` has to answer at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from align.pipeline.config import RunConfig

Command = Callable[..., Any]

DECODE_TIMEOUT = click.option(
    "--decode-timeout",
    type=float,
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Give up a segment whose decoder is silent for so long.",
)
ISOLATE = click.option(
    "--isolate",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Decode in a child process: a crash or hang there costs one segment.",
)
MAX_PIXELS = click.option(
    "--max-pixels", type=int, default=64_000_000, show_default=True, help="Refuse larger pictures."
)

_INPUT = [
    click.option("--source", metavar="NAME", help="Data set layout to read: ego4d."),
    click.option("--input", metavar="DIR", help="Folder (or gs://, s3://) with the recordings."),
    click.option(
        "--media", default="full_scale", show_default=True, help="full_scale, video_540ss or clips."
    ),
    click.option("--recordings", metavar="UID,UID", help="Only these recordings."),
    click.option("--limit", type=int, metavar="N", help="Only the first N recordings."),
    click.option("--scenario", metavar="NAME,NAME", help="Only recordings of these scenarios."),
    click.option("--allow-symlinks", is_flag=True, help="Follow links that leave the input folder."),
    click.option("--exclude", metavar="FILE", help="A file of recording ids to leave out, one a line."),
]
_WINDOW = [
    click.option("--window", default="5", show_default=True, metavar="SECONDS", help="Length of a window."),
    click.option(
        "--stride", metavar="SECONDS", help="From one window's start to the next. [default: the window]"
    ),
    click.option(
        "--anchor",
        default="grid",
        show_default=True,
        help="Where windows stand: grid, narration (centred on each sentence) or keyframe (cheapest).",
    ),
    click.option("--frames", type=int, default=1, show_default=True, help="Pictures per window."),
    click.option(
        "--max-image-age",
        default="auto",
        show_default=True,
        metavar="SECONDS",
        help="No picture older than this stands for an instant. auto: 1 s, or 3 frame periods where that is "
        "more; off: any age, for recordings of a screen that stands still.",
    ),
    click.option("--image-size", type=int, default=256, show_default=True, help="Short side in pixels."),
    click.option("--jpeg-quality", type=int, default=90, show_default=True),
    click.option("--audio-rate", type=int, default=16000, show_default=True, metavar="HZ"),
    click.option("--imu-rate", type=int, default=200, show_default=True, metavar="HZ"),
    click.option(
        "--min-coverage",
        type=float,
        default=0.9,
        show_default=True,
        help="Below this measured share, audio or IMU is null with a reason.",
    ),
    click.option(
        "--require",
        default="image",
        show_default=True,
        metavar="MODALITY,…",
        help="Skip windows that lack one of these: image, audio, imu, text.",
    ),
    click.option(
        "--redacted", default="skip", show_default=True, help="Windows in redacted parts: skip or keep."
    ),
    click.option(
        "--stereo", default="skip", show_default=True, help="Side-by-side video: skip or crop-left."
    ),
    click.option(
        "--joints", default="skip", show_default=True, help="Windows across camera files: skip or keep."
    ),
    click.option("--clocks", metavar="FILE", help="Correct the IMU's clocks by what align sync measured."),
    click.option(
        "--unsynced",
        default="null",
        show_default=True,
        help="Where the IMU was refuted: null IMU, drop the window, or keep both.",
    ),
    MAX_PIXELS,
]
_OUTPUT = [
    click.option("--format", "formats", default="parquet", show_default=True, help="parquet,webdataset"),
    click.option(
        "--split",
        default="train=1",
        show_default=True,
        metavar="NAME=SHARE,…",
        help="e.g. train=0.9,val=0.1; or file:splits.csv with lines of recording or group id and split.",
    ),
    click.option(
        "--index",
        "indexes",
        metavar="NAME,…",
        help="Index the tar files for energon, dali, wids. Weights and near-duplicates (balance) are indexed "
        "of themselves for local outputs; none leaves it.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of splits, shards and their order."),
    click.option("--shard-size", default="512MB", show_default=True, metavar="SIZE"),
    click.option(
        "--segment",
        type=float,
        default=300,
        show_default=True,
        metavar="SECONDS",
        help="Media read in one go.",
    ),
]
_EXECUTION = [
    click.option(
        "--max-failures", type=float, default=0.01, show_default=True, metavar="SHARE", help="Exit 3 above."
    ),
    click.option(
        "--max-windows",
        type=int,
        default=50_000_000,
        show_default=True,
        metavar="N",
        help="Refuse a run of more windows.",
    ),
    click.option("--resume", is_flag=True, help="Keep finished shards of an interrupted run, do the rest."),
    click.option(
        "--retry-failed",
        is_flag=True,
        help="Take in a repaired input and do again what failed; keep the other shards.",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace the data set that lies in the output. Files that are not its own stay.",
    ),
    DECODE_TIMEOUT,
    ISOLATE,
    click.option("--workers", default="auto", show_default=True, metavar="auto|N", help="Processes."),
    click.option("--runner", default="DirectRunner", show_default=True, help="Any Beam runner."),
]
_CONFIG = click.option(
    "--config",
    "toml",
    metavar="FILE.toml",
    is_eager=True,
    callback=lambda context, _, path: _read_config(context, path),
    expose_value=False,
    help="Read options from a TOML file; its keys are the options' names.",
)


def _read_config(context: click.Context, path: str | None) -> None:
    if path:
        from align.pipeline.config import load_toml

        names = {o.lstrip("-").replace("-", "_"): p.name for p in context.command.params for o in p.opts}
        values = load_toml(path, names)
        context.default_map = {**(context.default_map or {}), **{names[k]: v for k, v in values.items()}}


_PROFILE = click.option(
    "--profile",
    metavar="NAME",
    is_eager=True,
    callback=lambda context, _, name: _use_profile(context, name),
    expose_value=False,
    help="Write what a model takes: imagebind, imu2clip or clip; options that are given win.",
)


def _use_profile(context: click.Context, name: str | None) -> None:
    if name:
        from align.schemas.time import NS
        from align.transforms.views.views import profile_options

        values: dict[str, Any] = profile_options(name)
        if "window_ns" in values:
            values["window"] = f"{values.pop('window_ns') / NS:g}"
        if "require" in values:
            values["require"] = ",".join(values["require"])
        context.default_map = {**values, **(context.default_map or {})}


def run_options(command: Command) -> Command:
    """Decorate a click command with every option of a run."""
    for option in reversed([*_INPUT, *_WINDOW, *_OUTPUT, *_EXECUTION, _CONFIG, _PROFILE]):
        command = option(command)
    return command


def option_names() -> list[str]:
    """Every option of a run as it is typed, for hints."""
    params = run_options(lambda: None).__click_params__  # type: ignore[attr-defined]
    return [name for param in params for name in param.opts]


def config_from(output: str | None, beam_args: tuple[str, ...] = (), **given: Any) -> RunConfig:
    """The configuration that the given option values describe.

    Raises:
        UsageError: a value that cannot be meant.
    """
    from align.pipeline.config import RunConfig, parse_seconds, parse_size
    from align.schemas.errors import UsageError
    from align.schemas.options import AlignOptions

    for name in ("source", "input"):
        if not given[name]:
            raise UsageError(f"--{name} is missing; e.g. align run --source ego4d --input DIR --output OUT")
    if given["joints"] not in ("skip", "keep"):
        raise UsageError("--joints is skip or keep")
    window_ns = parse_seconds("--window", given["window"])
    options = AlignOptions(
        window_ns=window_ns,
        stride_ns=_stride(given["stride"]),
        cross_joints=given["joints"] == "keep",
        require=_words(given["require"]),
        max_image_age_ns=_max_age(given["max_image_age"]),
        **{k: given[k] for k in _SAME_NAME},
    )
    return RunConfig(
        source=given["source"],
        input=given["input"],
        output=output or "",
        options=options,
        formats=_words(given["formats"]),
        media=given["media"],
        recordings=_words(given["recordings"]),
        limit=given["limit"],
        scenarios=_words(given["scenario"]),
        exclude=_read_ids(given["exclude"]),
        **_splits(given["split"]),
        seed=given["seed"],
        shard_size=parse_size(given["shard_size"]),
        segment_s=given["segment"],
        max_failures=given["max_failures"],
        max_windows=given["max_windows"],
        resume=given["resume"] or given["retry_failed"],
        retry_failed=given["retry_failed"],
        overwrite=given["overwrite"],
        isolate=given["isolate"] == "on",
        decode_timeout_s=given["decode_timeout"],
        allow_symlinks=given["allow_symlinks"],
        workers=_workers(given["workers"]),
        runner=given["runner"],
        beam_args=beam_args,
        indexes=_words(given["indexes"]),
        clocks=given["clocks"] or "",
    )


_SAME_NAME = (
    *("anchor", "redacted", "stereo", "unsynced", "frames", "image_size", "jpeg_quality"),
    *("audio_rate", "imu_rate", "min_coverage", "max_pixels"),
)


def _splits(text: str) -> dict[str, Any]:
    from align.transforms.plan.splits import read_assignments

    if not text.startswith("file:"):
        return {"splits": text}
    path = text.removeprefix("file:")
    return {"assignments": read_assignments(path, _read(f"--split {text}", path))}


def _read(what: str, path: str) -> str:
    from align.pipeline.storage.files import absolute, open_binary
    from align.schemas.errors import UsageError

    try:
        with open_binary(absolute(path)) as stream:
            return stream.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{what}: {error}") from None


def _stride(text: str | None) -> int:
    from align.pipeline.config import parse_seconds
    from align.schemas.errors import UsageError

    stride_ns = parse_seconds("--stride", text) if text else 0
    if text and not stride_ns:
        raise UsageError("--stride must be at least 0.001 seconds")
    return stride_ns


def _max_age(text: str) -> int | None:
    from align.pipeline.config import parse_seconds
    from align.schemas.errors import UsageError

    word = str(text).strip().lower()
    if word in ("off", "inf", "none"):
        return None
    age_ns = 0 if word == "auto" else parse_seconds("--max-image-age", text)
    if age_ns <= 0 and word != "auto":
        raise UsageError("--max-image-age is a positive number of seconds, auto or off")
    return age_ns


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(w.strip() for w in (text or "").split(",") if w.strip()))


def _workers(text: str) -> int:
    from align.schemas.errors import UsageError

    if text == "auto":
        return 0
    if not (text.isascii() and text.isdecimal()) or int(text) == 0:
        raise UsageError(f"--workers is auto or a positive number, not {text!r}")
    return int(text)


def _read_ids(path: str | None) -> tuple[str, ...]:
    if not path:
        return ()
    lines = _read(f"--exclude {path}", path).splitlines()
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.startswith("#")))
