"""What a table of IMU rows says of itself: where its rows lie in time, its rates, its units, its faults.

The tally takes a table block by block and keeps a handful of numbers of each, so that its memory does not
grow with the rows: medians over the table are weighted medians of the blocks' medians.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from align.schemas.errors import AlignError, Reason
from align.schemas.recording import ImuColumns
from align.schemas.time import TimeSpan
from align.transforms.tables.batches import Batches, batch_note
from align.transforms.tables.rows import Header, distinct, parse, times_ns
from align.transforms.tables.spans import Spans, Stretches
from align.transforms.tables.verdicts import (
    FASTEST_RAD_S,
    SCALES_NS,
    accl_unit,
    dropped_note,
    gyro_unit,
    time_note,
    why_useless,
)

_FURTHEST_NS = 10 * 86_400 * 10**9  # ten days from the block's median: no recording is that long
_RATES_HZ = (10.0, 10_000.0)  # what an IMU may run at
_SLOWEST_HZ = 4.0  # for the unit that the column's name says


@dataclass(frozen=True, slots=True)
class ImuBlock:
    """Whole lines, bytes ``[start, end)``, and the least and greatest time of their rows (ns)."""

    start: int
    end: int
    min_ns: int
    max_ns: int


@dataclass(frozen=True, slots=True)
class ImuSurvey:
    """What one pass over a table found. Times are on the table's own clock.

    Attributes:
        rows: lines with data, usable or not.
        rejected: reason -> rows dropped: ``null_time``, ``absurd_time``, ``field_count``, ``truncated``.
        gaps_in_row: sensor -> usable rows in which it has no finite value.
        non_monotonic: rows earlier than the row before them.
        duplicates: rows at the instant of another row of their block.
        accl_median: median |accl| in the table's unit; NaN without an accelerometer.
        components: as in ``ImuRange``, over the whole table.
        gaps: from row to row, more than three nominal periods; the 100 longest at most.
        notes: what was assumed, converted, dropped or found odd, in words.
        missing, detail: why the table is of no use, as in ``ImuRange``.
        gyro_row_ns, accl_row_ns, batch_ns: as in ``ImuRange``.
    """

    blocks: tuple[ImuBlock, ...]
    columns: tuple[str, ...]
    delimiter: str
    rows: int
    rejected: dict[str, int]
    gaps_in_row: dict[str, int]
    non_monotonic: int
    duplicates: int
    time_scale_ns: float
    gyro_rate_hz: float
    accl_rate_hz: float
    accl_median: float
    gyro_scale: float
    accl_scale: float
    components: Stretches = ()
    gaps: tuple[TimeSpan, ...] = ()
    notes: tuple[str, ...] = ()
    missing: str | None = None
    gyro_row_ns: float = 0.0
    accl_row_ns: float = 0.0
    batch_ns: int = 0

    @property
    def span(self) -> TimeSpan:
        """From the first row to just past the last; rows of a batch stand after their timestamp."""
        end_ns = max(b.max_ns for b in self.blocks) + 1 + self.batch_ns // 2
        return TimeSpan(min(b.min_ns for b in self.blocks), end_ns)


@dataclass(slots=True)
class Tally:
    """What the blocks said so far. Medians are kept as (a block's median, rows behind it)."""

    header: Header
    columns: ImuColumns
    scale_ns: float | None = None
    rows: int = 0
    usable: int = 0
    non_monotonic: int = 0
    duplicates: int = 0
    latest_ns: int | None = None
    beyond_gyro: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    gaps_in_row: Counter[str] = field(default_factory=Counter)
    blocks: list[ImuBlock] = field(default_factory=list)
    spans: Spans = field(default_factory=Spans)
    gyro_hz: list[tuple[float, int]] = field(default_factory=list)
    accl_hz: list[tuple[float, int]] = field(default_factory=list)
    accl_norm: list[tuple[float, int]] = field(default_factory=list)
    gyro_norm: list[tuple[float, int]] = field(default_factory=list)
    gyro_batches: Batches = field(default_factory=Batches)
    accl_batches: Batches = field(default_factory=Batches)

    def add(self, start: int, data: bytes) -> None:
        """Count a block's lines and keep what its usable rows say."""
        whole = data.rfind(b"\n") + 1
        if data[whole:].strip():  # a line without its end may be cut anywhere: `2.` is no 2.0
            self.rows += 1
            self.rejected["truncated"] += 1
        parsed = parse(data[:whole], self.header.names, self.header.delimiter, self.columns)
        self.rows += len(parsed.values) + parsed.misshapen
        self.rejected["field_count"] += parsed.misshapen
        numbers = np.isfinite(parsed.values[:, 0])
        self.rejected["null_time"] += int((~numbers).sum())
        if self.scale_ns is None:
            self.scale_ns = _time_scale(parsed.values[numbers, 0], self.columns.time_scale_ns)
        times, usable = times_ns(parsed.values[:, 0], self.scale_ns or self.columns.time_scale_ns)
        if usable.any():
            usable &= np.abs(times - _middle(times[usable])) <= _FURTHEST_NS
        self.rejected["absurd_time"] += int((numbers & ~usable).sum())
        if usable.any():
            self.spans.add(times[usable], parsed.components[usable])
            self._add_rows(start, start + whole, times[usable], parsed.values[usable, 1:])

    def _add_rows(self, start: int, end: int, times: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        self.usable += len(times)
        self.blocks.append(ImuBlock(start, end, int(times.min()), int(times.max())))
        self.non_monotonic += int((np.diff(times) < 0).sum())
        self.non_monotonic += self.latest_ns is not None and int(times[0]) < self.latest_ns
        self.latest_ns = int(times[-1])
        self.duplicates += len(times) - len(distinct(times))
        gyro, accl = values[:, :3], values[:, 3:]
        has_gyro, has_accl = np.isfinite(gyro).all(axis=1), np.isfinite(accl).all(axis=1)
        self.gaps_in_row["gyro"] += int((~has_gyro).sum())
        self.gaps_in_row["accl"] += int((~has_accl).sum())
        self.gyro_hz.extend(_rate(times[has_gyro]))
        self.accl_hz.extend(_rate(times[has_accl]))
        self.gyro_batches.add(times[has_gyro], gyro[has_gyro])
        self.accl_batches.add(times[has_accl], accl[has_accl])
        self.beyond_gyro += int((np.abs(gyro[has_gyro]) > FASTEST_RAD_S).any(axis=1).sum())
        for there, rows, norms in ((has_gyro, gyro, self.gyro_norm), (has_accl, accl, self.accl_norm)):
            if there.any():
                norm = np.linalg.norm(rows[there], axis=1)
                norms.append((float(np.median(norm)), len(norm)))

    def survey(self) -> ImuSurvey:
        """The verdict over all blocks."""
        rejected = {k: v for k, v in self.rejected.items() if v}
        if not self.blocks:
            why = ", ".join(f"{k}: {v}" for k, v in rejected.items()) or "nothing but a header"
            raise AlignError("imu_empty", f"the IMU table has no usable row ({why}); export it again")
        accl_median = _weighted_median(self.accl_norm)
        accl_scale, accl_note = _told(self.columns.accl_scale) or accl_unit(accl_median)
        gyro_rows = self.usable - self.gaps_in_row["gyro"]
        gyro_scale, gyro_note = _told(self.columns.gyro_scale) or gyro_unit(
            self.beyond_gyro / max(gyro_rows, 1), _weighted_median(self.gyro_norm), accl_scale != 1.0
        )
        missing, why_missing = why_useless(gyro_rows, self.usable - self.gaps_in_row["accl"], accl_median)
        batched = [b for b in (self.gyro_batches, self.accl_batches) if b.are_there]
        if missing is None and not all(b.are_regular for b in batched):
            missing = Reason.INVALID.value
        scale_ns = self.scale_ns or self.columns.time_scale_ns
        gyro_hz = _rate_of(self.gyro_batches, self.gyro_hz)
        accl_hz = _rate_of(self.accl_batches, self.accl_hz)
        components, overlap_note = self.spans.own()
        notes = (
            why_missing,
            time_note(scale_ns, self.columns.time_scale_ns),
            accl_note,
            gyro_note,
            overlap_note,
            *dict.fromkeys(batch_note(b) for b in batched),
            dropped_note(rejected, self.non_monotonic, 0 if batched else self.duplicates),
        )
        return ImuSurvey(
            blocks=tuple(self.blocks),
            columns=self.header.names,
            delimiter=self.header.delimiter,
            rows=self.rows,
            rejected=rejected,
            gaps_in_row={k: v for k, v in self.gaps_in_row.items() if v},
            non_monotonic=self.non_monotonic,
            duplicates=self.duplicates,
            time_scale_ns=scale_ns,
            gyro_rate_hz=gyro_hz,
            accl_rate_hz=accl_hz,
            accl_median=accl_median,
            gyro_scale=gyro_scale,
            accl_scale=accl_scale,
            components=components,
            gaps=self.spans.gaps(max(gyro_hz, accl_hz)),
            notes=tuple(n for n in notes if n),
            missing=missing,
            gyro_row_ns=self.gyro_batches.row_ns,
            accl_row_ns=self.accl_batches.row_ns,
            batch_ns=max(self.gyro_batches.reach_ns, self.accl_batches.reach_ns),
        )


def _told(scale: float | None) -> tuple[float, str] | None:
    """A scale that the source knows, and no note; None where it does not."""
    return None if scale is None else (scale, "")


def _rate_of(batches: Batches, rates: list[tuple[float, int]]) -> float:
    return 1e9 / batches.row_ns if batches.are_there else _weighted_median(rates)


def _time_scale(times: NDArray[np.float64], named_ns: float) -> float | None:
    """Nanoseconds per unit that make the spacing that of an IMU; None where there are too few rows to tell.

    The units' plausible spacings do not overlap (0.1 to 100 ms), so at most one fits.
    """
    steps = np.diff(distinct(times))
    if len(steps) < 3:
        return None
    step = float(np.median(steps))
    row = step * (len(steps) + 1) / len(times)  # where several rows have one time, these are batches
    others = SCALES_NS.values()
    for spacing, scales in ((step, (named_ns,)), (row, (named_ns,)), (step, others), (row, others)):
        for scale in scales:
            rate = 1e9 / (spacing * scale)
            if (_SLOWEST_HZ if scale == named_ns else _RATES_HZ[0]) <= rate <= _RATES_HZ[1]:
                return scale
    raise AlignError(
        "imu_rate",
        f"IMU rows stand {np.median(steps):.6g} units of time apart, which is no IMU's rate "
        "in s, ms, µs or ns; check the time column",
    )


def _rate(times_ns: NDArray[np.int64]) -> list[tuple[float, int]]:
    """Rows per second inside runs, and the spacings behind it; nothing where there are none."""
    steps = np.diff(distinct(times_ns))
    if not len(steps):
        return []
    inside = steps[steps <= 3 * np.median(steps)]
    return [(len(inside) * 1e9 / float(inside.sum()), len(inside))]


def _middle(times: NDArray[np.int64]) -> int:
    """The lower median: a time that occurs."""
    half = (len(times) - 1) // 2
    return int(np.partition(times, half)[half])


def _weighted_median(values: list[tuple[float, int]]) -> float:
    """The lower weighted median; 0.0 of nothing."""
    ordered = sorted(values)
    total = np.cumsum([n for _, n in ordered])
    return ordered[int(np.searchsorted(total, total[-1] / 2))][0] if ordered else 0.0
