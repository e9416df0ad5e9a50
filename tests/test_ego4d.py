import json
import tracemalloc
from copy import deepcopy
from dataclasses import astuple, replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.pipeline.sources import SourceOptions, find_source
from align.pipeline.sources.ego4d.narrations import nanoseconds
from align.pipeline.sources.groups import Groups
from align.pipeline.sources.json_stream import stream_items
from align.pipeline.storage import files
from align.schemas.errors import AlignError, Fault, UsageError
from align.schemas.options import AlignOptions
from align.schemas.recording import Concurrent, Recording
from align.schemas.time import NS, TimeSpan, seconds_to_ns
from align.schemas.wire import from_plain, to_plain
from align.transforms.plan.windows import plan_windows

REAL = Path(__file__).parents[1] / ".." / "shared" / "data" / "ego4d"


def media(duration=60.0, **changed):
    """A media block as EGO4D writes it: 30 fps, first frame at 323 ticks of 1/15360 s, AAC."""
    return {
        "fps": 30, "num_frames": round(duration * 30), "video_codec": "vp9", "mp4_duration_sec": duration,
        "video_start_sec": 0.0210286, "video_duration_sec": duration,
        "video_start_pts": 323, "video_duration_pts": round(duration * 15360),
        "video_base_numerator": 1, "video_base_denominator": 15360,
        "audio_start_sec": 0.0, "audio_duration_sec": duration, "audio_start_pts": 0,
        "audio_duration_pts": round(duration * 48000),
        "audio_base_numerator": 1, "audio_base_denominator": 48000,
        **changed,
    }  # fmt: skip


def component(start, end, uid="c"):
    return {
        "video_component_uid": uid, "component_idx": 0, "redacted": False,
        "canonical_video_start_sec": start, "canonical_video_end_sec": end,
    }  # fmt: skip


def video(uid, **changed):
    return {
        "video_uid": uid, "duration_sec": 60.0, "scenarios": ["Cooking"], "video_metadata": media(),
        "origin_video_id": f"o-{uid}", "video_source": "unict", "fb_participant_id": None, "is_stereo": False,
        "has_imu": False, "video_components": [], "concurrent_sets": None, "has_redacted_regions": False,
        "redacted_intervals": [], "gaps": None, **changed,
    }  # fmt: skip


def sentence(time_s, text="#C C walks"):
    return {"timestamp_sec": time_s, "timestamp_frame": 0, "narration_text": text, "annotation_uid": "s"}


def told(*sentences, **more):
    return {
        "narration_pass_1": {"narrations": list(sentences), "summaries": []},
        "status": "complete",
        **more,
    }


@pytest.fixture
def download(tmp_path):
    """Write an EGO4D download: ``download([video("a")], narrations={...}, imu=["a"], media=["a"])``."""

    def write(
        videos=(), *, clips=(), sets=(), narrations=None, imu=(), files=None, folder="full_scale", raw=None
    ):
        root = tmp_path / "v2"
        master = {
            "date": "x", "version": "v2.1", "description": "", "videos": list(videos), "clips": list(clips),
            "concurrent_video_sets": list(sets), "physical_settings": [],
        }  # fmt: skip
        for name in (folder, "imu", "annotations"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "ego4d.json").write_bytes(json.dumps(master).encode() if raw is None else raw)
        uids = [v.get("video_uid") for v in videos if isinstance(v, dict)] if files is None else files
        for uid in uids:
            if isinstance(uid, str) and not set(uid) & set("/\0\ud800") and len(uid.encode()) < 250:
                (root / folder / f"{uid}.mp4").touch()
        for uid in imu:
            (root / "imu" / f"{uid}.csv").touch()
        if narrations is not None:
            data = narrations if isinstance(narrations, bytes) else json.dumps(narrations).encode()
            (root / "annotations" / "narration.json").write_bytes(data)
        return tmp_path

    return write


def read(folder, **options):
    """Recordings by id, and faults."""
    found = list(find_source("ego4d")(SourceOptions(input=str(folder), **options)))
    faults = [f for f in found if isinstance(f, Fault)]
    return {r.recording_id: r for r in found if isinstance(r, Recording)}, faults


def codes(faults):
    return sorted((f.recording_id, f.code, f.outcome) for f in faults)


# -- The real download in miniature -------------------------------------------------------------------


@pytest.fixture
def real():
    if not REAL.exists():
        pytest.skip("the real recordings are not there")
    return REAL


