"""Targets of the fuzzer that go all the way: damaged media and tables are planned and decoded, in a child.

A window must end as one sample or one fault, and what is planned must be accounted for. A defect of ours in
the child, and a reply that its parent refuses, are findings although the run would survive them.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.process.isolation import borrow
from align.schemas.errors import Fault
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.recording import Recording, Stream
from align.transforms.synth.layout import synthesize
from align.transforms.synth.options import SynthOptions
from align.transforms.write.encoded import EncodedRow

WINDOWS = 12
"""Of a segment that are decoded: a damaged header may plan a million."""

COPY = ("-c", "copy")
FORMATS: dict[str, tuple[str, ...]] = {
    "mp4": (*COPY, "-movflags", "faststart"),  # so that damage to the payload leaves the header where it was
    "fragmented.mp4": (*COPY, "-movflags", "frag_keyframe+empty_moov+default_base_moof"),
    "mkv": COPY,
    "webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "20", "-c:a", "libopus"),
    "ts": COPY,
    "avi": ("-c:v", "mpeg4", "-c:a", "libmp3lame"),
}
_PARENTS = frozenset(
    {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex", b"udta"}
)
_FINDINGS = ("a defect of align", "what it was not asked")

Read = Callable[[bytes], str]
Mutate = Callable[[bytes, random.Random], bytes]


class Finding(Exception):
    """What must not happen to any input."""


def decode_targets(folder: Path, mutated: Mutate) -> dict[str, tuple[bytes, Read, Mutate]]:
    """Of each format, and of the IMU table: a valid file, what plans and decodes it, what damages it."""
    synthesize(folder, SynthOptions(count=1, duration_s=2.0, width=64, height=48))
    config = RunConfig(source="ego4d", input=str(folder), decode_timeout=20.0)
    (recording,) = (r for r in list_recordings(config) if isinstance(r, Recording))
    whole = {}
    for name, how in FORMATS.items():
        path = folder / f"whole.{name}"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", recording.video.uri, *how, str(path)]
        subprocess.run(command, check=True)
        whole[name] = path.read_bytes()
    others = [*whole.values()]

    def damage(data: bytes, rng: random.Random) -> bytes:
        match rng.randrange(5):
            case 0:
                return spliced(data, rng.choice(others), rng)
            case 1 if data[4:8] == b"ftyp":
                return with_other_boxes(data, rng)
            case 2:
                return mutated(with_other_bytes(data, rng), rng)
            case _:
                return mutated(data, rng)

    found: dict[str, tuple[bytes, Read, Mutate]] = {
        f"decode-{name}": (data, reader(folder / f"case.{name}", "video", recording, config), damage)
        for name, data in whole.items()
    }
    assert recording.imu is not None
    table = Path(recording.imu.uri).read_bytes()
    found["decode-csv"] = (table, reader(folder / "case.csv", "imu", recording, config), mutated)
    return found


def reader(path: Path, kind: str, recording: Recording, config: RunConfig) -> Read:
    """What plans and decodes the recording, one of whose files is replaced."""

    def put(stream: Stream | None) -> Stream | None:
        return stream and replace(stream, uri=str(path))

    if kind == "imu":
        recording = replace(recording, imu=put(recording.imu))
    else:
        video = put(recording.video)
        assert video is not None
        recording = replace(recording, video=video, audio=put(recording.audio))

    def read(data: bytes) -> str:
        path.write_bytes(data)
        rng = random.Random(data)
        options = AlignOptions(
            window=rng.choice((0.5, 0.333333333)),
            anchor=rng.choice(("grid", "grid", "keyframe")),
            frames=rng.choice((1, 1, 2)),
            image_size=32,
        )
        return plan_and_decode(recording, config.but(sample=options))

    return read


def plan_and_decode(recording: Recording, config: RunConfig) -> str:
    """How a recording ends: ``read`` where every window gave a sample and nothing is noted, else why not.

    Raises:
        Finding: windows are not accounted for, or the child is at fault.
    """
    plan = plan_recording(recording, config)
    faults = list(plan.faults)
    held = sum(len(segment.starts_ns) for segment in plan.segments)
    if plan.windows != held + sum(fault.windows for fault in faults):
        raise Finding(f"{plan.windows} windows planned, {held} in segments, and {faults}")
    for segment in plan.segments[:2]:
        some = replace(segment, starts_ns=segment.starts_ns[:WINDOWS])
        with borrow(config) as decoder:
            items = list(decoder.samples(some, config.sample, config.sample_sha256))
        _check_account(some, items)
        faults += [item for item in items if isinstance(item, Fault)]
    for fault in faults:
        if any(words in fault.detail for words in _FINDINGS):
            raise Finding(fault.detail)
    ends = [fault.code for fault in faults if fault.outcome == "failed"]
    ends += [f"{fault.outcome} {fault.code}" for fault in faults if fault.outcome != "failed"]
    return ends[0] if ends else "read"


def _check_account(segment: Segment, items: list[EncodedRow | Fault]) -> None:
    found = [i.start_ns if isinstance(i, Fault) else i.batch.column("start_ns")[0].as_py() for i in items]
    if found != list(segment.starts_ns) or any(i.windows != 1 for i in items if isinstance(i, Fault)):
        raise Finding(f"windows {segment.starts_ns} became {found}")


def spliced(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The beginning of one file and the end of another, or a piece of the other put in."""
    at, there = rng.randrange(len(data)), rng.randrange(len(other))
    if rng.random() < 0.5:
        return data[:at] + other[there:]
    piece = other[there : there + rng.randrange(1, 4096)]
    return data[:at] + piece + data[at + (len(piece) if rng.random() < 0.5 else 0) :]


def with_other_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped anywhere, in the payload too."""
    piece = bytearray(data)
    for _ in range(rng.choice((1, 4, 16, 64))):
        piece[rng.randrange(len(piece))] ^= 1 << rng.randrange(8)
    return bytes(piece)


def with_other_boxes(data: bytes, rng: random.Random) -> bytes:
    """An MP4 one of whose boxes is removed, doubled, renamed, resized, moved, or given other numbers."""
    places = boxes(data)
    start, size = rng.choice(places)
    box = data[start : start + size]
    body = bytearray(box)
    match rng.randrange(6):
        case 0:
            body = bytearray()
        case 1:
            body += box
        case 2:
            body[4:8] = rng.choice([data[s + 4 : s + 8] for s, _ in places])
        case 3:
            body[:4] = struct.pack(
                ">I", rng.choice((0, 1, 7, size - 1, size + 1, 2 * size, 2**31, 2**32 - 1))
            )
        case 4:
            other, length = rng.choice(places)
            body = bytearray(data[other : other + length])
        case _:
            for _ in range(rng.randrange(1, 4)):
                at = rng.randrange(8, max(9, len(body) - 3))
                body[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 1000)))
    return data[:start] + bytes(body) + data[start + size :]


def boxes(data: bytes, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Where the boxes of an MP4 stand, and their sizes; those inside others, too (ISO/IEC 14496-12, 4.2)."""
    found, end = [], len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if not 8 <= size <= end - start:
            break
        found.append((start, size))
        if kind in _PARENTS:
            found += boxes(data, start + 8, start + size)
        start += size
    return found
