"""The camera's rotation between neighbouring frames, from sparse optical flow on a small luma picture.

Corners (Shi and Tomasi, *Good features to track*, 1994) are followed by pyramidal Lucas-Kanade (Bouguet,
2001), both as OpenCV has them. Per interval a rotation vector and a forward motion are fitted in the
instantaneous motion field of Longuet-Higgins and Prazdny (1980), robustly, since hands and people move too:

    u = xy·ωx − (1 + x²)·ωy + y·ωz + x·s        v = (1 + y²)·ωx − xy·ωy − x·ωz + y·s

with x, y in units of the focal length, half-way between where a corner was and where it went. The focal
length is that which leaves least of the strongest flow unexplained; a wrong one bends the rotation's scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# One thread: more save no CPU here, and a child forked from a process that started them would hang.
cv2.setNumThreads(1)

Gray = NDArray[np.uint8]
Floats = NDArray[np.float64]

WIDTH = 160
"""Pixels across the picture on which flow is measured."""

NOMINAL_FOCAL = 0.6
"""Focal length in picture widths where the flow does not tell: 80 degrees across."""

_FOCALS = np.geomspace(0.3, 2.4, 13)
_CALIBRATION_PAIRS = 40
_CALIBRATION_FLOW = 1.0 / WIDTH  # the typical flow of a pair must exceed a pixel for the lens to show in it
_CALIBRATION_GAIN = 0.02  # by which share the misfit must fall for a measured focal length to be believed

CORNERS = 110
"""At most so many are followed from one frame to the next."""

_CORNERS: dict[str, Any] = {"maxCorners": CORNERS, "qualityLevel": 0.01, "minDistance": 5.0, "blockSize": 5}
_LUCAS_KANADE: dict[str, Any] = {
    "winSize": (11, 11),
    "maxLevel": 3,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.005),
}
_SOFTEN = 0.8  # pixels; steep edges pull corners towards whole pixels, a quarter more error on slow pans
_LEAST_POINTS = 12
_LONGEST_NS = 250_000_000  # across a longer pause of the picture nothing is followed
_LEAST_CONTRAST = 3.0  # gray levels; darker or flatter pictures hold noise, not corners
_TRIOS = np.random.default_rng(20).random((60, 3))  # which points make a trio, as shares of their number
_CLOSE = 0.15 / WIDTH  # picture widths of disagreement after which a point is simply elsewhere


@dataclass(frozen=True, slots=True)
class Flow:
    """What was followed from one frame to the next, recording clock.

    Attributes:
        start_ns: presentation time of the earlier frame.
        end_ns: of the later one.
        at: float32 [n, 2], places half-way, from the picture's centre, in picture widths; n is 0 where
            nothing could be followed.
        moved: float32 [n, 2], displacements, picture widths.
    """

    start_ns: int
    end_ns: int
    at: NDArray[np.float32]
    moved: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FlowTrack:
    """Rotation per frame interval, recording clock.

    Attributes:
        start_ns: int64 [n], presentation time of the earlier frame.
        end_ns: int64 [n], of the later one.
        rotation: float64 [n, 3], radians, camera axes; NaN where nothing was followed.
        sigma: float64 [n], standard error of ``rotation``, radians; NaN likewise.
    """

    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    rotation: Floats
    sigma: Floats

    def __post_init__(self) -> None:
        n = len(self.start_ns)
        if self.end_ns.shape != (n,) or self.rotation.shape != (n, 3) or self.sigma.shape != (n,):
            raise ValueError(f"a flow track of {n} intervals needs as many ends, rotations [n, 3] and sigmas")

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Where the picture could be followed, bool [n]."""
        return np.isfinite(self.sigma)

    def between(self, start_ns: int, end_ns: int) -> FlowTrack:
        """The intervals that lie wholly inside ``[start_ns, end_ns]``."""
        inside = (self.start_ns >= start_ns) & (self.end_ns <= end_ns)
        return FlowTrack(
            self.start_ns[inside], self.end_ns[inside], self.rotation[inside], self.sigma[inside]
        )


