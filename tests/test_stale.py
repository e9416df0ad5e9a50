"""Nothing is stale: a picture serves only instants less than the bound after it; else it is null (gap)."""

from dataclasses import replace

import click
import cv2
import numpy as np
import pytest

from align.pipeline.cli.options import config_from, run_options
from align.pipeline.config import RunConfig
from align.pipeline.job.planning import plan_recording
from align.schemas.errors import Fault, UsageError
from align.schemas.options import AlignOptions
from align.schemas.recording import Narration, Recording, Stream
from align.schemas.time import NS
from align.transforms.align.segment import align_segment
from align.transforms.check.rows import Expected, check_row
from align.transforms.read.probe import probe_media
from align.transforms.write.row import to_row
from benchmarks.proof.media import ffmpeg
from benchmarks.proof.odd_media import X264, numbered, paused
from benchmarks.proof.truth import number_in

GRID = AlignOptions(window=1, stride=0.5, image_size=32, require=(), min_coverage=0.0)


def samples(path, options=GRID, segment_s=1e4, **fields):
    stream = Stream("video", str(path), path.name)
    recording = Recording("odd", "x", "x", stream, audio=Stream("audio", str(path), path.name), **fields)
    config = RunConfig(
        source="odd", input=str(path.parent), output="", sample=options, segment=segment_s, isolate=False
    )
    plan = plan_recording(recording, config)
    return [item for segment in plan.segments for item in align_segment(segment, options, "0" * 64)]


@pytest.fixture(scope="module")
def pause(tmp_path_factory):
    """240 frames at 30 a second; between the first 120 and the others the clock runs on for 10 s."""
    return paused(tmp_path_factory.mktemp("pause") / "pause.ts", 10)


def spaced(path, step, count=14, *codecs):
    """Frames that stand ``step(n)`` seconds from the start."""
    whole = numbered(path.with_suffix(".whole.mp4"), range(count), *X264, "-bf", "0", fps=10, sound=False)
    terms = "+".join(f"eq(N\\,{n})*{step(n)}/TB" for n in range(count))
    ffmpeg(
        "-i", whole, "-vf", f"setpts={terms}", "-fps_mode", "passthrough", *X264, "-bf", "0", *codecs, path
    )
    return path


@pytest.mark.parametrize("bound_s", [0.3, 1.0, 4.0])
def test_only_pictures_younger_than_the_bound_are_taken(pause, bound_s):
    bound = int(bound_s * NS)
    found = samples(pause, replace(GRID, max_image_age=bound / NS))
    any_age = samples(pause, replace(GRID, max_image_age="off"))
    assert len(found) == len(any_age) > 30
    assert all(s.image for s in any_age)
    assert max(s.window.center_ns - s.image.time_ns for s in any_age) > 9 * NS
    for kept, whole in zip(found, any_age, strict=True):
        if whole.window.center_ns - whole.image.time_ns < bound:
            assert kept.image == whole.image
        else:
            assert (kept.image, kept.missing["image"]) == (None, "gap")
        assert kept.quality.image_max_age_ns == bound
        assert whole.quality.image_max_age_ns is None


def test_the_bound_itself_is_too_old(pause):
    (whole,) = [
        s for s in samples(pause, replace(GRID, max_image_age="off")) if s.window.start_ns // NS == 8
    ][:1]
    age = whole.window.center_ns - whole.image.time_ns
    for bound, there in ((age, False), (age + 1, True)):
        (same,) = [
            s for s in samples(pause, replace(GRID, max_image_age=bound / NS)) if s.window == whole.window
        ]
        assert (same.image is not None) == there


def test_what_is_null_does_not_depend_on_segments(pause):
    assert samples(pause) == samples(pause, segment_s=2.0)


def test_windows_at_narrations_and_several_pictures_keep_to_the_bound(pause):
    options = replace(GRID, anchor="narration", frames=4, window=4)
    told = tuple(Narration(int(t * NS), "#C C waits") for t in (2.5, 4.5, 5.5, 9.0, 14.0, 15.0))
    found = samples(pause, options, narrations=told)
    assert [s.image is None for s in found] == [False, False, True, True, False, False]
    for sample in found:
        times = [f.time_ns for f in sample.frames]
        targets = [sample.window.start_ns + (2 * i + 1) * NS // 2 for i in range(4)]
        due = [t for t in targets if not 4.99 * NS < t < 13.99 * NS]  # on screen, or less than 1 s ago
        assert len(times) == len(due)
        assert all(0 <= t - f < NS for f, t in zip(times, due, strict=True))
        row = to_row(sample)
        expected = Expected("", 4 * NS, 16_000, 200, max_image_age_ns=0, frames=4)
        assert not [told for told in check_row(row, expected) if told[0] not in ("wrong_split", "empty_id")]


@pytest.mark.parametrize(
    ("require", "code"), [(("image",), "missing_image"), ((), None)]
)  # fmt: skip
def test_a_required_picture_that_is_too_old_costs_the_window(pause, require, code):
    found = samples(pause, replace(GRID, require=require))
    lost = [s for s in found if isinstance(s, Fault)]
    assert {f.code for f in lost} == ({code} if code else set())
    assert all("(gap)" in f.detail and f.outcome == "skipped" for f in lost)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("name", "step", "bound_s"),
    [
        ("time lapse, 0.5 fps", lambda n: 2 * n, 6.0),
        ("slides", lambda n: 5 * n, 15.0),
        ("10 fps, frames dropped", lambda n: 0.1 * n if n < 8 else 0.1 * n + 0.8, 1.0),
        ("a screen that stands still from 1 s on", lambda n: 0.1 * n + 7 * (n > 10), 1.0),
    ],
)
def test_the_bound_follows_the_recordings_own_median_period(tmp_path, name, step, bound_s, suffix):
    path = spaced(tmp_path / f"slow{suffix}", step)
    assert probe_media(str(path)).video.max_age_ns == pytest.approx(bound_s * NS, rel=2e-3)
    found = samples(path)
    for sample in found:
        due = max(n for n in range(14) if step(n) <= sample.window.center_ns / NS + 1e-9)
        if sample.window.center_ns / NS - step(due) < bound_s - 1e-3:
            pixels = cv2.imdecode(np.frombuffer(sample.image.data, np.uint8), 1)
            assert number_in(pixels) == due
        else:
            assert sample.missing["image"] == "gap"
    stills = [s for s in found if s.image is None]
    assert bool(stills) == (name.startswith("a screen"))
    if stills:
        assert all(s.image for s in samples(path, replace(GRID, max_image_age="off")))


