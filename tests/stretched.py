"""Files whose sound ticks at another speed than its nominal rate, and how far sound stands from its place."""

from fractions import Fraction

import av
import numpy as np
from scipy.interpolate import CubicSpline

RATE = 48_000


def low_noise(seconds, seed=0):
    """Noise below 3 kHz: a cubic spline of it is exact to some 1e-4, also between samples."""
    n = seconds * RATE
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(0, 1, n))
    hz = np.arange(len(spectrum)) * RATE / n
    spectrum[(hz < 100) | (hz > 3_000)] = 0
    sound = np.fft.irfft(spectrum, n)
    return sound / np.abs(sound).max() * 0.8


def restamped(source, target, stamp, *, keep=lambda t: True, format=None):
    """Copy a file's packets of sound, each at the time that ``stamp`` gives of its own (s, exact)."""
    with av.open(str(source)) as original, av.open(str(target), "w", format=format) as copy:
        stream = original.streams.audio[0]
        out = copy.add_stream_from_template(stream)
        for packet in original.demux(stream):
            if packet.dts is None:
                continue
            time = packet.pts * packet.time_base
            if not keep(time):
                continue
            tick = Fraction(1, RATE)
            at = round(stamp(time) / tick)
            packet.duration = round(packet.duration * packet.time_base / tick)
            packet.time_base, packet.pts, packet.dts, packet.stream = tick, at, at, out
            copy.mux(packet)
    return target


def displaced_ms(sound, start_s, rate, original, place):
    """How much later than it should a sound stands in its first, middle and last tenth, ms.

    Args:
        sound: [n] at ``rate``, from ``start_s`` on.
        original: what was recorded, at 48 kHz.
        place: gives the instant in the original of an instant of the recording (s).
    """
    curve = CubicSpline(np.arange(len(original)) / RATE, original)
    tenth = len(sound) // 10
    late = []
    for first in (0, (len(sound) - tenth) // 2, len(sound) - tenth):
        times = start_s + np.arange(first, first + tenth) / rate
        part = sound[first : first + tenth].astype(np.float64)
        late.append(1e3 * _lag(part, curve, times, place))
    return late


def _lag(part, curve, times, place):
    lags = np.arange(-0.006, 0.006, 1e-4)
    lag = lags[np.argmax([part @ curve(place(times - lag)) for lag in lags])]
    for _ in range(4):  # Gauss-Newton on delay and gain
        truth, slope = curve(place(times - lag)), curve(place(times - lag), 1)
        (_, step), *_ = np.linalg.lstsq(np.stack([truth, -slope], axis=1), part, rcond=None)
        lag += step / (part @ truth / (truth @ truth))
    return lag