@pytest.mark.parametrize("below", ["", "v2"])
def test_real_recordings_are_read_as_their_metadata_says(real, below):
    found, faults = read(real / below)
    assert faults == []
    karma, hero7, nasa = found.values()
    assert [r.group_id for r in found.values()] == ["participant-1", "participant-2", nasa.recording_id]
    assert karma.span == TimeSpan(0, round(Fraction(1_087_086, 90_000) * NS))
    assert [n.time_ns for n in karma.narrations] == [
        1_400_000_000,
        4_100_000_000,
        7_200_000_000,
        10_300_000_000,
    ]
    assert karma.narrations[0].raw == "#C C flies along the sea cliff"
    assert karma.imu.name == f"imu/{karma.recording_id}.csv"
    assert Path(karma.imu.uri).is_file()
    assert Path(karma.video.uri).is_file()
    assert hero7.redacted == (TimeSpan(9 * NS, 9_400_000_000),)
    assert (nasa.imu, nasa.absent) == (None, {})
    assert nasa.audio is not None


def test_real_recordings_give_six_windows_one_of_them_redacted(real):
    plans = [plan_windows(r, r.span, (), AlignOptions()) for r in read(real)[0].values()]
    assert sum(p.planned for p in plans) == 6
    assert [code for p in plans for _, code, _ in p.skipped] == ["redacted"]


# -- One recording -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "span"),
    [
        ({}, (Fraction(323, 15360), Fraction(323, 15360) + 60)),
        ({"video_start_pts": None}, (Fraction("0.0210286"), Fraction("60.0210286"))),
        ({"video_base_denominator": None}, (Fraction("0.0210286"), Fraction("60.0210286"))),
        ({"video_start_pts": None, "video_start_sec": None}, (0, 60)),
        (
            {"video_duration_pts": None, "video_duration_sec": 59.5, "video_start_pts": 0},
            (0, Fraction("59.5")),
        ),
        (
            {"video_duration_pts": None, "video_duration_sec": None, "video_start_pts": 0},
            (0, Fraction("60.25")),
        ),
    ],
)
def test_span_is_exact_where_ticks_are_told_else_from_seconds(download, changed, span):
    entry = video("a", video_metadata=media(**changed), duration_sec=60.25)
    recording = read(download([entry]))[0]["a"]
    assert recording.span == TimeSpan(*(seconds_to_ns(Fraction(s)) for s in span))


def test_span_is_unknown_where_nothing_is_told(download):
    assert read(download([video("a", video_metadata=None, duration_sec=None)]))[0]["a"].span is None


def test_null_audio_fields_mean_no_audio_and_absent_ones_mean_nothing(download):
    silent = {key: None for key in media() if key.startswith("audio")}
    bare = {key: value for key, value in media().items() if not key.startswith("audio")}
    videos = [video("a"), video("b", video_metadata=media(**silent)), video("c", video_metadata=bare)]
    found, _ = read(download(videos))
    assert found["a"].audio.name == "full_scale/a.mp4"
    assert found["b"].audio is None
    assert "audio" in found["b"].absent
    assert found["c"].audio is not None


def test_imu_is_what_lies_on_disk(download):
    videos = [video("told", has_imu=True), video("lost", has_imu=True), video("extra"), video("none")]
    found, faults = read(download(videos, imu=["told", "extra"]))
    assert {uid: r.imu and r.imu.name for uid, r in found.items()} == {
        "told": "imu/told.csv", "lost": None, "extra": "imu/extra.csv", "none": None,
    }  # fmt: skip
    assert found["lost"].absent["imu"] == "has_imu is set but imu/lost.csv is not there"
    assert "imu" not in found["none"].absent
    assert codes(faults) == [("extra", "unexpected_imu", "noted")]


