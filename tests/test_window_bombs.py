"""Headers that claim years, millions of pictures or boxes: a fault before work, and honest files beside."""

import io
import struct

import pytest

import align
from align.pipeline.config import RunConfig
from align.pipeline.job.run import plan
from align.schemas.errors import AlignError, UsageError
from align.schemas.options import AlignOptions
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS, TimeSpan
from align.transforms.plan.windows import plan_windows
from align.transforms.read.payload import Payload
from align.transforms.read.probe import probe_media

SECOND = {"window": 1, "stride": 1}


def patched(data, box, *values, at=4):
    """An MP4 with 32-bit fields of its first box of a kind replaced, ``at`` bytes after the type."""
    data = bytearray(data)
    place = data.index(box) + 4 + at
    struct.pack_into(f">{len(values)}I", data, place, *values)
    return bytes(data)


def slow(data):
    """Each frame lasts some 190,000 s."""
    data = patched(data, b"mdhd", 1, at=12)
    return patched(data, b"stts", 190_000, at=12).replace(b"edts", b"free", 1)


def crowded(data, count=10_000_000):
    """So many samples of one byte."""
    data = patched(data, b"stts", count, at=8)
    data = patched(data, b"stsz", 1, count)
    data = patched(data, b"stsc", 1, 1, count)
    for box in (b"ctts", b"stss"):
        data = data.replace(box, b"free", 1)
    return data + b"\0" * count


@pytest.fixture
def video(clone_input, tmp_path):
    root = clone_input(tmp_path / "in", ["bomb", "healthy"])
    return root / "full_scale" / "bomb.mp4"


def config(video, **changes):
    options = AlignOptions(**SECOND)
    return RunConfig(
        source="ego4d", input=str(video.parent.parent.parent), sample=options, workers=1, **changes
    )


def test_a_small_file_that_claims_years_is_a_fault_of_its_own(video, run_result, align_run):
    video.write_bytes(slow(video.read_bytes())[: 1 << 20])
    rows, faults = run_result(align_run(video.parent.parent.parent, options=SECOND, max_failures=1.0))
    (fault,) = (f for f in faults["bomb"] if f["outcome"] == "failed")
    assert fault["code"] == "too_many_windows"
    assert fault["stage"] == "plan"
    assert fault["windows"] == 4  # what the metadata says of it
    assert {key.split("-")[1] for key in rows} == {"healthy"}


def test_a_span_far_beyond_the_metadata_is_noted(video):
    data = video.read_bytes()
    (scale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    video.write_bytes(patched(data, b"mdhd", scale // 10, at=12).replace(b"edts", b"free", 1))
    assert plan(config(video)).notes["longer_than_metadata"] == 1


def test_a_run_of_more_windows_than_allowed_ends_before_it_decodes(video, tmp_path):
    with pytest.raises(AlignError, match="8 windows are planned, more than --max-windows 7") as caught:
        align.run(config(video, max_windows=7, output=str(tmp_path / "out")))
    assert caught.value.code == "too_many_windows"
    assert not list((tmp_path / "out").glob("data/*"))
    assert plan(config(video, max_windows=7)).notes["too_many_windows"] == 1
    assert plan(config(video, max_windows=8)).notes["too_many_windows"] == 0
    with pytest.raises(UsageError, match="max_windows"):
        config(video, max_windows=0)


def test_millions_of_pictures_in_a_small_file_are_refused_before_they_are_counted(video):
    video.write_bytes(crowded(video.read_bytes()))
    with pytest.raises(AlignError, match="10000000 pictures") as caught:
        probe_media(str(video))
    assert caught.value.code == "bad_container"


def test_a_million_boxes_are_refused(video):
    video.write_bytes(video.read_bytes() + struct.pack(">I4s", 8, b"free") * 1_000_000)
    with pytest.raises(AlignError, match="boxes") as caught:
        probe_media(str(video))
    assert caught.value.code == "bad_container"


def test_fragments_are_found_without_looking_at_all_boxes():
    box = struct.pack(">I4s", 8, b"moof")
    assert Payload(io.BytesIO(struct.pack(">I4s", 8, b"ftyp") + box * 1_000_000)).is_fragmented
    assert not Payload(io.BytesIO(struct.pack(">I4s", 8, b"free") * 999)).is_fragmented


def recording():
    return Recording("s", "r", "g", Stream("video", "v.mp4", "v.mp4"))


@pytest.mark.parametrize(
    ("what", "seconds", "payload", "stride_s"),
    [
        ("time-lapse at 0.5 fps, 24 h, 2 kB a picture", 86_400, 86_400 * 1000, 1.0),
        ("a still screen at 30 fps, 10 h, 12 bytes a frame", 36_000, 36_000 * 30 * 12, 0.1),
        ("a still screen at 0.5 fps, 10 h, 30 bytes a frame", 36_000, 36_000 * 15, 0.1),
        ("one picture that stands for an hour", 3_600, 5_000, 1.0),
        ("a clip of four kilobytes", 4, 4_000, 0.001),
    ],
)
def test_sparse_but_honest_recordings_are_planned(what, seconds, payload, stride_s):
    options = AlignOptions(window=1, stride=stride_s)
    planned = plan_windows(recording(), TimeSpan(0, seconds * NS), (), options, payload=payload).planned
    assert planned == (seconds * NS - NS) // options.stride_ns + 1, what


@pytest.mark.parametrize("payload", [831, 100_000, 1_800_000])
def test_windows_follow_from_what_the_file_holds(payload):
    options = AlignOptions(**SECOND)
    plan_windows(recording(), TimeSpan(0, (10_000 + payload) * NS), (), options, payload=payload)
    with pytest.raises(AlignError) as caught:
        plan_windows(recording(), TimeSpan(0, (10_001 + payload) * NS), (), options, payload=payload)
    assert caught.value.code == "too_many_windows"