def small_luma(luma: Gray, aspect: float | None = None) -> Gray:
    """The luma plane (uint8 [h, w]) on the grid on which flow is measured, by area averaging, softened.

    Args:
        luma: the plane.
        aspect: width over height as displayed, where pixels are not square.
    """
    height, width = luma.shape
    rows = luma[:: max(1, width // (4 * WIDTH))]  # every row of a large picture would only cost time
    tall = max(16, round(WIDTH / (aspect or width / height)))
    small = cv2.resize(rows, (WIDTH, tall), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _SOFTEN), np.uint8)


def follow(frames: Iterable[tuple[int, Gray]]) -> list[Flow]:
    """What moved where between neighbouring frames.

    Args:
        frames: (presentation time in ns, uint8 [h, ``WIDTH``] luma), ascending in time.
    """
    flows: list[Flow] = []
    before: tuple[int, Gray] | None = None
    for now in frames:
        if before is not None and now[0] > before[0]:
            flows.append(Flow(before[0], now[0], *_corners_followed(before, now)))
        before = now
    return flows


def _corners_followed(
    before: tuple[int, Gray], now: tuple[int, Gray]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    nothing = np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)
    earlier, later = before[1], now[1]
    if now[0] - before[0] > _LONGEST_NS or earlier.shape != later.shape:
        return nothing
    if min(float(earlier.std()), float(later.std())) < _LEAST_CONTRAST:
        return nothing
    corners = cv2.goodFeaturesToTrack(earlier, **_CORNERS)
    if corners is None or len(corners) < _LEAST_POINTS:
        return nothing
    went, status, _ = cv2.calcOpticalFlowPyrLK(
        earlier, later, corners, np.empty_like(corners), **_LUCAS_KANADE
    )
    kept = status.ravel() == 1
    start, end = corners.reshape(-1, 2)[kept], went.reshape(-1, 2)[kept]
    height, width = earlier.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    return ((start + end) / 2 - centre) / width, (end - start) / width


def rotation_track(flows: Sequence[Flow], focal: float | None = None) -> FlowTrack:
    """The camera's rotation in every interval.

    Args:
        flows: what was followed.
        focal: focal length in picture widths; None finds it.
    """
    if focal is None:
        focal = focal_length(flows)
    found = [_rotation(f, focal) for f in flows]
    return FlowTrack(
        np.array([f.start_ns for f in flows], np.int64),
        np.array([f.end_ns for f in flows], np.int64),
        np.array([r for r, _, _ in found], np.float64).reshape(-1, 3),
        np.array([s for _, s, _ in found], np.float64),
    )


def focal_length(flows: Sequence[Flow]) -> float:
    """The focal length, in picture widths, that explains the strongest flow best; else the nominal one."""
    strength = np.array([np.median(np.abs(f.moved)) if len(f.at) >= _LEAST_POINTS else 0.0 for f in flows])
    chosen = np.argsort(-strength, kind="stable")[:_CALIBRATION_PAIRS]
    strong = [flows[i] for i in chosen if strength[i] >= _CALIBRATION_FLOW]
    if len(strong) < _CALIBRATION_PAIRS // 4:
        return NOMINAL_FOCAL

    def misfit(focal: float) -> float:
        return float(np.mean([np.log(max(_rotation(f, focal)[2] * focal, 1e-9)) for f in strong]))

    misfits = np.array([misfit(focal) for focal in _FOCALS])
    best = int(np.argmin(misfits))
    if misfit(NOMINAL_FOCAL) - misfits[best] < _CALIBRATION_GAIN or best in (0, len(_FOCALS) - 1):
        return NOMINAL_FOCAL
    left, middle, right = misfits[best - 1 : best + 2]
    shift = 0.5 * (left - right) / (left - 2 * middle + right)
    return float(_FOCALS[best] * (_FOCALS[1] / _FOCALS[0]) ** shift)


def _rotation(flow: Flow, focal: float) -> tuple[Floats, float, float]:
    """Rotation [3], its standard error, and the error of a point, radians; NaN where too little was followed.

    It begins at the best of many trios of points and goes on with weights that forget what moves otherwise.
    """
    if len(flow.at) < _LEAST_POINTS:
        return np.full(3, np.nan), np.nan, np.nan
    x, y = flow.at.T.astype(np.float64) / focal
    moved = flow.moved.astype(np.float64) / focal
    along = np.stack([x * y, -(1 + x * x), y, x], axis=1)
    across = np.stack([1 + y * y, -x * y, -x, y], axis=1)
    design = np.stack([along, across], axis=1)  # [n, 2, 4]
    solution = _best_of_trios(design, moved, _CLOSE / focal)
    weight = np.ones_like(x)
    scale = 1.0
    for _ in range(5):
        error = np.linalg.norm(moved - design @ solution, axis=1)
        scale = max(float(np.median(error)) / 1.1774, 1e-5)  # median of a Rayleigh distribution
        weight = 1.0 / (1.0 + (error / (2.0 * scale)) ** 2) ** 2
        weighted = (design * weight[:, None, None]).reshape(-1, 4)
        normal = weighted.T @ design.reshape(-1, 4) + 1e-9 * np.eye(4)
        solution = np.linalg.solve(normal, weighted.T @ moved.ravel())
    return solution[:3], scale / float(np.sqrt(weight.sum())), scale


def _best_of_trios(design: Floats, moved: Floats, close: float) -> Floats:
    """The motion of that trio of points which most points agree with (MSAC, Torr and Zisserman 2000)."""
    trio = (_TRIOS * len(moved)).astype(np.intp)
    a, b = design[trio].reshape(-1, 6, 4), moved[trio].reshape(-1, 6, 1)
    normal = np.swapaxes(a, 1, 2) @ a + 1e-6 * np.eye(4)
    trial = np.linalg.solve(normal, np.swapaxes(a, 1, 2) @ b)[:, :, 0]
    error = (trial @ design.reshape(-1, 4).T - moved.ravel()) ** 2
    cost = np.minimum(error.reshape(len(trial), -1, 2).sum(axis=2), close**2).sum(axis=1)
    return np.asarray(trial[int(np.argmin(cost))], np.float64)