def test_joints_are_the_boundaries_between_components(download):
    parts = [component(0.0, 20.0), component(40.5, 59.9), component(20.0, 40.0), component(None, None)]
    joints = read(download([video("a", video_components=parts)]))[0]["a"].joints_ns
    assert joints == (20 * NS, 40 * NS, 40 * NS + NS // 2)
    assert read(download([video("a", video_components=parts[:1])]))[0]["a"].joints_ns == ()


def test_redacted_intervals_are_sorted_clamped_and_turned_around(download):
    intervals = [{"start_sec": 30, "end_sec": 25.5}, {"start_sec": -4e-7, "end_sec": 1, "start_frame": 7}]
    found, _ = read(download([video("a", redacted_intervals=intervals)]))
    assert found["a"].redacted == (TimeSpan(0, NS), TimeSpan(25 * NS + NS // 2, 30 * NS))


def test_redactions_that_are_announced_but_not_placed_are_noted(download):
    _, faults = read(download([video("a", has_redacted_regions=True)]))
    assert codes(faults) == [("a", "unplaced_redaction", "noted")]


def test_other_renditions_are_found_in_their_folders(download):
    found, _ = read(download([video("a", is_stereo=True)], folder="video_540ss"), media="video_540ss")
    assert found["a"].video.name == "video_540ss/a.mp4"
    assert found["a"].stereo


# -- Narrations --------------------------------------------------------------------------------------


def test_both_passes_are_merged_and_sorted_by_seconds(download):
    entry = told(
        sentence(7.5, "b"),
        sentence(1.4, "a"),
        narration_pass_2={"narrations": [sentence(4.1, "#O man X sits"), sentence(7.5, "a")]},
    )
    found, faults = read(download([video("a")], narrations={"a": entry}))
    assert [(n.time_ns, n.raw) for n in found["a"].narrations] == [
        (1_400_000_000, "a"), (4_100_000_000, "#O man X sits"), (7_500_000_000, "a"), (7_500_000_000, "b"),
    ]  # fmt: skip
    assert faults == []


def test_no_narrations_and_none_found_differ(download):
    entries = {
        "empty": told(),
        "no_pass": {"status": "x"},
        "null": None,
        "null_pass": {"narration_pass_1": None},
    }
    uids = [*entries, "unnamed"]
    found, faults = read(download([video(u) for u in uids], narrations=entries))
    assert {u: r.narrations for u, r in found.items()} == {
        "empty": (), "no_pass": None, "null": None, "null_pass": None, "unnamed": None,
    }  # fmt: skip
    assert faults == []
    assert "does not name it" in found["unnamed"].absent["text"]


def test_without_a_narration_file_nothing_is_narrated(download):
    found, _ = read(download([video("a")]))
    assert found["a"].narrations is None
    assert "is not there" in found["a"].absent["text"]


@pytest.mark.parametrize(
    "bad",
    [sentence(None), sentence("7"), sentence(True), sentence(float("nan")), sentence(float("inf")),
     sentence(1e18),      sentence(5, None), sentence(5, 7), sentence(5, ["x"]), None, 3, [], "x", {},
     sentence(-1.0), sentence(61.0)],
)  # fmt: skip
def test_a_bad_sentence_is_dropped_and_noted_and_the_others_stay(download, bad):
    found, faults = read(download([video("a")], narrations={"a": told(sentence(1.0), bad, sentence(2.0))}))
    assert [n.time_ns for n in found["a"].narrations] == [NS, 2 * NS]
    assert codes(faults) == [("a", "bad_narrations", "noted")]
    assert faults[0].windows == 0


@pytest.mark.parametrize(
    "entry", [{"narration_pass_1": {"narrations": 5}}, {"narration_pass_1": [sentence(1)]}]
)
def test_odd_passes_do_not_break(download, entry):
    found, faults = read(
        download([video("a"), video("b")], narrations={"a": entry, "b": told(sentence(1.0))})
    )
    assert [n.time_ns for n in found["b"].narrations] == [NS]
    assert all(f.recording_id == "a" for f in faults)


def test_a_folder_in_place_of_a_file_is_a_reason(download):
    folder = download([video("a")])
    (folder / "v2" / "annotations" / "narration.json").mkdir()
    found, faults = read(folder)
    assert list(found) == ["a"]
    assert codes(faults) == [("", "bad_narrations", "noted")]
    (folder / "v2" / "ego4d.json").unlink()
    (folder / "v2" / "ego4d.json").mkdir()
    with pytest.raises(AlignError, match=r"ego4d\.json cannot be read"):
        read(folder)


def test_text_that_is_not_unicode_is_cleaned(download):
    data = json.dumps({"a": told(sentence(1.0, "A"), sentence(2.0, "B"))}).encode()
    data = data.replace(b'"A"', b'"x \\ud800 y"').replace(b'"B"', b'"x \xff y"')
    found, _ = read(download([video("a")], narrations=data))
    assert [n.raw for n in found["a"].narrations] == ["x \ufffd y"] * 2


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_truncated_narration_file_costs_only_the_text_after_the_cut(download, keep):
    uids = [f"v{n}" for n in range(50)]
    data = json.dumps({u: told(*(sentence(t) for t in range(20))) for u in uids}).encode()
    found, faults = read(download([video(u) for u in uids], narrations=data[: int(keep * len(data))]))
    named = [uid for uid, r in found.items() if r.narrations is not None]
    assert named == uids[: len(named)]
    assert len(named) in (int(50 * keep), int(50 * keep) - 1)
    assert codes(faults) == [("", "bad_narrations", "noted")]
    assert "ends early" in faults[0].detail
    assert "damaged" in found["v49"].absent["text"]


def test_narrations_are_read_in_flat_memory(download):
    def peak(count):
        uids = [f"v{n}" for n in range(count)]
        entry = told(*(sentence(t / 100, "#C C does something " * 5) for t in range(3000)))
        folder = download([video(u) for u in uids], narrations=dict.fromkeys(uids, entry))
        tracemalloc.start()
        found = find_source("ego4d")(SourceOptions(input=str(folder)))
        assert sum(len(r.narrations) for r in found) == 3000 * count
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    few = peak(6)
    assert peak(18) < 1.2 * few


@settings(deadline=None)
@given(st.floats(-1e8, 1e8) | st.integers(-(10**8), 10**8))
def test_the_fast_conversion_of_seconds_is_the_exact_one(seconds):
    assert nanoseconds(seconds) == seconds_to_ns(seconds)


# -- Clips -------------------------------------------------------------------------------------------


def clip(uid, of, start, end, **changed):
    nulls = {"video_start_sec": None, "audio_start_sec": None, "video_start_pts": None}
    return {
        "clip_uid": uid, "video_uid": of, "video_start_sec": start, "video_end_sec": end,
        "clip_metadata": media(end - start, **nulls), **changed,
    }  # fmt: skip


def test_a_clip_keeps_time_of_its_own(download):
    parent = video(
        "a", has_imu=True, fb_participant_id=4,
        redacted_intervals=[{"start_sec": 12, "end_sec": 14}, {"start_sec": 50, "end_sec": 51}],
        video_components=[component(0, 20), component(20, 45), component(45, 60)],
    )  # fmt: skip
    narrations = {"a": told(*(sentence(t) for t in (9.9, 10.0, 12.5, 30.0, 31.0)))}
    folder = download(
        [parent],
        clips=[clip("k", "a", 10.0, 30.0)],
        files=["k"],
        folder="clips",
        imu=["a"],
        narrations=narrations,
    )
    found, faults = read(folder, media="clips")
    one = found["k"]
    assert faults == []
    assert one.span == TimeSpan(0, 20 * NS)
    assert one.video.name == "clips/k.mp4"
    assert one.audio is not None
    assert one.imu.name == "imu/a.csv"
    assert one.imu.clock.at(10 * NS) == 0
    assert [n.time_ns for n in one.narrations] == [0, 2_500_000_000, 20 * NS]
    assert one.redacted == (TimeSpan(2 * NS, 4 * NS),)
    assert one.joints_ns == (10 * NS,)
    assert one.group_id == "participant-4"


def test_clips_of_unusable_videos_are_faults_and_the_others_go_on(download):
    clips = [clip("k", "a", 0, 5), clip("l", "nowhere", 0, 5), clip("m", "bad", 0, 5), clip("n", "a", 5, 5)]
    clips += [clip("o", "a", 5, 10, video_end_sec=None), clip("p", "a", -4e-7, 5.0), clip("q", 5, 0, 5)]
    videos = [video("a"), video("bad", is_stereo="yes")]
    found, faults = read(download(videos, clips=clips, files=list("klmnopq"), folder="clips"), media="clips")
    assert list(found) == ["k", "n", "p"]
    assert codes(faults) == [(uid, "bad_metadata", "failed") for uid in ("bad", "l", "m", "o", "q")]
    assert found["p"].imu is None


def test_clips_are_selected_by_their_own_or_their_video_uid(download):
    clips = [clip("k", "a", 0, 5), clip("l", "a", 5, 10), clip("m", "b", 0, 5)]
    folder = download([video("a"), video("b")], clips=clips, files=list("klm"), folder="clips")
    assert list(read(folder, media="clips", recordings=("a",))[0]) == ["k", "l"]
    assert list(read(folder, media="clips", recordings=("l",))[0]) == ["l"]
    assert list(read(folder, media="clips", excluded=("a",))[0]) == ["m"]


def test_a_recording_of_no_length_cannot_be_meant(download):
    found, faults = read(download([video("a", duration_sec=0, video_metadata=None)]))
    assert codes(faults) == [("a", "bad_metadata_value", "noted")]
    assert found["a"].span is None


# -- Groups ------------------------------------------------------------------------------------------


def test_groups_follow_participants_sets_and_shared_footage(download):
    sets = [
        {"concurrent_video_set_id": 7, "valid": False, "videos": [{"video_uid": "c"}, {"video_uid": "d"}]}
    ]
    videos = [
        video("a", fb_participant_id=12),
        video("b", fb_participant_id=12, concurrent_sets=[3]),
        video("b2", fb_participant_id=5, concurrent_sets={"concurrent_video_set_id": 3}),
        video("c"), video("d"),
        video("e", video_components=[component(0, 1, "part-1")]),
        video("f", video_components=[component(0, 1, "part-1"), component(1, 2, "part-2")]),
        video("g", video_components=[{**component(0, 1, "other"), "video_uid": "h"}]),
        video("h", video_components=[{**component(0, 1, "own"), "video_uid": "h"}]),
        video("i", origin_video_id="same"), video("j", origin_video_id="same"),
        video("k", origin_video_id="same", video_source="cmu"),
        video("alone"),
    ]  # fmt: skip
    groups = {uid: r.group_id for uid, r in read(download(videos, sets=sets))[0].items()}
    assert groups == {
        "a": "participant-5", "b": "participant-5", "b2": "participant-5", "c": "set-7", "d": "set-7",
        "e": "set-e", "f": "set-e", "g": "set-g", "h": "set-g", "i": "set-i", "j": "set-i", "k": "k",
        "alone": "alone",
    }  # fmt: skip


def concurrent_set(number, **offsets):
    videos = [{"video_uid": uid, "video_start_offset_sec": at} for uid, at in offsets.items()]
    return {"concurrent_video_set_id": number, "valid": True, "videos": videos}


def test_a_recording_knows_its_concurrent_set_and_its_place_there(download):
    sets = [
        concurrent_set(3, a=0.0, b=1.25),
        concurrent_set(4, b=7, c=None, d=-2.5),
        concurrent_set(5, a=9, c=9),
    ]
    found, faults = read(download([video(uid) for uid in "abcde"], sets=sets))
    assert not faults
    assert {uid: r.concurrent for uid, r in found.items()} == {
        "a": Concurrent("3", 0),
        "b": Concurrent("4", 7_000_000_000),
        "c": Concurrent("4", 0),
        "d": Concurrent("4", -2_500_000_000),
        "e": None,
    }


def test_a_clip_has_its_own_place_in_the_set_of_its_video(download):
    clip = {
        "clip_uid": "x", "video_uid": "a", "video_start_sec": 10.5, "video_end_sec": 20.0,
        "clip_metadata": media(duration=9.5),
    }  # fmt: skip
    folder = download(
        [video("a")], clips=[clip], sets=[concurrent_set(3, a=2.0)], files=["x"], folder="clips"
    )
    assert read(folder, media="clips")[0]["x"].concurrent == Concurrent("3", 12_500_000_000)


def test_an_offset_that_is_no_number_costs_the_set_its_offsets_and_not_its_group(download):
    sets = [concurrent_set(3, a="soon", b=1.0)]
    found, faults = read(download([video("a"), video("b")], sets=sets))
    assert codes(faults) == [("", "bad_metadata", "noted")]
    assert {r.group_id for r in found.values()} == {"set-3"}
    assert {r.concurrent for r in found.values()} == {None}


def test_a_recording_without_a_set_travels_and_hashes_as_before_there_were_sets(download):
    alone = read(download([video("a")]))[0]["a"]
    assert "concurrent" not in to_plain(alone)
    for recording in (alone, replace(alone, concurrent=Concurrent("3", 5))):
        assert from_plain(Recording, json.loads(json.dumps(to_plain(recording)))) == recording


def test_a_set_that_cannot_be_read_is_noted(download):
    sets = [{"concurrent_video_set_id": 1, "videos": [{"video_uid": 3}]}, 7]
    found, faults = read(download([video("a")], sets=sets))
    assert list(found) == ["a"]
    assert codes(faults) == [("", "bad_metadata", "noted")] * 2


def test_groups_do_not_depend_on_what_is_selected(download):
    videos = [video("a", concurrent_sets=[1]), video("b", concurrent_sets=[1], fb_participant_id=9)]
    assert read(download(videos), recordings=("a",))[0]["a"].group_id == "participant-9"


links = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["participant-1", "participant-10",
    "participant-2", "set-1", "set-2", "footage-x"])), max_size=14)  # fmt: skip