@pytest.mark.parametrize(
    ("text", "age_ns"),
    [("auto", 0), ("off", None), ("inf", None), ("2.5", 2_500_000_000), ("0.04", 40_000_000)],
)
def test_the_option_is_seconds_auto_or_off(text, age_ns):
    assert given(text).sample.max_image_age_ns == age_ns


@pytest.mark.parametrize("text", ["0", "-1", "soon", "1e5", "0.0001"])
def test_no_other_age_is_taken(text):
    with pytest.raises(UsageError, match="max_image_age"):
        given(text)


def given(age):
    command = run_options("source", "input", "max_image_age")(
        click.Command("run", callback=lambda **values: values)
    )
    arguments = ["--source", "ego4d", "--input", "in", "--max-image-age", age]
    return config_from(**command.main(arguments, standalone_mode=False))


# -- What verify finds in a data set alone ---------------------------------------------------------------


def told(row, **expected):
    rates = {"window_ns": NS, "audio_rate": 16_000, "imu_rate": 200}
    return {code for code, _ in check_row(row, Expected("train", **rates, **expected))}


@pytest.mark.parametrize("asked", [0, 2 * NS])
def test_verify_finds_a_picture_older_than_the_bound(make_sample, asked):
    sample = make_sample()
    bound = asked or NS
    for late, code in ((bound - 1, set()), (bound, {"stale_image"})):
        time_ns = sample.window.center_ns - late
        quality = replace(sample.quality, image_offset_ns=-late, image_max_age_ns=bound)
        row = to_row(replace(sample, image=replace(sample.image, time_ns=time_ns), quality=quality))
        assert told(row, max_image_age_ns=asked) == code
        assert told(row, max_image_age_ns=None) == set()


def test_verify_finds_a_stale_picture_among_several(make_sample):
    sample = make_sample(frames=3)
    centres = [sample.window.start_ns + NS * (2 * i + 1) // 6 for i in range(3)]
    for ages, code in (((0, 0, 0), set()), ((NS, 0, 0), {"stale_image"})):
        frames = tuple(
            replace(f, time_ns=c - a) for f, c, a in zip(sample.frames, centres, ages, strict=True)
        )
        frames = tuple(sorted(frames, key=lambda f: f.time_ns))
        row = to_row(replace(sample, frames=frames, quality=replace(sample.quality, image_max_age_ns=NS)))
        assert told(row, max_image_age_ns=0, frames=3) == code


@pytest.mark.parametrize(("said", "asked"), [(None, 0), (NS // 2, 0), (NS, 2 * NS)])
def test_verify_finds_a_bound_that_is_not_the_configurations(make_sample, said, asked):
    sample = make_sample()
    row = to_row(replace(sample, quality=replace(sample.quality, image_max_age_ns=said)))
    assert told(row, max_image_age_ns=asked) == {"bad_image_age"}


def test_verify_finds_sound_in_what_is_said_to_be_a_gap(make_sample):
    silent, loud = make_sample(audio_gap=True), make_sample()
    assert told(to_row(silent), deep=True) == set()
    lying = replace(silent, audio=replace(loud.audio, gaps=silent.audio.gaps))
    assert told(to_row(lying), deep=True) == {"bad_audio_gaps"}


@pytest.mark.parametrize("modality", ["audio", "imu"])
def test_verify_finds_coverage_that_contradicts_what_is_there(make_sample, modality):
    whole = make_sample()
    absent = make_sample(lacks={modality: "gap"})
    name = f"{modality}_coverage"
    assert told(to_row(absent), min_coverage=0.9) == set()
    claimed = replace(absent, quality=replace(absent.quality, **{name: 0.99}))
    assert told(to_row(claimed), min_coverage=0.9) == {"bad_coverage"}
    kept = replace(whole, quality=replace(whole.quality, **{name: 0.5}))
    assert told(to_row(kept), min_coverage=0.9) == {"bad_coverage"}
