"""One process or all cores: what the metadata promises decides, not the length alone."""

import os
from fractions import Fraction

import pytest

from align.pipeline.config import RunConfig
from align.pipeline.job.workers import ALONE_BELOW_S, claimed_work_s, workers_for
from align.schemas.media import MediaInfo, VideoInfo
from align.schemas.options import AlignOptions
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS, TimeSpan


def recording(hours, width=None, height=None):
    span = TimeSpan(0, int(hours * 3600 * NS))
    claimed = None
    if width:
        video = VideoInfo(0, "h264", width, height, Fraction(1, 90_000), span, NS // 30, bytes_per_s=500_000)
        claimed = MediaInfo("mp4", video, None)
    return Recording("ego4d", "r", "r", Stream("video", "r.mp4", "r.mp4"), span=span, claimed=claimed)


def test_small_pictures_are_less_work_than_large_ones_of_the_same_length():
    config = RunConfig(source="ego4d", input="in")
    small, large = (claimed_work_s(recording(1, *size), config) for size in ((426, 240), (1920, 1080)))
    assert 0 < small < large / 2


def test_more_frames_are_more_work():
    config = RunConfig(source="ego4d", input="in")
    ten = config.but(sample=AlignOptions(frames=10))
    hour = recording(1, 1920, 1080)
    assert claimed_work_s(hour, config) < claimed_work_s(hour, ten)


def test_where_the_metadata_gives_only_a_length_work_grows_with_it():
    config = RunConfig(source="ego4d", input="in")
    assert claimed_work_s(recording(2), config) == pytest.approx(2 * claimed_work_s(recording(1), config))


@pytest.mark.parametrize(("work_s", "all_cores"), [(0, False), (ALONE_BELOW_S, False), (1000, True)])
def test_a_short_job_takes_one_process_and_a_long_one_all_cores(work_s, all_cores):
    assert workers_for(work_s) == (os.cpu_count() if all_cores else 1)