@settings(deadline=None)
@given(pairs=links, order=st.randoms())
def test_groups_are_the_connected_components_in_any_order(pairs, order):
    def names(pairs):
        groups = Groups()
        for uid in "abcdefgh":
            groups.link(uid, ())
        for uid, name in pairs:
            groups.link(uid, (name,))
        return groups.names("abcdefgh")

    reach = {uid: {uid} for uid in "abcdefgh"}
    for _ in range(8):
        for one, name in pairs:
            for other, same in pairs:
                if name == same:
                    reach[one] |= reach[other]
                    reach[other] |= reach[one]
    found = names(pairs)
    for one in "abcdefgh":
        for other in "abcdefgh":
            assert (found[one] == found[other]) == (other in reach[one])
    shuffled = list(pairs)
    order.shuffle(shuffled)
    assert names(shuffled) == found


# -- Selection ---------------------------------------------------------------------------------------


def test_selection_by_id_limit_scenario_and_exclusion(download):
    videos = [
        video(u, scenarios=s)
        for u, s in [("a", ["Cooking"]), ("b", ["Bike", "cooking"]), ("c", []), ("d", None)]
    ]
    folder = download(videos)
    assert list(read(folder)[0]) == list("abcd")
    assert list(read(folder, limit=2)[0]) == list("ab")
    assert list(read(folder, recordings=("c", "a"))[0]) == list("ac")
    assert list(read(folder, scenario=("COOKING",))[0]) == list("ab")
    assert list(read(folder, excluded=("a", "never-seen"))[0]) == list("bcd")
    assert list(read(folder, excluded=("a",), scenario=("cooking",), limit=1)[0]) == ["b"]


