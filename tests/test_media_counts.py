"""Counts of a sample's media: those of decoding it, the same after the wire, and none that cannot be."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.job.shards import write_one_shard
from align.pipeline.process.isolation import stop_idle
from align.pipeline.process.progress import Heartbeat
from align.schemas.errors import AlignError
from align.schemas.features import arrow_schema
from align.schemas.options import AlignOptions
from align.schemas.sample import EncodedAudio
from align.schemas.time import TimeSpan
from align.transforms.align.audio import encode_flac
from align.transforms.write.encoded import encoded, received
from align.transforms.write.media_counts import MediaCounts, SoundCounts, media_counts
from align.transforms.write.row import to_row
from align.transforms.write.stats import Collector


def same(a: MediaCounts, b: MediaCounts) -> bool:
    def plain(c):
        sound = c.sound and (c.sound.low, c.sound.counts.tolist(), c.sound.total, c.sound.squares)
        return (None if c.pixels is None else c.pixels.tolist()), sound

    return plain(a) == plain(b)


def test_counts_are_those_of_the_decoded_media(mixed_samples):
    for sample in mixed_samples:
        found, row = media_counts(to_row(sample)), to_row(sample)
        if row["image"] is not None:
            pixels = cv2.imdecode(np.frombuffer(row["image"]["bytes"], np.uint8), cv2.IMREAD_COLOR)
            assert [int(c @ np.arange(256)) for c in found.pixels] == pixels[..., ::-1].sum((0, 1)).tolist()
            assert {int(c.sum()) for c in found.pixels} == {pixels.shape[0] * pixels.shape[1]}
        if row["audio"] is not None and not row["audio_gaps"]:
            heard, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
            assert found.sound.total == int(heard.sum(dtype=np.int64))
            assert found.sound.squares == int((heard.astype(np.int64) ** 2).sum())
            rounded = (heard.astype(int) + 16) // 32
            assert found.sound.low == rounded.min()
            assert found.sound.counts.tolist() == np.bincount(rounded - rounded.min()).tolist()


@given(st.integers(0, 2**32), st.sampled_from([8_000, 16_000]), st.integers(0, 999), st.integers(0, 999))
def test_what_flac_was_made_of_counts_as_its_decoding_does(seed, rate, start_ms, length_ms):
    samples = np.random.default_rng(seed).integers(-(2**15), 2**15, rate).astype(np.int16)
    start, end = start_ms * 10**6 + 7, min(start_ms + length_ms, 1000) * 10**6 + 8
    gap = TimeSpan(start, max(start, end))
    audio = EncodedAudio(encode_flac(samples, rate), (gap,), samples, rate)
    row = {"key": "k", "image": None, "start_ns": 0, "end_ns": 10**9, "audio": {"bytes": audio.data}}
    row["audio_gaps"] = [{"start_ns": gap.start_ns, "end_ns": gap.end_ns}]
    assert same(media_counts(row, audio), media_counts(row))


def test_counts_survive_the_wire_and_add_up_as_the_row_does(mixed_samples):
    here, there = Collector(), Collector()
    for sample in mixed_samples:
        made = encoded(sample, arrow_schema(16_000, 200))
        arrived = received(made.batch, made.counts.to_bytes())
        assert same(arrived.counts, made.counts)
        here.add(to_row(sample))
        there.add(to_row(sample), arrived.counts)
    assert here.result() == there.result()


PIXELS = np.full((3, 256), 4, np.int64)
SOUND = SoundCounts(-2, np.array([1, 0, 3]), -10, 4000)


@pytest.mark.parametrize(
    "counts",
    [
        MediaCounts(PIXELS + np.eye(3, 256, dtype=np.int64)[:, ::-1] * [[1], [2], [3]]),
        MediaCounts(PIXELS[:2]),
        MediaCounts(None, replace(SOUND, low=-1025)),
        MediaCounts(None, replace(SOUND, low=1023)),
        MediaCounts(None, replace(SOUND, total=5 * 2**15)),
        MediaCounts(None, replace(SOUND, squares=-1)),
        MediaCounts(None, replace(SOUND, squares=24)),  # less than the square of their mean allows
        MediaCounts(None, replace(SOUND, squares=4 * 2**30 + 1)),
        MediaCounts(None, replace(SOUND, counts=np.array([2**32 - 1, 2, 0]))),
    ],
)
def test_counts_that_no_sample_has_are_refused(counts):
    with pytest.raises(ValueError, match=r"picture|sound|samples"):
        MediaCounts.from_bytes(counts.to_bytes())


@given(st.binary(max_size=5000))
def test_any_bytes_are_counts_or_refused(data):
    try:
        found = MediaCounts.from_bytes(data)
    except ValueError:
        return
    assert found.to_bytes() == data


def test_counts_of_other_modalities_than_the_row_holds_are_refused(mixed_samples):
    silent = next(s for s in mixed_samples if s.audio is None)
    made = encoded(silent, arrow_schema(16_000, 200))
    with pytest.raises(ValueError, match="modalities"):
        received(made.batch, MediaCounts(made.counts.pixels, SOUND).to_bytes())


def test_who_writes_shards_decodes_nothing(clone_input, tmp_path, monkeypatch):
    """A hostile file may take over a decoding process, whose JPEG and FLAC then must not be opened here."""
    root = clone_input(tmp_path, ["one"])

    def write(name: str, isolate: bool):
        options = AlignOptions(window=1, stride=1)
        config = RunConfig(
            source="ego4d",
            input=str(root.parent),
            output=str(tmp_path / name),
            sample=options,
            isolate=isolate,
        )
        segments = [s for r in list_recordings(config) for s in plan_recording(r, config).segments]
        return write_one_shard(("train", 0, 1), segments, config, Heartbeat())

    def refuse(*_, **__):
        raise AlignError("decoded", "in the process that writes shards")

    inline = write("inline", isolate=False)
    monkeypatch.setattr(cv2, "imdecode", refuse)
    monkeypatch.setattr(soundfile, "read", refuse)
    isolated = write("isolated", isolate=True)
    stop_idle()
    assert isolated.samples == 4
    assert isolated.statistics == inline.statistics
    assert [f.sha256 for f in isolated.files] == [f.sha256 for f in inline.files]
