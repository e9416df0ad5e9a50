"""What may be said of a pair of clocks, in one word and in words, from how far the windows agree.

A false "verified" is the one error that must not happen: it takes many windows, each searched by itself, that
arrive at one line with one map; no correlation value ever decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from align.schemas.recording import SyncStatus
from align.transforms.sync.agreement import Agreement, evidence_curves, find_agreement
from align.transforms.sync.gyro import GyroIntegral
from align.transforms.sync.line import MAX_DRIFT, Line
from align.transforms.sync.search import Window

LEAST_WINDOWS = 3
"""Fewer windows can agree by accident."""

_LEAST_FOLLOWED = 0.5  # share of a window's intervals in which the picture could be followed
_LEAST_INTERVALS = 30
_MOVING = 4.0  # rotation over its noise from which a window must agree or speak against the line
_TURNING = np.radians(0.5)  # rad/s, root mean square; a gyro below it says that the camera stood still
_SHARE = 0.75  # of the windows that are judged must agree
_EXPLAINED = 0.5  # of the seen rotation's power, by one line and one map
_WEAKEST = 0.6  # of the power on every axis that turns well above noise
_UNEXPLAINED = 5.0  # standard errors of picture and gyro; true pairs leave 1.0 to 1.3 of them
_FEW_SWINGS = 60.0  # motions that turn round less often may look alike by accident: where fewer are seen ...
_FEW_WEAKEST, _FEW_UNEXPLAINED = 0.7, 2.5  # ... all windows must agree, and within these ...
_LONE_WEAKEST, _LONE_UNEXPLAINED = 0.9, 1.5  # ... or, where a single axis turns, down to the noise
_RIVALRY = 0.7  # evidence of another answer over that of the best from which none can be chosen
_SHARPEST = 5e-3  # seconds; a vaguer line is no measurement
_QUICK_GAIN = 0.6  # quick motion that the picture shows by less than this was taken out of it
_WHOLE_GAIN = 0.9  # from here down to it the picture may be steadied a little, or things near by move past


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How a pair of clocks is looked at.

    Attributes:
        reach_s: offsets from -reach to +reach are searched.
        threshold_s: an offset beyond it is called ``corrected``.
    """

    reach_s: float = 5.0
    threshold_s: float = 0.005


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and what it rests on.

    Attributes:
        line: None unless verified or corrected.
        windows: how many were judged.
        agreeing: how many of them agree with the line.
        agreement: the best agreement that was found, whatever became of it.
    """

    status: SyncStatus
    reason: str
    windows: int
    agreeing: int
    line: Line | None = None
    agreement: Agreement | None = None


def judge(windows: list[Window], gyro: GyroIntegral, options: SyncOptions) -> Judgement:
    """The verdict on one piece of a recording, from its windows in ascending order."""
    useful = followed_windows(windows)
    curves = evidence_curves(useful, gyro, options.reach_s) if useful else None
    return judge_curves(windows, useful, curves, gyro, options)


def followed_windows(windows: list[Window]) -> list[Window]:
    """Those in which the picture could be followed."""
    return [w for w in windows if w.followed >= _LEAST_FOLLOWED and len(w.seen) >= _LEAST_INTERVALS]


def judge_curves(
    windows: list[Window],
    useful: list[Window],
    curves: NDArray[np.float64] | None,
    gyro: GyroIntegral,
    options: SyncOptions,
) -> Judgement:
    """:func:`judge` with the evidence of the useful windows at hand."""
    if len(windows) < LEAST_WINDOWS:
        return Judgement(
            "unobservable", f"too short: {len(windows)} windows, {LEAST_WINDOWS} are needed", len(windows), 0
        )
    if curves is None or len(useful) < LEAST_WINDOWS:
        reason = (
            f"dark, blank or torn picture: it could be followed in {len(useful)} of {len(windows)} windows"
        )
        return Judgement("unobservable", reason, len(useful), 0)
    agreement = find_agreement(useful, curves, gyro, options.reach_s)
    if agreement is None:
        return Judgement("unobservable", "the gyro's rows do not cover the picture", len(useful), 0)
    return _weigh(agreement, gyro, options)


def _weigh(agreement: Agreement, gyro: GyroIntegral, options: SyncOptions) -> Judgement:
    covered = [c for c in agreement.checks if c.covered]
    moving = [c for c in covered if c.window.motion >= _MOVING]
    # Windows at rest may bear the line out; they can only speak against it where hardly anything moves.
    judged = covered if len(moving) < LEAST_WINDOWS else [c for c in covered if c in moving or c.agrees]
    agreeing = [c for c in judged if c.agrees]
    seen = len(judged), len(agreeing)
    of = f"{len(agreeing)} of {len(judged)} windows agree with one line"
    if len(covered) < LEAST_WINDOWS:
        return Judgement(
            "unobservable", f"the gyro covers {len(covered)} windows", *seen, agreement=agreement
        )
    if not _gyro_turns(agreement, gyro):
        reason = "by the gyro the camera hardly turns: there is nothing to compare"
        return Judgement("unobservable", reason, *seen, agreement=agreement)
    objection = _objection(agreement, len(judged), len(agreeing))
    if objection is None:
        line = agreement.line
        worst = max((abs(line.offset_at(c.window.centre)) for c in covered), default=0.0)
        status: SyncStatus = "corrected" if worst > options.threshold_s else "verified"
        return Judgement(status, f"{of}; {agreement.fit.explained:.0%} explained", *seen, line, agreement)
    if len(moving) < LEAST_WINDOWS:
        reason = f"the picture turns in {len(moving)} windows only: {objection.words}"
        return Judgement("unobservable", reason, *seen, agreement=agreement)
    if objection.refutes:
        reason = f"the picture turns, but within ±{options.reach_s:g} s {objection.words}"
        return Judgement("refuted", reason, *seen, agreement=agreement)
    return Judgement("unobservable", f"{of}, but {objection.words}", *seen, agreement=agreement)


def _gyro_turns(agreement: Agreement, gyro: GyroIntegral) -> bool:
    times = np.concatenate(
        [c.window.start - agreement.line.offset_at(c.window.centre) for c in agreement.checks]
    )
    rate = gyro.rate(times)
    return bool(np.sqrt(((rate - rate.mean(axis=0)) ** 2).sum(axis=1).mean()) >= _TURNING)


@dataclass(frozen=True, slots=True)
class _Objection:
    """Why a line may not be believed; it refutes the pair, or leaves it open."""

    words: str
    refutes: bool


def _objection(agreement: Agreement, judged: int, agreeing: int) -> _Objection | None:
    """What speaks against the line first and loudest; None where nothing does."""
    fit = agreement.fit
    centres = [c.window.centre for c in agreement.checks]
    sigma = max(agreement.line.sigma_at(t) for t in (centres[0], centres[-1]))
    taught = sum(c.by_others for c in agreement.checks if c.agrees)
    if fit.explained < _EXPLAINED:
        return _Objection(f"the gyro explains {fit.explained:.0%} of what the picture does", True)
    if agreeing < max(LEAST_WINDOWS, _SHARE * judged):
        return _Objection(f"only {agreeing} of {judged} windows agree with one line", True)
    if 2 * taught < agreeing:
        return _Objection("the windows agree on the time, but not on one map from gyro to picture", True)
    if fit.quick_gain < _QUICK_GAIN:
        words = f"the picture shows {fit.quick_gain:.0%} of the gyro's quick motion: it was stabilised"
        return _Objection(words, True)
    gain = float(np.fmin(fit.quick_gain, fit.own_gain))
    if gain < _WHOLE_GAIN:
        return _Objection(
            f"the picture shows {gain:.0%} of the gyro's quicker motion: it may be steadied", False
        )
    if agreement.rivalry > _RIVALRY:
        return _Objection(
            f"the motion repeats itself: another offset explains {agreement.rivalry:.0%} as much", False
        )
    if fit.weakest < _WEAKEST:
        words = f"on one axis the gyro explains {fit.weakest:.0%} only: the motions may just look alike"
        return _Objection(words, False)
    if fit.unexplained > _UNEXPLAINED:
        words = f"what the gyro leaves unexplained is {fit.unexplained:.1f} times the noise"
        return _Objection(words, False)
    if fit.swings < _FEW_SWINGS and (why := _too_alike(agreement, judged, agreeing)):
        return _Objection(f"the motion turns round some {fit.swings:.0f} times only, and {why}", False)
    if abs(agreement.line.drift) > MAX_DRIFT:
        return _Objection(f"it would mean a drift of {agreement.line.drift * 1e6:.0f} ppm", False)
    if sigma > _SHARPEST:
        return _Objection(f"the line is uncertain by {sigma * 1e3:.1f} ms", False)
    return None


def _too_alike(agreement: Agreement, judged: int, agreeing: int) -> str:
    """What keeps a slow or short motion from being told apart from others; "" where nothing does."""
    if agreeing < judged:
        return f"{judged - agreeing} of {judged} windows disagree"
    few = (_FEW_WEAKEST, _FEW_UNEXPLAINED) if agreement.fit.axes > 1 else (_LONE_WEAKEST, _LONE_UNEXPLAINED)
    if agreement.fit.weakest < few[0]:
        return f"on one axis the gyro explains {agreement.fit.weakest:.0%} only"
    if agreement.fit.unexplained > few[1]:
        return f"what the gyro leaves unexplained is {agreement.fit.unexplained:.1f} times the noise"
    return ""
