"""Views: what a written window becomes for a model."""

import io

import click
import cv2
import numpy as np
import pytest
import soundfile

import align.views
from align.pipeline.cli.options import config_from, run_options
from align.schemas.errors import AlignError, UsageError
from align.schemas.options import AlignOptions
from align.schemas.time import NS
from align.transforms.views.mel import log_mel
from align.transforms.views.views import (
    ACCL_GYRO,
    CLIP_MEAN,
    CLIP_STD,
    PLAIN,
    PROFILES,
    central,
    check_written,
    columns,
    picture,
    profile_options,
    view,
)


def jpeg(height, width, color=None):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = (10, 120, 200) if color is None else color
    return cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def flac(samples, rate=16_000):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture
def row():
    rng = np.random.default_rng(0)
    return {
        "image": jpeg(224, 398),
        "frames": [jpeg(224, 398, (40 * i, 0, 0)) for i in range(5)],
        "audio": flac(rng.normal(0, 0.1, 80_000)),
        "imu": rng.normal(size=(6, 2000)).astype(np.float32),
        "imu_mask": np.ones(2000, np.bool_),
        "text": ["opens a door", "walks"],
    }


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_names_options_that_a_run_accepts(name):
    assert AlignOptions(**profile_options(name)).image_size == 224


def test_imagebinds_shapes(row):
    made = view(row, PROFILES["imagebind"], PROFILES["imagebind"].modalities, 256)
    shapes = {name: value.shape for name, value in made.items() if name != "text"}
    assert shapes == {
        "image": (3, 224, 224),
        "video": (3, 2, 224, 224),
        "audio": (1, 128, 204),
        "imu": (6, 2000),
        "imu_mask": (2000,),
    }
    assert {made[m].dtype for m in ("image", "video", "audio", "imu")} == {np.dtype(np.float32)}
    assert made["text"] == "opens a door walks"


def test_imagebinds_two_frames_are_the_ends_of_the_central_two_seconds(row):
    profile = PROFILES["imagebind"]
    parts, length = profile.options["frames"], profile.options["window_ns"]
    times = [(2 * i + 1) * length // (2 * parts) for i in profile.frames]
    assert times == [length // 2 - NS, length // 2 + NS]
    made = view(row, profile, ["video"], 224)["video"] * np.array(CLIP_STD)[:, None, None, None]
    red = (made[0].mean(axis=(1, 2)) + CLIP_MEAN[0]) * 255
    np.testing.assert_allclose(red, [40, 120], atol=2)


def test_imagebinds_sound_is_the_normalised_mel_of_the_central_two_seconds(row):
    samples, _ = soundfile.read(io.BytesIO(row["audio"]), dtype="float32")
    made = view(row, PROFILES["imagebind"], ["audio"], 224)["audio"]
    expected = (log_mel(samples[24_000:56_000]) + 4.268) / 9.138
    np.testing.assert_allclose(made[0], expected, atol=1e-5)
    np.testing.assert_allclose(made[0, :, 198:], 4.268 / 9.138, atol=1e-6)


def test_imu2clips_shapes_order_and_plain_pixels(row):
    row |= {"frames": row["frames"] * 2, "imu": row["imu"][:, :1000], "imu_mask": row["imu_mask"][:1000]}
    made = view(row, PROFILES["imu2clip"], PROFILES["imu2clip"].modalities, 224)
    assert made["video"].shape == (3, 10, 224, 224)
    assert made["audio"].shape == (80_000,)
    assert 0 <= made["video"].min() <= made["video"].max() <= 1
    np.testing.assert_array_equal(made["imu"][:3], row["imu"][3:])
    np.testing.assert_array_equal(made["imu"][3:], row["imu"][:3])


def test_clip_is_picture_and_text_in_clips_normalisation(row):
    made = view(row, PROFILES["clip"], PROFILES["clip"].modalities, 224)
    assert set(made) == {"image", "text"}
    expected = (np.array([10, 120, 200]) / 255 - CLIP_MEAN) / CLIP_STD
    np.testing.assert_allclose(made["image"].mean(axis=(1, 2)), expected, atol=0.03)


def test_what_a_row_lacks_is_none(row):
    empty = dict.fromkeys(row)
    for profile in (PLAIN, *PROFILES.values()):
        assert set(view(empty, profile, profile.modalities, 64).values()) == {None}
    assert view({"text": []}, PLAIN, ["text"], 64) == {"text": None}


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (64, 64), (65, 97), (256, 455), (30, 50)])
def test_a_picture_is_the_centre_square(height, width):
    edge = min(height, width)
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = (height - edge) // 2, (width - edge) // 2
    pixels[top : top + edge, left : left + edge] = 200
    data = cv2.imencode(".png", pixels)[1].tobytes()
    made = picture(data, 64)
    assert made.shape == (3, 64, 64)
    assert made.dtype == np.uint8
    assert (made == 200).all()


