"""``clocks.parquet``: what was measured of every stream's clock, and the clock maps that follow from it.

One row per recording, stream and piece. ``start_ns`` and ``end_ns`` bound the piece on the *stream's own*
clock; within it a stream time t stands at ``t + offset_ns + drift_ppm·1e-6·(t − start_ns)`` on the recording
clock. Offset, drift and sigma are null where nothing could be proven.

Rows of stream ``audio`` compare whole recordings of one event by their sound: there the stream's clock is the
recording's own, and the offset leads from it to the clock of the recording that ``reference`` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from align.schemas.errors import AlignError
from align.schemas.recording import Recording, SyncPiece, SyncStatus
from align.schemas.time import ClockMap, ClockPiece

if TYPE_CHECKING:  # a run reads tables, and need not wait for SciPy
    from align.transforms.sync.line import Line
    from align.transforms.sync.verdict import Judgement

SCHEMA = pa.schema(
    [
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("stream", pa.string(), nullable=False),
        pa.field("start_ns", pa.int64(), nullable=False),
        pa.field("end_ns", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("offset_ns", pa.int64()),
        pa.field("drift_ppm", pa.float64()),
        pa.field("sigma_ns", pa.int64()),
        pa.field("windows", pa.int32(), nullable=False),
        pa.field("agreeing", pa.int32(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("reference", pa.string()),
    ],
    metadata={"align": '{"table": "clocks", "version": 1}'},
)


@dataclass(frozen=True, slots=True, order=True)
class ClockRow:
    """One piece of one stream's clock.

    Attributes:
        stream: ``imu``, or the kind of another stream that was compared.
        start_ns: where the piece begins on the stream's clock.
        end_ns: where it ends, exclusive.
        status: ``verified``, ``corrected``, ``refuted`` or ``unobservable``.
        offset_ns: what to add to the stream's times at the piece's start; None unless verified or corrected.
        drift_ppm: by how much the recording clock gains on the stream's.
        sigma_ns: the greatest standard error of the offset anywhere in the piece.
        windows: how many windows were judged.
        agreeing: how many of them agree.
        reason: in words.
        reference: the recording whose clock the offset leads to; None for the recording's own.
    """

    recording_id: str
    stream: str
    start_ns: int
    end_ns: int
    status: SyncStatus
    offset_ns: int | None
    drift_ppm: float | None
    sigma_ns: int | None
    windows: int
    agreeing: int
    reason: str
    reference: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether the clock was measured."""
        return self.status in ("verified", "corrected")


def clock_row(
    recording_id: str, stream: str, start_ns: int, end_ns: int, found: Judgement, origin_ns: int
) -> ClockRow:
    """The row of a judgement.

    Args:
        recording_id: of the recording.
        stream: which stream.
        start_ns: piece on the stream's clock.
        end_ns: likewise.
        found: the judgement.
        origin_ns: recording time of the line's second 0.
    """
    offset_ns, drift_ppm, sigma_ns = None, None, None
    if found.line is not None:
        offset_ns, drift_ppm = on_stream_clock(found.line, start_ns, origin_ns)
        ends = ((t - origin_ns) / 1e9 + found.line.offset for t in (start_ns, end_ns))
        sigma_ns = round(max(found.line.sigma_at(t) for t in ends) * 1e9)
    return ClockRow(
        recording_id,
        stream,
        start_ns,
        end_ns,
        found.status,
        offset_ns,
        drift_ppm,
        sigma_ns,
        found.windows,
        found.agreeing,
        found.reason,
    )


def on_stream_clock(line: Line, start_ns: int, origin_ns: int) -> tuple[int, float]:
    """Offset (ns) at stream time ``start_ns`` and drift (ppm) over it, of a line over recording time.

    With o(t) = a + d·(t − at) over recording time, stream time s stands at the t with t − o(t) = s.
    """
    start = (start_ns - origin_ns) / 1e9
    offset = (line.offset + line.drift * (start - line.at)) / (1 - line.drift)
    return round(offset * 1e9), line.drift / (1 - line.drift) * 1e6


def clock_map(rows: Iterable[ClockRow]) -> ClockMap:
    """From one stream's clock to the recording clock; pieces that were not measured stay as they are."""
    pieces = [ClockPiece(r.start_ns, r.offset_ns or 0, r.drift_ppm or 0.0) for r in _pieces(rows)]
    return ClockMap(tuple(pieces)) if pieces else ClockMap()


