"""Statistics: equal to a direct computation, and the same under any sharding and order of merging."""

import io
import json
from functools import reduce

import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from align.schemas.errors import AlignError
from align.schemas.features import IMU_CHANNELS
from align.transforms.write.row import to_row
from align.transforms.write.stats import Collector, Statistics, as_json, merge, merge_all, pattern


def collected(samples):
    collector = Collector()
    for sample in samples:
        collector.add(to_row(sample))
    return collector.result()


@pytest.fixture(scope="module")
def singles(mixed_samples):
    return [collected([s]) for s in mixed_samples]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_grouping_and_order_give_identical_statistics(singles, mixed_samples, data):
    whole = json.dumps(as_json(collected(mixed_samples)))
    parts = data.draw(st.permutations(singles))
    while len(parts) > 1:
        at = data.draw(st.integers(0, len(parts) - 2))
        parts[at : at + 2] = [merge(parts[at], parts[at + 1])]
    assert json.dumps(as_json(parts[0])) == whole


def test_merging_is_neutral_on_nothing_and_leaves_its_arguments(singles):
    a, b = singles[:2]
    before = json.dumps([a.sums, b.sums])
    assert merge(a, Statistics()).sums == merge(Statistics(), a).sums == a.sums
    assert merge(a, b).sums == merge(b, a).sums
    assert json.dumps([a.sums, b.sums]) == before
    assert merge_all(singles).sums == reduce(merge, singles).sums


def test_counts_are_those_of_the_samples(mixed_samples):
    found = as_json(collected(mixed_samples))["splits"]
    for split in ("train", "val"):
        mine = [s for s in mixed_samples if s.split == split]
        told = found[split]
        assert told["windows"] == len(mine)
        assert told["window_hours"] == pytest.approx(len(mine) / 3600)
        assert sum(told["patterns"].values()) == len(mine)
        for modality in ("image", "audio", "imu"):
            present = [s for s in mine if getattr(s, modality) is not None]
            assert told["modalities"][modality]["present"] == len(present)
            assert sum(told["modalities"][modality]["missing"].values()) == len(mine) - len(present)
        assert told["modalities"]["text"]["present"] == sum(bool(s.text) for s in mine)
        assert told["modalities"]["text"]["empty"] == sum(s.text == () for s in mine)
        assert told["scenarios"]["windows"].get("Eating", 0) == sum("Eating" in s.scenarios for s in mine)
    assert found["train"]["modalities"]["audio"]["missing"] == {"decode_error": 2, "gap": 2}
    assert found["train"]["modalities"]["audio"]["coverage_tenths"][9] > 0


def test_patterns_name_what_stands_together(make_sample):
    assert pattern(to_row(make_sample())) == "image+audio+imu+text"
    assert pattern(to_row(make_sample(lacks={"audio": "gap"}))) == "image+imu+text"
    assert pattern(to_row(make_sample(text=()))) == "image+audio+imu"
    nothing = dict.fromkeys(("image", "audio", "imu", "text"), "invalid")
    assert pattern(to_row(make_sample(lacks=nothing))) == "none"


def test_normalisation_equals_a_direct_computation(make_sample):
    samples = [make_sample(i, audio_gap=True, imu_gap=True) for i in range(5)]
    told = as_json(collected(samples))["splits"]["train"]["normalisation"]
    pixels = np.concatenate(
        [
            cv2.imdecode(np.frombuffer(s.image.data, np.uint8), cv2.IMREAD_COLOR).reshape(-1, 3)
            for s in samples
        ]
    )
    for channel, values in zip("bgr", pixels.T / 255.0, strict=True):
        assert told["image"][channel]["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert told["image"][channel]["std"] == pytest.approx(values.std(), rel=1e-9)
    sound = np.concatenate(
        [np.delete(soundfile.read(io.BytesIO(s.audio.data))[0], slice(1600, 3200)) for s in samples]
    )
    assert told["audio"]["n"] == len(sound) == 5 * 14_400
    assert told["audio"]["mean"] == pytest.approx(sound.mean(), abs=1e-15)
    assert told["audio"]["std"] == pytest.approx(sound.std(), rel=1e-9)
    imu = np.concatenate([s.imu.values[:, s.imu.mask] for s in samples], axis=1, dtype=np.float64)
    for channel, values in zip(IMU_CHANNELS, imu, strict=True):
        assert told["imu"][channel]["n"] == imu.shape[1] == 5 * 190
        assert told["imu"][channel]["mean"] == pytest.approx(values.mean(), abs=1e-5)
        assert told["imu"][channel]["std"] == pytest.approx(values.std(), abs=1e-5)
    measured = [(told["image"][c], v) for c, v in zip("bgr", pixels.T / 255.0, strict=True)]
    measured += [
        (told["audio"], sound),
        *((told["imu"][c], v) for c, v in zip(IMU_CHANNELS, imu, strict=True)),
    ]
    for said, values in measured:
        exact = np.quantile(values, [float(q) for q in said["quantiles"]], method="inverted_cdf")
        assert np.abs(np.array(list(said["quantiles"].values())) - exact).max() <= said["step"] / 2 + 1e-5
    assert told["image"]["r"]["step"] == 1 / 255
    assert told["imu"]["accl_x"]["step"] == 1 / 64


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=50))
def test_moments_are_exact_at_the_ends_of_the_range(values):
    from align.transforms.write.stats import _moments

    found = _moments("x", np.array(values))
    assert found == {"x#n": len(values), "x#sum": sum(values), "x#squares": sum(v * v for v in values)}


def test_what_no_window_has_is_null_not_nan(make_sample):
    lacks = {"image": "decode_error", "audio": "gap", "imu": "gap", "text": "not_recorded"}
    told = as_json(collected([make_sample(lacks=lacks)]))["splits"]["train"]["normalisation"]
    for values in (told["audio"], told["imu"]["gyro_x"], told["image"]["r"]):
        assert {k: v for k, v in values.items() if k != "step"} == {
            "n": 0, "mean": None, "std": None, "quantiles": {},
        }  # fmt: skip


def test_labels_beyond_the_limit_are_summed_up(make_sample):
    sums = {"windows": 1500, **{f"group:g{i:04d}": 1 for i in range(1500)}}
    groups = as_json(Statistics({"train": sums}))["splits"]["train"]["groups"]
    assert (groups["distinct"], len(groups["windows"]), groups["other_windows"]) == (1500, 1000, 500)


def test_undecodable_picture_is_an_error_of_ours_to_tell(make_sample):
    row = to_row(make_sample()) | {"image": {"bytes": b"no jpeg", "path": "a.jpg"}}
    with pytest.raises(AlignError, match="cannot be decoded"):
        Collector().add(row)
