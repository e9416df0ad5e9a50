"""Takes turns among commands, and keeps what was measured so that it can be stopped and continued."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import Usage, measure

_MEASURED = ("align", "schemas", "transforms", "pipeline", "benchmarks/jobs.py", "benchmarks/recordings.py")


@dataclass(frozen=True)
class Variant:
    """A command, and what its figure is to be.

    Attributes:
        name: in tables.
        command: ``{out}`` stands for an empty folder.
        hours: of media that it goes through; 0 for what is no matter of media.
        start_up: the name of the variant whose CPU time is that of starting, which is no part of the figure.
        rounds: at most so many: less than the others' for what is dear.
        expected_s: for the estimate of how long it all takes.
        watch_memory: add up the memory of its processes.
    """

    name: str
    command: tuple[str, ...]
    hours: float = 0.0
    start_up: str = ""
    rounds: int = 99
    expected_s: float = 1.0
    watch_memory: bool = False


class Taken:
    """Figures by media, variant and round, in a file that grows line by line.

    Args:
        path: the file; figures of the same version that it already holds count as taken.
        version: of what is measured: figures of another are left alone.
    """

    def __init__(self, path: Path, version: str) -> None:
        self._path, self._version = path, version
        self._usages: dict[tuple[str, str], dict[int, Usage]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            found = json.loads(line)
            if found["version"] == version:
                self.of(found["media"], found["name"])[found["round"]] = Usage(**found["usage"])

    def of(self, media: str, name: str) -> dict[int, Usage]:
        """Round -> figures."""
        return self._usages.setdefault((media, name), {})

    def add(self, media: str, name: str, number: int, usage: Usage) -> None:
        """Keep what was measured."""
        self.of(media, name)[number] = usage
        line = {"version": self._version, "media": media, "name": name, "round": number}
        with self._path.open("a") as file:
            file.write(json.dumps({**line, "usage": asdict(usage), "load": os.getloadavg()[0]}) + "\n")


def code_version() -> str:
    """The last commit that touched what is measured, and whether the work tree differs from it."""
    found = _git("log", "-1", "--format=%h", "--", *_MEASURED)
    return f"{found or 'no commit'}{'-dirty' if _git('status', '--porcelain', '--', *_MEASURED) else ''}"


def _git(*words: str) -> str:
    folder = Path(__file__).parents[1]
    return subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=False
    ).stdout.strip()


def left(taken: Taken, media: str, variants: Sequence[Variant], rounds: int) -> list[tuple[int, Variant]]:
    """What is still to be measured, round after round."""
    return [
        (number, variant)
        for number in range(rounds)
        for variant in variants
        if number < variant.rounds and number not in taken.of(media, variant.name)
    ]


def take_rounds(taken: Taken, media: str, variants: Sequence[Variant], rounds: int) -> None:
    """Measure what is left, variants taking turns, so that a change of pace meets all of them."""
    for number, variant in left(taken, media, variants, rounds):
        usage = run_once(variant)
        taken.add(media, variant.name, number, usage)
        shown = f"CPU {usage.cpu_s:.1f} s, wall {usage.wall_s:.1f} s, {usage.peak_bytes / 1e6:.0f} MB"
        print(f"{media} round {number + 1}/{rounds} {variant.name}: {shown}", flush=True)


def run_once(variant: Variant) -> Usage:
    """Measure a variant in a folder that is empty before and gone afterwards."""
    out = tempfile.mkdtemp(prefix="align-bench-")
    try:
        words = [out if word == "{out}" else word for word in variant.command]
        return measure(words, watch_memory=variant.watch_memory)
    finally:
        shutil.rmtree(out)
