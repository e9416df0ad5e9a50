"""Feeds damaged tables, metadata and media to the readers: only ``AlignError`` may come back.

    python -m benchmarks.fuzz --seconds 1200 --seed 1
    python -m benchmarks.fuzz --seconds 3600 --seed 1 --decode

A case is a valid file with a few of its bytes changed, cut, doubled or swapped for hostile numbers and words.
Cases follow from the seed, so a finding can be repeated: ``--target csv --seed 1 --first 417 --cases 1``.
With ``--decode`` recordings are planned and decoded in a child, which takes some fifty times as long a case.
"""

from __future__ import annotations

import io
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from align.pipeline.process.isolation import stop_idle
from align.schemas.errors import AlignError, UsageError
from align.transforms.synth.layout import synthesize
from align.transforms.synth.options import SynthOptions
from benchmarks.fuzz_decode import Mutate, decode_targets

Read = Callable[[bytes], str | None]

WORDS = (
    b"nan", b"inf", b"-inf", b"1e308", b"1e18", b"-1", b"0", b"9" * 30, b"2.", b"1,5", b"null", b"true",
    b"[]", b"{}", b"\"", b"\\ud800", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n\n", b";", b",,", b"\x00",
    b"..", b"/", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x01", b"moov", b"moof", b"elst",
)  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The data with one to eight changes; half of them near its beginning, where headers stand."""
    piece = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(max(1, min(len(piece), 4096) if rng.random() < 0.5 else len(piece)))
        match rng.randrange(6):
            case 0:
                piece[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                piece[at : at + rng.randrange(1, 64)] = b""
            case 2:
                piece[at:at] = piece[at : at + rng.randrange(1, 64)]
            case 3:
                word = rng.choice(WORDS)
                piece[at : at + len(word)] = word
            case 4:
                piece[at:at] = rng.choice(WORDS)
            case _:
                del piece[rng.randrange(len(piece) + 1) :]
    return bytes(piece)


def read_table(data: bytes) -> None:
    """Survey an IMU table, then read all that the survey found."""
    from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
    from align.schemas.time import ClockMap
    from align.transforms.tables.table import imu_range, read_imu, survey_imu

    survey = survey_imu(io.BytesIO(data), IMU_COLUMNS)
    read_imu(io.BytesIO(data), imu_range(survey, survey.span), ClockMap(), survey.span, IMU_COLUMNS)


def read_media(data: bytes) -> None:
    """Probe a media file."""
    from align.transforms.read.probe import probe_media

    probe_media("memory", opener=lambda _: io.BytesIO(data))


def read_metadata(folder: Path, name: str) -> Callable[[bytes], None]:
    """A target that lists the recordings of a folder, one of whose metadata files is replaced."""

    def target(data: bytes) -> None:
        from align.pipeline.sources import SourceOptions, find_source

        (folder / name).write_bytes(data)
        for _ in find_source("ego4d")(SourceOptions(input=str(folder.parent))):
            pass

    return target


def targets(folder: Path) -> dict[str, tuple[bytes, Callable[[bytes], None]]]:
    """Of each target: a valid file, and what reads it."""
    synthesize(folder, SynthOptions(count=2, duration_s=2.0, width=64, height=48))
    root = folder / "v2"
    table = next(iter(sorted(root.glob("imu/*.csv")))).read_bytes()
    found: dict[str, tuple[bytes, Callable[[bytes], None]]] = {
        "csv": (table, read_table),
        "media": (next(iter(sorted(root.glob("full_scale/*.mp4")))).read_bytes(), read_media),
    }
    for name in ("ego4d.json", "annotations/narration.json"):
        copy = folder / Path(name).stem / "v2"
        for entry in ("full_scale", "imu", "annotations"):
            (copy / entry).mkdir(parents=True)
        for path in root.rglob("*.*"):
            (copy / path.relative_to(root)).write_bytes(path.read_bytes())
        found[Path(name).stem] = ((root / name).read_bytes(), read_metadata(copy, name))
    return found


def cases(data: bytes, seed: int, first: int = 0, damage: Mutate = mutated) -> Iterator[tuple[int, bytes]]:
    """Damaged files without end, each a function of its number and the seed."""
    number = first
    while True:
        yield number, damage(data, random.Random(f"{seed}/{number}"))
        number += 1


def survives(read: Callable[[bytes], str | None], data: bytes) -> str:
    """How a reader ends: as it says, ``read``, or the code of its error. Anything else propagates."""
    try:
        return read(data) or "read"
    except (AlignError, UsageError) as error:
        return error.code


def chosen_targets(folder: Path, decode: bool, only: str | None) -> dict[str, tuple[bytes, Read, Mutate]]:
    """Of each target that is asked for: a valid file, what reads it, what damages it."""
    if decode or (only or "").startswith("decode-"):
        found = decode_targets(folder, mutated)
    else:
        found = {name: (data, read, mutated) for name, (data, read) in targets(folder).items()}
    return {name: target for name, target in found.items() if only in (None, name)}


@click.command()
@click.option("--seconds", type=float, default=60.0, show_default=True)
@click.option("--cases", "count", type=int, help="Stop after so many cases per target.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--first", type=int, default=0, show_default=True)
@click.option("--target", "only", help="csv, media, ego4d, narration, decode-mp4 …; all by turns without it.")
@click.option("--decode", is_flag=True, help="Plan and decode whole recordings, in a child.")
def main(seconds: float, count: int | None, seed: int, first: int, only: str | None, decode: bool) -> None:
    """Fuzz the readers and count how they ended."""
    ends: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        chosen = chosen_targets(Path(folder), decode, only)
        streams = {name: cases(data, seed, first, damage) for name, (data, _, damage) in chosen.items()}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for name, stream in streams.items():
                number, data = next(stream)
                try:
                    ends.setdefault(name, Counter())[survives(chosen[name][1], data)] += 1
                except Exception as error:
                    ends[name]["DEFECT"] += 1
                    click.echo(f"{name} --seed {seed} --first {number}: {type(error).__name__}: {error}")
            if count is not None and number - first + 1 >= count:
                break
        stop_idle()
    for name, counter in ends.items():
        click.echo(f"{name}: {counter.total()} cases: {dict(counter.most_common())}")


if __name__ == "__main__":
    main()