def test_a_scenario_may_hold_a_comma(download):
    folder = download(
        [video("e", scenarios=["Car - commuting, road trip"]), video("f", scenarios=["Cooking"])]
    )
    words = ("Car - commuting", "road trip", "cooking")
    assert list(read(folder, scenario=words[:2])[0]) == ["e"]
    assert list(read(folder, scenario=words)[0]) == ["e", "f"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recordings": ("alpho",)}, "no 'alpho', did you mean 'alpha'"),
        ({"scenario": ("Cookin",)}, "labelled 'Cookin', did you mean 'Cooking'"),
        ({"media": "fullscale"}, "did you mean 'full_scale'"),
    ],
)
def test_a_selection_that_cannot_be_meant_is_a_usage_error_at_once(download, options, message):
    with pytest.raises(UsageError, match=message):
        find_source("ego4d")(SourceOptions(input=str(download([video("alpha")])), **options))


def test_an_unknown_source_is_a_usage_error_that_names_those_known():
    with pytest.raises(UsageError, match=r"did you mean 'ego4d'.*known: .*ego4d"):
        find_source("egod4")


def test_a_folder_without_metadata_is_a_usage_error_that_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no ego4d\.json.*--metadata"):
        read(tmp_path)


def test_the_newest_version_is_preferred(download):
    folder = download([video("new")])
    (folder / "v1").mkdir()
    (folder / "v1" / "ego4d.json").write_text(json.dumps({"videos": [video("old")]}))
    assert list(read(folder)[0]) == ["new"]
    assert codes(read(folder / "v1")[1]) == [("old", "missing_file", "noted")]


