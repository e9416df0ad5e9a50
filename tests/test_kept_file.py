"""A media file that stays open between segments gives what a file opened anew gives."""

import subprocess

import imageio_ffmpeg
import pytest

from align.schemas.time import NS, TimeSpan
from align.transforms.read import kept_file
from align.transforms.read.demux import WindowRequest, read_media
from align.transforms.read.guard import open_media
from align.transforms.read.kept_file import KeptFile
from align.transforms.read.probe import probe_media

SECONDS, SEGMENT = 24, 3
NAMES = ("kept.mp4", "kept.mkv", "kept.ts")


@pytest.fixture(scope="module", params=NAMES)
def recording(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / request.param
    command = (
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi"),
        *("-i", f"testsrc2=s=64x48:r=25:d={SECONDS}", "-f", "lavfi", "-i", f"anoisesrc=r=48000:d={SECONDS}"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-bf", "2", "-g", "25", "-c:a", "aac"),
    )
    subprocess.run((*command, str(path)), check=True)
    return str(path)


@pytest.fixture
def opened(monkeypatch):
    """The files that a ``KeptFile`` opened."""
    uris = []

    def open_and_note(uri, opener=None):
        uris.append(uri)
        return open_media(uri, opener=opener)

    monkeypatch.setattr(kept_file, "open_media", open_and_note)
    return uris


def segments():
    windows = [TimeSpan(s * NS, (s + 1) * NS) for s in range(SECONDS - 1)]
    requests = [WindowRequest(w, (w.center_ns,), w.widened(NS // 10)) for w in windows]
    return [requests[i : i + SEGMENT] for i in range(0, len(requests), SEGMENT)]


def content(container, media, requests):
    return [
        ([f and (f.time_ns, bytes(f.frame.planes[0])) for f in m.frames], [bytes(p) for p in m.audio_packets])
        for m in read_media(container, media, requests)
    ]


def test_segments_of_a_kept_file_equal_those_of_files_opened_anew(recording, opened):
    media, kept, fresh = probe_media(recording), [], []
    file = KeptFile()
    for requests in [*segments(), *reversed(segments())]:
        with file.open(recording) as container:
            kept.append(content(container, media, requests))
        with open_media(recording) as container:
            fresh.append(content(container, media, requests))
    file.close()
    assert kept == fresh
    assert all(frames[0] and packets for windows in kept for frames, packets in windows)
    assert len(opened) == (1 if recording.endswith("mp4") else 2 * len(segments()))


@pytest.mark.parametrize("recording", ["kept.mp4"], indirect=True)
def test_a_file_in_which_something_went_wrong_or_that_was_closed_is_opened_anew(recording, opened):
    file = KeptFile()
    with pytest.raises(ValueError, match="wrong"), file.open(recording):
        raise ValueError("wrong")
    with file.open(recording):
        pass
    file.close()
    with file.open(recording):
        pass
    file.close()
    assert opened == [recording] * 3


@pytest.mark.parametrize("recording", ["kept.mp4"], indirect=True)
def test_another_file_takes_the_place_of_the_one_that_was_kept(recording, opened, tmp_path):
    other = str(tmp_path / "other.mp4")
    with open(recording, "rb") as source, open(other, "wb") as target:
        target.write(source.read())
    file = KeptFile()
    for path in (recording, other, other, recording):
        with file.open(path) as container:
            assert container.name.endswith(path)
    file.close()
    assert opened == [recording, other, recording]