def with_clock(recording: Recording, rows: Iterable[ClockRow]) -> Recording:
    """The recording, its IMU on the clock that was measured, and with the verdicts on it.

    Args:
        recording: from a source.
        rows: of this recording; without any of its IMU, or without an IMU, the recording stays as it is.
    """
    pieces = _pieces(r for r in rows if r.stream == "imu")
    if recording.imu is None or not pieces:
        return recording
    clock = clock_map(pieces)
    verdicts = (
        SyncPiece(clock.at(r.start_ns), r.status, r.offset_ns, r.drift_ppm or 0.0, r.sigma_ns) for r in pieces
    )
    return replace(
        recording,
        imu=replace(recording.imu, clock=recording.imu.clock.then(clock)),
        imu_sync=tuple(sorted(verdicts, key=lambda v: v.start_ns)),
    )


@dataclass(frozen=True, slots=True)
class SharedClock:
    """How a recording's clock leads to the one that concurrent recordings share.

    Attributes:
        reference: the recording whose own clock it is.
        clock: from the recording's clock to the shared one.
        sigma_ns: the greatest standard error of it, within what was compared.
    """

    reference: str
    clock: ClockMap
    sigma_ns: int


def shared_clock(rows: Iterable[ClockRow], recording_id: str) -> SharedClock:
    """The clock that a recording shares with others of its event, from the rows of stream ``audio``.

    Args:
        rows: of a whole table: a recording that others refer to has no row of its own.
        recording_id: the recording.

    Raises:
        AlignError: ``no_shared_clock``: it was not compared, or a part of it could not be proven.
    """
    audio = [r for r in rows if r.stream == "audio"]
    own = [r for r in audio if r.recording_id == recording_id]
    if not own and any(r.reference == recording_id for r in audio):
        return SharedClock(recording_id, ClockMap(), 0)
    if not own:
        detail = f"{recording_id} was compared with no other recording: see align sync"
        raise AlignError("no_shared_clock", detail, stage="plan")
    if unknown := [r for r in own if not r.is_known or r.reference is None]:
        detail = f"the clock of {recording_id} is {unknown[0].status}: {unknown[0].reason}"
        raise AlignError("no_shared_clock", detail, stage="plan")
    return SharedClock(str(own[0].reference), clock_map(own), max(r.sigma_ns or 0 for r in own))


def _pieces(rows: Iterable[ClockRow]) -> list[ClockRow]:
    """In order of time, one per start: of several, all but the last are empty."""
    ordered = sorted(rows, key=lambda r: (r.start_ns, r.end_ns))
    return list({r.start_ns: r for r in ordered}.values())


def write_clocks(path: str | Path, rows: Sequence[ClockRow]) -> None:
    """Write the table, sorted by recording, stream and piece."""
    ordered = sorted(rows, key=lambda r: (r.recording_id, r.stream, r.start_ns))
    pq.write_table(pa.Table.from_pylist([asdict(r) for r in ordered], SCHEMA), path, compression="zstd")


def read_clocks(path: str | Path) -> tuple[ClockRow, ...]:
    """Read the table.

    Raises:
        AlignError: ``bad_clocks``; see :func:`parse_clocks`.
    """
    try:
        return parse_clocks(str(path), Path(path).read_bytes())
    except OSError as error:
        raise AlignError("bad_clocks", f"{str(path)!r} cannot be read: {error}", stage="plan") from error


def parse_clocks(name: str, content: bytes) -> tuple[ClockRow, ...]:
    """The rows of a table that was read.

    Args:
        name: of the file, for messages.
        content: of the file.

    Raises:
        AlignError: ``bad_clocks``: no Parquet file, columns missing or empty, or a status unknown.
    """
    try:
        table = pq.read_table(pa.BufferReader(content))
        if "reference" not in table.column_names:  # as before sounds were compared
            table = table.append_column("reference", pa.nulls(len(table), pa.string()))
        if lacking := [n for n in SCHEMA.names if n not in table.column_names]:
            raise _bad(name, f"it lacks {', '.join(lacking)}")
        table = table.select(SCHEMA.names).cast(SCHEMA)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _bad(name, str(error)) from error
    if empty := [f.name for f in SCHEMA if not f.nullable and table[f.name].null_count]:
        raise _bad(name, f"{empty[0]} is empty in some rows")
    rows = tuple(ClockRow(**row) for row in table.to_pylist())
    if strange := sorted({r.status for r in rows} - set(get_args(SyncStatus))):
        raise _bad(name, f"status {strange[0]!r} is unknown")
    if any(r.is_known and r.offset_ns is None for r in rows):
        raise _bad(name, "a clock that was measured has no offset")
    return rows


def _bad(name: str, why: str) -> AlignError:
    detail = f"{name!r} is no table of clocks: {why}; write it with align sync"
    return AlignError("bad_clocks", detail, stage="plan")
