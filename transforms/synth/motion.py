"""How the camera turns: a rotation in closed form, and the angular velocity that follows from it.

Axes are the camera's, as computer vision has them: x right, y down, z forward. The world's axes coincide
with them when all angles are 0, so +y is down. Orientation is ``R = Ry(yaw) · Rx(pitch) · Rz(roll)``,
camera to world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PPoly
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from align.transforms.synth.options import SynthOptions
from align.transforms.synth.story import Story, affine, generator

Floats = NDArray[np.float64]
Sines = tuple[tuple[float, float, float], ...]
"""(amplitude in rad, frequency in Hz, phase in rad) of each term."""

# Rotation rate (°/s, rms) and frequency (Hz) of the slow terms of yaw, pitch and roll.
_SLOW = {
    "walking": (((8.0, 0.07), (6.0, 0.25)), ((3.0, 0.11),), ((2.0, 0.13),)),
    "pan": (((13.5, 0.13), (14.5, 0.31)), ((2.0, 0.17),), ((1.5, 0.23),)),
    "static": ((), (), ()),
}
# How strongly the step's swing shows in yaw, pitch and roll, and how many swings it makes per step.
_SWING = ((0.4, 0.5), (1.0, 1.0), (0.6, 0.5))


@dataclass(frozen=True, slots=True)
class Motion:
    """A smooth rotation, and the bounce of the steps.

    Angle k is ``Σ A sin(2π f t + p) + share_k · sway(t) · sin(swings_k · phase(t))``.

    Attributes:
        sines: the slow terms of yaw, pitch and roll.
        sway: amplitude of the head's swing, rad, over seconds; None when nobody walks.
        phase: of the steps, rad, over seconds.
        bounce: amplitude of the vertical acceleration of the steps, m/s², over seconds.
    """

    sines: tuple[Sines, Sines, Sines]
    sway: PPoly | None = None
    phase: PPoly | None = None
    bounce: PPoly | None = None

    def angles(self, seconds: Floats) -> Floats:
        """Yaw, pitch and roll, float64 [n, 3], rad."""
        return self._angles_and_rates(seconds)[0]

    def rates(self, seconds: Floats) -> Floats:
        """Time derivatives of the angles, float64 [n, 3], rad/s."""
        return self._angles_and_rates(seconds)[1]

    def orientation(self, seconds: Floats) -> Floats:
        """Rotation matrices camera → world, float64 [n, 3, 3]."""
        matrices: Floats = Rotation.from_euler("YXZ", self.angles(seconds)).as_matrix()
        return matrices

    def steadied(self, seconds: Floats, sigma_s: float) -> Floats:
        """:meth:`orientation` of the path that a Gaussian of ``sigma_s`` seconds has smoothed."""
        step = min(sigma_s / 10, 0.02)
        even = np.arange(seconds[0], seconds[-1] + 2 * step, step)
        smooth = gaussian_filter1d(self.angles(even), sigma_s / step, axis=0, mode="nearest")
        matrices: Floats = Rotation.from_euler("YXZ", CubicSpline(even, smooth)(seconds)).as_matrix()
        return matrices

    def angular_velocity(self, seconds: Floats) -> Floats:
        """What an ideal gyroscope reads: body rates in camera axes, float64 [n, 3], rad/s.

        From ``[ω]× = Rᵀ dR/dt`` (e.g. Diebel 2006, "Representing Attitude", for this angle sequence).
        """
        angles, rates = self._angles_and_rates(seconds)
        pitch, roll = angles[:, 1], angles[:, 2]
        d_yaw, d_pitch, d_roll = rates.T
        return np.stack(
            [
                d_yaw * np.cos(pitch) * np.sin(roll) + d_pitch * np.cos(roll),
                d_yaw * np.cos(pitch) * np.cos(roll) - d_pitch * np.sin(roll),
                d_roll - d_yaw * np.sin(pitch),
            ],
            axis=1,
        )

    def vertical(self, seconds: Floats) -> Floats:
        """Upward acceleration of the camera, float64 [n], m/s²."""
        if self.bounce is None or self.phase is None:
            return np.zeros_like(seconds)
        lift: Floats = self.bounce(seconds) * np.sin(self.phase(seconds))
        return lift

    def as_dict(self) -> dict[str, object]:
        """The parameters as JSON values; the latents of the story give sway, phase and bounce."""
        return {
            "angles": "sum of A sin(2 pi f t + p) + share * sway(t) * sin(swings * phase(t))",
            "orientation": "R = Ry(yaw) Rx(pitch) Rz(roll), camera (x right, y down, z forward) to world",
            "sines_amplitude_frequency_phase": dict(zip(("yaw", "pitch", "roll"), self.sines, strict=True)),
            "swing_share_swings": dict(zip(("yaw", "pitch", "roll"), _SWING, strict=True)),
            "sway_rad": "0.010 + 0.030 * pace",
            "phase_rad": "2 pi * integral of (0.8 + 1.6 * pace) from the first knot",
            "bounce": "(0.4 + 3.0 * hue) * sin(phase), m/s^2, upward",
            "walks": self.sway is not None,
        }

    def _angles_and_rates(self, seconds: Floats) -> tuple[Floats, Floats]:
        pairs = [self._angle_and_rate(k, np.asarray(seconds, np.float64)) for k in range(3)]
        return np.stack([a for a, _ in pairs], axis=1), np.stack([r for _, r in pairs], axis=1)

    def _angle_and_rate(self, k: int, t: Floats) -> tuple[Floats, Floats]:
        angle, rate = np.zeros_like(t), np.zeros_like(t)
        for amplitude, frequency, phase in self.sines[k]:
            turn = 2 * math.pi * frequency
            angle += amplitude * np.sin(turn * t + phase)
            rate += amplitude * turn * np.cos(turn * t + phase)
        if self.sway is not None and self.phase is not None:
            share, swings = _SWING[k]
            swing = swings * self.phase(t)
            angle += share * self.sway(t) * np.sin(swing)
            rate += share * self.sway(t, 1) * np.sin(swing)
            rate += share * self.sway(t) * np.cos(swing) * swings * self.phase(t, 1)
        return angle, rate


def move(options: SynthOptions, index: int, story: Story) -> Motion:
    """The motion of recording ``index``."""
    rng = generator(options, index, 1)
    yaw, pitch, roll = (_sines(rng, terms) for terms in _SLOW[options.motion])
    if options.motion != "walking":
        return Motion((yaw, pitch, roll))
    steps = affine(story.pace, 2 * math.pi * 1.6, 2 * math.pi * 0.8)
    return Motion(
        (yaw, pitch, roll),
        sway=affine(story.pace, 0.030, 0.010),
        phase=steps.antiderivative(),
        bounce=affine(story.hue, 3.0, 0.4),
    )


def _sines(rng: np.random.Generator, terms: tuple[tuple[float, float], ...]) -> Sines:
    """Terms with the given rms rates, each frequency moved by up to a tenth, phases by lot."""
    out = []
    for rms_deg, nominal in terms:
        frequency = nominal * float(rng.uniform(0.9, 1.1))
        amplitude = math.radians(rms_deg) * math.sqrt(2) / (2 * math.pi * frequency)
        out.append((amplitude, frequency, float(rng.uniform(0, 2 * math.pi))))
    return tuple(out)
