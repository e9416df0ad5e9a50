"""The targets of speed, and whether what was measured meets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from benchmarks import variants as v
from benchmarks.figures import Figure, ratios, spread

OF_FULL_DECODE = {
    "h264-gop250": {v.GRID.name: 0.55, v.TEN.name: 0.75, v.KEYFRAME.name: 0.08},
    "h264-gop30": {v.GRID.name: 0.17, v.TEN.name: 0.75, v.KEYFRAME.name: 0.08},
    "vp9": {},
}
OVER_FLOOR, OVER_FLOOR_S = 1.10, 15.0
PER_GROUP = 1.2
ISOLATION = 1.03
TIMES_LESS = {v.FFMPEG: 3.0, v.OPENCV: 4.0}
START_UP_S, HELP_S = 4.0, 0.3
PEAK_MB = 600.0


@dataclass(frozen=True)
class Result:
    """A target, what was measured, and whether it is met (None where nothing was promised)."""

    media: str
    what: str
    target: str
    measured: str
    met: bool | None


def results(media: str, found: Mapping[str, Figure], groups: Mapping[str, int]) -> Iterator[Result]:
    """Each target that the figures speak of.

    Args:
        media: names the codec.
        found: figures by variant.
        groups: the kind's name -> how many groups of pictures its frames need in one file.
    """
    yield from _of_full_decode(media, found)
    yield from _over_floor(media, found)
    yield from _per_group(media, found, groups)
    yield from _against_others(media, found)
    yield from _around(media, found)


def _of_full_decode(media: str, found: Mapping[str, Figure]) -> Iterator[Result]:
    for kind in v.KINDS:
        if kind.name in found and v.FULL in found:
            measured = ratios(found[kind.name].cpu, found[v.FULL].cpu)
            limit = OF_FULL_DECODE[media].get(kind.name)
            allowed = ratios(found[kind.floor].cpu, found[v.FULL].cpu) if kind.floor in found else []
            promise = f"≤ {limit}" if limit else f"its structure allows {spread(allowed[:1], '.3f')}"
            yield _judged(media, f"{kind.name}, of a full decode", promise, measured, limit, ".3f")


def _over_floor(media: str, found: Mapping[str, Figure]) -> Iterator[Result]:
    for kind in v.KINDS:
        if kind.name not in found or kind.floor not in found:
            continue
        ours, floor = found[kind.name].cpu, found[kind.floor].cpu
        over = [ours[n] - floor[n] for n in sorted(ours.keys() & floor.keys())]
        allowed = max((OVER_FLOOR - 1) * median(floor.values()), OVER_FLOOR_S)
        promise = f"≤ {allowed:.1f} CPU s/h"
        yield _judged(media, f"{kind.name}, over its floor", promise, over, allowed, ".1f")


def _per_group(media: str, found: Mapping[str, Figure], groups: Mapping[str, int]) -> Iterator[Result]:
    if v.NARRATION.name not in found or v.GRID.name not in found:
        return
    measured = _ratio_per_group(found[v.NARRATION.name], found[v.GRID.name], groups)
    what = f"{v.NARRATION.name}, per needed group against the grid's"
    judged = _judged(media, what, f"≤ {PER_GROUP}", measured, PER_GROUP, ".2f")
    if v.NARRATION.floor in found and v.GRID.floor in found:
        least = _ratio_per_group(found[v.NARRATION.floor], found[v.GRID.floor], groups)
        judged = replace(judged, measured=f"{judged.measured}; their floors' {median(least):.2f}")
    yield judged


def _ratio_per_group(narrated: Figure, grid: Figure, groups: Mapping[str, int]) -> list[float]:
    each = groups[v.GRID.name] / groups[v.NARRATION.name]
    return [ratio * each for ratio in ratios(narrated.cpu, grid.cpu)]


def _against_others(media: str, found: Mapping[str, Figure]) -> Iterator[Result]:
    for name, figure in found.items():
        if v.GRID.name not in found or (name not in TIMES_LESS and not name.startswith("video2dataset")):
            continue
        times = ratios(figure.cpu, found[v.GRID.name].cpu)
        least = TIMES_LESS.get(name)
        met = median(times) >= least if least and times else None
        promise = f"≥ {least:g} times ours" if least else "reported"
        yield Result(media, name, promise, f"{spread(times, '.1f')} times", met)


def _around(media: str, found: Mapping[str, Figure]) -> Iterator[Result]:
    if v.NOT_ISOLATED in found and v.GRID.name in found:
        cost = ratios(found[v.GRID.name].cpu, found[v.NOT_ISOLATED].cpu)
        yield _judged(media, "decoding in a child process", f"≤ {ISOLATION}", cost, ISOLATION, ".3f")
    for name, limit in ((v.START_UP, START_UP_S), (v.HELP, HELP_S)):
        if name in found:
            walls = list(found[name].wall_s.values())
            yield _judged(media, f"{name}, wall", f"≤ {limit} s", walls, limit, ".2f")
    peaks = [f.peak_mb for name, f in found.items() if name.startswith("align: ") and f.peak_mb]
    if peaks:
        promise = f"≤ {PEAK_MB:.0f} MB"
        yield _judged(media, "peak memory of our runs, largest", promise, [max(peaks)], PEAK_MB, ".0f")


def _judged(
    media: str, what: str, promise: str, measured: Sequence[float], limit: float | None, form: str
) -> Result:
    met = median(measured) <= limit if limit is not None and measured else None
    return Result(media, what, promise, spread(measured, form), met)
