"""Decoding and placing sound, against ffmpeg and brute force."""

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from align.schemas.errors import AlignError
from align.schemas.media import AudioInfo
from align.schemas.time import NS, TimeSpan
from align.transforms.read.audio import decode_audio

SECONDS, RATE = 8, 48_000
WHOLE = TimeSpan(0, SECONDS * NS)
EDGE = Path(__file__).parents[2] / "shared" / "data" / "edge"


def ffmpeg(*args):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, args)], check=True)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """White noise, 16 bit: its correlation with a decoded copy is a peak one sample wide."""
    path = tmp_path_factory.mktemp("noise") / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, SECONDS * RATE), RATE)
    return path


@pytest.fixture(scope="module")
def encoded(noise):
    """A function that encodes the noise, once for each (name, arguments)."""

    def encode(name, *args):
        path = noise.with_name(name)
        if not path.exists():
            ffmpeg("-i", noise, *args, "-threads", 1, path)
        return path

    return encode


class Demuxed:
    """A file's audio packets from a time on, and what ``decode_audio`` asks for beside them."""

    def __init__(self, path, from_s=None):
        self.container = av.open(str(path))
        self.stream = s = self.container.streams.audio[0]
        if from_s is not None:
            self.container.seek(int(from_s / s.time_base), stream=s)
        self.packets = [p for p in self.container.demux(s) if p.size]
        self.info = AudioInfo(s.index, s.codec_context.name, s.rate, s.channels, s.time_base, WHOLE)

    def track(self, span=WHOLE, packets=None, **options):
        return decode_audio(
            self.packets if packets is None else packets, self.stream, self.info, span, **options
        )


def lag_s(track, path):
    """How much later than in the original the track's sound stands, by the peak of the correlation."""
    truth, _ = soundfile.read(path)
    n = 2 * max(len(truth), len(track.samples))
    correlation = np.fft.irfft(np.fft.rfft(track.samples, n) * np.conj(np.fft.rfft(truth, n)))
    peak = int(correlation.argmax())
    return float(track.start_ns) / NS + (peak - n if peak > n // 2 else peak) / RATE


@pytest.mark.parametrize(
    ("name", "args", "within_s"),
    [
        ("aac.mp4", ["-c:a", "aac"], 1e-9),
        ("aac.m4a", ["-c:a", "aac", "-b:a", "48k"], 1e-9),
        ("frag.mp4", ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov+delay_moov"], 1e-9),
        ("alac.mp4", ["-c:a", "alac"], 1e-9),
        ("pcm.mov", ["-c:a", "pcm_s16le"], 1e-9),
        ("u8.wav", ["-c:a", "pcm_u8"], 1e-9),
        ("s24.wav", ["-c:a", "pcm_s24le"], 1e-9),
        ("f32.wav", ["-c:a", "pcm_f32le"], 1e-9),
        ("aac.mkv", ["-c:a", "aac"], 1e-3),
        ("flac.mkv", ["-c:a", "flac"], 1e-3),
        ("ac3.mkv", ["-c:a", "ac3"], 1e-3),
        ("opus.webm", ["-c:a", "libopus"], 1e-3),
        ("late.mp4", ["-af", "asetpts=PTS+0.5/TB", "-c:a", "aac"], None),
    ],
)
def test_sound_stands_where_it_was_encoded(encoded, noise, name, args, within_s):
    path = encoded(name, *args)
    late = 0.5 if within_s is None else 0.0
    assert lag_s(Demuxed(path).track(), noise) == pytest.approx(late, abs=within_s or 1e-3)


def test_one_millisecond_timestamps_neither_accumulate_nor_jitter(encoded):
    exact, rounded = (Demuxed(encoded(n, "-c:a", "flac")).track() for n in ("flac.flac", "flac.mkv"))
    assert rounded.gaps == ()
    np.testing.assert_array_equal(rounded.samples, exact.samples)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("aac.mp4", ["-c:a", "aac"]),  # with noise substitution, ffmpeg's default
        ("aac.m4a", ["-c:a", "aac", "-b:a", "48k"]),
        ("aac.mkv", ["-c:a", "aac"]),
        ("aac.ts", ["-c:a", "aac"]),
        ("opus.webm", ["-c:a", "libopus"]),
        ("vorbis.mkv", ["-c:a", "libvorbis"]),
        ("mp3.mp3", ["-c:a", "libmp3lame"]),
        ("pcm.mov", ["-c:a", "pcm_s16le"]),
    ],
)
def test_a_span_is_the_same_wherever_demuxing_began_and_whatever_was_decoded_before(encoded, name, args):
    path = encoded(name, *args)
    span = TimeSpan(5_100_000_000, 6_300_000_000)
    fresh = Demuxed(path).track(span)
    used = Demuxed(path)
    used.track(TimeSpan(0, NS))
    used.track(TimeSpan(6 * NS, 7 * NS))
    for again in (used.track(span), *(Demuxed(path, s).track(span) for s in (2.0, 4.0, 4.3))):
        assert again.samples.tobytes() == fresh.samples.tobytes()
        assert (again.start_ns, again.gaps) == (fresh.start_ns, fresh.gaps)
    assert len(fresh.samples) in (int(1.2 * RATE), int(1.2 * RATE) + 1)
    assert fresh.gaps == ()


