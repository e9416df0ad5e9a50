"""video2dataset 1.3.0 at the same work: ``PYTHON -m benchmarks.video2dataset_job PRECISION FILE OUT FFMPEG``.

Runs in an interpreter of its own, because the whole package pins old NumPy and a CUDA build of torch. Its
subsamplers, which do the work on media, need neither: ``pip install --no-deps video2dataset==1.3.0
ffmpeg-python`` into an empty environment is enough.

Configuration, in the order in which its workers call the subsamplers:

* ``video2audio`` of its reader: the sound as one file, FLAC here;
* ``ClippingSubsampler(5, {"video": "mp4", "audio": "flac"}, precision=PRECISION)`` with a clip each 5 s:
  ``exact`` puts keyframes at the cuts, which encodes the film anew; ``low``, its default, copies and cuts at
  the next keyframe there is, so its clips are not the windows that were asked for;
* ``ResolutionSubsampler("scale", height=256)``;
* ``FrameSubsampler(1, "first_frame")``: the first frame of each clip as JPEG;
* ``AudioRateSubsampler(16000, "flac", n_audio_channels=1)``.

It is called as its own workers call it, one file at a time; its download worker itself cannot run with a
subsampler in this release (it asks them for an attribute that they do not have).
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

WINDOW_S, SIZE, RATE = 5, 256, 16_000


def main(precision: str, media: str, out: str, ffmpeg: str) -> None:
    """Cut, scale, pick and resample; write a JPEG and a FLAC for each clip."""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(ffmpeg, Path(folder) / "ffmpeg")
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
        sound = Path(folder) / "sound.flac"
        seconds = _extract_sound(media, sound)
        streams: dict[str, list[bytes]] = {
            "video": [Path(media).read_bytes()],
            "audio": [sound.read_bytes()],
        }
        starts = range(0, seconds - WINDOW_S + 1, WINDOW_S)
        metadata: Any = {"key": "0", "clips": [[float(s), float(s + WINDOW_S)] for s in starts]}
        for subsampler in _subsamplers(precision):
            streams, metadata, error = subsampler(streams, metadata)
            if error:
                raise RuntimeError(f"{type(subsampler).__name__}: {error}")
    for kind, suffix in (("jpg", "jpg"), ("audio", "flac")):
        for number, data in enumerate(streams[kind]):
            (Path(out) / f"{number:06d}.{suffix}").write_bytes(data)


def _extract_sound(media: str, sound: Path) -> int:
    """What ``video2audio`` does, which needs ``ffprobe`` and a downloader only to begin; whole seconds."""
    import ffmpeg

    _, said = ffmpeg.output(ffmpeg.input(media).audio, str(sound), f="flac").run(capture_stderr=True)
    hours, minutes, seconds = said.decode().partition("Duration: ")[2].split(",")[0].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(float(seconds))


def _subsamplers(precision: str) -> list[Any]:
    # The packages' __init__ files import what trains models; the modules themselves need ffmpeg-python alone.
    _without_init("video2dataset")
    _without_init("video2dataset.subsamplers")
    from video2dataset.subsamplers.audio_rate_subsampler import AudioRateSubsampler
    from video2dataset.subsamplers.clipping_subsampler import ClippingSubsampler
    from video2dataset.subsamplers.frame_subsampler import FrameSubsampler
    from video2dataset.subsamplers.resolution_subsampler import ResolutionSubsampler

    return [
        ClippingSubsampler(5, {"video": "mp4", "audio": "flac"}, precision=precision),
        ResolutionSubsampler("scale", height=SIZE),
        FrameSubsampler(1, "first_frame"),
        AudioRateSubsampler(RATE, "flac", n_audio_channels=1),
    ]


def _without_init(name: str) -> None:
    found = importlib.util.find_spec(name)
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{name} is not installed in {sys.executable}")
    package = types.ModuleType(name)
    package.__path__ = list(found.submodule_search_locations)
    sys.modules[name] = package


if __name__ == "__main__":
    main(*sys.argv[1:])
