"""The gyro's clock against the picture's, on rotations whose truth is known in closed form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from align.schemas.errors import AlignError
from align.schemas.media import ImuTrack
from align.schemas.time import NS, TimeSpan
from align.transforms.read.probe import probe_media
from align.transforms.sync.agreement import evidence_curves
from align.transforms.sync.clocks import clock_map, read_clocks, write_clocks
from align.transforms.sync.flow import NOMINAL_FOCAL, Flow, FlowTrack, focal_length, follow, rotation_track
from align.transforms.sync.gyro import GyroIntegral
from align.transforms.sync.measure import measure_imu, moved
from align.transforms.sync.picture import cut_windows, look, looks
from align.transforms.sync.search import make_window, offset_grid
from align.transforms.sync.verdict import SyncOptions, judge

KARMA = "3c8d5a26-d617-55aa-8147-3ea634376062"
HERO7 = "80187c7e-4c38-5b6c-8891-d6e23814f7c2"
EGO4D = Path(__file__).parents[2] / "shared/data/ego4d/v2"
FRAME = 33_333_333
REACH = SyncOptions(reach_s=2.0)


def turning(seed: int, strength: float = 0.5):
    """Angles (rad) of a head that looks around, and their rates (rad/s), as functions of seconds."""
    rng = np.random.default_rng(seed)
    frequency, phase = rng.uniform(0.1, 2.5, (3, 12)), rng.uniform(0, 2 * np.pi, (3, 12))
    size = strength * rng.normal(size=(3, 12)) / (2 * np.pi * frequency) / np.sqrt(12)

    def angle(t):
        return np.stack(
            [
                (a * np.sin(2 * np.pi * f * t[:, None] + p)).sum(1)
                for a, f, p in zip(size, frequency, phase, strict=True)
            ],
            1,
        )

    def rate(t):
        w = 2 * np.pi * frequency
        return np.stack(
            [(a * v * np.cos(v * t[:, None] + p)).sum(1) for a, v, p in zip(size, w, phase, strict=True)], 1
        )

    return angle, rate


AXES = np.array([[0.0, -1.2, 0.0], [1.1, 0.0, 0.0], [0.0, 0.0, -1.0]])


def picture(
    angle, seconds: float, *, noise: float = 1e-4, seed: int = 0, start: float = 0.0, unsteady: float = 0.0
) -> FlowTrack:
    """What a camera with these angles shows, on other axes and at another scale.

    ``noise`` (rad) is that of each interval, which flow knows of; ``unsteady`` how far frames stand off
    their place, which it does not.
    """
    times = np.round((start + np.arange(0, seconds, 1 / 30)) * NS).astype(np.int64)
    rng = np.random.default_rng(seed)
    turned = np.diff(angle(times / NS), axis=0) @ AXES
    turned += rng.normal(0, noise, turned.shape)
    turned += np.diff(rng.normal(0, unsteady, (len(times), 3)), axis=0)
    return FlowTrack(times[:-1], times[1:], turned, np.full(len(turned), noise))


def gyro_of(
    rate, seconds: float, offset: float = 0.0, drift: float = 0.0, seed: int = 0, noise: float = 0.01
) -> ImuTrack:
    """Its gyro, 200 Hz with jitter, noise and bias; ``offset + drift·t`` leads to the picture's clock."""
    rng = np.random.default_rng(seed)
    own = np.arange(-3.0, seconds + 3.0, 0.005) + rng.uniform(-1e-3, 1e-3, round((seconds + 6) / 0.005))
    true = own + offset + drift * own
    values = rate(true) + rng.normal(0, noise, (len(own), 3)) + [0.02, -0.01, 0.03]
    times = np.round(own * NS).astype(np.int64)
    return ImuTrack(times, values, times, values, 200.0, 200.0)


def windows_of(track: FlowTrack, gyro: GyroIntegral, length: float = 4.0):
    start, end = int(track.start_ns[0]), int(track.end_ns[-1])
    edges = np.linspace(start, end, max(1, round((end - start) / NS / length)) + 1).astype(np.int64)
    return [make_window(track, gyro, int(a), int(b)) for a, b in pairwise(edges)]


def verdict(track: FlowTrack, imu: ImuTrack):
    gyro = GyroIntegral(imu.gyro_ns, imu.gyro)
    return judge(windows_of(track, gyro), gyro, REACH), gyro


