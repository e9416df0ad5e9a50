"""From a recording's picture and gyro to the rows of its clock: pieces, breaks, and how much is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from align.schemas.media import ImuTrack
from align.schemas.time import NS, TimeSpan
from align.transforms.sync.agreement import evidence_curves
from align.transforms.sync.clocks import ClockRow, clock_row
from align.transforms.sync.flow import Flow, focal_length, rotation_track
from align.transforms.sync.gyro import GyroIntegral
from align.transforms.sync.picture import cut_windows, looks
from align.transforms.sync.search import Window, make_window
from align.transforms.sync.verdict import Judgement, SyncOptions, followed_windows, judge_curves

Floats = NDArray[np.float64]
Look = Callable[[Sequence[TimeSpan]], list[list[Flow]]]
"""What moves where in each of some windows of the picture."""

_SETTLED_S, _SETTLED_WINDOWS = 0.2e-3, 5  # a line known this well, by so many, needs no further look
_HOPELESS = 0.3  # share of the seen rotation that is explained; a pair below it needs none either
_JOINED_S = 1e-3  # lines that meet at a joint to within this, or within their errors, are one line
_GAP_PERIODS = 3
_NEAR_JOINT_NS = NS


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a recording on one line, as judged.

    Attributes:
        span: recording clock.
        judgement: on all its windows.
    """

    span: TimeSpan
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a recording's IMU clock.

    Attributes:
        rows: for ``clocks.parquet``.
        pieces: the judgements behind them.
        gyro: the integral that windows and lines refer to; None where there are too few rows.
        seconds_seen: how much of the picture was looked at.
        focal: focal length that was found or assumed, picture widths.
    """

    rows: tuple[ClockRow, ...]
    pieces: tuple[Piece, ...] = ()
    gyro: GyroIntegral | None = None
    seconds_seen: float = 0.0
    focal: float = 0.0


def measure_imu(
    recording_id: str,
    span: TimeSpan,
    joints_ns: Sequence[int],
    imu: ImuTrack,
    look: Look,
    options: SyncOptions,
    keyframes_ns: Sequence[int] = (),
) -> Measured:
    """Measure the gyro's clock against the picture.

    Args:
        recording_id: for the rows.
        span: of the video, recording clock.
        joints_ns: where camera files were joined: only there, and where the rows of another instrument
            begin, may the clock break.
        imu: rows over the whole recording, on the clock that is to be measured.
        look: looks at windows of the picture.
        options: reach and threshold.
        keyframes_ns: of the video, where windows had better begin.
    """
    edges = [span.start_ns, *_joints(span, joints_ns, imu, options.reach_s), span.end_ns]
    spans = [TimeSpan(a, b) for a, b in pairwise(edges)]
    if len(imu.gyro_ns) < 4:
        return Measured((nothing_to_compare(recording_id, span, "the gyroscope has no rows"),))
    gyro = GyroIntegral(imu.gyro_ns, imu.gyro)
    eye = _Eye(spans, look, gyro, keyframes_ns)
    pieces: list[Piece] = []
    for chosen in eye.looks:
        if pieces and all(_is_settled(p.judgement) for p in pieces):
            break
        eye.look_at(chosen)
        pieces = _judge_pieces(spans, eye.windows(), gyro, options)
    rows = _rows(recording_id, pieces, gyro)
    return Measured(rows, tuple(pieces), gyro, eye.seconds_seen, eye.focal)


def _joints(span: TimeSpan, joints_ns: Sequence[int], imu: ImuTrack, reach_s: float) -> list[int]:
    """Where the clock may break, ascending: the video's joints, and those that only the rows know of.

    A joint of the rows within reach of another is the same one, seen through the offset to be measured.
    """
    found = sorted(j for j in set(joints_ns) if span.start_ns < j < span.end_ns)
    for joint in imu.joints_ns:
        others = [span.start_ns, *found, span.end_ns, *imu.gyro_ns[:1]]
        if span.holds(joint) and min(abs(joint - o) for o in others) > reach_s * NS:
            found = sorted([*found, joint])
    return found


def nothing_to_compare(recording_id: str, span: TimeSpan, reason: str, stream: str = "imu") -> ClockRow:
    """The row of a stream that there is nothing to compare with."""
    return ClockRow(
        recording_id, stream, span.start_ns, span.end_ns, "unobservable", None, None, None, 0, 0, reason
    )


class _Eye:
    """Looks at more and more of the picture, and makes windows of what it saw."""

    def __init__(
        self, spans: Sequence[TimeSpan], look: Look, gyro: GyroIntegral, keyframes_ns: Sequence[int]
    ) -> None:
        self._look, self._gyro = look, gyro
        self._cut = [cut_windows(s, keyframes_ns) for s in spans]
        first_then = [looks(windows) for windows in self._cut]
        self.looks = [[(p, i) for p, both in enumerate(first_then) for i in both[k]] for k in (0, 1)]
        self._seen: dict[tuple[int, int], list[Flow]] = {}
        self.focal = 0.0

    @property
    def seconds_seen(self) -> float:
        return sum(self._cut[p][i].length_ns for p, i in self._seen) / NS

    def look_at(self, chosen: Sequence[tuple[int, int]]) -> None:
        wanted = sorted(c for c in chosen if c not in self._seen)
        flows = self._look([self._cut[p][i] for p, i in wanted])
        self._seen.update(zip(wanted, flows, strict=True))

    def windows(self) -> list[list[Window]]:
        """The windows seen so far, piece by piece, in order of time."""
        keys = sorted(self._seen)
        # One lens made all of it: the focal length is found once, from all that moved.
        self.focal = focal_length([f for k in keys for f in self._seen[k]])
        out: list[list[Window]] = [[] for _ in self._cut]
        for p, i in keys:
            span, flows = self._cut[p][i], self._seen[p, i]
            end = max(span.end_ns, flows[-1].end_ns) if flows else span.end_ns
            out[p].append(make_window(rotation_track(flows, self.focal), self._gyro, span.start_ns, end))
        return out


def _is_settled(judgement: Judgement) -> bool:
    """Whether a further look would change nothing that matters."""
    agreement, line = judgement.agreement, judgement.line
    if agreement is None:
        return False
    if line is None:
        hopeless = agreement.fit.explained < _HOPELESS and 3 * judgement.agreeing < judgement.windows
        return judgement.status == "refuted" and hopeless
    centres = [c.window.centre for c in agreement.checks]
    all_agree = judgement.agreeing == judgement.windows >= _SETTLED_WINDOWS
    return all_agree and max(line.sigma_at(t) for t in (centres[0], centres[-1])) <= _SETTLED_S


def _judge_pieces(
    spans: Sequence[TimeSpan], windows: list[list[Window]], gyro: GyroIntegral, options: SyncOptions
) -> list[Piece]:
    """Each piece by itself first; then neighbours that are on one line become one."""
    useful = [followed_windows(w) for w in windows]
    curves = [evidence_curves(u, gyro, options.reach_s) if u else None for u in useful]

    def judged(which: Sequence[int]) -> Judgement:
        known = [c for i in which if (c := curves[i]) is not None]
        return judge_curves(
            [w for i in which for w in windows[i]],
            [w for i in which for w in useful[i]],
            np.concatenate(known) if known else None,
            gyro,
            options,
        )

    groups = [([i], judged([i])) for i in range(len(spans))]
    i = 0
    while i + 1 < len(groups):
        (left, a), (right, b) = groups[i], groups[i + 1]
        joint = float(gyro.seconds(np.array([spans[right[0]].start_ns]))[0])
        merged = judged([*left, *right]) if _may_be_one(a, b, joint) else None
        if merged is not None and merged.line is not None and _keeps_both(a, b, merged):
            groups[i : i + 2] = [([*left, *right], merged)]
            i = max(i - 1, 0)
        else:
            i += 1
    return [
        Piece(TimeSpan(spans[which[0]].start_ns, spans[which[-1]].end_ns), found) for which, found in groups
    ]


def _may_be_one(a: Judgement, b: Judgement, joint: float) -> bool:
    """Two known lines that meet at the joint; or one known line beside a piece that cannot tell by itself."""
    if a.line is not None and b.line is not None:
        apart = abs(a.line.offset_at(joint) - b.line.offset_at(joint))
        return apart <= max(_JOINED_S, 3 * float(np.hypot(a.line.sigma_at(joint), b.line.sigma_at(joint))))
    known, other = (a, b) if a.line is not None else (b, a)
    return known.line is not None and other.status == "unobservable"


def _keeps_both(a: Judgement, b: Judgement, merged: Judgement) -> bool:
    """Whether the common line loses no window that agreed, and gains none that disagrees."""
    return merged.agreeing >= a.agreeing + b.agreeing and merged.windows - merged.agreeing <= max(
        a.windows - a.agreeing if a.line else 0, 0
    ) + max(b.windows - b.agreeing if b.line else 0, 0)


def _rows(recording_id: str, pieces: Sequence[Piece], gyro: GyroIntegral) -> tuple[ClockRow, ...]:
    """One row per piece; the bounds are moved from the recording clock to the stream's."""
    starts = [pieces[0].span.start_ns]
    for before, after in pairwise(pieces):
        starts.append(_break_ns(after.span.start_ns, before.judgement, after.judgement, gyro))
    ends = [*starts[1:], pieces[-1].span.end_ns]
    return tuple(
        clock_row(recording_id, "imu", start, max(end, start), piece.judgement, gyro.origin_ns)
        for start, end, piece in zip(starts, ends, pieces, strict=True)
    )


