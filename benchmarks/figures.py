"""From what was measured to figures: CPU seconds per hour of media, and their ratios round by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.rounds import Taken, Variant

ByRound = dict[int, float]


@dataclass(frozen=True)
class Figure:
    """What one variant was measured to take.

    Attributes:
        cpu: round -> CPU seconds per hour of media less the start-up; of a variant without media, seconds.
        wall_s: round -> seconds from start to end, start-up included.
        peak_mb: the largest over all rounds; None where it was not watched.
    """

    media: str
    name: str
    per_hour: bool
    cpu: ByRound
    wall_s: ByRound
    peak_mb: float | None


def figures(taken: Taken, media: str, variants: Sequence[Variant]) -> dict[str, Figure]:
    """The figures of all variants that were measured at least once, by name."""
    found = {}
    for variant in variants:
        usages = taken.of(media, variant.name)
        if not usages:
            continue
        start_ups = taken.of(media, variant.start_up).values() if variant.start_up else ()
        start_up = median(u.cpu_s for u in start_ups) if start_ups else 0.0
        found[variant.name] = Figure(
            media,
            variant.name,
            bool(variant.hours),
            {n: (u.cpu_s - start_up) / (variant.hours or 1.0) for n, u in sorted(usages.items())},
            {n: u.wall_s for n, u in sorted(usages.items())},
            max(u.peak_bytes for u in usages.values()) / 1e6 if variant.watch_memory else None,
        )
    return found


def ratios(of: ByRound, to: ByRound) -> list[float]:
    """Of the rounds that both were part of."""
    return [of[n] / to[n] for n in sorted(of.keys() & to.keys())]


def spread(values: Sequence[float], form: str) -> str:
    """``median (lowest to highest)``."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
