"""Shards cost alike, however much recordings differ, and are the same in every process."""

import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.pipeline.config import RunConfig
from align.pipeline.job.shards import add_loads, shard_key
from align.schemas.media import AudioInfo, MediaInfo, VideoInfo
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS, TimeSpan
from align.transforms.plan.segments import plan_segments
from align.transforms.plan.shards import PLACES, Load, place_of, shard_count
from align.transforms.plan.windows import plan_windows

STREAM = Stream("video", "/data/a.mp4", "a.mp4")


def segment(name, cost_s, size=1000):
    info = MediaInfo("mov", None, None)
    return Segment(
        Recording("x", name, name, STREAM), info, NS, (0,), "train", cost_s=cost_s, cost_bytes=size
    )


def load_of(segments):
    return add_loads({s.split: Load.of(s, 0)} for s in segments)


def costs_by_shard(segments, loads, **changes):
    config = RunConfig(source="x", input="/data", **changes)
    costs = Counter()
    for one in segments:
        costs[shard_key(one, config, loads)] += one.cost_s
    return costs


def test_places_are_the_same_in_every_process_and_even():
    places = [place_of(f"{n}@0", 0) for n in range(8000)]
    assert all(800 < sum(p * 8 // PLACES == k for p in places) < 1200 for k in range(8))
    assert places != [place_of(f"{n}@0", 1) for n in range(8000)]
    # Golden: shards of a resumed run must be those of the first, whatever the process.
    assert places[:4] == [3435, 1353, 1620, 3110]


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=200), st.integers(1, 40))
def test_no_shard_costs_more_than_its_share_and_one_place(costs, shards):
    segments = [segment(f"r{n}", cost) for n, cost in enumerate(costs)]
    load = load_of(segments)["train"]
    by_shard = Counter()
    for place in range(PLACES):
        by_shard[load.shard_of(place, shards)] += int(load.cost_ms[place])
    assert set(by_shard) <= set(range(shards))
    assert max(by_shard.values()) <= load.cost_ms.sum() / shards + load.cost_ms.max()


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=60), st.randoms())
def test_what_segments_add_up_to_does_not_depend_on_the_order(costs, order):
    segments = [segment(f"r{n}", cost) for n, cost in enumerate(costs)]
    shuffled = order.sample(segments, len(segments))
    cut = order.randint(0, len(segments))
    one, other = load_of(segments), add_loads([load_of(shuffled[:cut]), load_of(shuffled[cut:])])
    assert one["train"].cost_ms.tolist() == other["train"].cost_ms.tolist()
    assert (one["train"].output_bytes, one["train"].segments) == (1000 * len(segments), len(segments))
    assert costs_by_shard(segments, one, shard_size=10**5) == costs_by_shard(
        segments, other, shard_size=10**5
    )


def planned(count, seed):
    """Segments of recordings that last from seconds to hours, at sizes and with keyframes of all kinds."""
    draw, options = random.Random(seed), AlignOptions()
    for n in range(count):
        span = TimeSpan(0, int(min(draw.lognormvariate(6, 1.5), 20_000) * NS))
        width, height = draw.choice([(426, 240), (1280, 720), (1920, 1080), (3840, 2160)])
        gop = draw.choice([1, 15, 30, 250])
        keyframes = tuple(range(0, span.end_ns, gop * NS // 30))
        video = VideoInfo(
            *(0, "h264", width, height, Fraction(1, 90_000), span, NS // 30),
            keyframes_ns=keyframes,
            bytes_per_s=1e6,
        )
        sound = AudioInfo(1, "aac", 48_000, 2, Fraction(1, 48_000), span)
        recording = Recording("x", f"r{n}", f"r{n}", STREAM, STREAM)
        windows = plan_windows(recording, span, keyframes, options)
        yield from plan_segments(recording, MediaInfo("mov", video, sound), windows, options)


@pytest.mark.parametrize("seed", range(3))
def test_shards_of_recordings_of_very_different_cost_are_balanced_and_so_are_two_workers(seed):
    segments = list(planned(150, seed))
    assert max(s.cost_s for s in segments) > 50 * min(s.cost_s for s in segments)
    by_shard = costs_by_shard(segments, load_of(segments))
    mean = sum(by_shard.values()) / len(by_shard)
    assert len(by_shard) == 16
    assert max(by_shard.values()) < 1.25 * mean
    busy = [0.0, 0.0]
    for cost in sorted(by_shard.values(), reverse=True):  # a worker that is free takes the longest left
        busy[busy.index(min(busy))] += cost
    assert max(busy) < 1.1 * sum(busy) / 2


@pytest.mark.parametrize(
    ("total_bytes", "cost_s", "segments", "count"),
    [
        (0, 0, 0, 1),
        (10, 0, 5, 1),
        (1000, 0, 50, 10),
        (1001, 0, 50, 11),
        (1000, 0, 3, 3),
        (10, 59, 50, 1),
        (10, 130, 50, 2),
        (10, 700, 50, 8),
        (10, 1e6, 50, 16),
        (10, 1e6, 3, 3),
        (10_000, 1e6, 5000, 100),
    ],
)
def test_shard_count(total_bytes, cost_s, segments, count):
    assert shard_count(total_bytes, 100, cost_s, segments) == count