@pytest.mark.parametrize(
    ("offset", "drift"), [(0.0, 0.0), (0.731, 120e-6), (-1.42, -200e-6), (1.9, 0.0), (-0.0037, 50e-6)]
)
def test_offset_and_drift_are_recovered_through_any_axes_within_their_error(offset, drift):
    angle, rate = turning(1)
    found, gyro = verdict(picture(angle, 40), gyro_of(rate, 40, offset, drift))
    assert found.status in ("verified", "corrected"), found.reason
    for t in (2.0, 20.0, 38.0):
        own = (t - offset) / (1 + drift)
        at = t - gyro.origin_ns / NS
        error = abs(found.line.offset_at(at) - (t - own))
        assert error < 0.5e-3
        assert error < 4 * found.line.sigma_at(at)


def test_small_offsets_are_verified_and_large_ones_corrected():
    angle, rate = turning(2)
    assert verdict(picture(angle, 30), gyro_of(rate, 30, 0.001))[0].status == "verified"
    assert verdict(picture(angle, 30), gyro_of(rate, 30, 0.020))[0].status == "corrected"


def test_wrong_pairs_are_never_verified():
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    rates = [turning(s) for s in range(4)]
    for a, b in pairs:
        found, _ = verdict(picture(rates[a][0], 30), gyro_of(rates[b][1], 30))
        assert found.line is None
        assert found.status == "refuted", found.reason


def test_an_offset_beyond_reach_is_not_verified():
    angle, rate = turning(3)
    imu = moved(gyro_of(rate, 40), 3 * NS)
    assert verdict(picture(angle, 40), imu)[0].line is None


def test_a_stabilised_picture_is_refuted():
    angle, rate = turning(4)
    t = np.arange(-5, 60, 0.01)
    kernel = np.exp(-0.5 * (np.arange(-200, 201) / 60) ** 2)
    smooth = np.stack([np.convolve(a, kernel / kernel.sum(), "same") for a in angle(t).T], 1)

    def stabilised(s):
        return np.stack([np.interp(s, t, a) for a in smooth.T], 1)

    assert verdict(picture(stabilised, 40), gyro_of(rate, 40))[0].status == "refuted"


def test_a_camera_at_rest_is_unobservable():
    still, rate = turning(5, strength=0.0)
    assert verdict(picture(still, 30), gyro_of(rate, 30))[0].status == "unobservable"


def test_motion_that_repeats_itself_is_never_verified():
    def angle(t):
        return 0.05 * np.sin(2 * np.pi * 2.0 * t[:, None] + np.array([0.0, 1.0, 2.0]))

    def rate(t):
        return 0.05 * 4 * np.pi * np.cos(2 * np.pi * 2.0 * t[:, None] + np.array([0.0, 1.0, 2.0]))

    assert verdict(picture(angle, 30), gyro_of(rate, 30, 0.2))[0].line is None


@pytest.mark.parametrize("sigma_s", [0.15, 0.3, 1.0])
def test_slow_turns_that_were_steadied_are_not_believed(sigma_s):
    turn = 2 * np.pi * np.array([0.12, 0.17, 0.23, 0.31, 0.36, 0.4])
    phase = np.random.default_rng(1).uniform(0, 6.3, (3, 6))

    def summed(t, wave, factor):
        return (0.15 * factor * wave(turn * t[:, None, None] + phase)).sum(2)

    def rate(t):
        return summed(t, np.cos, 1.0)

    def angle(sigma):  # a Gaussian takes from each sine what its frequency tells
        return lambda t: summed(t, np.sin, np.exp(-((sigma * turn) ** 2) / 2) / turn)

    gyro = gyro_of(rate, 150, 0.2)
    assert verdict(picture(angle(0.0), 150), gyro)[0].status == "corrected"
    assert verdict(picture(angle(sigma_s), 150), gyro)[0].line is None


def slow_turns(seed: int, axes: int, seconds: float = 40.0):
    """Looking around slowly, some 0.3 Hz, about one axis or about all; angles and rates as in ``turning``."""
    rng = np.random.default_rng(seed)
    frequency, phase = rng.uniform(0.1, 0.45, (3, 8)), rng.uniform(0, 2 * np.pi, (3, 8))
    size = rng.uniform(0.5, 1, (3, 8)) * 0.3 / (2 * np.pi * frequency) * (np.arange(3) < axes)[:, None]

    def summed(t, wave, factor):
        angles = 2 * np.pi * frequency * t[:, None, None] + phase
        return (size * factor * wave(angles)).sum(2)

    return (lambda t: summed(t, np.sin, 1.0)), (lambda t: summed(t, np.cos, 2 * np.pi * frequency))


