"""What the figures of an IMU table mean: its units, whether it is of use, and what to tell its user."""

from __future__ import annotations

import numpy as np

from align.schemas.errors import Reason

G = 9.80665
"""Standard gravity, m/s²."""

SCALES_NS = {"ms": 1e6, "s": 1e9, "µs": 1e3, "ns": 1.0}
FASTEST_RAD_S = 70.0  # 4000 °/s: the widest range of any consumer gyroscope

_REJECTED = {  # reason -> in words, of one and of several
    "null_time": ("row without a time", "rows without a time"),
    "absurd_time": ("absurd time", "absurd times"),
    "field_count": ("row of another length", "rows of another length"),
    "truncated": ("row cut short", "rows cut short"),
}


def why_useless(gyro_rows: int, accl_rows: int, accl_median: float) -> tuple[str | None, str]:
    """A ``Reason`` value and its words where the table is of no use."""
    if not gyro_rows or not accl_rows:
        return Reason.NOT_RECORDED.value, f"the {'accelerometer' if gyro_rows else 'gyroscope'} has no values"
    if accl_median == 0.0:
        return Reason.INVALID.value, "the accelerometer reads 0, without gravity"
    return None, ""


def accl_unit(median: float) -> tuple[float, str]:
    """Factor to m/s²: a mostly still accelerometer reads gravity."""
    if 0.7 * G <= median <= 1.3 * G or median == 0.0 or np.isnan(median):
        return 1.0, ""
    if 0.7 <= median <= 1.3:
        return G, f"the accelerometer is in g (median {median:.3g}), converted to m/s²"
    return 1.0, f"median |accl| is {median:.4g}, neither m/s² nor g: taken as m/s²"


def gyro_unit(share_beyond: float) -> tuple[float, str]:
    """Factor to rad/s. Slow turns in °/s look like fast ones in rad/s, so only the impossible decides."""
    if share_beyond > 1e-3:
        return float(
            np.pi / 180
        ), f"the gyroscope is in °/s (values beyond {FASTEST_RAD_S:.0f}), converted to rad/s"
    return 1.0, ""


def time_note(scale_ns: float, named_ns: float) -> str:
    """Says a unit of time that is not the one that the column's name promises."""
    unit = next((u for u, s in SCALES_NS.items() if s == scale_ns), f"{scale_ns:g} ns")
    return "" if scale_ns == named_ns else f"times are in {unit}, whatever the column's name says"


def dropped_note(rejected: dict[str, int], non_monotonic: int, duplicates: int) -> str:
    """Says what was dropped and what was put right, e.g. ``1 absurd time dropped; 2 duplicates``."""
    dropped = _counted({words: rejected.get(reason, 0) for reason, words in _REJECTED.items()})
    repaired = _counted(
        {("row out of order", "rows out of order"): non_monotonic, ("duplicate", "duplicates"): duplicates}
    )
    return "; ".join(part for part in (dropped and f"{dropped} dropped", repaired) if part)


def _counted(counts: dict[tuple[str, str], int]) -> str:
    return ", ".join(f"{n:,} {one if n == 1 else several}" for (one, several), n in counts.items() if n)
