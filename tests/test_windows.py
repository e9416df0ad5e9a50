import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.schemas.errors import AlignError
from align.schemas.options import AlignOptions
from align.schemas.recording import Narration, Recording, Stream
from align.schemas.time import NS, TimeSpan
from align.transforms.plan.windows import plan_windows, sample_key

MS = 1_000_000


def recording(**fields):
    video = Stream("video", "/in/full_scale/a.mp4", "full_scale/a.mp4")
    return Recording(source="ego4d", recording_id="a", group_id="a", video=video, **fields)


def options(window_s=5, stride_s=5, **fields):
    return AlignOptions(window=(round(window_s * NS)) / NS, stride=stride_s, **fields)


def codes(plan):
    return [(start, code) for start, code, _ in plan.skipped]


def test_grid_starts_at_the_first_frame_and_keeps_only_whole_windows():
    plan = plan_windows(recording(), TimeSpan(21 * MS, 21 * MS + 12 * NS), (), options())
    assert plan.starts_ns == (21 * MS, 21 * MS + 5 * NS)
    assert plan.planned == 2


@pytest.mark.parametrize(
    ("length_ns", "count"), [(0, 0), (5 * NS - 1, 0), (5 * NS, 1), (10 * NS - 1, 1), (10 * NS, 2)]
)
def test_a_window_fits_to_the_nanosecond(length_ns, count):
    assert plan_windows(recording(), TimeSpan(7, 7 + length_ns), (), options()).planned == count


def test_redaction_touches_by_half_open_intervals():
    redacted = (TimeSpan(5 * NS, 10 * NS),)
    plan = plan_windows(recording(redacted=redacted), TimeSpan(0, 15 * NS), (), options())
    assert plan.starts_ns == (0, 10 * NS)
    assert codes(plan) == [(5 * NS, "redacted")]


def test_redacted_keep_and_cross_joints_keep_all():
    told = recording(redacted=(TimeSpan(6 * NS, 7 * NS),), joints_ns=(12 * NS,))
    plan = plan_windows(told, TimeSpan(0, 15 * NS), (), options(redacted="keep", joints="keep"))
    assert plan.starts_ns == (0, 5 * NS, 10 * NS)


def test_a_joint_at_a_window_end_is_not_crossed():
    plan = plan_windows(recording(joints_ns=(5 * NS, 12 * NS)), TimeSpan(0, 15 * NS), (), options())
    assert plan.starts_ns == (0, 5 * NS)
    assert codes(plan) == [(10 * NS, "joint")]


def test_a_stereo_video_is_skipped_window_by_window_unless_cropped():
    span = TimeSpan(0, 15 * NS)
    assert {code for _, code in codes(plan_windows(recording(stereo=True), span, (), options()))} == {
        "stereo"
    }
    assert plan_windows(recording(stereo=True), span, (), options()).planned == 3
    assert len(plan_windows(recording(stereo=True), span, (), options(stereo="crop-left")).starts_ns) == 3


def test_narration_windows_are_centred_to_the_nanosecond_and_distinct():
    told = recording(narrations=tuple(Narration(t, "x") for t in (7 * NS, 4 * NS, 7 * NS, 1 * NS)))
    for window_s in (5, 5.000000001):
        plan = plan_windows(told, TimeSpan(0, 12 * NS), (), options(window_s, anchor="narration"))
        length = round(window_s * NS)
        assert [TimeSpan(s, s + length).center_ns for s in plan.starts_ns] == [4 * NS, 7 * NS]
        assert [code for _, code in codes(plan)] == ["outside_video"]
        assert plan.planned == 3


