"""Tracks that cannot be decoded are told by name and reason; of pictures, the visible part is shown."""

import io
import json
import struct
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import plan_recording
from align.schemas.errors import AlignError
from align.schemas.options import AlignOptions
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS
from align.transforms.align.image import upright_picture
from align.transforms.align.segment import align_segment
from align.transforms.check.inspect import inspect_media
from align.transforms.read.guard import open_media
from align.transforms.read.probe import probe_media
from align.transforms.read.tracks import clean_aperture, tracks_of
from benchmarks.proof.media import ffmpeg
from benchmarks.proof.odd_media import X264, clap, numbered, with_entry_box
from benchmarks.proof.truth import BAR, HEIGHT, WIDTH, number_in

GRID = AlignOptions(window=1, image_size=HEIGHT, require=(), min_coverage=0.0)
KEY = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "7" * 32, "-encryption_kid", "a" * 32)


def planned(path, options=GRID):
    stream = Stream("video", str(path), path.name)
    recording = Recording("odd", "x", "x", stream, audio=Stream("audio", str(path), path.name))
    config = RunConfig(source="odd", input=str(path.parent), output="", sample=options, isolate=False)
    plan = plan_recording(recording, config)
    return plan, [item for segment in plan.segments for item in align_segment(segment, options, "0" * 64)]


