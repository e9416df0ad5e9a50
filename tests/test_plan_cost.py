"""The cost model: counts what is decoded, grows with whatever makes work, and keeps measured proportions."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.schemas.media import AudioInfo, MediaInfo, VideoInfo
from align.schemas.options import AlignOptions
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS, TimeSpan
from align.transforms.plan.cost import estimate, full_decode_s
from align.transforms.plan.windows import plan_windows

HOUR = 3600 * NS
GRID = AlignOptions()
STREAM = Stream("video", "/data/a.mp4", "a.mp4")


def media(gop=250, codec="h264", audio=True, **fields):
    """An hour of 1080p30 at 6 Mbit/s, with sound."""
    span = TimeSpan(0, HOUR)
    keyframes = tuple(range(0, HOUR, gop * NS // 30)) if gop else ()
    video = VideoInfo(0, codec, 1920, 1080, Fraction(1, 90_000), span, NS // 30, bytes_per_s=750_000)
    sound = AudioInfo(1, "aac", 48_000, 2, Fraction(1, 48_000), span)
    return MediaInfo("mov", replace(video, keyframes_ns=keyframes, **fields), sound if audio else None)


def cpu_s(info, options=GRID):
    recording = Recording("x", "a", "a", STREAM, STREAM)
    starts = plan_windows(recording, info.video.span, info.video.keyframes_ns, options).starts_ns
    return estimate(info, starts, options).cpu_s


def test_the_frames_between_keyframe_and_target_are_counted():
    """By hand: targets at 2.5 and 7.5 s of one 8 s group need 7.5 s of frames and one keyframe."""
    bytes_read = 10 * 750_000
    frame_s = 1920 * 1080 * 1.45e-9 + 25_000 * 95e-9
    by_hand = frame_s * (2 + 0.62 * 7.5 * 30) + 2 * (0.0007 + 0.0012) + 10 * 7 / 3600 + bytes_read * 1.5e-9
    cost = estimate(media(gop=240, audio=False), (0, 5 * NS), GRID)
    assert cost.cpu_s == pytest.approx(by_hand, rel=1e-6)
    assert cost.read_bytes == bytes_read


@pytest.mark.parametrize(
    ("codec", "gop", "changes", "share"),
    [
        ("h264", 250, {}, 0.46),
        ("h264", 30, {}, 0.105),
        ("h264", 250, {"frames": 10}, 0.66),
        ("h264", 30, {"frames": 10}, 0.58),
        ("h264", 250, {"anchor": "keyframe"}, 0.031),
        ("h264", 30, {"anchor": "keyframe"}, 0.04),
        ("vp9", 240, {}, 0.6),
    ],
)
def test_a_whole_job_takes_about_the_measured_share_of_a_full_decode(codec, gop, changes, share):
    """As ``benchmarks.run`` measured them; of a share, the machine's speed is no part."""
    info = media(gop, codec)
    full_s = 3600 * 30 * full_decode_s(info.video)
    assert cpu_s(info, AlignOptions(**changes)) / full_s == pytest.approx(share, rel=0.25)


STARTS = st.lists(st.integers(0, 3590), min_size=1, max_size=40, unique=True)


@given(STARTS, st.integers(0, 3590), st.sampled_from([0, 15, 30, 250]), st.booleans())
def test_a_further_window_never_makes_it_cheaper(starts, further, gop, audio):
    info = media(gop, audio=audio)
    one = estimate(info, [s * NS for s in starts], GRID)
    more = estimate(info, [s * NS for s in {*starts, further}], GRID)
    assert more.cpu_s >= one.cpu_s - 1e-9
    assert more.read_bytes >= one.read_bytes
    assert more.output_bytes >= one.output_bytes


@pytest.mark.parametrize("gop", [30, 250])
def test_it_grows_with_what_makes_work(gop):
    usual = cpu_s(media(gop))
    assert cpu_s(media(gop, width=960, height=540)) < usual < cpu_s(media(gop, width=3840, height=2160))
    assert cpu_s(media(gop, bytes_per_s=250_000)) < usual < cpu_s(media(gop, bytes_per_s=3_000_000))
    assert cpu_s(media(gop, audio=False)) < usual < cpu_s(media(gop), AlignOptions(frames=10))
    assert cpu_s(media(gop), AlignOptions(anchor="keyframe")) < usual
    assert usual < cpu_s(media(gop, codec="vp9"))


def test_rarer_keyframes_cost_more_where_one_frame_is_wanted_now_and_then():
    costs = [cpu_s(media(gop)) for gop in (7, 40, 100, 300)]
    assert costs == sorted(costs)


def test_distant_windows_add_up_and_without_an_index_groups_are_taken_to_be_long():
    a, b = (0, 5 * NS), (800 * NS, 805 * NS)
    whole = estimate(media(), a + b, GRID)
    parts = [estimate(media(), part, GRID) for part in (a, b)]
    assert whole.output_bytes == sum(part.output_bytes for part in parts)
    assert whole.cpu_s == pytest.approx(sum(part.cpu_s for part in parts))
    assert estimate(media(gop=0), a, GRID).cpu_s > estimate(media(gop=30), a, GRID).cpu_s


def test_nothing_costs_nothing():
    assert estimate(media(), (), GRID).cpu_s == 0
    assert estimate(MediaInfo("mov", None, None), (0,), GRID).output_bytes == 0
