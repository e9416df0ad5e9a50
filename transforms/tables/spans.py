"""Where the rows of an IMU table lie in time: its gaps, and the stretch that belongs to each component.

A component is one of the camera's files behind a joined recording. Where two of them overlap in time, rows of
two instruments would alternate::

    component 0    x x x x x x x x                    its rows stand
    component 1              x x x x x x x x x        those until its end do not
    own            [-------------](----------]        nothing is interpolated across the joint
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from align.schemas.time import NS, TimeSpan
from align.transforms.tables.rows import distinct

Stretches = tuple[tuple[int, TimeSpan], ...]

_LONGEST_STEP = 3  # nominal periods, as where windows are resampled
_ALONE_NS = NS  # a row this far from all others of its component is no evidence of where that lies
_MOST_COMPONENTS = 1_000  # more are no files but something else
_MOST_GAPS = 100


@dataclass(slots=True)
class Spans:
    """What the blocks said so far.

    Attributes:
        components: component -> its span, rows that stand alone left out.
        last: component -> the time of its last row in the file so far, its neighbour in the next block.
        runs: rows without a gap between them, by the block.
        too_many: there are more components than a recording has files.
    """

    components: dict[int, TimeSpan] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    runs: list[TimeSpan] = field(default_factory=list)
    too_many: bool = False

    def add(self, times: NDArray[np.int64], components: NDArray[np.float64]) -> None:
        """Take a block's usable rows.

        Args:
            times: int64 [n], ns, at least one.
            components: float64 [n], NaN where unknown.
        """
        self._add_runs(distinct(times))
        numbers = [int(c) for c in np.unique(components[np.isfinite(components)])]
        self.too_many |= len(self.last.keys() | set(numbers)) > _MOST_COMPONENTS
        for number in numbers if not self.too_many else ():
            self._add_component(number, times[components == number])

    def _add_runs(self, instants: NDArray[np.int64]) -> None:
        steps = np.diff(instants)
        breaks = np.flatnonzero(steps > _LONGEST_STEP * np.median(steps)) if len(steps) else np.empty(0, int)
        breaks = np.sort(breaks[np.argsort(-steps[breaks], kind="stable")[:_MOST_GAPS]]) + 1
        self.runs.extend(TimeSpan(int(run[0]), int(run[-1])) for run in np.split(instants, breaks))

    def _add_component(self, number: int, times: NDArray[np.int64]) -> None:
        instants = distinct(np.append(self.last.get(number, times[:0]), times))
        self.last[number] = int(times[-1])
        near = np.diff(instants) <= _ALONE_NS
        instants = instants[np.append(near, False) | np.append(False, near)]
        if len(instants):
            found = TimeSpan(int(instants[0]), int(instants[-1]) + 1)
            known = self.components.get(number, found)
            start, end = min(known.start_ns, found.start_ns), max(known.end_ns, found.end_ns)
            self.components[number] = TimeSpan(start, end)

    def own(self) -> tuple[Stretches, str]:
        """The stretch that is each component's own, ascending, and a note on what overlaps.

        There are none where the table has one component only.
        """
        if self.too_many:
            return (), f"more than {_MOST_COMPONENTS:,} components: their numbers are not used"
        if len(self.last) < 2:
            return (), ""
        stretches: list[tuple[int, TimeSpan]] = []
        overlaps: list[int] = []
        for number, span in sorted(self.components.items(), key=lambda c: (c[1].start_ns, c[0])):
            start = max(span.start_ns, stretches[-1][1].end_ns) if stretches else span.start_ns
            if start > span.start_ns:
                overlaps.append(min(start, span.end_ns) - span.start_ns)
            if start < span.end_ns:
                stretches.append((number, TimeSpan(start, span.end_ns)))
        return tuple(stretches), _overlap_note(overlaps)

    def gaps(self, rate_hz: float) -> tuple[TimeSpan, ...]:
        """From row to row where these are more than three nominal periods apart; the longest if too many."""
        gaps: list[TimeSpan] = []
        end = None
        for run in sorted(self.runs, key=lambda r: r.start_ns):
            if end is not None and (run.start_ns - end) * rate_hz > _LONGEST_STEP * NS:
                gaps.append(TimeSpan(end, run.start_ns))
            end = run.end_ns if end is None else max(end, run.end_ns)
        longest = sorted(gaps, key=lambda g: -g.length_ns)[:_MOST_GAPS]
        return tuple(sorted(longest, key=lambda g: g.start_ns))


def in_place(
    times: NDArray[np.int64], components: NDArray[np.float64], stretches: Stretches
) -> NDArray[np.bool_]:
    """Whether each row lies in no other component's stretch: bool [n].

    Args:
        times: int64 [n], ns, the table's clock.
        components: float64 [n]; rows of an unknown one (NaN) are in place anywhere.
        stretches: ascending and disjoint; none holds for every row.
    """
    if not stretches:
        return np.ones(len(times), np.bool_)
    numbers, spans = zip(*stretches, strict=True)
    at = np.searchsorted([s.start_ns for s in spans], times, side="right") - 1
    held = (at >= 0) & (times < np.array([s.end_ns for s in spans])[at])
    return np.asarray(~held | np.isnan(components) | (components == np.array(numbers)[at]), np.bool_)


def _overlap_note(overlaps: list[int]) -> str:
    if not overlaps:
        return ""
    who = "a component overlaps" if len(overlaps) == 1 else f"{len(overlaps)} components overlap"
    return f"{who} an earlier one by {sum(overlaps) / NS:.3f} s in all: the earlier one's rows stand"
