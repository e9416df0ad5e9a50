"""A recording's own audio file: read beside the video, on its own clock, whatever its format."""

import io
import shutil
import subprocess
from dataclasses import replace

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.process.isolation import borrow
from align.pipeline.sync.sound import ConcurrentSet, measure_set
from align.schemas.errors import Fault
from align.schemas.media import AudioTrack
from align.schemas.options import AlignOptions
from align.schemas.recording import Concurrent, Stream
from align.schemas.time import NS, ClockMap, ClockPiece, TimeSpan
from align.transforms.align.audio_clock import window_audio_on
from align.transforms.align.segment import align_segment
from align.transforms.sync.verdict import SyncOptions

RATE = 16_000
CLOCK = ClockMap((ClockPiece(0, -3_200_000_000, 50.0),))  # the microphone was switched on 3.2 s earlier
LONG_CLOCK = ClockMap((ClockPiece(0, -103_200_000_000, 50.0),))
TWO_S = AlignOptions(window=2, stride=2)

_rng = np.random.default_rng(8)
TONES = _rng.uniform(80, 6_500, 60), _rng.uniform(0, 2 * np.pi, 60)


def noise(seconds):
    """What is heard at instants of the recording clock: band-limited, known everywhere."""
    frequency, phase = TONES
    out = np.zeros(len(seconds))
    for f, p in zip(frequency, phase, strict=True):
        out += np.sin(2 * np.pi * f * np.asarray(seconds) + p)
    return out / 30


def microphone(rate, seconds, clock=CLOCK, silent=0):
    """The noise as a microphone on a clock of its own samples it, at first not at all: float64 [n]."""
    own = np.arange(round(rate * silent), round(rate * seconds)) / rate
    (piece,) = clock.pieces
    sound = noise(own + piece.offset_ns / NS + piece.drift_ppm * 1e-6 * (own - piece.start_ns / NS))
    return np.concatenate((np.zeros(round(rate * silent)), sound))