def test_decoding_from_the_pre_roll_on_equals_decoding_from_the_start(encoded):
    track = Demuxed(encoded("lc.m4a", "-c:a", "aac", "-aac_pns", 0))
    whole, span = track.track(), TimeSpan(5 * NS, 6 * NS)
    np.testing.assert_array_equal(track.track(span).samples, whole.samples[5 * RATE : 6 * RATE])


def test_opus_has_settled_after_the_pre_roll(encoded):
    opus = Demuxed(encoded("opus.webm", "-c:a", "libopus"))
    part, whole = opus.track(TimeSpan(5 * NS, 6 * NS)), opus.track()
    first = round((part.start_ns - whole.start_ns) * RATE / NS)
    assert np.abs(part.samples - whole.samples[first : first + len(part.samples)]).max() < 1e-3


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_mono_is_the_mean_of_the_channels(tmp_path, codec):
    rng = np.random.default_rng(1)
    stereo = rng.uniform(-0.9, 0.9, (4_800, 2))
    soundfile.write(tmp_path / "in.wav", stereo, RATE, subtype="DOUBLE")
    ffmpeg("-i", tmp_path / "in.wav", "-c:a", codec, tmp_path / "x.wav")
    track = Demuxed(tmp_path / "x.wav").track(TimeSpan(0, NS // 10))
    read, _ = soundfile.read(tmp_path / "x.wav")
    np.testing.assert_allclose(track.samples, read.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("channels", [5, 7, 8])
@pytest.mark.parametrize("name", ["x.flac", "x.wav"])
def test_many_channels_are_read(tmp_path, channels, name):
    sound = np.random.default_rng(2).uniform(-0.9, 0.9, (4_800, channels))
    soundfile.write(tmp_path / "in.wav", sound, RATE)
    ffmpeg("-i", tmp_path / "in.wav", tmp_path / name)
    track = Demuxed(tmp_path / name).track(TimeSpan(0, NS // 10))
    np.testing.assert_allclose(track.samples, sound.mean(axis=1), atol=1e-4)


def test_eight_planes_are_read_without_a_crash(encoded, noise):
    surround = "|".join(["7.1", *(f"c{i}=c0" for i in range(8))])
    track = Demuxed(encoded("surround.mp4", "-af", f"pan={surround}", "-c:a", "aac", "-b:a", "768k")).track()
    assert lag_s(track, noise) == 0


def test_more_planes_than_can_be_read_are_an_error(encoded):
    sixteen = "|".join(["hexadecagonal", *(f"c{i}=c0" for i in range(16))])
    with pytest.raises(AlignError) as error:
        Demuxed(encoded("16.wv", "-t", 1, "-af", f"pan={sixteen}", "-c:a", "wavpack")).track()
    assert error.value.code == "audio_channels"


def test_a_second_of_missing_packets_stays_a_gap(encoded):
    aac = Demuxed(encoded("lc.m4a", "-c:a", "aac", "-aac_pns", 0))
    kept = [p for p in aac.packets if not 144 * 1024 <= p.pts < 192 * 1024]
    track = aac.track(packets=kept)
    start, end = 144 * 1024 * NS / RATE, 192 * 1024 * NS / RATE
    assert track.gaps == (TimeSpan(round(start), round(end)),)
    assert not track.samples[144 * 1024 : 192 * 1024].any()
    whole = aac.track()
    np.testing.assert_array_equal(track.samples[193 * 1024 :], whole.samples[193 * 1024 :])


def test_a_packet_that_does_not_decode_leaves_a_gap(encoded):
    flac = Demuxed(encoded("flac.flac", "-c:a", "flac"))
    packets = list(flac.packets)
    broken = av.Packet(b"\x00" * 64)
    broken.pts, broken.time_base = packets[10].pts, packets[10].time_base
    start, end = (packets[i].pts * packets[i].time_base * NS for i in (10, 11))
    packets[10] = broken
    track = flac.track(packets=packets)
    assert track.gaps == (TimeSpan(round(start), round(end)),)


def test_a_packet_that_is_flagged_as_corrupt_leaves_a_gap(pcm):
    packets = [pcm.packet(0, [100] * 480), pcm.packet(480, [100] * 480), pcm.packet(960, [100] * 480)]
    packets[1].is_corrupt = True
    assert pcm.track(packets=packets, span=TimeSpan(0, 30_000_000)).gaps == (
        TimeSpan(10_000_000, 20_000_000),
    )


def test_a_change_of_the_rate_is_an_error(noise, tmp_path):
    for rate in (44_100, 48_000):
        ffmpeg("-i", noise, "-t", 2, "-ar", rate, "-c:a", "aac", tmp_path / f"{rate}.aac")
    joined = tmp_path / "joined.aac"
    joined.write_bytes((tmp_path / "44100.aac").read_bytes() + (tmp_path / "48000.aac").read_bytes())
    with pytest.raises(AlignError, match="44100 and 48000") as error:
        Demuxed(joined).track()
    assert error.value.code == "audio_rate_change"


def test_the_clock_offset_is_subtracted(encoded):
    pcm = Demuxed(encoded("pcm.mov", "-c:a", "pcm_s16le"))
    plain = pcm.track(TimeSpan(2 * NS, 3 * NS))
    moved = pcm.track(TimeSpan(NS, 2 * NS), clock_offset_ns=NS)
    np.testing.assert_array_equal(plain.samples, moved.samples)
    assert moved.start_ns == plain.start_ns - NS


def test_no_packets_are_one_gap(pcm):
    track = pcm.track(packets=[], span=TimeSpan(NS, 2 * NS))
    assert track.gaps == (TimeSpan(NS, 2 * NS),)
    assert len(track.samples) == RATE
    assert not track.samples.any()


@pytest.fixture(scope="module")
def pcm(encoded):
    """A PCM stream for packets made by hand."""

    class ByHand(Demuxed):
        def packet(self, pts, values, time_base=Fraction(1, RATE)):
            made = av.Packet(np.array(values, "<i2").tobytes())
            made.pts, made.time_base = pts, time_base
            return made

    return ByHand(encoded("pcm.mov", "-c:a", "pcm_s16le"))


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0, 0, 0, 24, 500, -24, -300]), st.integers(1, 400)),
        min_size=1,
        max_size=7,  # of eight and more it is asked whether their timestamps jitter
    ),
    start=st.integers(-600, 3_000),
    length=st.integers(0, 3_000),
)
def test_placement_equals_painting_sample_by_sample(pcm, steps, start, length):
    packets, painted, at, value = [], {}, 0, 1
    for step, count in steps:
        at += step
        values = np.arange(value, value + count) % 30_000 + 1
        packets.append(pcm.packet(at, values))
        for i, v in enumerate(values):
            painted.setdefault(at + i, v)  # the earlier one stays
        at, value = at + count, value + count
    tick = Fraction(NS, RATE)
    span = TimeSpan(start * NS // RATE, (start + length) * NS // RATE)
    track = pcm.track(packets=packets, span=span)
    inside = range(start, start + length)
    np.testing.assert_array_equal(track.samples * 32768, [painted.get(i, 0) for i in inside])
    if length:
        assert abs(track.start_ns - start * tick) < tick
    listed = [any(g.holds(round(i * tick) + 1_000) for g in track.gaps) for i in inside]
    assert listed == [i not in painted for i in inside]


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(200, 3_000), min_size=3, max_size=30), shift=st.integers(0, 47))
def test_rounded_timestamps_make_one_run_within_half_a_tick(pcm, counts, shift):
    ms = Fraction(1, 1_000)
    starts = np.cumsum([shift, *counts[:-1]])
    packets = [
        pcm.packet(round(Fraction(int(s), RATE) / ms), [7] * n, ms)
        for s, n in zip(starts, counts, strict=True)
    ]
    info = AudioInfo(0, "pcm_s16le", RATE, 1, ms, WHOLE)
    total = sum(counts)
    track = decode_audio(packets, pcm.stream, info, TimeSpan(-NS // 100, NS * (total + 100) // RATE))
    placed = np.flatnonzero(track.samples)
    assert len(placed) == total
    assert placed[-1] - placed[0] == total - 1
    first_ns = track.start_ns + Fraction(int(placed[0]) * NS, RATE)
    assert abs(first_ns - Fraction(shift * NS, RATE)) <= NS // 2_000


@pytest.mark.skipif(not EDGE.is_dir(), reason="the shared recordings are not here")
@pytest.mark.parametrize(
    ("name", "gaps_ms"),
    [
        ("nasa_13013.mp4", []),  # priming of 1024 samples, cut by the edit list
        ("sample_audio_only.mp4", [(0, 66.213)]),  # starts late; the decoder knows its encoder's priming
        ("gopro_4_frames_no_telemetry.mp4", [(21.333, 45.417)]),  # a hole between two packets
        ("sample_with_srt.mkv", [(0, 62.0)]),
        ("sowt-with-video.mov", []),
    ],
)
def test_real_files_have_their_gaps(name, gaps_ms):
    media = Demuxed(EDGE / name)
    track = media.track(TimeSpan(0, 150_000_000))
    found = [(g.start_ns / 1e6, g.end_ns / 1e6) for g in track.gaps]
    assert found == [(pytest.approx(a, abs=1), pytest.approx(b, abs=1)) for a, b in gaps_ms]


@pytest.mark.skipif(not EDGE.is_dir(), reason="the shared recordings are not here")
@pytest.mark.parametrize("name", ["silent-black-10s.mp4", "sowt-with-video.mov", "sample_mdat_too_long.mp4"])
def test_real_files_hold_what_ffmpeg_decodes(tmp_path, name):
    media = Demuxed(EDGE / name)
    track = media.track(TimeSpan(0, NS))
    leading = [g for g in track.gaps if g.start_ns == 0]
    recorded = track.samples[round(leading[0].end_ns * track.rate / NS) if leading else 0 :]
    channels = media.info.channels
    mix = "+".join(f"{1 / channels}*c{i}" for i in range(channels))
    filters = f"aformat=fltp,pan=mono|c0={mix}"
    ffmpeg("-i", EDGE / name, "-map", "0:a:0", "-af", filters, "-c:a", "pcm_f32le", tmp_path / "truth.wav")
    truth, _ = soundfile.read(tmp_path / "truth.wav", dtype="float32")
    np.testing.assert_allclose(recorded, truth[: len(recorded)], atol=2e-5)
