"""IMU tables in CSV: surveyed once as a stream, then read by byte range.

A source says what the columns mean. The rules for faults are those that EGO4D's documentation advises
(``data/imu.md`` of github.com/EGO4D/docs), or stand beside the code.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from align.schemas.media import ImuTrack
from align.schemas.plan import ImuRange
from align.schemas.recording import ImuColumns
from align.schemas.time import ClockMap, TimeSpan
from align.transforms.read.guard import open_bytes
from align.transforms.tables.batches import spread
from align.transforms.tables.rows import blocks, parse, read_exactly, read_header, times_ns
from align.transforms.tables.spans import in_place
from align.transforms.tables.survey import ImuSurvey as ImuSurvey
from align.transforms.tables.survey import Tally

Source = BinaryIO | str | Path
Opener = Callable[[str], BinaryIO]

_LONGEST_READ = 1 << 24  # bytes: rows out of order may make every block touch a span


def survey_imu(source: Source, columns: ImuColumns, *, opener: Opener | None = None) -> ImuSurvey:
    """Read a table once, in memory that does not depend on its size.

    The unit of time is checked against the rows' spacing, the accelerometer's against gravity, and the
    gyroscope's against what a gyroscope can measure; what cannot be told stays as named, with a note.

    Args:
        source: a path, or a binary file that stands at its beginning.
        columns: the meaning of the columns.
        opener: opens a path; ``open(path, "rb")`` by default.

    Raises:
        AlignError: ``imu_columns`` if the header lacks a column, ``imu_empty`` if no row is usable,
            ``imu_rate`` if the rows' spacing is that of no IMU in any unit of time, ``imu_lines`` if a line
            is longer than a block; what :func:`~align.transforms.read.guard.open_bytes` raises.
    """
    with _opened(source, opener) as file:
        header, rest = read_header(file, columns)
        tally = Tally(header, columns)
        for start, data in blocks(file, header.end, rest):
            tally.add(start, data)
    return tally.survey()


def imu_range(survey: ImuSurvey, span: TimeSpan) -> ImuRange:
    """What to read for the rows inside a span of the table's clock: only blocks that touch it."""
    # a clock map leads back to within a nanosecond, not exactly; and batches must be whole
    near = span.widened(1_000 + survey.batch_ns)
    ranges: list[tuple[int, int]] = []
    for block in survey.blocks:
        if not TimeSpan(block.min_ns, block.max_ns + 1).touches(near):
            continue
        if ranges and ranges[-1][1] == block.start and block.end - ranges[-1][0] <= _LONGEST_READ:
            ranges[-1] = (ranges[-1][0], block.end)
        else:
            ranges.append((block.start, block.end))
    return ImuRange(
        byte_ranges=tuple(ranges),
        columns=survey.columns,
        delimiter=survey.delimiter,
        time_scale_ns=survey.time_scale_ns,
        gyro_scale=survey.gyro_scale,
        accl_scale=survey.accl_scale,
        gyro_rate_hz=survey.gyro_rate_hz,
        accl_rate_hz=survey.accl_rate_hz,
        span=survey.span,
        missing=survey.missing,
        detail="; ".join(survey.notes),
        components=tuple(c for c in survey.components if c[1].touches(near)),
        gyro_row_ns=survey.gyro_row_ns,
        accl_row_ns=survey.accl_row_ns,
        batch_ns=survey.batch_ns,
    )


def read_imu(
    source: Source,
    range: ImuRange,
    clock: ClockMap,
    span: TimeSpan,
    columns: ImuColumns,
    opener: Opener | None = None,
) -> ImuTrack:
    """The rows whose recording time lies in a span: sorted, finite, one per instant.

    Rows that repeat another are dropped; rows that differ at one instant are averaged. A row in which one
    sensor is missing still counts for the other. Where components overlap, the earlier one's rows stand. Rows
    in batches of one timestamp are spread first.

    Args:
        source: the table that was surveyed.
        range: what to read of it.
        clock: from the table's clock to the recording clock.
        span: recording clock.
        columns: the meaning of the columns.
        opener: opens a path; ``open(path, "rb")`` by default.
    """
    parts = []
    with _opened(source, opener) as file:
        for start, end in range.byte_ranges:
            file.seek(start)
            table = parse(read_exactly(file, end - start), range.columns, range.delimiter, columns)
            times, usable = times_ns(table.values[:, 0], range.time_scale_ns)
            usable &= in_place(times, table.components, range.components)
            parts.append((times[usable], table.values[usable, 1:]))
    times = np.concatenate([t for t, _ in parts]) if parts else np.empty(0, np.int64)
    values = np.concatenate([v for _, v in parts]) if parts else np.empty((0, 6))
    gyro_ns, gyro = _rows(times, values[:, :3] * range.gyro_scale, range.gyro_row_ns, clock, span)
    accl_ns, accl = _rows(times, values[:, 3:] * range.accl_scale, range.accl_row_ns, clock, span)
    starts = np.array([stretch.start_ns for _, stretch in range.components], np.int64)
    joints_ns = tuple(clock.to_recording(starts).tolist())
    rates = range.gyro_rate_hz, range.accl_rate_hz
    is_spread = bool(range.gyro_row_ns or range.accl_row_ns)
    return ImuTrack(gyro_ns, gyro, accl_ns, accl, *rates, joints_ns, is_spread)


def _rows(
    times: NDArray[np.int64], values: NDArray[np.float64], row_ns: float, clock: ClockMap, span: TimeSpan
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One sensor's rows in a span of the recording clock; its batches spread where ``row_ns`` is not 0."""
    if row_ns:
        there = np.isfinite(values).all(axis=1)
        times, values = spread(times[there], row_ns), values[there]
    times = clock.to_recording(times)
    inside = (times >= span.start_ns) & (times < span.end_ns)
    return _one_per_instant(times[inside], values[inside])


def _one_per_instant(
    times: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Finite rows in order of time; repeats dropped, differing rows of one instant averaged."""
    there = np.isfinite(values).all(axis=1)
    times, values = times[there], values[there]
    if (np.diff(times) > 0).all():
        return times, values
    order = np.lexsort((*values.T[::-1], times))  # by value too: the mean must not depend on the file's order
    times, values = times[order], values[order]
    same_time = np.diff(times) == 0
    if same_time.any():
        fresh = np.concatenate(([True], ~(same_time & (np.diff(values, axis=0) == 0).all(axis=1))))
        times, values = times[fresh], values[fresh]
        times, first, count = np.unique(times, return_index=True, return_counts=True)
        values = np.add.reduceat(values, first, axis=0) / count[:, None]
    return times, values


def _opened(source: Source, opener: Opener | None) -> AbstractContextManager[BinaryIO]:
    if isinstance(source, (str, Path)):
        return open_bytes(str(source), opener)
    return nullcontext(source)