def test_channels_are_rgb():
    red, green, blue = picture(jpeg(32, 32), 32).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose([red, green, blue], [10, 120, 200], atol=3)


def test_a_broken_picture_is_a_fault():
    with pytest.raises(AlignError) as caught:
        picture(b"no picture", 32)
    assert caught.value.code == "bad_media"


@pytest.mark.parametrize(
    ("n", "seconds", "expected"), [(10, 4, (3, 7)), (10, 10, (0, 10)), (10, 99, (0, 10))]
)
def test_the_central_part_is_centred(n, seconds, expected):
    samples = np.arange(n, dtype=np.float32)
    np.testing.assert_array_equal(central(samples, 1, seconds * NS), samples[slice(*expected)])


def test_only_needed_columns_are_read():
    assert columns(PROFILES["imagebind"], ["imu", "image"]) == ["image", "imu", "imu_mask"]
    assert columns(PLAIN, ["text"]) == ["text"]


@pytest.mark.parametrize(
    ("modalities", "options", "word"),
    [
        (["imu"], {"imu_rate": 200}, "imu_rate 400"),
        (["video"], {"frames": 10}, "frames 5"),
        (["audio"], {"audio_rate": 48_000}, "audio_rate 16000"),
        (["imu"], {"window_ns": 2 * NS}, "window_ns"),
    ],
)
def test_a_data_set_written_otherwise_is_refused_by_name(modalities, options, word):
    written = dict(PROFILES["imagebind"].options)
    check_written(PROFILES["imagebind"], modalities, written)
    check_written(PROFILES["imagebind"], ["image", "text"], written | options)
    with pytest.raises(UsageError, match=word):
        check_written(PROFILES["imagebind"], modalities, written | options)


def test_an_unknown_profile_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match=r"imagebnd.*clip, imagebind, imu2clip"):
        profile_options("imagebnd")


def test_what_imagebind_never_published_is_declared():
    declared = " ".join(align.views.PROFILES["imagebind"].declared)
    assert all(word in declared for word in ("order", "units", "400 Hz"))
    assert PROFILES["imagebind"].imu_order == ACCL_GYRO


def run_config(*arguments):
    """What ``align run`` would be asked for."""
    found = []

    @click.command()
    @run_options()
    def command(print_config, **given):
        found.append(config_from(**given))

    command.main(["--source", "ego4d", "--input", "in", *arguments], standalone_mode=False)
    return found[0].sample


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_on_the_command_line_sets_its_options(name):
    options = run_config("--profile", name)
    assert {key: getattr(options, key) for key in PROFILES[name].options} == PROFILES[name].options


def test_options_that_are_given_win_over_the_profile(tmp_path):
    toml = tmp_path / "run.toml"
    toml.write_text('profile = "imagebind"\nimu-rate = 100\n')
    for arguments in (["--imu-rate", "100", "--profile", "imagebind"], ["--config", str(toml)]):
        options = run_config(*arguments)
        assert (options.imu_rate, options.frames) == (100, 5)


def test_an_unknown_profile_on_the_command_line_is_wrong_usage():
    with pytest.raises(UsageError, match="imagebind"):
        run_config("--profile", "imagebnd")