def test_keyframe_windows_stand_a_stride_apart_and_none_is_planned_to_be_skipped():
    keyframes = [0, 2 * NS, 3 * NS, 4 * NS, 9 * NS, 10 * NS, 14 * NS]
    plan = plan_windows(recording(), TimeSpan(0, 13 * NS), keyframes, options(5, 5, anchor="keyframe"))
    assert plan.starts_ns == (3 * NS - 5 * NS // 2, 9 * NS - 5 * NS // 2)
    assert plan.skipped == ()


def test_a_header_that_claims_years_is_refused_before_memory_is_spent():
    with pytest.raises(AlignError, match="--stride") as caught:
        plan_windows(recording(), TimeSpan(0, 10**17), (), options())
    assert caught.value.code == "too_many_windows"


times = st.integers(-2000, 20_000)
spans = st.lists(st.tuples(times, times).map(lambda t: TimeSpan(min(t) * MS, max(t) * MS)), max_size=6)


@settings(deadline=None)
@given(
    anchor=st.sampled_from(["grid", "narration", "keyframe"]),
    span=st.tuples(st.integers(-500, 500), st.integers(0, 15_000)),
    length=st.integers(10, 4000),
    stride=st.integers(1, 3000),
    narrated=st.lists(times, max_size=20),
    keyframes=st.lists(times, max_size=40),
    joints=st.lists(times, max_size=6),
    redacted=spans,
    rules=st.tuples(st.booleans(), st.sampled_from(["skip", "keep"]), st.booleans()),
)
def test_plans_agree_with_brute_force(
    anchor, span, length, stride, narrated, keyframes, joints, redacted, rules
):
    stereo, redaction, cross = rules
    opts = AlignOptions(
        window=length / 1000,
        stride=stride / 1000,
        anchor=anchor,
        redacted=redaction,
        joints=("skip", "keep")[cross],
    )
    told = recording(
        narrations=tuple(Narration(t * MS, "x") for t in narrated),
        joints_ns=tuple(j * MS for j in joints),
        redacted=tuple(redacted),
        stereo=stereo,
    )
    video = TimeSpan(span[0] * MS, (span[0] + span[1]) * MS)
    plan = plan_windows(told, video, [k * MS for k in keyframes], opts)

    def fits(start):
        return video.covers(TimeSpan(start, start + length * MS))

    half = (length * MS + 1) // 2
    if anchor == "grid":
        candidates = [s for k in range(20_000 // stride) if fits(s := video.start_ns + k * stride * MS)]
    elif anchor == "narration":
        candidates = sorted({t * MS - half for t in narrated})
    else:
        candidates = []
        for key in sorted({k * MS - half for k in keyframes}):
            if fits(key) and (not candidates or key - candidates[-1] >= stride * MS):
                candidates.append(key)

    def code(start):
        window = TimeSpan(start, start + length * MS)
        if not fits(start):
            return "outside_video"
        if stereo:
            return "stereo"
        if redaction == "skip" and any(r.touches(window) for r in redacted):
            return "redacted"
        if not cross and any(window.start_ns < j * MS < window.end_ns for j in joints):
            return "joint"
        return None

    assert list(plan.starts_ns) == [s for s in candidates if code(s) is None]
    assert codes(plan) == [(s, code(s)) for s in candidates if code(s)]
    assert plan.planned == len(candidates)


def test_a_plain_id_stays_readable_in_the_key():
    uid = "3c8d5a26-d617-55aa-8147-3ea634376062"
    assert sample_key("ego4d", uid, 5 * NS) == f"ego4d-{uid}-000005000000000"
    assert sample_key("ego4d", uid, -5) == f"ego4d-{uid}-m000000000000005"


odd = st.one_of(
    st.text(max_size=300),
    st.text("ab-_./ ", max_size=8),
    st.sampled_from(["../x", "a.b", "a b", "a\nb", "😀", "x" * 300, "\ud800", "", "-", "a--b", "a-b"]),
)


@settings(deadline=None)
@given(st.lists(st.tuples(odd, odd, st.integers(-3, 10**13)), min_size=2, max_size=2, unique=True))
def test_keys_are_safe_short_and_unique(samples):
    keys = [sample_key(*sample) for sample in samples]
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,120}", key)
        assert not key.startswith("-")


def test_no_plain_id_can_pose_as_a_sanitised_one():
    key = sample_key("s", "a b", 0)
    posing = key.removeprefix("s-").rsplit("-", 1)[0]
    assert sample_key("s", posing, 0) != key
