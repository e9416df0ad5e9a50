"""Sound whose timestamps tick at another speed than its nominal rate, or jitter, against closed form."""

import subprocess
from fractions import Fraction
from pathlib import Path
from statistics import median

import av
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from align.schemas.media import AudioInfo
from align.schemas.time import NS, TimeSpan
from align.transforms.align.audio import window_audio
from align.transforms.align.margins import AUDIO_MARGIN_NS
from align.transforms.read.audio import decode_audio
from align.transforms.read.audio_line import Scale, fit
from tests.stretched import RATE, displaced_ms, low_noise, restamped

SECONDS = 13
WINDOW = TimeSpan(5_100_000_000, 10_100_000_000)
ENCODED = {
    "aac": ("aac.m4a", "-c:a", "aac", "-b:a", "192k"),
    "flac": ("flac.mkv", "-c:a", "flac"),
    "pcm": ("pcm.mov", "-c:a", "pcm_s16le"),
    "opus": ("opus.mp4", "-c:a", "libopus", "-b:a", "128k"),
}
EXACT, COARSE = 0.02, 0.12  # ms: what ticks of 11 to 21 µs, and of 1 ms, may cost over a window of 5 s


@pytest.fixture(scope="module")
def noise():
    return low_noise(SECONDS)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, noise):
    """A function that encodes the noise, once for each codec."""
    folder = tmp_path_factory.mktemp("stretched")
    soundfile.write(folder / "noise.wav", noise, RATE, subtype="PCM_16")

    def encode(codec):
        name, *args = ENCODED[codec]
        if not (folder / name).exists():
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", folder / "noise.wav"]
            subprocess.run([*command, *args, "-threads", "1", folder / name], check=True)
        return folder / name

    return encode


class Heard:
    """A window of a file as it is written, and where its sound stands."""

    def __init__(self, path, window=WINDOW):
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            packets = [p for p in container.demux(stream) if p.size]
            self.pts_s = [p.pts * p.time_base for p in packets]
            info = AudioInfo(0, "", stream.rate, stream.channels, stream.time_base, TimeSpan(0, 0))
            self.track = decode_audio(packets, stream, info, window.widened(AUDIO_MARGIN_NS))
        self.window = window
        self.audio = window_audio(self.track, window, 16_000)

    def late_ms(self, source, noise, stretch=1):
        """In the first, middle and last tenth; by the packets' times in the file and in its source."""
        with av.open(str(source)) as container:
            told = [p.pts * p.time_base for p in container.demux(container.streams.audio[0]) if p.size]
        moved = float(median(f - stretch * s for f, s in zip(self.pts_s, told, strict=False)))
        start_s = self.window.start_ns / NS
        late = displaced_ms(
            self.audio.samples, start_s, 16_000, noise, lambda t: (t - moved) / float(stretch)
        )
        return np.array(late)


