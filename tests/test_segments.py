import pickle
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from align.schemas.media import AudioInfo, MediaInfo, VideoInfo
from align.schemas.options import AlignOptions
from align.schemas.recording import Narration, Recording, Stream
from align.schemas.time import NS, TimeSpan
from align.transforms.plan.segments import plan_segments
from align.transforms.plan.windows import WindowPlan, plan_windows

UID = "3c8d5a26-d617-55aa-8147-3ea634376062"


def recording(**fields):
    folder = "/datasets/ego4d/v2/"
    video = Stream("video", f"{folder}full_scale/{UID}.mp4", f"full_scale/{UID}.mp4")
    audio = Stream("audio", video.uri, video.name)
    imu = Stream("imu", f"{folder}imu/{UID}.csv", f"imu/{UID}.csv")
    return Recording("ego4d", UID, "participant-1", video, audio, imu, **fields)


def media(hours=1.0, gop_s=8, audio=True, **fields):
    span = TimeSpan(0, round(hours * 3600 * NS))
    keyframes = tuple(range(0, span.end_ns, int(gop_s * NS))) if gop_s else ()
    video = VideoInfo(
        0,
        "h264",
        1920,
        1080,
        Fraction(1, 90_000),
        span,
        NS // 30,
        keyframes_ns=keyframes,
        bytes_per_s=1e6,
        **fields,
    )
    sound = AudioInfo(1, "aac", 48_000, 2, Fraction(1, 48_000), span)
    return MediaInfo("mov", video, sound if audio else None)


@settings(deadline=None)
@given(
    starts=st.lists(st.integers(0, 3_600_000), max_size=60, unique=True),
    length=st.integers(10, 30_000),
    narrated=st.lists(st.integers(-1000, 3_700_000), max_size=60),
    limits=st.tuples(st.floats(0.001, 100), st.floats(0.1, 4000)),
)
def test_each_window_is_in_one_segment_with_just_the_narrations_it_needs(starts, length, narrated, limits):
    ms = 1_000_000
    told = recording(
        narrations=tuple(sorted(Narration(t * ms, "x") for t in narrated)),
        joints_ns=(5,),
        redacted=(TimeSpan(1, 2),),
    )
    options = AlignOptions(window=(length * ms) / NS)
    plan = WindowPlan(tuple(sorted(s * ms for s in starts)))
    cost_s, span_s = limits
    segments = list(
        plan_segments(told, media(), plan, options, segment_cost_s=cost_s, segment_s=span_s, split="val")
    )
    assert [s for segment in segments for s in segment.starts_ns] == list(plan.starts_ns)
    assert len({segment.key for segment in segments}) == len(segments)
    for segment in segments:
        assert segment.starts_ns[-1] - segment.starts_ns[0] <= span_s * NS
        inside = [n for n in told.narrations if any(w.holds(n.time_ns) for w in segment.windows)]
        assert list(segment.recording.narrations) == inside
        assert segment.split == "val"
        reach = TimeSpan(segment.windows[0].start_ns, segment.windows[-1].end_ns)
        assert list(segment.recording.redacted) == [r for r in told.redacted if r.touches(reach)]
        assert segment.recording.joints_ns == ()
        assert segment.media.video.keyframes_ns == ()


def test_no_narrations_stay_none():
    segments = list(plan_segments(recording(), media(), WindowPlan((0,)), AlignOptions()))
    assert segments[0].recording.narrations is None


def test_cost_cuts_what_the_span_would_not():
    options = AlignOptions(frames=10)
    plan = plan_windows(recording(), media().video.span, (), options)
    long = list(plan_segments(recording(), media(), plan, options, segment_cost_s=1e9, segment_s=1e6))
    short = list(plan_segments(recording(), media(), plan, options, segment_cost_s=20, segment_s=1e6))
    assert len(long) == 1
    assert max(segment.cost_s for segment in short) < 25
    assert sum(segment.cost_bytes for segment in short) == long[0].cost_bytes


def test_a_segment_of_ten_hours_is_a_small_reference():
    options = AlignOptions()
    plan = plan_windows(recording(), media(10).video.span, (), options)
    sizes = [len(pickle.dumps(s)) for s in plan_segments(recording(), media(10), plan, options)]
    assert len(sizes) == 120
    assert max(sizes) < 2000
