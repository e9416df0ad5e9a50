"""What sound owes to the processor: integer decoders nothing, floating-point ones a rare step."""

import ctypes
import subprocess
import sys
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

_CHILD = """
import ctypes, sys
flags, library, path, out = sys.argv[1:]
if flags != "-1":
    ctypes.CDLL(library).av_force_cpu_flags(int(flags))
import av, numpy as np
from align.schemas.media import AudioInfo
from align.schemas.time import NS, TimeSpan
from align.transforms.align.audio import window_audio
from align.transforms.read.audio import decode_audio
with av.open(path) as container:
    stream = container.streams.audio[0]
    packets = [p for p in container.demux(stream) if p.size]
    info = AudioInfo(0, "", stream.rate, 1, stream.time_base, TimeSpan(0, 0))
    window = TimeSpan(NS, 6 * NS)
    track = decode_audio(packets, stream, info, window.widened(NS // 10))
    np.save(out, window_audio(track, window, 16_000).samples)
"""


def _library():
    folder = Path(av.__file__).parent.parent / "av.libs"
    found = sorted(folder.glob("libavutil*.so*"))
    return found[0] if found and hasattr(ctypes.CDLL(str(found[0])), "av_force_cpu_flags") else None


@pytest.mark.skipif(_library() is None, reason="PyAV's own libavutil is not beside it")
@pytest.mark.parametrize(("name", "most"), [("x.flac", 0), ("x.m4a", 80)])
def test_sound_without_vector_instructions_differs_by_a_rare_step_at_most(tmp_path, name, most):
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(1).normal(0, 0.15, 7 * 48_000), 48_000)
    encode = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", tmp_path / "x.wav"]
    subprocess.run([*encode, "-b:a", "128k", tmp_path / name], check=True)
    found = []
    for flags in ("-1", "0"):
        out = tmp_path / f"{flags}.npy"
        command = [sys.executable, "-c", _CHILD, flags, str(_library()), str(tmp_path / name), str(out)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
        found.append(np.load(out).astype(int))
    apart = np.abs(found[0] - found[1])
    assert apart.max() <= 1
    assert (apart > 0).sum() <= most  # of 80,000