# -- Faults ------------------------------------------------------------------------------------------


def test_missing_and_unknown_files_are_reported_and_not_fatal(download):
    folder = download([video("a"), video("b")], files=["a", "stranger"], imu=["a", "b", "other"])
    (folder / "v2" / "full_scale" / "manifest.csv").touch()
    (folder / "v2" / "full_scale" / "notes.txt").touch()
    found, faults = read(folder)
    assert list(found) == ["a"]
    noted = [(f.recording_id, f.code, f.detail.split()[0]) for f in faults if f.code != "unexpected_imu"]
    assert noted == [
        ("b", "missing_file", "full_scale/b.mp4"),
        ("", "unknown_file", "full_scale/notes.txt"),
        ("", "unknown_file", "full_scale/stranger.mp4"),
        ("", "unknown_file", "imu/other.csv"),
    ]
    assert all(f.outcome == "noted" and f.windows == 0 for f in faults)


@pytest.mark.parametrize(
    "uid",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc/passwd",
        "a\\b",
        "a\0b",
        "a\nb",
        "\x7f",
        "a\ud800b",
        "x" * 300,
        "é" * 150,
    ],
)
def test_a_uid_that_cannot_name_a_file_is_refused(download, uid):
    found, faults = read(download([video("good"), video(uid), video("also good")]))
    assert list(found) == ["good", "also good"]
    assert [(f.code, f.outcome, f.windows) for f in faults] == [("bad_id", "failed", 0)]
    json.dumps(faults[0].as_dict(), ensure_ascii=False).encode()


@pytest.mark.parametrize("uid", ["a b", "a.b", "'a'", '"a"', "😀", "..a", "-y", "a:b", "%d", "x" * 190])
def test_an_odd_but_possible_file_name_is_taken(download, uid):
    found, faults = read(download([video(uid)]))
    assert found[uid].video.name == f"full_scale/{uid}.mp4"
    assert faults == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fb_participant_id", "x"), ("fb_participant_id", 1.5),
        ("origin_video_id", 4),
        ("scenarios", "Cooking"), ("scenarios", [3]), ("video_metadata", []), ("video_metadata", "x"),
        ("is_stereo", "no"), ("has_imu", 1), ("video_components", {}), ("video_components", [None]),
        ("redacted_intervals", [{"start_sec": 3}]), ("redacted_intervals", [[1, 2]]),
        ("redacted_intervals", [{"start_sec": "a", "end_sec": 2}]), ("video_uid", 5), ("video_uid", None),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_type_costs_its_entry_and_is_named(download, field, value):
    entry = video("bad", **{field: value})
    found, faults = read(download([video("good"), entry, video("fine")], files=["good", "bad", "fine"]))
    assert list(found) == ["good", "fine"]
    faults = [f for f in faults if f.code != "unknown_file"]
    assert [(f.code, f.outcome, f.windows) for f in faults] == [("bad_metadata", "failed", 0)]
    assert "videos[1]" in faults[0].detail
    assert field in faults[0].detail or "an entry" in faults[0].detail or "start_sec" in faults[0].detail


