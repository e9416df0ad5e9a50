"""What microphone, gyroscope and accelerometer measure, as functions of time."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PPoly

from align.schemas.time import NS
from align.transforms.synth.event import Scene
from align.transforms.synth.motion import Motion
from align.transforms.synth.options import SynthOptions
from align.transforms.synth.story import Story, affine, generator

Floats = NDArray[np.float64]

GRAVITY = 9.80665
"""Standard gravity, m/s²."""
CLICK_HZ, CLICK_SIGMA_S = 4000.0, 0.2e-3
"""A click is a cosine of this frequency under a Gaussian: 99.7 % of it lies within 4 ± 2.4 kHz."""
TAP_SIGMA_S, TAP_PEAK = 8e-3, 20.0
"""A tap is a Gaussian along the camera's z axis (s, m/s²): nothing of it lies above 60 Hz."""
_REACH = 6.0  # sigmas after which a pulse is nothing


def tap(since_s: Floats) -> Floats:
    """Acceleration of a tap, m/s², at seconds since its centre."""
    pulse: Floats = TAP_PEAK * np.exp(-0.5 * (since_s / TAP_SIGMA_S) ** 2)
    return pulse


def click(since_s: Floats) -> Floats:
    """A click, full scale 1, at seconds since its centre; even, so its centre is its centroid."""
    pulse: Floats = np.cos(2 * math.pi * CLICK_HZ * since_s) * np.exp(-0.5 * (since_s / CLICK_SIGMA_S) ** 2)
    return pulse


def inertial(
    times_ns: NDArray[np.int64], options: SynthOptions, index: int, story: Story, motion: Motion
) -> Floats:
    """Gyroscope and accelerometer rows.

    Args:
        times_ns: int64 [n], true instants on the recording clock, ascending.
        options: axes, bias and noise.
        index: of the recording, for its noise.
        story: gives the taps.
        motion: what the camera does.

    Returns:
        float64 [n, 6]: gyro (rad/s), then accelerometer (m/s², specific force: -gravity at rest), on the
        axes that ``options.imu_axes`` names.
    """
    seconds = times_ns / NS
    gyro = motion.angular_velocity(seconds) + np.array(options.gyro_bias)
    # World +y is down, so standing still the camera is held up by a force along -y.
    force = np.zeros((len(seconds), 3))
    force[:, 1] = -(GRAVITY + motion.vertical(seconds))
    accl = np.einsum("nji,nj->ni", motion.orientation(seconds), force)
    for event in story.events_ns:
        near = _near(times_ns, event, TAP_SIGMA_S)
        accl[near, 2] += tap((times_ns[near] - event) / NS)
    rng = generator(options, index, 3)
    gyro += options.gyro_noise * rng.standard_normal(gyro.shape)
    accl += options.accl_noise * rng.standard_normal(accl.shape)
    return np.concatenate([_on_axes(gyro, options.imu_axes), _on_axes(accl, options.imu_axes)], axis=1)


def _on_axes(values: Floats, axes: str) -> Floats:
    order = ["XYZ".index(a.upper()) for a in axes]
    signs = np.array([1.0 if a.isupper() else -1.0 for a in axes])
    return np.asarray(values[:, order] * signs, np.float64)


def _near(times_ns: NDArray[np.int64], event_ns: int, sigma_s: float) -> slice:
    """The samples around an event, of ascending times."""
    reach = round(_REACH * sigma_s * NS)
    first, last = np.searchsorted(times_ns, [event_ns - reach, event_ns + reach])
    return slice(int(first), int(last))


@dataclass(frozen=True, slots=True)
class Sound:
    """A tone whose pitch and tremolo follow the story's latents, and a click at every event.

    Attributes:
        pitch: phase of the tone, rad, over seconds.
        tremolo: phase of its loudness, rad, over seconds.
        clicks_ns: centres of the clicks, ascending.
        scene: what is heard instead of the tone; None for the tone.
    """

    pitch: PPoly
    tremolo: PPoly
    clicks_ns: tuple[int, ...]
    scene: Scene | None = None

    def at(self, times_ns: NDArray[np.int64]) -> NDArray[np.int16]:
        """Samples at ascending instants, int16 [n], mono: a tone below 2 kHz, clicks around 4 kHz."""
        wave = (
            self._tone(times_ns / NS) if self.scene is None else np.clip(self.scene.at(times_ns), -0.39, 0.39)
        )
        reach = round(_REACH * CLICK_SIGMA_S * NS)
        first = bisect_left(self.clicks_ns, times_ns[0] - reach)
        last = bisect_right(self.clicks_ns, times_ns[-1] + reach)
        for centre in self.clicks_ns[first:last]:
            near = _near(times_ns, centre, CLICK_SIGMA_S)
            wave[near] += 0.6 * click((times_ns[near] - centre) / NS)
        return np.asarray(np.rint(wave * 32767), np.int16)

    def _tone(self, seconds: Floats) -> Floats:
        phase = self.pitch(seconds)
        loudness = 0.12 * (1 + 0.7 * np.sin(self.tremolo(seconds)))
        return np.asarray(loudness * (np.sin(phase) + 0.4 * np.sin(2 * phase)), np.float64)


def voice(story: Story, scene: Scene | None = None) -> Sound:
    """The sound of a story; of an event that others hear too, where there is one."""
    turn = 2 * math.pi
    return Sound(
        affine(story.hue, turn * 660, turn * 220).antiderivative(),
        affine(story.pace, turn * 8, turn * 2).antiderivative(),
        story.events_ns,
        scene,
    )
