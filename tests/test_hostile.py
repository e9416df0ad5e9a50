"""Inputs that want more than to be read: nothing they name is opened, nothing they hold is run or swells."""

import html
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest

from align.pipeline.process.isolation import MEMORY_BYTES
from align.schemas.errors import AlignError, UsageError, without_secrets
from align.transforms.sync.clocks import read_clocks

SECOND = {"window": 1, "stride": 1}
PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    "<AdaptationSet><Representation><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
}


@pytest.fixture
def listener():
    """A server on the loopback that counts who calls."""
    hits = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def listen():
            while not done.is_set():
                try:
                    server.accept()[0].close()
                    hits.append(1)
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], hits
        done.set()
        thread.join()


def test_playlists_in_place_of_videos_are_refused_and_call_nobody(
    align_run, clone_input, run_result, tmp_path, listener
):
    port, hits = listener
    targets = {
        "local": "{root}/full_scale/healthy.mp4",
        "relative": "healthy.mp4",
        "http": "http://127.0.0.1:{port}/x.mp4",
        "secret": "/etc/passwd",
    }
    names = [f"{kind}-{target}" for kind in PLAYLISTS for target in targets]
    root = clone_input(tmp_path, ["healthy", *names])
    for name in names:
        kind, target = name.split("-")
        named = targets[target].format(root=root, port=port)
        (root / "full_scale" / f"{name}.mp4").write_text(PLAYLISTS[kind].format(target=named, port=port))
    rows, faults = run_result(align_run(root.parent, options=SECOND, max_failures=1.0))
    assert {r["recording_id"] for r in rows.values()} == {"healthy"}
    assert {name: faults[name][0]["code"] for name in names} == dict.fromkeys(names, "unknown_format")
    assert not hits


NAMES = (
    "-y",
    "a:b",
    "file:x",
    "concat:a|b",
    "subfile,,start,0,end,9,,:x",
    "pipe:0",
    "data:x",
    "f%03d",
    "|x",
    "$(x)",
)


def test_no_character_of_a_name_means_anything(align_run, clone_input, run_result, tmp_path):
    rows, _ = run_result(align_run(clone_input(tmp_path, NAMES).parent, options=SECOND))
    assert {r["recording_id"] for r in rows.values()} == set(NAMES)
    pictures = {}
    for row in rows.values():
        pictures.setdefault(row["start_ns"], set()).add(row["image"]["bytes"])
    assert [len(seen) for seen in pictures.values()] == [1] * 4


def test_links_out_of_the_input_are_followed_only_on_request(align_run, clone_input, run_result, tmp_path):
    outside = clone_input(tmp_path / "outside", ["secret"])
    root = clone_input(tmp_path / "in", ["inside", "linked", "table"])
    for name, kind, end in (("linked", "full_scale", "mp4"), ("table", "imu", "csv")):
        (root / kind / f"{name}.{end}").unlink()
        (root / kind / f"{name}.{end}").symlink_to(outside / kind / f"secret.{end}")
    (root / "full_scale/inside.mp4").rename(root / "full_scale/moved.bin")
    (root / "full_scale/inside.mp4").symlink_to("moved.bin")
    rows, faults = run_result(align_run(root.parent, options=SECOND, max_failures=1.0))
    assert {r["recording_id"] for r in rows.values()} == {"inside", "table"}
    assert faults["linked"][0]["code"] == "link_outside"
    assert {r["imu"] is None for r in rows.values() if r["recording_id"] == "table"} == {True}
    assert "link_outside" in {f["code"] for f in faults["table"]}
    rows, _ = run_result(align_run(root.parent, options=SECOND, allow_symlinks=True))
    assert {r["recording_id"] for r in rows.values()} == {"inside", "linked", "table"}
    assert all(r["imu"] for r in rows.values())