@pytest.mark.parametrize(
    "changed",
    [{"video_start_pts": 1.5}, {"video_duration_pts": "x"}, {"video_duration_pts": 1 << 70},
     {"video_duration_sec": []}, {"video_duration_pts": -5}, {"video_base_denominator": "x"},
     {"video_start_pts": 10**18}],
)  # fmt: skip
def test_impossible_clocks_cost_the_number_and_not_the_recording(download, changed):
    changed = {"video_duration_pts": None, **changed} if "video_duration_sec" in changed else changed
    found, faults = read(download([video("good"), video("bad", video_metadata=media(**changed))]))
    assert list(found) == ["good", "bad"]
    spans = (found["bad"].span, found["good"].span)  # where ticks are bad, the rounded seconds count
    assert max(abs(a - b) for a, b in zip(*map(astuple, spans), strict=True)) < 100
    assert set(codes(faults)) == {("bad", "bad_metadata_value", "noted")}


@pytest.mark.parametrize("value", ["long", float("nan"), float("inf"), -3, 1e300, True, [], {}])
@pytest.mark.parametrize("field", ["duration_sec", "canonical_video_end_sec", "video_duration_sec"])
def test_a_bad_number_is_named_and_counts_as_absent(download, field, value):
    component = {"canonical_video_start_sec": 0.0, "canonical_video_end_sec": 60.0}
    entry = video("a", video_components=[component], video_metadata=None)
    if field == "canonical_video_end_sec":
        if value == -3:
            pytest.skip("no length")
        component[field] = value
    elif field == "video_duration_sec":
        entry["video_metadata"] = {field: value}
    else:
        entry[field] = value
    found, faults = read(download([entry]))
    assert codes(faults) == [("a", "bad_metadata_value", "noted")]
    assert field.removesuffix("_sec") in faults[0].detail
    assert found["a"].span == (None if field == "duration_sec" else TimeSpan(0, 60 * NS))


@pytest.mark.parametrize("item", [None, 3, "x", [], [[]]])
def test_an_entry_that_is_no_object_costs_itself(download, item):
    found, faults = read(download([video("a"), item, video("b")]))
    assert list(found) == ["a", "b"]
    assert [f.code for f in faults] == ["bad_metadata"]


def test_of_two_entries_with_one_uid_the_first_counts(download):
    found, faults = read(download([video("a"), video("a", is_stereo=True), video("b")]))
    assert list(found) == ["a", "b"]
    assert not found["a"].stereo
    assert codes(faults) == [("a", "duplicate_id", "failed")]


def test_unknown_fields_and_a_byte_order_mark_do_not_matter(download):
    plain = read(download([video("a")]))
    master = {"unknown": {"videos": [1]}, "videos": [video("a", unknown=[{}])], "more": [[1], 2.5], "n": 17}
    assert read(download(files=["a"], raw=b"\xef\xbb\xbf" + json.dumps(master, indent=3).encode())) == plain


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_master_file_is_fatal_and_says_what_to_do(download, keep):
    whole = json.dumps({"videos": [video(f"v{n}") for n in range(50)], "clips": []}).encode()
    with pytest.raises(AlignError, match=r"ego4d\.json .*download it again") as caught:
        read(download(raw=whole[: int(keep * len(whole))]))
    assert caught.value.code == "bad_metadata"


@pytest.mark.parametrize(
    "raw", [b"[]", b"3", b"null", b"{]", b'{"videos": [}', b'{"videos" 3}', b"{3: 4}", b"\x00\x01", b"<html>",
            b'{"a": ' + b"[" * 100_000, b'{"a": [' + b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]
)  # fmt: skip
def test_what_is_not_a_json_object_is_refused_with_a_reason(download, raw):
    with pytest.raises(AlignError, match="not valid JSON"):
        read(download(raw=raw))