def lag_s(heard, start_ns):
    """By how much the sound comes late, from the phase of its spectrum against the truth's."""
    at = start_ns / NS + np.arange(len(heard)) / RATE
    taper = np.hanning(len(heard))
    cross = np.fft.rfft(heard * taper) * np.conj(np.fft.rfft(noise(at) * taper))
    fine = np.fft.irfft(cross, 64 * len(heard))
    k = int(np.argmax(fine))
    return (k if k < len(fine) // 2 else k - len(fine)) / (64 * RATE)


@settings(max_examples=8, deadline=None)
@given(
    drift=st.floats(-300, 300).filter(lambda d: d == 0 or abs(d) > 1e-3),
    offset=st.integers(-(10**10), 10**10),
    rate=st.sampled_from([16_000, 44_100, 48_000]),
    early=st.integers(0, 10**9),
)
def test_a_drifting_microphone_is_heard_at_the_instants_of_the_grid(drift, offset, rate, early):
    clock = ClockMap((ClockPiece(0, offset, drift),))
    window = TimeSpan(clock.at(2 * NS) + early, clock.at(2 * NS) + early + NS // 2)
    track = AudioTrack(rate, 0, microphone(rate, 3.8, clock).astype(np.float32))
    found = window_audio_on(track, clock, window, RATE)
    truth = noise(window.start_ns / NS + np.arange(RATE // 2) / RATE)
    assert found.gaps == ()
    assert found.coverage == 1.0
    np.testing.assert_allclose(found.samples / 32768, truth, atol=2.5e-5)


def test_a_clock_in_pieces_leaves_a_gap_or_lets_the_earlier_piece_stand():
    ahead = ClockMap((ClockPiece(0, 0, 20.0), ClockPiece(NS, 500_000_000, 0.0), ClockPiece(2 * NS, 0, 0.0)))
    track = AudioTrack(RATE, 0, np.full(3 * RATE, 0.25, np.float32))
    found = window_audio_on(track, ahead, TimeSpan(0, 3 * NS), RATE)
    (gap,) = found.gaps
    assert (gap.start_ns, gap.end_ns) == (1_000_020_000, 1_500_000_000)
    silent = np.flatnonzero(found.samples == 0)
    assert silent[0] == 16_001  # the first sample at or after the gap's start
    assert silent[-1] == 23_999
    assert len(silent) == 7_999
    assert np.abs(found.samples[found.samples != 0] - 8192).max() <= 200  # but for ringing at the edges
    assert found.coverage == pytest.approx(1 - 0.49998 / 3)


def test_gaps_of_the_file_stand_on_the_recording_clock():
    clock = ClockMap((ClockPiece(0, NS, 100.0),))
    track = AudioTrack(RATE, 0, np.zeros(4 * RATE, np.float32), (TimeSpan(NS, 2 * NS),))
    found = window_audio_on(track, clock, TimeSpan(NS, 4 * NS), RATE)
    assert found.gaps == (TimeSpan(2_000_100_000, 3_000_200_000),)


@pytest.fixture(scope="module")
def recording(clone_input, tmp_path_factory):
    root = clone_input(tmp_path_factory.mktemp("sound"), ["one"])
    (found,) = list_recordings(RunConfig(source="ego4d", input=str(root.parent)))
    return found


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    """The microphone's file, ``tape("tape.flac")``; ``long.flac`` is silent but for the last 12 s of 112."""
    folder = tmp_path_factory.mktemp("tape")

    def make(name, *options):
        wav, path = folder / f"{name.partition('.')[0]}.wav", folder / name
        if not wav.exists():
            long = name.startswith("long")
            sound = microphone(48_000, 112, LONG_CLOCK, 100) if long else microphone(48_000, 12)
            soundfile.write(wav, sound, 48_000, subtype="PCM_16")
        if not path.exists():
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(wav), *options]
            subprocess.run([*command, str(path)], check=True)
        return path

    return make


def with_sound(recording, path, clock=CLOCK, **changes):
    audio = Stream("audio", str(path), f"mic/{path.name}", clock=clock)
    return replace(recording, audio=audio, **changes)


def run(recording, options=TWO_S, isolate=False):
    config = RunConfig(source="ego4d", input="/", sample=options, isolate=isolate)
    plan = plan_recording(recording, config)
    return plan, [s for segment in plan.segments for s in align_segment(segment, options, "c")]


def heard(sample):
    return soundfile.read(io.BytesIO(sample.audio.data))[0]


LOSSLESS = ["tape.wav", "tape.flac"]
LOSSY = {
    "tape.m4a": ("-c:a", "aac", "-b:a", "256k"),
    "tape.aac": ("-c:a", "aac", "-b:a", "256k"),
    "tape.opus": ("-c:a", "libopus", "-b:a", "192k"),
    "tape.ogg": ("-c:a", "libvorbis", "-b:a", "192k"),
    "tape.mp3": ("-c:a", "libmp3lame", "-b:a", "256k"),
    "vbr.mp3": ("-c:a", "libmp3lame", "-q:a", "4"),
    "tape.mkv": ("-c:a", "libopus", "-b:a", "192k"),
}
WITHIN_S = {"tape.aac": 0.05, "tape.mkv": 1e-3}
"""ADTS does not say what its encoder put before the sound; Matroska counts milliseconds."""


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_sound_of_a_file_of_its_own_lands_where_it_was_heard(recording, tape, name):
    plan, samples = run(with_sound(recording, tape(name, *LOSSY.get(name, ()))))
    assert not plan.faults
    assert len(samples) == 2
    for sample in samples:
        assert sample.missing == {} or "audio" not in sample.missing
        assert sample.provenance.audio == f"mic/{name}"
        assert sample.audio.gaps == ()
        assert sample.quality.audio_coverage == 1.0
        assert abs(lag_s(heard(sample), sample.window.start_ns)) < WITHIN_S.get(name, 1e-4)
        if name in LOSSLESS:
            truth = noise(sample.window.start_ns / NS + np.arange(2 * RATE) / RATE)
            np.testing.assert_allclose(heard(sample), truth, atol=6e-5)


@pytest.mark.parametrize("name", ["wav", "flac", "m4a", "opus", "ogg", "mp3", "vbr", "mka"])
def test_what_is_far_into_a_long_file_is_found_at_its_time(recording, tape, name):
    """One seeks there; what a seek lands on must have the time that reading all would give it."""
    options = {**{n.partition(".")[2]: o for n, o in LOSSY.items()}, "mka": LOSSY["tape.mkv"]}
    options |= {"mp3": LOSSY["tape.mp3"], "vbr": LOSSY["vbr.mp3"]}
    path = tape("longvbr.mp3" if name == "vbr" else f"long.{name}", *options.get(name, ()))
    for sample in run(with_sound(recording, path, LONG_CLOCK))[1]:
        assert sample.audio.gaps == ()
        assert abs(lag_s(heard(sample), sample.window.start_ns)) < (1e-3 if name == "mka" else 1e-4)


def test_pictures_and_imu_are_what_they_are_without_it(recording, tape):
    plain, other = run(recording)[1], run(with_sound(recording, tape("tape.wav")))[1]
    for a, b in zip(plain, other, strict=True):
        assert (a.image, a.text) == (b.image, b.text)
        assert np.array_equal(a.imu.values, b.imu.values)
        assert a.audio != b.audio


def test_the_same_file_on_the_same_clock_is_read_in_the_one_pass(recording):
    (segment,) = run(recording)[0].segments
    assert segment.sound is None
    assert recording.sound_file is None


def test_the_videos_own_sound_on_another_clock_is_moved(recording):
    later = ClockMap((ClockPiece(0, NS // 2, 0.0),))
    moved = replace(recording, audio=replace(recording.audio, clock=later))
    options = replace(TWO_S, min_coverage=0.5)
    (_, plain), (_, other) = run(recording, options), run(moved, options)
    half = RATE // 2
    for a, b in zip(plain, other, strict=True):
        np.testing.assert_allclose(heard(b)[half + 200 : -200], heard(a)[200 : -half - 200], atol=4e-5)


def test_the_stream_that_is_named_is_read(recording, tape, tmp_path):
    both = tmp_path / "two.mka"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=500"]
    command += [
        "-i",
        str(tape("tape.wav")),
        "-map",
        "0:a",
        "-map",
        "1:a",
        "-c:a",
        "flac",
        "-t",
        "10",
        str(both),
    ]
    subprocess.run(command, check=True)
    named = with_sound(recording, both)
    named = replace(named, audio=replace(named.audio, index=1))
    for sample in run(named)[1]:
        assert sample.provenance.audio_stream == 1
        assert abs(lag_s(heard(sample), sample.window.start_ns)) < 1e-4


def test_a_child_reads_it_too(recording, tape):
    config = RunConfig(source="ego4d", input="/", sample=TWO_S)
    mine = with_sound(recording, tape("tape.flac"))
    here = [heard(s) for s in run(mine)[1]]
    (segment,) = plan_recording(mine, config).segments
    with borrow(config) as child:
        rows = [item.batch.column("audio")[0]["bytes"].as_py() for item in child.samples(segment, TWO_S, "c")]
    assert all(np.array_equal(soundfile.read(io.BytesIO(r))[0], h) for r, h in zip(rows, here, strict=True))


@pytest.mark.parametrize(
    ("spoil", "code", "reason"),
    [
        (lambda p, v: None, "missing_file", "invalid"),
        (lambda p, v: p.write_bytes(b"RIFF" + b"\xff" * 99), "unknown_format", "invalid"),
        (lambda p, v: p.write_bytes(b""), "empty_file", "invalid"),
        (lambda p, v: _silent(v, p), "no_audio", "not_recorded"),
    ],
    ids=["missing", "damaged", "empty", "video only"],
)
def test_a_file_that_cannot_be_read_costs_the_sound_and_is_noted(recording, tmp_path, spoil, code, reason):
    path = tmp_path / "mic.wav"
    spoil(path, recording.video.uri)
    plan, samples = run(with_sound(recording, path))
    (fault,) = plan.faults
    assert (fault.code, fault.outcome, fault.windows) == (code, "noted", 0)
    assert "mic/mic.wav" in fault.detail
    assert str(tmp_path) not in fault.detail
    for sample in samples:
        assert sample.missing["audio"] == reason
        assert sample.image is not None
        assert sample.provenance.audio is None


def _silent(video, path):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", video, "-an", "-c", "copy"]
    subprocess.run([*command, "-f", "mp4", str(path)], check=True)


def test_a_file_that_goes_while_it_is_needed_costs_the_sound(recording, tape, tmp_path):
    path = tmp_path / "mic.wav"
    shutil.copy(tape("tape.wav"), path)
    plan = plan_recording(
        with_sound(recording, path), RunConfig(source="ego4d", input="/", sample=TWO_S, isolate=False)
    )
    path.unlink()
    samples = [s for segment in plan.segments for s in align_segment(segment, TWO_S, "c")]
    assert [s.missing["audio"] for s in samples] == ["decode_error"] * 2
    required = replace(TWO_S, require=("image", "audio"))
    assert all(isinstance(f, Fault) for s in plan.segments for f in align_segment(s, required, "c"))


def test_a_file_that_ends_early_has_no_coverage_there(recording, tmp_path):
    path = tmp_path / "mic.wav"
    soundfile.write(path, microphone(48_000, 5.2), 48_000)  # until 2.0 s of the recording clock
    first, second = run(with_sound(recording, path))[1]
    assert first.audio is not None
    assert second.missing["audio"] == "no_coverage"


def test_it_is_counted_in_the_cost(recording, tape):
    (without,) = run(with_sound(recording, tape("tape.wav").with_name("gone.wav")))[0].segments
    (found,) = run(with_sound(recording, tape("tape.wav")))[0].segments
    assert found.cost_s > without.cost_s
    assert found.cost_bytes > without.cost_bytes


@pytest.mark.parametrize("isolate", [True, False])
def test_sync_hears_the_file_that_a_run_reads(recording, tape, isolate, tmp_path):
    """Two recordings of one event: one's own microphone on a clock known to 0.4 s, the other's sound."""
    other = tmp_path / "other.wav"
    event = np.convolve(np.random.default_rng(5).normal(0, 0.1, 48_000 * 45), np.hanning(16) / 8, "same")
    soundfile.write(other, event[: 48_000 * 40], 48_000)
    own = tmp_path / "own.wav"
    at = np.arange(48_000 * 40) * (1 + 50e-6) / 48_000 - 3.2
    soundfile.write(own, np.interp(at, np.arange(len(event)) / 48_000, event), 48_000)
    almost = ClockMap((ClockPiece(0, CLOCK.pieces[0].offset_ns - 400_000_000, 50.0),))
    here = with_sound(recording, own, almost, recording_id="here", concurrent=Concurrent("s", 0))
    there = with_sound(recording, other, ClockMap(), recording_id="there", concurrent=Concurrent("s", 0))
    longer = replace(there, span=TimeSpan(0, 50 * NS))
    found = measure_set(
        ConcurrentSet("s", (longer, here)),
        SyncOptions(),
        RunConfig(source="ego4d", input="/", isolate=isolate),
    )
    ((row,),) = [one.rows for one in found.found]
    assert row.recording_id == "here"
    assert row.is_known, row.reason
    assert abs(row.offset_ns - 400_000_000) < 200_000
    assert abs(row.drift_ppm) < 20