@pytest.mark.parametrize(
    ("codec", "name", "stretches", "within_ms"),
    [
        ("aac", "x.mp4", ["0.98", "0.998", "1", "1.000139", "1.0005", "1.002", "1.008", "1.02"], EXACT),
        ("flac", "x.mp4", ["0.98", "1.0005", "1.02"], EXACT),
        ("opus", "x.mp4", ["0.98", "1.0005", "1.02"], EXACT),
        ("aac", "x.ts", ["0.98", "0.998", "1", "1.0005", "1.008", "1.02"], EXACT),
        ("opus", "x.ts", ["0.98", "1.002", "1.02"], EXACT),
        ("aac", "x.mkv", ["0.98", "0.998", "1", "1.002", "1.02"], COARSE),
        ("flac", "x.mkv", ["0.98", "1.002", "1.02"], COARSE),
        ("pcm", "x.mkv", ["0.98", "1.0005", "1.02"], COARSE),
        ("opus", "x.webm", ["0.98", "1", "1.002", "1.008", "1.02"], COARSE),
        ("aac", "x.flv", ["0.98", "1.002", "1.02"], COARSE),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_sound_stands_by_its_timestamps_all_over_a_window(
    encoded, noise, tmp_path, codec, name, stretches, within_ms
):
    for stretch in map(Fraction, stretches):
        path = restamped(encoded(codec), tmp_path / name, lambda t, s=stretch: t * s)
        heard = Heard(path)
        late = heard.late_ms(encoded(codec), noise, stretch)
        middle = 0.5 if within_ms == COARSE else within_ms  # a clock of 1 ms rounds the file's own offset too
        assert abs(late - late.mean()).max() <= within_ms, (stretch, late)
        assert abs(late).max() <= middle + within_ms, (stretch, late)
        assert heard.audio.gaps == ()
        assert heard.track.rate_ppm == pytest.approx(float(1 / stretch - 1) * 1e6, abs=30)
        if stretch == 1:
            assert (heard.track.rate, heard.track.rate_ppm) == (RATE, 0.0)


@pytest.mark.parametrize(("codec", "name"), [("aac", "x.mp4"), ("aac", "x.mkv"), ("opus", "x.webm")])
@pytest.mark.parametrize("jitter_s", [0.002, 0.01])
def test_jittered_timestamps_neither_wow_nor_tear(encoded, noise, tmp_path, codec, name, jitter_s):
    rng = np.random.default_rng(7)

    def stamp(t):
        return t + Fraction(1, 20) + Fraction(float(rng.uniform(-jitter_s, jitter_s)))

    heard = Heard(restamped(encoded(codec), tmp_path / name, stamp))
    late = heard.late_ms(encoded(codec), noise)
    assert (heard.track.rate, heard.audio.gaps, heard.audio.coverage) == (RATE, (), 1.0)
    assert np.ptp(late) < 0.001
    assert abs(late).max() < 1e3 * jitter_s / 5  # placed as a whole


def test_a_slow_swing_of_the_timestamps_is_not_followed(encoded, noise, tmp_path):
    swing = 0.005 * np.sin(np.arange(SECONDS * RATE) * 2 * np.pi / (2 * RATE))
    path = restamped(encoded("aac"), tmp_path / "x.mp4", lambda t: t + Fraction(swing[max(int(t * RATE), 0)]))
    heard = Heard(path)
    assert (heard.track.rate, heard.audio.gaps) == (RATE, ())


@pytest.mark.parametrize("stretch", ["1", "1.002", "1.02"])
@pytest.mark.parametrize("name", ["x.mp4", "x.ts"])
@pytest.mark.parametrize("hole_ms", [10, 30, 600])
def test_a_hole_stays_a_gap_however_the_clock_ticks(encoded, tmp_path, name, stretch, hole_ms):
    at, hole, rate = 7, Fraction(hole_ms, 1000), Fraction(stretch)
    path = restamped(encoded("aac"), tmp_path / name, lambda t: rate * (t + hole if t > at else t))
    (gap,) = Heard(path).audio.gaps
    assert gap.length_ns == pytest.approx(float(hole * rate) * NS, abs=40_000)
    assert gap.start_ns == pytest.approx(float(rate * at) * NS, abs=45_000_000)


@pytest.mark.parametrize("lost", [0.02, 0.05, 0.2])
def test_lost_packets_are_gaps_and_no_slow_clock(encoded, noise, tmp_path, lost):
    rng = np.random.default_rng(8)
    kept = {}
    path = restamped(
        encoded("opus"),
        tmp_path / "x.webm",
        lambda t: t,
        keep=lambda t: kept.setdefault(t, rng.random() > lost),
    )
    heard = Heard(path)
    start, end = (Fraction(t, NS) for t in (WINDOW.start_ns, WINDOW.end_ns))
    gone = sum(not there and start <= t < end for t, there in kept.items())
    assert heard.track.rate == RATE
    assert heard.audio.coverage == pytest.approx(1 - gone * 0.02 / 5, abs=0.005)


def test_two_speeds_in_a_window_are_each_placed_by_their_own(encoded, noise, tmp_path):
    def stamp(t):
        return t if t < 7 else Fraction(15, 2) + (t - 7) * Fraction("1.01")

    heard = Heard(restamped(encoded("aac"), tmp_path / "x.mp4", stamp))
    sound, start = heard.audio.samples, WINDOW.start_ns / NS
    before = sound[: int((6.9 - start) * 16_000)]
    after = sound[int((7.6 - start) * 16_000) :]
    assert np.abs(displaced_ms(before, start, 16_000, noise, lambda t: t)).max() < EXACT
    first = start + int((7.6 - start) * 16_000) / 16_000
    late = displaced_ms(after, first, 16_000, noise, lambda t: 7 + (t - 7.5) / 1.01)
    assert np.abs(late).max() < EXACT + 21.4 * 0.01  # the packet across the step keeps its own speed
    (gap,) = heard.audio.gaps
    assert gap.length_ns == pytest.approx(500_000_000, abs=1_000_000)


def test_the_packets_around_a_window_change_nothing(encoded, tmp_path):
    path = restamped(encoded("aac"), tmp_path / "x.mkv", lambda t: t * Fraction("1.004"))
    window = TimeSpan(6 * NS, 7 * NS)
    found = []
    for first, last in ((0, None), (120, 400)):
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            packets = [p for p in container.demux(stream) if p.size][first:last]
            info = AudioInfo(0, "", stream.rate, 1, stream.time_base, TimeSpan(0, 0))
            track = decode_audio(packets, stream, info, window)
            found.append((track.rate, track.start_ns, track.samples.tobytes()))
    assert found[0] == found[1]
    assert found[0][0] != RATE


SHARED = next(
    (p / "shared/data/awkward" for p in Path(__file__).parents if (p / "shared/data").is_dir()), None
)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared recordings are not here")
def test_a_real_file_with_a_slow_clock_says_so():
    heard = Heard(SHARED / "audio_clock_slow_0.2pct.mp4", TimeSpan(2 * NS, 7 * NS))
    assert heard.track.rate_ppm == pytest.approx(-1996, abs=1)
    assert heard.audio.coverage == 1.0


@settings(max_examples=200, deadline=None)
@given(
    stretch=st.integers(-20_000, 20_000),
    tick=st.sampled_from([1, 8, 48]),
    length=st.integers(120, 4_800),
    count=st.integers(8, 400),
    start=st.integers(-(10**9), 10**12),
)
@example(stretch=-198, tick=8, length=208, count=239, start=1)
def test_a_line_through_rounded_timestamps_stays_within_1_5_ticks(stretch, tick, length, count, start):
    scale = Scale(RATE, tick, 1)
    at = [i * length for i in range(count)]
    true = [start + x * (1 + Fraction(stretch, 10**6)) for x in at]
    line = fit(at, [round(y / tick) * tick for y in true], scale)
    worst = max(abs(line.start + line.sample * x - y) for x, y in zip(at, true, strict=True))
    # The nominal rate stands where it explains all stamps within a tick, and they are rounded by half of one.
    assert worst <= max(1.5 * tick, RATE / 10_000)
    if stretch == 0:
        assert line.sample == 1