@pytest.mark.parametrize(("axes", "noise", "share"), [(1, 3e-4, 0.02), (3, 5e-4, 0.12)])
def test_slow_turns_are_believed_where_the_gyro_explains_them_and_not_where_they_only_look_alike(
    axes, noise, share
):
    angle, rate = slow_turns(1, axes)
    true, _ = verdict(picture(angle, 40, noise=noise), gyro_of(rate, 40, 0.2))
    assert true.status == "corrected", true.reason
    _, other = slow_turns(2, axes)
    alike = verdict(picture(angle, 40, noise=noise), gyro_of(lambda t: rate(t) + share * other(t), 40, 0.2))[
        0
    ]
    assert alike.agreement.fit.explained > 0.95
    assert (alike.status, "times only" in alike.reason) == ("unobservable", True), alike.reason


UNSTEADY = {"noise": 6e-5, "unsteady": 2.5e-4}
"""An encoder's picture as measured on rendered ones: flow knows of a fifth of what frames are off."""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_quiet_gyro_is_believed_as_readily_as_a_noisy_one(seed):
    angle, rate = slow_turns(seed, 3)
    shown = picture(angle, 40, **UNSTEADY)
    for noise in (0.01, 0.005, 0.002, 0.0005):
        found, _ = verdict(shown, gyro_of(rate, 40, 0.2, noise=noise))
        assert found.status == "corrected", (noise, found.reason)
        assert found.agreement.fit.unexplained == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("noise", [0.01, 0.002])
def test_an_unsteady_picture_excuses_no_motion_that_only_looks_alike(noise):
    angle, rate = slow_turns(1, 3)
    _, other = slow_turns(2, 3)

    def alike(t):
        return rate(t) + 0.02 * other(t)

    found, _ = verdict(picture(angle, 40, **UNSTEADY), gyro_of(alike, 40, 0.2, noise=noise))
    assert found.agreement.fit.explained > 0.999
    assert (found.status, "times the noise" in found.reason) == ("unobservable", True), found.reason


def test_too_few_windows_and_a_dark_picture_are_unobservable():
    angle, rate = turning(6)
    imu = gyro_of(rate, 30)
    gyro = GyroIntegral(imu.gyro_ns, imu.gyro)
    short = judge(windows_of(picture(angle, 7), gyro), gyro, REACH)
    assert (short.status, "too short" in short.reason) == ("unobservable", True)
    track = picture(angle, 30)
    dark = FlowTrack(track.start_ns, track.end_ns, track.rotation * np.nan, track.sigma * np.nan)
    assert "dark" in judge(windows_of(dark, gyro), gyro, REACH).reason


def test_evidence_is_highest_at_the_truth_and_unknown_without_gyro():
    angle, rate = turning(7)
    imu = gyro_of(rate, 8, 0.3)
    gyro = GyroIntegral(imu.gyro_ns, imu.gyro)
    curve = evidence_curves(windows_of(picture(angle, 8), gyro, 8.0), gyro, 5.0)[0]
    offsets = offset_grid(5.0, 0.01)
    assert abs(offsets[np.nanargmax(curve)] - 0.3) < 0.011
    late = evidence_curves(windows_of(picture(angle, 8, start=60.0), gyro, 8.0), gyro, 5.0)[0]
    assert np.isnan(late).all()