def pixels_of(sample):
    return cv2.imdecode(np.frombuffer(sample.image.data, np.uint8), 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same two seconds in each container: path by suffix."""
    folder = tmp_path_factory.mktemp("whole")
    sound = {".mp4": "aac", ".mkv": "aac", ".avi": "libmp3lame"}
    return {
        suffix: numbered(folder / f"whole{suffix}", range(60), *X264, "-c:a", codec)
        for suffix, codec in sound.items()
    }


NAMES = {  # what a header calls picture and sound -> as unknown
    ".mp4": ((b"avc1\0", b"xyz1\0"), (b"mp4a\0\0\0\0", b"apac\0\0\0\0")),
    ".mkv": ((b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"), (b"A_AAC", b"A_XYZ")),
    ".avi": ((b"H264", b"XYZ1"), (b"\x55\0\x01\0\x80\xbb", b"\x99\x99\x01\0\x80\xbb")),
}
CALLED = {".mp4": ("xyz1", "apac"), ".mkv": ("V_MPEG4/ISO/XYZ", "A_XYZ"), ".avi": ("XYZ1", "0x9999")}


def renamed(source, path, *kinds):
    """A copy whose header calls tracks by names that nobody knows; of MP4 sound, without its descriptor."""
    data = source.read_bytes()
    for kind in kinds:
        old, new = NAMES[source.suffix][kind]
        assert old in data
        data = data.replace(old, new)
        if source.suffix == ".mp4" and kind == 1:
            data = data.replace(b"esds", b"dapa")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", NAMES)
def test_a_picture_of_an_unknown_codec_is_unsupported_and_named(whole, tmp_path, suffix):
    path = renamed(whole[suffix], tmp_path / f"x{suffix}", 0)
    plan, items = planned(path)
    (fault,) = plan.faults
    assert (fault.code, fault.outcome, items) == ("unsupported", "failed", [])
    assert CALLED[suffix][0] in fault.detail
    (view, *_) = inspect_media(str(path))
    assert view.name == f"0 video unknown codec ({CALLED[suffix][0]})"
    assert any(f.startswith("unsupported: ") for f in view.faults)


@pytest.mark.parametrize("suffix", NAMES)
def test_sound_of_an_unknown_codec_is_null_for_that_reason_and_noted(whole, tmp_path, suffix):
    path = renamed(whole[suffix], tmp_path / f"x{suffix}", 1)
    plan, items = planned(path)
    notes = [f for f in plan.faults if f.code == "unsupported"]
    assert [(f.outcome, f.windows) for f in notes] == [("noted", 0)]
    assert CALLED[suffix][1] in notes[0].detail
    assert items
    assert all(i.image and i.audio is None and i.missing["audio"] == "unsupported" for i in items)
    assert inspect_media(str(path))[1].name == f"1 audio unknown codec ({CALLED[suffix][1]})"


@pytest.mark.parametrize("index", [None, 0])
def test_a_stream_asked_for_by_number_is_told_alike(whole, tmp_path, index):
    media = probe_media(str(renamed(whole[".mp4"], tmp_path / "x.mp4", 0)), video_index=index)
    assert (media.video, media.closed_of("video").reason) == (None, "unsupported")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_sound_that_is_known_is_taken_beside_sound_that_is_not(whole, tmp_path, order):
    """As on telephones that record AAC and a spatial codec: whichever comes first."""
    both = tmp_path / "both.mp4"
    maps = [part for n in order for part in ("-map", f"{n}:a")]
    video, other = whole[".mp4"], numbered(tmp_path / "o.mp4", range(60), *X264, "-c:a", "aac", "-ac", "2")
    ffmpeg("-i", video, "-i", other, "-map", "0:v", *maps, "-c", "copy", both)
    data = both.read_bytes()
    entry = data.index(b"mp4a\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\2")  # the one of two channels
    both.write_bytes(data[:entry] + b"apac" + data[entry + 4 :].replace(b"esds", b"dapa", 1))
    media = probe_media(str(both))
    assert media.audio.index == 1 + order.index(0)
    assert [(t.codec, t.reason) for t in media.closed] == [("apac", "unsupported")]
    assert all(item.audio for item in planned(both)[1])


def test_what_only_the_header_can_tell_is_still_no_video(whole, tmp_path):
    sound = tmp_path / "sound.mp4"
    ffmpeg("-i", whole[".mp4"], "-vn", "-c", "copy", sound)
    (fault,) = planned(sound)[0].faults
    assert fault.code == "no_video"
    assert "no video stream" in fault.detail


@pytest.mark.parametrize("movflags", ["faststart", "frag_keyframe+empty_moov"])
def test_an_encrypted_file_is_told_as_encrypted_and_gives_nothing(whole, tmp_path, movflags):
    path = tmp_path / "locked.mp4"
    ffmpeg("-i", whole[".mp4"], "-c", "copy", "-movflags", movflags, *KEY, path)
    plan, items = planned(path)
    assert [f.code for f in plan.faults] == ["encrypted"]
    assert not items


def test_encrypted_sound_beside_a_picture_in_the_clear(whole, tmp_path):
    """The sample entry of the sound alone says that it is locked (ISO/IEC 14496-12, 8.12)."""
    data = whole[".mp4"].read_bytes()
    path = tmp_path / "half.mp4"
    at = data.index(b"mp4a\0\0\0\0")
    path.write_bytes(data[:at] + b"enca" + data[at + 4 :])
    plan, items = planned(path)
    assert "encrypted" in {f.code for f in plan.faults if f.outcome == "noted"}
    assert {i.missing["audio"] for i in items} == {"encrypted"}
    assert all(i.image for i in items)
    assert "encrypted: audio stream 1" in inspect_media(str(path))[1].faults[0]


@pytest.mark.parametrize("shares", [(True, True), (True, False), (False, True)])
def test_scrambled_packets_of_mpeg_ts_are_told_by_their_mark(whole, tmp_path, shares):
    path = tmp_path / "x.ts"
    ffmpeg("-i", whole[".mp4"], "-c", "copy", path)
    data = bytearray(path.read_bytes())
    locked = [number for number, is_locked in zip((256, 257), shares, strict=True) if is_locked]
    for at in range(0, len(data), 188):
        if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF in locked:
            data[at + 3] |= 0x80
            start = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
            data[start : at + 188] = bytes(b ^ 0x5A for b in data[start : at + 188])
    path.write_bytes(data)
    plan, items = planned(path)
    if shares[0]:
        assert ([f.code for f in plan.faults], items) == (["encrypted"], [])
    else:
        assert {i.missing["audio"] for i in items} == {"encrypted"}
        assert all(i.image for i in items)


def test_bare_video_says_what_to_do(whole, tmp_path):
    for name, codec in (("x.h264", "copy"), ("x.hevc", "libx265")):
        ffmpeg("-i", whole[".mp4"], "-an", "-c:v", codec, tmp_path / name)
        (fault,) = planned(tmp_path / name)[0].faults
        assert fault.code == "unknown_format"
        assert "put it into a container" in fault.detail


def test_encrypted_matroska_is_told_by_its_content_encoding(whole, tmp_path):
    """A track entry with ContentEncodings, of type 1 (RFC 9559, 5.1.4.1.31)."""
    data = whole[".mkv"].read_bytes()
    path = tmp_path / "locked.mkv"
    kind = element(b"\x50\x33", b"\1") + element(b"\x50\x35", element(b"\x47\xe1", b"\5"))
    path.write_bytes(in_first_track(data, element(b"\x6d\x80", element(b"\x62\x40", kind))))
    tracks = tracks_of(io.BytesIO(path.read_bytes()), "matroska,webm")
    assert [t.encrypted for t in tracks.values()] == [True, False]
    assert [f.code for f in planned(path)[0].faults] == ["encrypted"]


def element(kind, content):
    return kind + bytes([0x80 | len(content)]) + content


def in_first_track(data, extra, *, within=False):
    """Add an element to the first track entry of a Matroska file, or to its Video element."""
    tracks = data.index(b"\x16\x54\xae\x6b")
    entry = data.index(b"\xae\x01", tracks)
    places = [tracks + 4, entry + 1]
    end = entry + 9 + int.from_bytes(data[entry + 1 : entry + 9], "big") - (1 << 56)
    if within:
        video = data.index(b"\xb0\x82", entry) - 2  # its first element is the width
        places.append(video + 1)
        end = video + 2 + data[video + 1] - 0x80
    out = bytearray(data)
    for at in places:
        width = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + width], "big") + len(extra)
        out[at : at + width] = size.to_bytes(width, "big")
    out[end:end] = extra
    return bytes(out)


def test_attachments_and_data_tracks_are_listed(whole, tmp_path):
    path, note = tmp_path / "with.mkv", tmp_path / "note.bin"
    note.write_bytes(bytes(99))
    ffmpeg("-i", whole[".mkv"], "-c", "copy", "-attach", note, "-metadata:s:2", "mimetype=x/y", path)
    assert [v.name.split(" ")[1] for v in inspect_media(str(path))] == ["video", "audio", "attachment"]


def test_inspect_prints_an_unknown_codec_and_exits_with_0(whole, tmp_path):
    path = renamed(whole[".mp4"], tmp_path / "x.mp4", 1)
    command = [sys.executable, "-m", "align.pipeline.cli", "inspect", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 audio unknown codec (apac)" in done.stdout


# -- The visible part ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "crop"),
    [
        (clap(128, 64), (64, 32, 128, 64)),
        (clap(256, 128), None),
        (clap(100, 50, 30, -20), (108, 19, 100, 50)),
        (clap(201, 99, 1, -3, per=2), (78, 38, 101, 49)),  # 77.75+.5 to 178.75, 39.25-1.5 to 87.25
        (clap(127, 64), (65, 32, 127, 64)),  # 64.5 rounds up at both edges
        (clap(300, 200), None),
        (clap(256, 128, 64), (64, 0, 192, 128)),  # kept within the picture
        (clap(0, 64), None),
        (clap(128, 64, per=0), None),
        (b"short", None),
    ],
)
def test_a_clean_aperture_is_rounded_edge_by_edge(box, crop):
    assert clean_aperture(box, 256, 128) == crop


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_the_crop_comes_before_the_display_matrix(tmp_path, turn):
    """The left half holds the number, the right half its complement."""
    plain, path = tmp_path / "plain.mp4", tmp_path / "crop.mp4"
    numbered(plain, range(60), *X264, sound=False)
    ffmpeg("-display_rotation", turn, "-i", plain, "-c", "copy", path)
    with_entry_box(path, b"clap", clap(WIDTH // 2, HEIGHT, -WIDTH // 4))
    for sample in planned(path)[1]:
        pixels = np.rot90(pixels_of(sample), -turn // 90)
        assert pixels.shape == (HEIGHT, WIDTH // 2, 3)
        bits = pixels.reshape(HEIGHT, -1, BAR, 3)[4:-4, :, 2:-2].mean(axis=(0, 2, 3)) > 127
        assert int((bits << np.arange(16)).sum()) == round(sample.image.time_ns * 30 / NS)


def test_matroskas_crop_is_applied(whole, tmp_path):
    path = tmp_path / "crop.mkv"
    right = element(b"\x54\xdd", struct.pack(">H", WIDTH // 2))
    path.write_bytes(in_first_track(whole[".mkv"].read_bytes(), right, within=True))
    assert probe_media(str(path)).video.crop == (0, 0, WIDTH // 2, HEIGHT)
    assert all(pixels_of(s).shape[1] * 2 >= HEIGHT for s in planned(path)[1])


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "rgb24", "gbrp"])
def test_a_cropped_picture_is_the_cut_of_the_whole_one(pixel_format):
    x, y = np.meshgrid(np.arange(96), np.arange(64))
    rgb = np.stack([x * 2, y * 3, 200 - x], -1).astype(np.uint8)
    frame = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixel_format)
    whole = upright_picture(frame, 0, size=64).pixels.astype(int)
    left, top, width, height = crop = (13, 7, 51, 39)
    cut = upright_picture(frame, 0, size=height, crop=crop).pixels.astype(int)
    assert cut.shape == (height, width, 3)
    assert np.abs(cut - whole[top : top + height, left : left + width]).max() <= 1


def test_a_file_that_says_nothing_odd_is_read_as_before(whole):
    video = probe_media(str(whole[".mp4"])).video
    assert (video.crop, video.is_nominal, video.is_reconfigured, video.has_layers) == (None,) * 4
    assert probe_media(str(whole[".mp4"])).closed is None


@pytest.mark.parametrize("suffix", [*NAMES])
def test_no_damage_to_a_header_makes_its_reading_raise(whole, suffix):
    data = whole[suffix].read_bytes()
    with av.open(str(whole[suffix])) as container:
        name = container.format.name
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 40):
            damaged[at] = rng.integers(256)
        cut = bytes(damaged[: rng.integers(1, len(data))])
        assert isinstance(tracks_of(io.BytesIO(cut), name), dict)


def test_spatial_video_is_named_and_its_base_view_taken(tmp_path):
    """The box of the further layers (ISO/IEC 14496-15, ``lhvC``) stands in the sample entry of HEVC."""
    x265 = (
        "-c:v",
        "libx265",
        "-pix_fmt",
        "yuv420p",
        "-tag:v",
        "hvc1",
        "-x265-params",
        "log-level=error:pools=1",
    )
    path = numbered(tmp_path / "spatial.mp4", range(60), *x265, sound=False)
    with_entry_box(path, b"lhvC", bytes(20))
    plan, items = planned(path)
    assert "base_view" in {f.code for f in plan.faults if f.outcome == "noted"}
    assert [number_in(pixels_of(i)) for i in items] == [15, 45]


# -- As a user runs it ------------------------------------------------------------------------------------


def test_reasons_of_closed_tracks_reach_shards_and_failures(
    whole, tmp_path, clone_input, align_run, run_result
):
    root = clone_input(tmp_path / "in", ["mute", "locked", "odd"])
    renamed(whole[".mp4"], root / "full_scale" / "mute.mp4", 1)
    renamed(whole[".mp4"], root / "full_scale" / "odd.mp4", 0)
    ffmpeg("-i", whole[".mp4"], "-c", "copy", *KEY, root / "full_scale" / "locked.mp4")
    out = align_run(root.parent, options={"window": 1}, max_failures=1.0)
    rows, faults = run_result(out)
    assert {dict(r["missing"])["audio"] for r in rows.values()} == {"unsupported"}
    lost = {name: [f["code"] for f in found if f["outcome"] == "failed"] for name, found in faults.items()}
    assert lost == {"mute": [], "locked": ["encrypted"], "odd": ["unsupported"]}
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert counts["windows_planned"] == counts["windows_written"] + counts["failed"]


def test_real_instances_have_their_right_reading(shared_data):
    awkward = shared_data / "awkward"
    crop = probe_media(str(awkward / "clean_aperture_crop.mp4")).video.crop
    assert crop == (64, 32, 128, 64)
    spatial = awkward / "iphone_apac_second_track.mp4"
    assert probe_media(str(spatial)).audio.codec == "aac"
    assert "unknown codec (apac)" in inspect_media(str(spatial))[2].name


def test_a_damaged_header_that_is_not_encrypted_is_only_damaged(tmp_path):
    path = tmp_path / "bad.mp4"
    path.write_bytes(struct.pack(">I4s", 16, b"ftyp") + b"isom\0\0\0\0" + bytes(200))
    with pytest.raises(AlignError) as caught:
        open_media(str(path))
    assert caught.value.code == "bad_container"
