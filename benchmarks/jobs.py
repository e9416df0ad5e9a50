"""The jobs that are compared, each a process of its own: ``python -m benchmarks.jobs NAME FILE OUT``.

All but the decoders do the same work: a window each 5 s, a JPEG of its centre's frame with a short side of
256 pixels, its sound as mono FLAC at 16 kHz. They are written as their users would write them.
``floor`` takes one argument more: a JSON file with the instants (ns, ascending) whose frames are wanted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

WINDOW_S = 5
SIZE, RATE = 256, 16_000


def full_decode(media: str, out: str) -> None:
    """Every frame, in sequence, with one thread: what the picture's share is measured against."""
    import av

    del out
    with av.open(media) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
        for _ in container.decode(stream):
            pass


def floor(media: str, out: str, wanted: str) -> None:
    """Only the packets that the wanted frames need, and all of the sound; nothing is done with either."""
    import av
    from av.packet import Packet

    del out
    with av.open(media) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        context, base = video.codec_context, video.time_base
        context.thread_count, context.thread_type = 1, "NONE"
        # A frame's own instant was rounded to a nanosecond: it must not fall before the frame.
        targets = deque((ns + 1) / 1e9 / base for ns in json.loads(Path(wanted).read_text()))
        group: list[Packet] = []

        def decode_group(end: float) -> None:
            """From the keyframe to the last target's frame; what no other frame refers to is skipped."""
            wanted = set()
            while targets and targets[0] < end:
                target = targets.popleft()
                wanted.add(max((p.pts for p in group if p.pts <= target), default=group[0].pts))
            last = max((n for n, p in enumerate(group) if p.pts in wanted), default=-1)
            context.flush_buffers()
            for packet in group[: last + 1]:
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                context.decode(packet)

        for packet in container.demux(video, audio):
            if packet.stream is audio:
                audio.codec_context.decode(packet)
            elif packet.size:
                if packet.is_keyframe and group:
                    decode_group(packet.pts)
                    group = []
                group.append(packet)
        decode_group(float("inf"))


def ffmpeg_per_window(media: str, out: str) -> None:
    """One ffmpeg process per window, seeking to it."""
    import av
    import imageio_ffmpeg

    with av.open(media) as container:
        windows = int(container.duration / av.time_base) // WINDOW_S
    for window in range(windows):
        start = window * WINDOW_S
        name = str(Path(out) / f"{window:06d}")
        subprocess.run(
            [
                *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y"),
                *("-ss", str(start + WINDOW_S / 2), "-i", media),
                *("-ss", str(start), "-t", str(WINDOW_S), "-i", media),
                *("-map", "0:v", "-frames:v", "1", "-vf", f"scale=-2:{SIZE}", "-q:v", "3", f"{name}.jpg"),
                *("-map", "1:a", "-ac", "1", "-ar", str(RATE), f"{name}.flac"),
            ],
            check=True,
        )


def cv2_and_librosa(media: str, out: str) -> None:
    """OpenCV reads every frame and keeps some by number; librosa loads the sound that ffmpeg extracted."""
    import cv2
    import imageio_ffmpeg
    import librosa
    import soundfile

    video = cv2.VideoCapture(media)
    per_window = round(video.get(cv2.CAP_PROP_FPS) * WINDOW_S)
    number = 0
    while True:
        there, frame = video.read()
        if not there:
            break
        if number % per_window == per_window // 2:
            width = round(SIZE * frame.shape[1] / frame.shape[0])
            small = cv2.resize(frame, (width, SIZE), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(Path(out) / f"{number // per_window:06d}.jpg"), small)
        number += 1
    wave = str(Path(out) / "sound.wav")
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", media, "-vn", wave], check=True
    )
    sound, _ = librosa.load(wave, sr=RATE, mono=True)
    for window, start in enumerate(range(0, len(sound) - WINDOW_S * RATE + 1, WINDOW_S * RATE)):
        soundfile.write(str(Path(out) / f"{window:06d}.flac"), sound[start : start + WINDOW_S * RATE], RATE)


JOBS: dict[str, Callable[..., None]] = {
    job.__name__: job for job in (full_decode, floor, ffmpeg_per_window, cv2_and_librosa)
}

if __name__ == "__main__":
    JOBS[sys.argv[1]](*sys.argv[2:])
