"""Lines of an IMU table as numbers, whatever the file looks like.

pyarrow reads a block in one go. Where a block holds text among the numbers, decimal commas or quotes, it is
read again as text, and only what is wholly a number counts: a reader that guesses turns `2.` into 2.0 and a
``;``-separated table into one column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from align.schemas.errors import AlignError
from align.schemas.recording import ImuColumns

BLOCK_BYTES = 1 << 20

_HEADER_BYTES = 1 << 16
_NULLS = ["", "null", "NULL", "Null", "None", "none", "NaN", "nan", "NAN", "-nan", "NA", "N/A", "n/a", "\\N"]
_LARGEST = 1e6  # no gyroscope or accelerometer reads more in any unit
_PLAIN = bytes(b if 0 < b < 128 else ord("?") for b in range(256))  # no number holds other bytes
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"


@dataclass(frozen=True, slots=True)
class Header:
    """Column names in file order, what separates them, and where the first row begins."""

    names: tuple[str, ...]
    delimiter: str
    end: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """Rows of a block.

    Attributes:
        values: float64 [n, 7]: time, gyro x y z, accl x y z; NaN where there is no number.
        components: float64 [n]: the component's number; NaN where there is no whole number.
        misshapen: lines whose number of fields is not the header's.
    """

    values: NDArray[np.float64]
    components: NDArray[np.float64]
    misshapen: int


def read_header(file: BinaryIO, columns: ImuColumns) -> tuple[Header, bytes]:
    """The header, and the bytes that were read beyond it.

    Raises:
        AlignError: ``imu_columns``: a column is not there; ``imu_empty``: the file holds nothing.
    """
    start = file.read(_HEADER_BYTES)
    line, newline, rest = start.partition(b"\n")
    if not start.strip():
        raise AlignError("imu_empty", "the IMU table is empty; export it again")
    text = line.decode("utf-8-sig", "replace").strip("\r\n")
    delimiter = max(",;\t|", key=text.count)
    names = tuple(n.strip().strip('"').strip() for n in text.split(delimiter))
    absent = [n for n in columns.names if n not in names]
    if absent:
        shown = ", ".join(names)[:200]
        raise AlignError(
            "imu_columns", f"the IMU table lacks {', '.join(absent)}; its first line is: {shown}"
        )
    return Header(names, delimiter, len(line) + len(newline)), rest


def blocks(file: BinaryIO, start: int, pending: bytes) -> Iterator[tuple[int, bytes]]:
    """Whole lines by the block, with the offset of each block; the last may end without a newline.

    Raises:
        AlignError: ``imu_lines``: a line is longer than a block.
    """
    while True:
        chunk = file.read(BLOCK_BYTES)
        data = pending + chunk
        whole = data.rfind(b"\n") + 1 if chunk else len(data)
        if whole:
            yield start, data[:whole]
        start, pending = start + whole, data[whole:]
        if len(pending) > BLOCK_BYTES:
            raise AlignError(
                "imu_lines", f"the IMU table has no line end within {BLOCK_BYTES} bytes of {start}"
            )
        if not chunk:
            return


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """``size`` bytes, though the file may give them piece by piece.

    Raises:
        AlignError: ``imu_changed``: the file ends before.
    """
    pieces = []
    while size:
        piece = file.read(size)
        if not piece:
            raise AlignError(
                "imu_changed", f"the IMU table is {size} bytes shorter than when it was surveyed"
            )
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def parse(data: bytes, names: tuple[str, ...], delimiter: str, columns: ImuColumns) -> Parsed:
    """Numbers of whole lines. ``names`` and ``delimiter`` are the header's."""
    if not data.strip():
        return Parsed(np.empty((0, len(columns.names))), np.empty(0), 0)
    data = data.translate(_PLAIN)
    numbered = bool(columns.component) and columns.component in names
    wanted = (*columns.names, *((columns.component,) if numbered else ()))
    try:
        table, misshapen = _read(data, names, delimiter, wanted, pa.float64())
    except pa.ArrowInvalid:
        table, misshapen = _read(data, names, delimiter, wanted, pa.string())
        table = pa.table([_numbers(c, delimiter) for c in table.columns], names=table.column_names)
    # itemwise, because a column may be asked for twice
    stacked = [table.column(n).to_numpy(zero_copy_only=False) for n in wanted]
    values = np.stack(stacked, axis=1).astype(np.float64)
    values[:, 1:][~(np.abs(values[:, 1:]) <= _LARGEST)] = np.nan
    values, rest = values[:, : len(columns.names)], values[:, len(columns.names) :]
    components = rest[:, 0] if rest.shape[1] else np.full(len(values), np.nan)
    return Parsed(values, np.where(components % 1 == 0, components, np.nan), misshapen)


def times_ns(times: NDArray[np.float64], scale_ns: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times in ns (ties up), and where they are usable: finite, and their differences within int64."""
    with np.errstate(over="ignore"):
        scaled = np.floor(times * scale_ns + 0.5)
    usable = np.abs(scaled) < 2.0**61  # 73 years; False for NaN
    return np.where(usable, scaled, 0.0).astype(np.int64), usable


def distinct(times: NDArray[Any]) -> NDArray[Any]:
    """Sorted, without repeats: ``np.unique``, whose hash table takes 1 ms, for rows that may be in order."""
    return times if (np.diff(times) > 0).all() else np.unique(times)


def _read(
    data: bytes, names: tuple[str, ...], delimiter: str, wanted: tuple[str, ...], kind: pa.DataType
) -> tuple[pa.Table, int]:
    misshapen = 0

    def skip(_: object) -> str:
        nonlocal misshapen
        misshapen += 1
        return "skip"

    distinct = [n if n not in names[:i] else f"{n}#{i}" for i, n in enumerate(names)]
    table = csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(column_names=distinct, use_threads=False, block_size=len(data) + 1),
        parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False, invalid_row_handler=skip),
        convert_options=csv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(wanted, kind),
            include_columns=list(dict.fromkeys(wanted)),
            null_values=_NULLS,
            strings_can_be_null=True,
        ),
    )
    return table, misshapen


def _numbers(column: Any, delimiter: str) -> Any:
    """float64 of a column of text; null where the text is not wholly one number."""
    text = pc.utf8_trim(column, " \t\"'")
    if delimiter != ",":
        text = pc.replace_substring(text, ",", ".")
    return pc.cast(pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None), pa.float64())