def png(size):
    """A black picture: of many pixels in few bytes."""
    rows = zlib.compress((b"\0" + bytes(size[0] // 8)) * size[1])
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture_bomb(path, size, true):
    """Four seconds of pictures, the first few of which are as large as the header claims."""
    claimed = (64, 48)
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = *claimed, "monob"
        for frame in range(40):
            packet = av.Packet(png(claimed if frame < true else size))
            packet.stream, packet.pts, packet.dts, packet.duration = stream, frame, frame, 1
            packet.time_base, packet.is_keyframe = Fraction(1, 10), True
            container.mux(packet)


HELD_HERE = """
def held_here():
    # Of this program alone: a process's own ru_maxrss counts what held it before exec, the tests' process.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
"""

MEASURED = (
    HELD_HERE
    + """
import resource, sys
import align
from align.pipeline.config import RunConfig
from align.pipeline.process import isolation
from align.schemas.options import AlignOptions
options = AlignOptions(window=1, stride=1)
paths = {"input": sys.argv[1], "output": sys.argv[2]}
align.run(RunConfig(source="ego4d", sample=options, workers=1, max_failures=1.0, **paths))
isolation._POOL.close()
print(held_here() * 1024)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
)


@pytest.fixture
def measured_run(tmp_path):
    """A run in a process of its own: its output, and the most memory that it and its children held, bytes."""

    def run(folder):
        command = [sys.executable, "-c", MEASURED, str(folder), str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return tmp_path / "out", [int(line) for line in done.stdout.splitlines()[-2:]]

    return run


@pytest.mark.parametrize("true", [0, 12], ids=["at once", "later"])
def test_a_picture_that_is_larger_than_its_header_says_cannot_swell(
    measured_run, clone_input, run_result, tmp_path, true
):
    root = clone_input(tmp_path / "in", ["bomb", "healthy"])
    picture_bomb(root / "full_scale/bomb.mp4", (16_384, 8192), true)
    out, held = measured_run(root.parent)
    rows, faults = run_result(out)
    assert len([r for r in rows.values() if r["recording_id"] == "healthy"]) == 4
    pictured = [r for r in rows.values() if r["recording_id"] == "bomb" and r["image"]]
    assert len(pictured) == (1 if true else 0)
    assert "bomb" in faults
    assert max(held) < MEMORY_BYTES


COMMAND_MEASURED = (
    HELD_HERE
    + """
import resource
from align.pipeline.cli import main
from align.pipeline.process.isolation import stop_idle
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
stop_idle()
print(held_here(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
)


def test_sync_and_inspect_hold_no_picture_bomb_either(clone_input, tmp_path):
    """Some pictures as small as the header says, then ones of 16384 x 16384, in few bytes."""
    root = clone_input(tmp_path / "in", ["bomb", "healthy"])
    picture_bomb(root / "full_scale/bomb.mp4", (16_384, 16_384), 12)
    clocks = str(tmp_path / "clocks.parquet")
    for arguments in (
        ["sync", "--source", "ego4d", "--input", str(root.parent), "--output", clocks],
        ["inspect", str(root / "full_scale/bomb.mp4")],
    ):
        done = subprocess.run(
            [sys.executable, "-c", COMMAND_MEASURED, *arguments], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert max(int(kb) for kb in done.stdout.splitlines()[-1].split()) * 1024 < MEMORY_BYTES
    status = {r.recording_id: r.status for r in read_clocks(clocks) if r.stream == "imu"}
    assert status["bomb"] == "unobservable"
    assert set(status) == {"bomb", "healthy"}


def sound_bomb(path, seconds):
    """Silence that few bytes hold and gigabytes of samples follow from: eight channels at 384 kHz."""
    with av.open(str(path), "w", format="matroska") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("flac", rate=384_000, layout="7.1")
        for frame in range(40):
            picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            picture.pts = frame
            container.mux(video.encode(picture))
        for block in range(4 * seconds):
            sound = av.AudioFrame.from_ndarray(
                np.zeros((1, 8 * 96_000), np.int16), format="s16", layout="7.1"
            )
            sound.sample_rate, sound.pts = 384_000, block * 96_000
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))


def test_a_sound_bomb_is_read_window_by_window(measured_run, clone_input, run_result, tmp_path):
    root = clone_input(tmp_path / "in", ["bomb"])
    path = root / "full_scale/bomb.mp4"
    sound_bomb(path, seconds=120)
    assert path.stat().st_size < 120 * 8 * 384_000 * 2 / 100
    out, held = measured_run(root.parent)
    rows, _ = run_result(out)
    assert max(held) < MEMORY_BYTES
    assert len(rows) == 4
    assert {r["quality"]["audio_coverage"] for r in rows.values()} == {1.0}


MARKUP = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{7*7}} ${x} `id`",
    "| a | b |\n---\n# head",
    "\x1b[31mred",
)


def test_markup_in_narrations_stays_text(align_run, clone_input, run_result, tmp_path):
    root = clone_input(tmp_path, ["a"])
    told = [{"timestamp_sec": 0.5 + i / 2, "narration_text": text} for i, text in enumerate(MARKUP)]
    (root / "annotations/narration.json").write_text(
        json.dumps({"a": {"narration_pass_1": {"narrations": told}}})
    )
    out = align_run(root.parent, options=SECOND, format=("parquet", "webdataset"))
    rows, _ = run_result(out)
    raw = [text for row in sorted(rows.values(), key=lambda r: r["start_ns"]) for text in row["text_raw"]]
    assert raw == list(MARKUP)
    card = (out / "README.md").read_text()
    assert not [text for text in MARKUP if text in card and text != html.escape(text)]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://h/a.mp4?X-Amz-Signature=abc&b=1 is not there", "https://h/a.mp4 is not there"),
        ("'s3://b/k?token=1' and 'gs://b/k#frag'", "'s3://b/k' and 'gs://b/k'"),
        ("ftp://me:secret@host/x", "ftp://host/x"),
        ("what is 1 + 1? nobody@home knows", "what is 1 + 1? nobody@home knows"),
        ("/data/a?b.mp4", "/data/a?b.mp4"),
    ],
)
def test_messages_hold_no_signatures_or_passwords(text, clean):
    assert without_secrets(text) == clean
    assert AlignError("x", text).detail == clean


def test_messages_speak_of_names():
    uri = "/home/me/in put/a'b.mp4"
    error = AlignError("x", f"{uri!r} is damaged; so is {uri}")
    assert (
        error.naming(uri, "full_scale/a.mp4").detail == "full_scale/a.mp4 is damaged; so is full_scale/a.mp4"
    )
    named = UsageError("s3://b/k?token=1 is gone").naming("s3://b/k?token=1", "k")
    assert (type(named), named.detail) == (UsageError, "k is gone")


def test_an_input_that_is_itself_a_link_is_fine(align_run, clone_input, run_result, tmp_path):
    root = clone_input(tmp_path / "real", ["a"])
    os.symlink(root.parent, tmp_path / "link")
    rows, _ = run_result(align_run(tmp_path / "link", options=SECOND))
    assert len(rows) == 4
