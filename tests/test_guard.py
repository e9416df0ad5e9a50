"""Only media is opened, whatever a file is named, and only the file itself."""

import io
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import imageio_ffmpeg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.schemas.errors import AlignError
from align.transforms.read.guard import HEAD_BYTES, OPTIONS, open_media, sniff


def make(path, *output):
    import subprocess

    source = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=32x32:rate=25:duration=1",
        "-f",
        "lavfi",
        "-i",
        "sine=duration=1",
    ]
    exe = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([exe, "-v", "error", "-nostdin", "-y", *source, *output, str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    return make(tmp_path_factory.mktemp("guard") / "clip.mp4", "-c:v", "libx264", "-c:a", "aac")


@pytest.mark.parametrize(
    ("name", "demuxer"),
    [
        ("a.mp4", "mov"),
        ("a.mov", "mov"),
        ("a.mkv", "matroska"),
        ("a.webm", "matroska"),
        ("a.ts", "mpegts"),
        ("a.m2ts", "mpegts"),
        ("a.avi", "avi"),
        ("a.flv", "flv"),
        ("a.mpg", "mpeg"),
        ("a.wav", "wav"),
        ("a.ogg", "ogg"),
        ("a.flac", "flac"),
        ("a.mp3", "mp3"),
        ("a.aac", "aac"),
    ],
)
def test_the_bytes_decide_the_demuxer_under_any_name(tmp_path, name, demuxer):
    disguised = make(tmp_path / name).rename(tmp_path / "x.m3u8")
    assert sniff(disguised.read_bytes()[:HEAD_BYTES]) == demuxer
    with open_media(str(disguised)) as container:
        assert demuxer in container.format.name
    with open_media("mem://x", lambda _: io.BytesIO(disguised.read_bytes())) as container:
        assert demuxer in container.format.name


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {target}\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>{target}'
    "</BaseURL></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "smil": "<smil><body><video src='{target}'/></body></smil>",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("name", ["list.m3u8", "video.mp4", "video.mkv"])
def test_playlists_are_refused_and_nothing_they_name_is_touched(tmp_path, clip, kind, name):
    hits = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        port = server.getsockname()[1]

        def listen():
            try:
                server.accept()[0].close()
                hits.append(1)
            except TimeoutError:
                pass

        listener = threading.Thread(target=listen)
        listener.start()
        for target in (clip, clip.name, f"http://127.0.0.1:{port}/x.mp4"):
            path = tmp_path / name
            path.write_text(PLAYLISTS[kind].format(target=target))
            assert refusal(str(path)) == "unknown_format"
        listener.join()
    assert not hits


def refusal(uri, opener=None):
    with pytest.raises(AlignError) as caught:
        open_media(uri, opener).close()
    assert caught.value.stage == "probe"
    return caught.value.code


@pytest.mark.parametrize(
    "uri",
    [
        "concat:{clip}|{clip}",
        "subfile,,start,0,end,9,,:{clip}",
        "pipe:0",
        "data:text/plain,x",
        "frame%03d.png",
        "",
    ],
)
def test_protocols_and_patterns_are_only_file_names(clip, uri):
    assert refusal(uri.format(clip=clip)) in ("missing_file", "not_a_file", "unreadable_file")


def test_addresses_without_an_opener_are_refused():
    assert refusal("http://127.0.0.1:9/x.mp4") == "unreadable_file"
    assert refusal("gs://bucket/x.mp4") == "unreadable_file"


@pytest.mark.parametrize("name", ["-y.mp4", "a:b.mp4", "file:x.mp4", "%d.mp4", "ü 🚪'\".mp4", "|x.mp4"])
def test_no_character_of_a_name_means_anything(tmp_path, clip, name, monkeypatch):
    (tmp_path / name).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    with open_media(name) as container:
        assert len(container.streams) == 2


def test_files_that_are_none_end_in_their_reason(tmp_path, clip):
    empty = tmp_path / "empty.mp4"
    empty.touch()
    link = tmp_path / "link.mp4"
    link.symlink_to(tmp_path / "gone.mp4")
    fifo = tmp_path / "pipe.mp4"
    os.mkfifo(fifo)
    text = tmp_path / "text.mp4"
    text.write_text("not a video\n" * 500)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:2000])
    assert {
        p.name: refusal(str(p)) for p in (tmp_path / "gone.mp4", tmp_path, empty, link, fifo, text, cut)
    } == {
        "gone.mp4": "missing_file",
        tmp_path.name: "not_a_file",
        "empty.mp4": "empty_file",
        "link.mp4": "missing_file",
        "pipe.mp4": "not_a_file",
        "text.mp4": "unknown_format",
        "cut.mp4": "bad_container",
    }
    assert refusal("a\0b.mp4") == "unreadable_file"
    assert refusal("x" * 5000) == "unreadable_file"


def test_an_opener_that_fails_is_an_unreadable_file():
    def denied(_):
        raise PermissionError(13, "Permission denied")

    def gone(_):
        raise FileNotFoundError

    assert refusal("s3://b/x.mp4", denied) == "unreadable_file"
    assert refusal("s3://b/x.mp4", gone) == "missing_file"
    assert refusal("s3://b/x.mp4", lambda _: io.BytesIO()) == "empty_file"


@given(st.binary(max_size=400))
def test_sniffing_takes_any_bytes(head):
    assert sniff(head) in (
        None,
        "mov",
        "matroska",
        "mpegts",
        "avi",
        "wav",
        "ogg",
        "flac",
        "flv",
        "mpeg",
        "mp3",
        "aac",
    )


@given(data=st.data())
def test_damaged_headers_open_or_end_as_an_align_error(clip, data):
    content = bytearray(Path(clip).read_bytes())
    moov = content.find(b"moov")
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(moov, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        open_media("mem://x", lambda _: io.BytesIO(bytes(content))).close()
    except AlignError as e:
        assert e.code in ("bad_container", "unknown_format")  # noqa: PT017


@pytest.mark.parametrize(
    ("options", "calls"),
    [(OPTIONS, 0), ({**OPTIONS, "protocol_whitelist": "file,http,tcp"}, 1)],
    ids=["ours", "opened"],
)
def test_no_protocol_but_the_file_is_spoken_whatever_the_demuxer(tmp_path, options, calls):
    """The forced demuxer hides this second line of defence, so here one is used that follows references."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        playlist = tmp_path / "list.m3u8"
        target = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n")
        command = "import av, sys; av.open(sys.argv[1], format='hls', container_options=eval(sys.argv[2]))"
        child = subprocess.Popen([sys.executable, "-c", command, str(playlist), repr(options)])
        hits = 0
        try:
            while not hits and child.poll() is None:
                try:
                    server.accept()[0].close()
                    hits += 1
                except TimeoutError:
                    continue
        finally:
            child.kill()
            child.wait()
    assert hits == calls
