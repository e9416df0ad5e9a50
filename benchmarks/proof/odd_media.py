"""Files that lie about time or keep something back: numbered frames and sound, then one thing done."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from benchmarks.proof.media import ffmpeg
from benchmarks.proof.truth import HEIGHT, SOUND, WIDTH, picture

RATE = 48_000
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-threads", "1")

_TABLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def numbered(path: Path, numbers: Sequence[int], *codecs: str, fps: int = 30, sound: bool = True) -> Path:
    """Write frames that show their number, and the proof's sound beside them, all from time 0.

    Args:
        path: its suffix names the container.
        numbers: of the frames, one a period of ``fps``.
        codecs: ffmpeg's options for encoders and muxer.
        fps: frames a second.
        sound: sample i is the proof's sound at ``i / 48000`` s.
    """
    with tempfile.TemporaryDirectory() as folder:
        heard: list[object] = []
        if sound:
            times = np.arange(len(numbers) * RATE // fps) / RATE
            pcm = Path(folder) / "sound.s16"
            pcm.write_bytes(np.rint(SOUND.at(times) * 32767).astype("<i2").tobytes())
            heard = ["-f", "s16le", "-ar", RATE, "-ac", 1, "-i", pcm]
        shape = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{WIDTH}x{HEIGHT}", "-r", fps, "-i", "-")
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *shape, *heard, *codecs, path]
        frames = b"".join(picture(n).tobytes() for n in numbers)
        subprocess.run([*map(str, command)], input=frames, check=True)
    return path


def paused(path: Path, pause_s: int) -> Path:
    """MPEG-TS of 4 s, a pause, and 4 s more: the recorder slept and its clock went on."""
    parts = []
    for n, start in enumerate((0, 4 + pause_s)):
        whole, part = path.with_suffix(f".{n}.mp4"), path.with_suffix(f".{n}.ts")
        numbered(whole, range(120 * n, 120 * (n + 1)), *X264, "-g", "30", "-bf", "2", "-c:a", "aac")
        ffmpeg("-i", whole, "-c", "copy", "-muxdelay", "0", "-output_ts_offset", start, part)
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def with_boxes(data: bytes, path: Sequence[bytes], change: Callable[[bytes], bytes]) -> bytes:
    """An MP4 whose boxes at a path have another content; the sizes of those around them follow."""
    out = b""
    for kind, content in boxes(data):
        if kind == path[0]:
            inner = content
            content = change(inner) if len(path) == 1 else with_boxes(inner, path[1:], change)
        out += struct.pack(">I4s", 8 + len(content), kind) + content
    return out


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of the boxes in a piece of an MP4."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, data[at + 8 : at + size]
        at += size


def content_at(data: bytes, path: Sequence[bytes]) -> bytes:
    """The content of the first box at a path."""
    for kind in path:
        data = next(content for k, content in boxes(data) if k == kind)
    return data


def with_entry_box(path: Path, kind: bytes, content: bytes) -> Path:
    """Put a box into the sample entry of a file's only track. The header must stand behind the payload."""

    def added(table: bytes) -> bytes:
        ((entry, body),) = boxes(table[8:])
        body += struct.pack(">I4s", 8 + len(content), kind) + content
        return table[:8] + struct.pack(">I4s", 8 + len(body), entry) + body

    path.write_bytes(with_boxes(path.read_bytes(), (*_TABLES, b"stsd"), added))
    return path


def clap(width: int, height: int, right: int = 0, down: int = 0, per: int = 1) -> bytes:
    """The content of a ``clap`` box; all in units of ``1 / per`` pixels."""
    return struct.pack(">8i", width, per, height, per, right, per, down, per)


def two_entries(path: Path, wide_from: int, count: int) -> Path:
    """An MP4 without sound whose frames from a number on are twice as wide, by a second sample entry.

    Neither set of decoder parameters is repeated in the packets.
    """
    plain, wide, both = (path.with_suffix(f".{name}.mp4") for name in ("plain", "wide", "both"))
    video = (*X264, "-g", "15", "-bf", "2")
    numbered(plain, range(wide_from), *video, sound=False)
    numbered(
        wide, range(wide_from, count), *video, "-vf", f"scale={2 * WIDTH}:{HEIGHT}:flags=neighbor,setsar=1",
        "-x264-params", "cabac=0:ref=1", sound=False,
    )  # fmt: skip
    names = path.with_suffix(".txt")
    names.write_text(f"file '{plain.name}'\nfile '{wide.name}'\n")
    joined = ("-f", "concat", "-safe", "0", "-i", names, "-c", "copy")
    ffmpeg(*joined, "-bsf:v", "filter_units=remove_types=7-8", both)
    entries = [content_at(p.read_bytes(), (*_TABLES, b"stsd"))[8:] for p in (plain, wide)]
    path.write_bytes(
        with_boxes(both.read_bytes(), _TABLES, lambda t: _two_entry_tables(t, entries, wide_from))
    )
    return path


def _two_entry_tables(tables: bytes, entries: Sequence[bytes], change: int) -> bytes:
    """Sample tables with two entries; each sample is a chunk of its own, for entries change with chunks."""
    sizes = content_at(tables, [b"stsz"])
    (count,) = struct.unpack(">I", sizes[8:12])
    lengths = np.frombuffer(sizes[12:], ">u4", count).astype(np.int64)
    (start,) = struct.unpack(">I", content_at(tables, [b"stco"])[8:12])
    places = (start + np.cumsum(lengths) - lengths).astype(">u4")
    new = {
        b"stsd": struct.pack(">II", 0, 2) + b"".join(entries),
        b"stco": struct.pack(">II", 0, count) + places.tobytes(),
        b"stsc": struct.pack(">8I", 0, 2, 1, 1, 1, change + 1, 1, 2),
    }
    for kind, content in new.items():
        tables = with_boxes(tables, [kind], lambda _, content=content: content)  # type: ignore[misc]
    return tables
