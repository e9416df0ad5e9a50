"""One event that several cameras hear: a shared scene of sound, in a room of each camera's own, with noise.

The scene is noise in bursts like speech, a function of (seed, event time): any camera can be asked for any
part of it, at the instants that its own clock calls samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.signal import fftconvolve

from align.schemas.time import NS, ClockMap, ClockPiece, seconds_to_ns
from align.transforms.synth.options import SynthOptions
from align.transforms.synth.story import generator

Floats = NDArray[np.float64]

_RATE = 16_000
_BAND = 150, 5000  # Hz; what a spline through 16 kHz samples follows
_SYLLABLE_S, _SPEAKS = 0.1, 0.6
_ROOM_S, _DECAY = 0.3, 6.9  # an echo dies away by 60 dB over it
_ECHO = 0.05  # standard deviation of the room's response beside the direct sound, which is 1
_FIRST_ECHO_S = 2.5e-3
_LOUD = 0.03  # root mean square of the scene, full scale 1
_SCENE, _ROOM, _NOISE = 11, 12, 13


def event_clock(options: SynthOptions, index: int) -> ClockMap | None:
    """From the clock of recording ``index`` to the event's; None where there is no event."""
    if not options.event_offsets_s:
        return None
    drift_ppm = options.event_drifts_ppm[index] if options.event_drifts_ppm else 0.0
    return ClockMap((ClockPiece(0, seconds_to_ns(float(options.event_offsets_s[index])), drift_ppm),))


@dataclass(frozen=True, slots=True)
class Scene:
    """What one camera hears of the event.

    Attributes:
        options: seed and noise.
        index: of the recording.
        room: float64 [n], response of the camera's room, 16 kHz; the direct sound comes at once.
    """

    options: SynthOptions
    index: int
    room: Floats

    def at(self, times_ns: NDArray[np.int64]) -> Floats:
        """Sound at ascending instants of the camera's clock, less than some seconds apart, full scale 1."""
        clock = event_clock(self.options, self.index)
        assert clock is not None
        seconds = clock.pieces[0].offset_ns / NS + times_ns / NS * (1 + clock.pieces[0].drift_ppm * 1e-6)
        first, last = int(np.floor(seconds[0] - _ROOM_S)) - 1, int(np.ceil(seconds[-1])) + 1
        dry = np.concatenate([_second(self.options, k) for k in range(first, last)])
        wet = fftconvolve(dry, self.room)[: len(dry)]
        heard = CubicSpline(np.arange(len(wet)), wet)((seconds - first) * _RATE)
        noise_band = (self.options.audio_rate / 2) / (
            _BAND[1] - _BAND[0]
        )  # it is white: as loud in the scene's
        loud = _LOUD * 10 ** (-self.options.event_snr_db / 20) * np.sqrt(noise_band)
        rng = np.random.default_rng([self.options.seed, self.index, _NOISE, times_ns[0] // NS + 3600])
        return np.asarray(heard + loud * rng.standard_normal(len(heard)), np.float64)


def scene(options: SynthOptions, index: int) -> Scene:
    """What recording ``index`` hears."""
    rng, count = generator(options, index, _ROOM), round(_ROOM_S * _RATE)
    room = _ECHO * rng.standard_normal(count) * np.exp(-_DECAY * np.arange(count) / count)
    room[: round(_FIRST_ECHO_S * _RATE)], room[0] = 0.0, 1.0
    return Scene(options, index, room)


def _second(options: SynthOptions, number: int) -> Floats:
    """The scene's sound from a second of event time to the next."""
    rng = np.random.default_rng([options.seed, _SCENE, number + (1 << 20)])
    syllables = rng.random(round(1 / _SYLLABLE_S)) < _SPEAKS
    white = np.fft.rfft(rng.standard_normal(_RATE))
    frequency = np.fft.rfftfreq(_RATE, 1 / _RATE)
    white[(frequency < _BAND[0]) | (frequency > _BAND[1])] = 0
    kept = _SPEAKS * (_BAND[1] - _BAND[0]) / (_RATE / 2)
    speech = np.fft.irfft(white, _RATE) * np.repeat(syllables, round(_SYLLABLE_S * _RATE))
    return np.asarray(_LOUD / np.sqrt(kept) * speech, np.float64)
