"""One line through all intervals at once, against closed forms: where it lands, how sure it says it is."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from align.schemas.time import NS
from align.transforms.sync.flow import FlowTrack
from align.transforms.sync.gyro import GyroIntegral
from align.transforms.sync.joint import joint_line
from align.transforms.sync.line import Line
from align.transforms.sync.search import make_window

AXES = np.array([[0.0, -1.2, 0.0], [1.1, 0.0, 0.0], [0.0, 0.0, -1.0]])
SECONDS, OFFSET, DRIFT = 40.0, 0.3, 100e-6
GYRO_NOISE, GYRO_HZ = 0.01, 200.0


class Turn:
    """Slow turns, 0.1 to 0.4 Hz, about all axes."""

    def __init__(self, seed: int, strength: float = 0.2) -> None:
        rng = np.random.default_rng(seed)
        self.frequency, self.phase = 2 * np.pi * rng.uniform(0.1, 0.4, (3, 5)), rng.uniform(0, 6.3, (3, 5))
        self.size = strength * rng.uniform(0.5, 1, (3, 5))

    def angle(self, t):
        wave = np.sin(self.frequency * t[:, None, None] + self.phase)
        return (self.size / self.frequency * wave).sum(2)

    def rate(self, t):
        return (self.size * np.cos(self.frequency * t[:, None, None] + self.phase)).sum(2)

    def acceleration(self, t):
        return -(self.size * self.frequency * np.sin(self.frequency * t[:, None, None] + self.phase)).sum(2)


def windows_and_gyro(turn: Turn, seed: int, parts: slice = slice(None), jitter: float = 2e-4):
    """A picture each of whose frames is a little off its place, and a noisy, biased gyro."""
    rng = np.random.default_rng([seed, 1])
    times = np.round(np.arange(0, SECONDS, 1 / 30) * NS).astype(np.int64)
    places = turn.angle(times / NS) @ AXES + rng.normal(0, jitter, (len(times), 3))
    track = FlowTrack(times[:-1], times[1:], np.diff(places, axis=0), np.full(len(times) - 1, jitter))
    own = np.arange(-1.0, SECONDS + 1, 1 / GYRO_HZ)
    values = turn.rate(own + OFFSET + DRIFT * own) + rng.normal(0, GYRO_NOISE, (len(own), 3)) + 0.02
    gyro = GyroIntegral(np.round(own * NS).astype(np.int64), values)
    edges = np.round(np.linspace(0, SECONDS, 13) * NS).astype(np.int64)
    return [make_window(track, gyro, int(a), int(b)) for a, b in pairwise(edges)][parts], gyro


def errors(line: Line, gyro: GyroIntegral):
    """Error and its standard error, seconds, at both ends and in the middle."""
    true = np.array([0.0, SECONDS / 2, SECONDS])
    at = true - gyro.origin_ns / NS
    wrong = [line.offset_at(a) - (t - (t - OFFSET) / (1 + DRIFT)) for a, t in zip(at, true, strict=True)]
    return np.array(wrong), np.array([line.sigma_at(a) for a in at])


def bound(turn: Turn):
    """What noise of the gyro alone allows: the inverse of Fisher's information on (offset, drift)."""
    t = np.arange(0, SECONDS, 0.01)
    power = (turn.acceleration(t) ** 2).sum(1) * 0.01
    since = np.stack([np.ones_like(t), t - SECONDS / 2])
    covariance = GYRO_NOISE**2 / GYRO_HZ * np.linalg.inv((since * power) @ since.T)
    ends = np.array([[1, s] for s in (-SECONDS / 2, 0, SECONDS / 2)])
    return np.sqrt(np.einsum("ki,ij,kj->k", ends, covariance, ends))


START = Line(SECONDS / 2, OFFSET + 0.004, 0.0)


def test_slow_turns_are_placed_about_as_well_as_the_gyro_allows_and_the_error_is_honest():
    wrong, sigma, least = [], [], []
    for seed in range(40):
        turn = Turn(seed)
        windows, gyro = windows_and_gyro(turn, seed)
        found = errors(joint_line(windows, gyro, START), gyro)
        wrong.append(found[0])
        sigma.append(found[1])
        least.append(bound(turn))
    wrong, sigma, least = map(np.array, (wrong, sigma, least))
    assert 0.7 < np.sqrt(((wrong / least) ** 2).mean()) < 1.5
    assert 0.7 < np.sqrt(((wrong / sigma) ** 2).mean()) < 1.2
    assert (np.abs(wrong) <= 3 * sigma).all(axis=1).mean() >= 0.95


def test_windows_apart_from_each_other_serve_too():
    turn = Turn(3)
    windows, gyro = windows_and_gyro(turn, 3, slice(None, None, 3))
    wrong, sigma = errors(joint_line(windows, gyro, START), gyro)
    assert (np.abs(wrong) < 4 * sigma).all()
    assert (sigma > 1.2 * bound(turn)).all()  # a third of the time tells less


def test_noise_of_the_gyro_is_no_information():
    still = Turn(4, strength=0.0005)
    windows, gyro = windows_and_gyro(still, 4)
    line = joint_line(windows, gyro, START)
    assert line is None or line.sigma_at(line.at) > 2e-3


def test_too_few_intervals_give_no_line():
    (first, *_), gyro = windows_and_gyro(Turn(5), 5)
    short = replace(first, start=first.start[:90], end=first.end[:90], seen=first.seen[:90])
    assert joint_line([short], gyro, START) is None
