"""What happens when: activities, their latent course, and the events that every sensor notices.

Two latents in [0, 1] run through a recording, and each modality shows both, so that any one of them
predicts the others:

=========  ==========================  =====================  ===================================
latent     picture                     sound                  IMU (motion ``walking``)
=========  ==========================  =====================  ===================================
``hue``    tint of the whole scene     pitch, 220 to 880 Hz   how hard the steps bounce
``pace``   texture, coarse to fine     tremolo, 2 to 10 Hz    step rate, and how far the head sways
=========  ==========================  =====================  ===================================

They are piecewise quintic, twice continuously differentiable, and so have exact derivatives and integrals.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BPoly, PPoly

from align.schemas.time import NS
from align.transforms.synth.options import SynthOptions

ACTIVITIES = (
    "walks through the red hall",
    "searches the yellow workshop",
    "sweeps the green yard",
    "carries boxes across the turquoise store",
    "looks around the blue gallery",
)
PACES = ("slowly", "steadily", "quickly")
_PAD_S = 1.0
_TRANSITION_S = 0.8


@dataclass(frozen=True, slots=True)
class Activity:
    """One activity. ``hue`` and ``pace`` are the latents at the ends of its steady part."""

    name: str
    start_ns: int
    end_ns: int
    hue: tuple[float, float]
    pace: tuple[float, float]

    @property
    def sentence(self) -> str:
        """The narration, tagged as EGO4D does for the camera wearer."""
        manner = PACES[min(int(sum(self.pace) / 2 * len(PACES)), len(PACES) - 1)]
        return f"#C C {self.name} {manner}"


@dataclass(frozen=True, slots=True)
class Story:
    """A recording's course on the recording clock.

    Attributes:
        hue: latent in [0, 1] over seconds.
        pace: latent in [0, 1] over seconds.
        events_ns: instants at which a flash, a click and a tap happen together.
    """

    activities: tuple[Activity, ...]
    hue: PPoly
    pace: PPoly
    events_ns: tuple[int, ...]


def generator(options: SynthOptions, index: int, purpose: int) -> np.random.Generator:
    """The random numbers for one purpose in one recording: a function of (seed, index, purpose)."""
    return np.random.default_rng([options.seed, index, purpose])


def affine(poly: PPoly, scale: float, offset: float) -> PPoly:
    """``scale · poly + offset``."""
    coefficients = poly.c * scale
    coefficients[-1] += offset
    return PPoly(coefficients, poly.x)


def smooth(knots: NDArray[np.float64], values: NDArray[np.float64]) -> PPoly:
    """The C² curve through ``values`` that never leaves the range of its neighbours: quintic smoothsteps."""
    flat = np.stack([values, np.zeros_like(values), np.zeros_like(values)], axis=1)
    return PPoly.from_bernstein_basis(BPoly.from_derivatives(knots, flat))


def tell(options: SynthOptions, index: int) -> Story:
    """The story of recording ``index``."""
    rng = generator(options, index, 0)
    bounds = _boundaries(
        rng, min(options.video_start_s, options.audio_start_s) - _PAD_S, options.end_s + _PAD_S
    )
    activities = []
    for start, end in pairwise(bounds):
        kind = int(rng.integers(len(ACTIVITIES)))
        hue = (kind + 0.5 + rng.uniform(-0.45, 0.45, 2)) / len(ACTIVITIES)
        pace = np.clip(rng.uniform(0, 1) + rng.uniform(-0.1, 0.1, 2), 0, 1)
        activities.append(
            Activity(
                ACTIVITIES[kind],
                round(start * NS),
                round(end * NS),
                (float(hue[0]), float(hue[1])),
                (float(pace[0]), float(pace[1])),
            )
        )
    half = _TRANSITION_S / 2
    knots = np.array([t / NS + s for a in activities for t, s in ((a.start_ns, half), (a.end_ns, -half))])
    knots[0], knots[-1] = bounds[0], bounds[-1]
    return Story(
        tuple(activities),
        smooth(knots, np.array([v for a in activities for v in a.hue])),
        smooth(knots, np.array([v for a in activities for v in a.pace])),
        _events(rng, options),
    )


def _boundaries(rng: np.random.Generator, start: float, end: float) -> list[float]:
    bounds = [start]
    while bounds[-1] < end:
        bounds.append(bounds[-1] + float(rng.uniform(2.0, 4.0)))
    return bounds


def _events(rng: np.random.Generator, options: SynthOptions) -> tuple[int, ...]:
    """About one event every 4 s, well inside the picture's and the sound's common span."""
    start = max(options.video_start_s, options.audio_start_s)
    margin = min(0.5, (options.end_s - start) / 4)
    slots = np.linspace(start + margin, options.end_s - margin, max(1, int(options.duration_s / 4)) + 1)
    lots = rng.uniform(0.2, 0.8, len(slots) - 1)
    return tuple(round(float(t) * NS) for t in slots[:-1] + lots * np.diff(slots))
