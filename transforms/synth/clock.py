"""The IMU's own clock, and when its rows were measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from align.schemas.time import NS, ClockMap, ClockPiece, TimeSpan, seconds_to_ns
from align.transforms.synth.options import Pairs, SynthOptions
from align.transforms.synth.story import generator

_MARGIN_NS = 50_000_000  # rows before and after the video, as real IMU streams have them


@dataclass(frozen=True, slots=True)
class Rows:
    """When the rows of an IMU file were measured, and what the file says about it.

    Attributes:
        true_ns: int64 [n], ascending, recording clock.
        written_ns: int64 [n], ascending, the IMU's clock: ``clock.to_recording(written_ns) == true_ns``.
        component: int64 [n], which camera file each row belongs to.
        component_ns: int64 [n], the IMU's clock since the component began.
    """

    true_ns: NDArray[np.int64]
    written_ns: NDArray[np.int64]
    component: NDArray[np.int64]
    component_ns: NDArray[np.int64]


def spans(pairs: Pairs) -> tuple[TimeSpan, ...]:
    """Spans of (start, length) pairs in seconds."""
    return tuple(TimeSpan(seconds_to_ns(float(s)), seconds_to_ns(float(s + n))) for s, n in pairs)


def joints_ns(options: SynthOptions) -> tuple[int, ...]:
    """Where camera files were joined, recording clock."""
    return tuple(seconds_to_ns(float(j)) for j in options.joints_s)


def imu_clock(options: SynthOptions) -> ClockMap:
    """From the written IMU times to the recording clock: one piece, one more for each leap."""
    offset = seconds_to_ns(float(options.imu_offset_s))
    start = seconds_to_ns(float(options.video_start_s))
    pieces = [ClockPiece(start - offset, offset, options.imu_drift_ppm)]
    for joint, leap_s in zip(joints_ns(options), options.imu_jumps_s, strict=False):
        if leap_s > 0:
            written = ClockMap(tuple(pieces)).to_stream(joint) + seconds_to_ns(float(leap_s))
            pieces.append(ClockPiece(written, joint - written, options.imu_drift_ppm))
    return ClockMap(tuple(pieces))


def imu_rows(options: SynthOptions, index: int, start_ns: int, end_ns: int) -> Rows:
    """When recording ``index``, a video over ``[start_ns, end_ns)``, measured its rows."""
    clock, rng = imu_clock(options), generator(options, index, 4)
    period = NS / options.imu_rate_hz
    outer = TimeSpan(start_ns - _MARGIN_NS, end_ns + _MARGIN_NS)
    first, last = (clock.to_stream(t) for t in (outer.start_ns, outer.end_ns))
    even = np.arange(np.floor(first / period) - 1, np.ceil(last / period) + 2) * period
    jitter = rng.uniform(-1, 1, len(even)) * options.imu_jitter_ms * 1e6
    written = np.rint(even + jitter).astype(np.int64)
    true = clock.to_recording(written)
    kept = (true >= outer.start_ns) & (true < outer.end_ns) & ~_leapt_over(clock, written)
    for gap in spans(options.imu_gaps):
        kept &= (true < gap.start_ns) | (true >= gap.end_ns)
    written, true = written[kept], true[kept]
    joints = joints_ns(options)
    component = np.searchsorted(np.array(joints, np.int64), true, side="right")
    begins = np.array([clock.to_stream(t) for t in (start_ns, *joints)], np.int64)
    return Rows(true, written, component, written - begins[component])


def _leapt_over(clock: ClockMap, written: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which written times lie in a stretch that the clock leapt over: there nothing was measured."""
    lost = np.zeros(len(written), bool)
    for before, after in zip(clock.pieces, clock.pieces[1:], strict=False):
        leap_from = ClockMap((before,)).to_stream(clock.at(after.start_ns))
        lost |= (written >= leap_from) & (written < after.start_ns)
    return lost