# -- The stream --------------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    document=st.dictionaries(st.text(max_size=5), values, max_size=5),
    indent=st.sampled_from([None, 2]),
    chunk=st.integers(1, 9),
)
def test_the_stream_gives_what_the_whole_document_holds_however_it_is_chunked(document, indent, chunk):
    class Trickle:
        def __init__(self, data):
            self.data = data

        def read(self, size):
            piece, self.data = self.data[:chunk], self.data[chunk:]
            return piece

    file = Trickle(json.dumps(document, indent=indent, ensure_ascii=False).encode("utf-8", "replace"))
    document = json.loads(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))
    expected = [
        (key, item)
        for key, value in document.items()
        for item in (value if isinstance(value, list) else [value])
    ]
    assert list(stream_items(file, "x")) == expected


# -- Storage -----------------------------------------------------------------------------------------


def test_local_files_and_uris_are_told_apart(tmp_path):
    assert files.join("gs://bucket/a/", "b", "c.mp4") == "gs://bucket/a/b/c.mp4"
    assert files.join("/in", "b", "c.mp4") == "/in/b/c.mp4"
    assert files.absolute("gs://bucket/a") == "gs://bucket/a"
    assert Path(files.absolute("x")).is_absolute()
    assert files.list_names(str(tmp_path / "nowhere")) == frozenset()
    (tmp_path / "a:b.mp4").write_bytes(b"7")
    assert files.list_names(str(tmp_path)) == {"a:b.mp4"}
    with files.open_binary(files.join(str(tmp_path), "a:b.mp4")) as file:
        assert file.read() == b"7"


def test_the_same_is_read_through_beams_file_systems(download, monkeypatch):
    """They read local paths too, so this takes the way of a bucket without one."""
    folder = download(
        [video("a"), video("b")], files=["a", "x"], imu=["a"], narrations={"a": told(sentence(1.0))}
    )
    local = read(folder)
    monkeypatch.setattr(files, "is_remote", lambda uri: True)
    assert read(folder) == local


# -- Fuzz: whatever a field or byte holds, the recordings beside it are not touched ---------------------


def paths(node, at=()):
    yield at
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield from paths(node[key], (*at, key))


RICH = video(
    "rich", fb_participant_id=3, concurrent_sets=[1], has_imu=True, has_redacted_regions=True,
    redacted_intervals=[{"start_sec": 1, "end_sec": 2}], video_components=[component(0, 9), component(9, 60)],
)  # fmt: skip
odd_values = values | st.sampled_from(
    [float("nan"), float("inf"), -1e300, 1 << 70, "../x", "\ud800", [[]], -0.0]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz") / "v2"
    for name in ("full_scale", "annotations"):
        (root / name).mkdir(parents=True)
    for uid in ("rich", "healthy"):
        (root / "full_scale" / f"{uid}.mp4").touch()
    return root


def write(folder, videos, narrations):
    (folder / "ego4d.json").write_text(json.dumps({"videos": videos}))
    (folder / "annotations" / "narration.json").write_text(json.dumps(narrations))


@settings(deadline=None)
@given(data=st.data())
def test_any_value_in_any_field_leaves_the_healthy_recording_as_it_was(folder, data):
    healthy, text = video("healthy"), {"rich": told(sentence(1.0)), "healthy": told(sentence(2.0))}
    write(folder, [healthy], text)
    expected = read(folder)[0]["healthy"]
    broken = json.loads(json.dumps({"videos": RICH, "narrations": text["rich"]}))
    for _ in range(data.draw(st.integers(1, 2))):
        *above, last = data.draw(st.sampled_from([p for p in paths(broken) if p]))
        node = broken
        for key in above:
            node = node[key]
        node[last] = deepcopy(data.draw(odd_values))
    write(folder, [broken["videos"], healthy], {"rich": broken["narrations"], "healthy": text["healthy"]})
    found, faults = read(folder)
    assert found["healthy"] == expected
    assert "rich" in found or faults
    json.dumps([f.as_dict() for f in faults], ensure_ascii=False).encode()


@settings(deadline=None)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), file=st.sampled_from(["master", "narrations"]))
def test_a_flipped_byte_ends_in_recordings_or_in_a_reason(folder, place, byte, file):
    write(folder, [RICH, video("healthy")], {"rich": told(sentence(1.0)), "healthy": told(sentence(2.0))})
    path = folder / ("ego4d.json" if file == "master" else "annotations/narration.json")
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] = byte
    path.write_bytes(raw)
    reason = ""
    found: dict = {}
    faults: list = []
    try:
        found, faults = read(folder)
    except AlignError as e:
        reason = str(e)
    if file == "narrations":
        assert list(found) == ["rich", "healthy"]
    else:
        assert len(found) == 2 or faults or "download it again" in reason
