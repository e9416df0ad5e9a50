"""What the figures of an IMU table mean: its units, whether it is of use, and what to tell its user."""

from __future__ import annotations

import numpy as np

from align.schemas.errors import Reason

G = 9.80665
"""Standard gravity, m/s²."""

SCALES_NS = {"ms": 1e6, "s": 1e9, "µs": 1e3, "ns": 1.0}
FASTEST_RAD_S = 70.0  # 4000 °/s: the widest range of any consumer gyroscope
_BUSY_RAD_S = 3.0  # nothing that is worn or held turns at 170 °/s for half of a recording
_WILD_RAD_S = 10.0

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


def gyro_unit(share_beyond: float, median: float, accl_in_g: bool) -> tuple[float, str]:
    """Factor to rad/s. Slow turns in °/s look like fast ones in rad/s, so only the implausible decides.

    Args:
        share_beyond: of the rows that no gyroscope could measure in rad/s.
        median: of |gyro|.
        accl_in_g: whether the accelerometer beside it was found to be in g, as who writes g writes °/s.
    """
    why = ""
    if share_beyond > 1e-3:
        why = f"values beyond {FASTEST_RAD_S:.0f}"
    elif accl_in_g and median > _BUSY_RAD_S:
        why = f"median {median:.3g} beside an accelerometer in g"
    if why:
        return float(np.pi / 180), f"the gyroscope is in °/s ({why}), converted to rad/s"
    if accl_in_g:
        doubt = f"median |gyro| is {median:.3g}: taken as rad/s, but the accelerometer beside it is in g"
    elif median > _WILD_RAD_S:
        doubt = f"median |gyro| is {median:.3g}: taken as rad/s, but that is fast for half of a recording"
    else:
        return 1.0, ""
    return 1.0, f"{doubt}; it may be in °/s"


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