def _break_ns(joint_ns: int, before: Judgement, after: Judgement, gyro: GyroIntegral) -> int:
    """Where the stream's times pass from one line to the next: at the pause nearest the joint, else there.

    A clock that leaps ahead leaves a pause between rows; one that leaps back has none to show.
    """
    joint = float(gyro.seconds(np.array([joint_ns]))[0])
    guesses = [joint_ns - round(j.line.offset_at(joint) * NS) for j in (before, after) if j.line is not None]
    low, high = min([joint_ns, *guesses]) - _NEAR_JOINT_NS, max([joint_ns, *guesses]) + _NEAR_JOINT_NS
    steps = np.diff(gyro.times_ns)
    pauses = np.flatnonzero(steps > _GAP_PERIODS * np.median(steps))
    ends = gyro.times_ns[pauses + 1]
    near = [int(e) for e in ends if low <= e <= high]
    return min(near, key=lambda e: min(abs(e - g) for g in [joint_ns, *guesses]), default=joint_ns)


def moved(imu: ImuTrack, offset_ns: int) -> ImuTrack:
    """The same rows, all times later by ``offset_ns``: for trials of the measurement itself."""
    return replace(imu, gyro_ns=imu.gyro_ns + offset_ns, accl_ns=imu.accl_ns + offset_ns)