def test_gyro_integral_is_the_integral_and_knows_its_gaps():
    times = np.arange(0, 2 * NS, NS // 400)
    values = np.stack([np.cos(times / NS), np.sin(times / NS), np.ones(len(times))], 1)
    gyro = GyroIntegral(times, values)
    got = gyro.at(np.array([1.5])) - gyro.at(np.array([0.5]))
    want = [np.sin(1.5) - np.sin(0.5), np.cos(0.5) - np.cos(1.5), 1.0]
    np.testing.assert_allclose(got[0], want, atol=2e-4)
    holed = GyroIntegral(np.delete(times, slice(300, 340)), np.delete(values, slice(300, 340), axis=0))
    ends = np.array([0.74, 0.76, 0.9, 1.9, 2.5])
    np.testing.assert_array_equal(holed.covers(ends - 0.03, ends), [True, False, True, True, False])


class Eye:
    """A picture that is looked at in windows: points on a grid that move as the camera turns."""

    def __init__(self, angle, *, step: int = FRAME) -> None:
        self.angle, self.step, self.seconds = angle, step, 0.0

    def __call__(self, spans):
        x, y = (v.ravel() for v in np.meshgrid(np.linspace(-0.45, 0.45, 6), np.linspace(-0.25, 0.25, 5)))
        out = []
        for span in spans:
            times = np.arange(-(-span.start_ns // self.step), -(-span.end_ns // self.step) + 1) * self.step
            turned = np.diff(self.angle(times / NS), axis=0)
            u, v = x / NOMINAL_FOCAL, y / NOMINAL_FOCAL
            along = np.stack([u * v, -(1 + u * u), v], 1)
            across = np.stack([1 + v * v, -u * v, -u], 1)
            at = np.stack([x, y], 1).astype(np.float32)
            out.append(
                [
                    Flow(
                        int(a),
                        int(b),
                        at,
                        (NOMINAL_FOCAL * np.stack([along @ r, across @ r], 1)).astype(np.float32),
                    )
                    for a, b, r in zip(times, times[1:], turned, strict=False)
                ]
            )
            self.seconds += span.length_ns / NS
        return out


def with_leap(imu: ImuTrack, at_s: float, leap_s: float) -> ImuTrack:
    late = imu.gyro_ns >= at_s * NS
    times = imu.gyro_ns + np.where(late, round(leap_s * NS), 0)
    return ImuTrack(times, imu.gyro, times, imu.accl, 200.0, 200.0)


def test_a_leap_at_a_joint_makes_two_pieces_each_right():
    angle, rate = turning(8)
    imu = with_leap(gyro_of(rate, 60), 32.0, 0.3)
    found = measure_imu("r", TimeSpan(0, 60 * NS), (32 * NS,), imu, Eye(angle), REACH)
    assert [r.status for r in found.rows] == ["verified", "corrected"]
    assert abs(found.rows[0].offset_ns) < 1_000_000
    assert abs(found.rows[1].offset_ns + 300_000_000) < 1_000_000
    assert found.rows[1].start_ns == min(t for t in imu.gyro_ns if t >= 32.3 * NS - 1)
    np.testing.assert_allclose(
        clock_map(found.rows).to_recording(np.array([50_300_000_000])), 50 * NS, atol=1e6
    )


def test_a_leap_where_only_the_rows_know_of_another_instrument_makes_two_pieces_too():
    angle, rate = turning(8)
    imu = replace(with_leap(gyro_of(rate, 60), 32.0, 0.3), joints_ns=(0, 32_300_000_000))
    found = measure_imu("r", TimeSpan(0, 60 * NS), (), imu, Eye(angle), REACH)
    assert [r.status for r in found.rows] == ["verified", "corrected"]
    assert abs(found.rows[1].offset_ns + 300_000_000) < 1_000_000
    once = measure_imu("r", TimeSpan(0, 60 * NS), (32 * NS,), imu, Eye(angle), REACH)
    assert [r.status for r in once.rows] == ["verified", "corrected"]  # the same joint, told twice


def test_joints_without_a_break_stay_one_piece():
    angle, rate = turning(9)
    found = measure_imu(
        "r", TimeSpan(0, 60 * NS), (20 * NS, 45 * NS), gyro_of(rate, 60, 0.05), Eye(angle), REACH
    )
    assert len(found.rows) == 1
    assert found.rows[0].status == "corrected"


def test_a_long_recording_is_looked_at_in_part_where_that_is_enough():
    angle, rate = turning(10)
    eye = Eye(angle)
    found = measure_imu("r", TimeSpan(0, 180 * NS), (), gyro_of(rate, 180, 0.1), eye, REACH)
    assert found.rows[0].status == "corrected"
    assert found.seconds_seen == pytest.approx(eye.seconds)
    assert eye.seconds <= 0.45 * 180


def test_a_recording_without_gyro_rows_says_so():
    empty = ImuTrack(
        np.empty(0, np.int64), np.empty((0, 3)), np.empty(0, np.int64), np.empty((0, 3)), 0.0, 0.0
    )
    row = measure_imu("r", TimeSpan(0, NS), (), empty, Eye(turning(1)[0]), REACH).rows[0]
    assert (row.status, row.offset_ns, row.reason) == ("unobservable", None, "the gyroscope has no rows")


def test_flow_finds_the_rotation_and_the_focal_length_of_a_rendered_turn():
    rng = np.random.default_rng(3)
    import cv2

    texture = cv2.resize(rng.integers(30, 220, (60, 60), np.uint8), (900, 900), interpolation=cv2.INTER_CUBIC)
    focal, width, height = 0.9 * 160, 160, 90
    camera = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    shift = np.array([[1, 0, -450.0], [0, 1, -450.0], [0, 0, 250.0]])
    frames, turn = [], np.radians([0.4, -1.1, 0.8])
    for k in range(14):
        world = cv2.Rodrigues(turn * k)[0].T
        frames.append((k * FRAME, cv2.warpPerspective(texture, camera @ world @ shift, (width, height))))
    flows = follow(frames)
    assert abs(focal_length(flows) - 0.9) < 0.05
    seen = rotation_track(flows, 0.9)
    assert seen.measured.all()
    # The camera turns by `turn` each frame; the field's signs are those of Longuet-Higgins and Prazdny.
    np.testing.assert_allclose(
        np.abs(np.degrees(np.median(seen.rotation, axis=0))), [0.4, 1.1, 0.8], atol=0.03
    )


def test_flat_pictures_are_not_followed():
    flows = follow([(k * FRAME, np.full((90, 160), 128, np.uint8)) for k in range(4)])
    assert not rotation_track(flows).measured.any()
    assert len(flows) == 3


def test_windows_cover_a_piece_and_begin_at_keyframes():
    piece = TimeSpan(0, 120 * NS)
    windows = cut_windows(piece, [k * NS for k in range(121)])
    assert windows[0].start_ns == 0
    assert windows[-1].end_ns == piece.end_ns
    assert all(a.end_ns == b.start_ns for a, b in pairwise(windows))
    assert all(w.start_ns % NS == 0 for w in windows)
    first, then = looks(windows)
    assert sorted({*first, *then}) == list(range(len(windows)))
    assert {0, len(windows) - 1} <= set(first)


def real(uid: str):
    if not (EGO4D / "full_scale" / f"{uid}.mp4").exists():
        pytest.skip("the real recordings are not here")
    table = np.genfromtxt(EGO4D / "imu" / f"{uid}.csv", delimiter=",", skip_header=1)
    times = np.round(table[:, 2] * 1e6).astype(np.int64)
    uri = str(EGO4D / "full_scale" / f"{uid}.mp4")
    video = probe_media(uri).video
    seen = {}

    def eye(spans):
        missing = [s for s in spans if s not in seen]
        seen.update(zip(missing, look(uri, video, missing), strict=True))
        return [seen[s] for s in spans]

    return video, ImuTrack(times, table[:, 3:6], times, table[:, 6:9], 0.0, 0.0), eye


def test_the_drone_clip_is_corrected_and_injected_offsets_come_back():
    video, imu, eye = real(KARMA)

    def at_nine_seconds(offset_ns: int) -> float:
        rows = measure_imu(
            "karma", video.span, (), moved(imu, offset_ns), eye, SyncOptions(), video.keyframes_ns
        ).rows
        assert [r.status for r in rows] == ["corrected"]
        return float(clock_map(rows).to_recording(np.array([9 * NS + offset_ns]))[0]) - 9 * NS

    plain = at_nine_seconds(0)
    assert 45e6 < plain < 56e6  # an independent correlation of its yaw says 51.5 ms
    for offset_ns in (700_000_000, -1_234_000_000, 3_000_000):
        assert abs(at_nine_seconds(offset_ns) - plain) < 2e6


def test_the_stabilised_clip_and_a_foreign_gyro_are_refuted():
    video, imu, eye = real(HERO7)
    assert measure_imu("hero7", video.span, (), imu, eye, SyncOptions()).rows[0].status == "refuted"
    _, foreign, _ = real(KARMA)
    assert measure_imu("hero7", video.span, (), foreign, eye, SyncOptions()).rows[0].offset_ns is None


def test_clock_rows_survive_a_file_and_lead_to_the_recording_clock(tmp_path):
    angle, rate = turning(11)
    imu = gyro_of(rate, 30, 1.5, 150e-6)
    rows = measure_imu("r", TimeSpan(0, 30 * NS), (), imu, Eye(angle), REACH).rows
    write_clocks(tmp_path / "clocks.parquet", rows)
    assert read_clocks(tmp_path / "clocks.parquet") == rows
    own = np.array([0, 10 * NS, 28 * NS])
    want = own + 1.5e9 + 150e-6 * own
    np.testing.assert_allclose(clock_map(rows).to_recording(own), want, atol=0.5e6)


def test_a_file_that_is_no_table_of_clocks_is_told_apart(tmp_path):
    (tmp_path / "x").write_text("no")
    with pytest.raises(AlignError, match="no table of clocks"):
        read_clocks(tmp_path / "x")
