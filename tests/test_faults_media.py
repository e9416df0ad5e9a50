"""Every broken video ends as its reason; the healthy recordings beside it are what they are without it."""

import ctypes
import os
import re
import struct
import subprocess
import sys
import zlib
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np
import pytest

SECOND = {"window": 1, "stride": 1}
HEALTHY = ("healthy-a", "healthy-b")


def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


def source(size="64x48", rate=10, seconds=4):
    return ("-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}")


SOUND = ("-f", "lavfi", "-i", "sine=duration=4")
H264 = ("-c:v", "libx264", "-g", "10", "-threads", "1")


def flipped(path):
    """Forty bytes of the coded pictures are turned over."""
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 64
    for at in np.random.default_rng(1).integers(start, len(data) - 4096, 40):
        data[at] ^= 0xFF
    path.write_bytes(data)


def faststart_cut(path):
    whole = path.with_suffix(".whole.mp4")
    ffmpeg("-i", path, "-c", "copy", "-movflags", "+faststart", whole)
    data = whole.read_bytes()
    whole.unlink()
    path.write_bytes(data[: len(data) * 6 // 10])


def ten_times_longer(path):
    """The header claims ten times the duration, in all of its boxes."""
    data = bytearray(path.read_bytes())
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        for found in re.finditer(box, data):
            at = found.start() + offset
            (old,) = struct.unpack_from(">I", data, at)
            struct.pack_into(">I", data, at, old * 10)
    path.write_bytes(data)


def moov_missing(path):
    data = path.read_bytes()
    path.write_bytes(data[: data.find(b"moov") - 4])


def replaced_by_directory(path):
    path.unlink()
    path.mkdir()


def broken_link(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere.mp4")


def matroska_by_name(path):
    other = path.with_suffix(".mkv")
    ffmpeg("-i", path, "-c", "copy", other)
    other.rename(path)


def pixels_16k(path):
    """16 384 x 8192 pixels in 17 kB; in RGB 400 MB. libavcodec itself refuses twice the height."""
    size = (16_384, 8192)
    rows = zlib.compress((b"\0" + bytes(size[0] // 8)) * size[1])
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = *size, "monob"
        for second in range(4):
            packet = av.Packet(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
            packet.stream, packet.pts, packet.dts, packet.duration = stream, second, second, 1
            packet.time_base, packet.is_keyframe = Fraction(1), True
            container.mux(packet)


def one_pixel(path):
    raw = path.with_suffix(".rgb")
    raw.write_bytes(b"\xff\x00\x00" * 40)
    picture = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "1x1", "-r", "10", "-i", raw)
    ffmpeg(*picture, "-c:v", "png", "-f", "matroska", path)
    raw.unlink()


def empty_tracks(path):
    ffmpeg(*source(seconds=0.001), *SOUND, "-t", "0", "-c:v", "libx264", "-c:a", "aac", path)


# What is done to the file; the code of the fault it ends as, or None where it is readable after all.
FAULTS = {
    "zero-byte": (lambda path: path.write_bytes(b""), "empty_file"),
    "moov-missing": (moov_missing, "bad_container"),
    "faststart-cut": (faststart_cut, "decode_error"),
    "flipped-bytes": (flipped, None),
    "random-bytes": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(9999)), "unknown_format"),
    "text": (lambda path: path.write_text("no video\n" * 99), "unknown_format"),
    "matroska": (matroska_by_name, None),
    "durations-x10": (ten_times_longer, None),
    "audio-only": (lambda path: ffmpeg(*SOUND, "-c:a", "aac", path), "no_video"),
    "video-only": (lambda path: ffmpeg(*source(), *H264, path), None),
    "empty-tracks": (empty_tracks, "no_video"),
    "ten-bit": (lambda path: ffmpeg(*source(), *H264, "-pix_fmt", "yuv420p10le", path), None),
    "odd-size": (lambda path: ffmpeg(*source("65x47"), *H264, "-pix_fmt", "yuv444p", path), None),
    "one-pixel": (one_pixel, None),
    "pixels-16k": (pixels_16k, "too_many_pixels"),
    "directory": (replaced_by_directory, "not_a_file"),
    "pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "not_a_file"),
    "broken-link": (broken_link, "missing_file"),
    "several-tracks": (
        lambda path: ffmpeg(*source("32x32"), *source("64x48"), "-map", 0, "-map", 1, *H264, path),
        None,
    ),
}


@pytest.fixture(scope="module")
def alone(align_run, clone_input, run_result, tmp_path_factory):
    return run_result(
        align_run(clone_input(tmp_path_factory.mktemp("healthy"), HEALTHY).parent, options=SECOND)
    )


@pytest.fixture(scope="module")
def together(align_run, clone_input, run_result, tmp_path_factory):
    root = clone_input(tmp_path_factory.mktemp("broken"), [HEALTHY[0], *FAULTS, HEALTHY[1]])
    for name, (damage, _) in FAULTS.items():
        damage(root / "full_scale" / f"{name}.mp4")
    return run_result(align_run(root.parent, options=SECOND, max_failures=1.0))


def test_healthy_recordings_are_written_whole_and_unchanged(alone, together):
    rows = {key: row for key, row in together[0].items() if row["recording_id"] in HEALTHY}
    assert len(rows) == 8
    assert rows == alone[0]
    assert not alone[1]


@pytest.mark.parametrize("name", FAULTS)
def test_broken_media_ends_as_its_reason(together, name):
    rows = [r for r in together[0].values() if r["recording_id"] == name]
    faults = [f for f in together[1].get(name, []) if f["outcome"] == "failed"]
    expected = FAULTS[name][1]
    if expected is None:
        assert rows
        assert {f["code"] for f in faults} <= {"decode_error"}
    else:
        assert {f["code"] for f in faults} == {expected}
        assert not [f for f in faults if os.sep + "tmp" in f["detail"]]


def test_a_file_that_is_cut_short_loses_only_what_is_cut(together):
    rows = [r for r in together[0].values() if r["recording_id"] == "faststart-cut"]
    faults = together[1]["faststart-cut"]
    assert rows
    assert len(rows) + sum(f["windows"] for f in faults) == 4


def test_messages_name_files_as_the_input_does_and_hold_no_place(together):
    details = [f["detail"] for faults in together[1].values() for f in faults]
    assert details
    assert not [d for d in details if str(os.getcwd()) in d or "/v2/" in d or "pytest" in d]


def test_unusual_pictures_lose_no_window(together):
    for name in ("ten-bit", "odd-size", "one-pixel"):
        assert len([r for r in together[0].values() if r["recording_id"] == name]) == 4


PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2  # <linux/prctl.h>, <linux/capability.h>


def bound_by_permissions():
    """Of a process about to start: the rights by which root reads any file; nobody else has them."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def test_files_that_may_not_be_read_cost_what_they_hold(alone, clone_input, run_result, tmp_path):
    root = clone_input(tmp_path / "in", [HEALTHY[0], "locked-video", "locked-table"])
    for name in ("full_scale/locked-video.mp4", "imu/locked-table.csv"):
        (root / name).chmod(0)
    program = [sys.executable, "-m", "align.pipeline.cli", "run", "--source", "ego4d", "--window", "1"]
    places = ["--input", root.parent, "--output", tmp_path / "out"]
    done = subprocess.run(
        [*program, *places, "--workers", "1", "--max-failures", "1"],
        preexec_fn=bound_by_permissions, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, faults = run_result(tmp_path / "out")
    healthy = {key: row for key, row in alone[0].items() if row["recording_id"] == HEALTHY[0]}
    assert {key: row for key, row in rows.items() if row["recording_id"] == HEALTHY[0]} == healthy
    assert {f["code"] for f in faults["locked-video"]} == {"unreadable_file"}
    table = [row for row in rows.values() if row["recording_id"] == "locked-table"]
    assert {dict(row["missing"])["imu"] for row in table} == {"invalid"}
    assert len(table) == 4
    assert "unreadable_file" in {f["code"] for f in faults["locked-table"]}
