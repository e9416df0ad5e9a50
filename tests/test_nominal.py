"""AVI stores no presentation times: H.264 pictures take its grid in the order in which they are shown."""

import io
from dataclasses import replace
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import plan_recording
from align.schemas.options import AlignOptions
from align.schemas.recording import Recording, Stream
from align.schemas.time import NS
from align.transforms.align.segment import align_segment
from align.transforms.check.inspect import inspect_media
from align.transforms.read.container import packets_of
from align.transforms.read.guard import open_media
from align.transforms.read.nal import length_prefix
from align.transforms.read.picture_order import Bits, PictureOrder
from benchmarks.proof.media import ffmpeg
from benchmarks.proof.odd_media import X264, numbered
from benchmarks.proof.truth import SOUND, number_in

STRUCTURES = {
    "no B-frames": ("-g", "30", "-bf", "0"),
    "closed": ("-g", "30", "-bf", "3"),
    "pyramid": ("-g", "48", "-bf", "8", "-x264-params", "b-pyramid=normal:b-adapt=0:ref=5"),
    "open GOP": ("-g", "24", "-bf", "3", "-x264-params", "open-gop=1:b-adapt=0:scenecut=0"),
    "one GOP": ("-g", "1000", "-bf", "3", "-sc_threshold", "0"),
    "interlaced": ("-g", "24", "-flags", "+ilme+ildct", "-x264-params", "tff=1:bframes=2"),
    "refreshed bit by bit": ("-g", "30", "-x264-params", "intra-refresh=1"),
    "intra": ("-g", "1"),
}
GRID = AlignOptions(window=0.25, image_size=32, require=(), min_coverage=0.0)


@pytest.fixture(scope="module", params=STRUCTURES)
def avi(request, tmp_path_factory):
    """420 numbered frames at 30 a second, with sound, of each structure."""
    path = tmp_path_factory.mktemp("avi") / "x.avi"
    return numbered(path, range(420), *X264, *STRUCTURES[request.param], "-c:a", "pcm_s16le")


def windows(path, segment_s=1e4, stride_ns=NS // 4):
    options = replace(GRID, stride=stride_ns / NS, require=())
    stream = Stream("video", str(path), path.name)
    recording = Recording("odd", "x", "x", stream, audio=Stream("audio", str(path), path.name))
    config = RunConfig(
        source="odd", input=str(path.parent), output="", sample=options, segment=segment_s, isolate=False
    )
    plan = plan_recording(recording, config)
    return plan, [item for segment in plan.segments for item in align_segment(segment, options, "0" * 64)]


def number_of(sample):
    return number_in(cv2.imdecode(np.frombuffer(sample.image.data, np.uint8), 1))


@pytest.mark.parametrize(("segment_s", "stride_ns"), [(1e4, NS // 4), (1.3, NS // 4), (1e4, 3 * NS)])
def test_picture_n_stands_at_n_periods_wherever_reading_began(avi, segment_s, stride_ns):
    plan, found = windows(avi, segment_s, stride_ns)
    assert len(found) == 14 * NS // stride_ns + (stride_ns > NS)
    for sample in found:
        frame = round(sample.image.time_ns * 30 / NS)
        assert number_of(sample) == frame == sample.window.center_ns * 30 // NS
        assert sample.quality.image_time_quality == "nominal"
    assert [f.outcome for f in plan.faults if f.code == "nominal_times"] == ["noted"]


def test_picture_and_sound_agree(avi):
    for sample in windows(avi, stride_ns=2 * NS)[1]:
        pcm, rate = soundfile.read(io.BytesIO(sample.audio.data))
        times = sample.window.start_ns / NS + np.arange(200, len(pcm) - 200) / rate
        assert abs(SOUND.delay_s(pcm[200:-200], times)) < 1e-4


def test_times_are_those_of_the_decoders_own_order(avi):
    """An independent reading: the n-th picture that a decoder puts out stands at the n-th place."""
    with av.open(str(avi)) as container:
        container.streams.video[0].thread_count = 1
        put_out = [number_in(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    with open_media(str(avi)) as container:
        stream = container.streams.video[0]
        packets = list(packets_of(container, [stream]))
        frames = (f for p in [*packets, None] for f in stream.codec_context.decode(p))
        shown = [(f.pts, number_in(f.to_ndarray(format="rgb24"))) for f in frames]
    assert sorted(p.pts for p in packets) == list(range(420)) == put_out
    assert shown == [(n, n) for n in range(420)]


def test_packets_come_in_the_order_of_the_file(avi):
    with av.open(str(avi)) as container:
        plain = [(p.stream_index, p.pos) for p in container.demux() if p.size]
    with open_media(str(avi)) as container:
        given_times = [(p.stream_index, p.pos) for p in packets_of(container, list(container.streams))]
    assert given_times == plain


def test_inspect_says_that_the_times_are_the_grids(avi):
    view = inspect_media(str(avi))[0]
    assert (view.span.start_ns, view.span.end_ns, view.gaps) == (0, 14 * NS, ())
    assert any("grid" in fact for fact in view.facts)


def test_a_chunk_without_data_keeps_its_place(tmp_path):
    """A recorder that dropped frames wrote empty chunks: what comes after them is not early."""
    path = tmp_path / "dropped.avi"
    whole = numbered(tmp_path / "whole.mp4", range(120), *X264, "-bf", "0", sound=False)
    kept = ("-vf", "select='not(between(n,40,69))'", "-fps_mode", "passthrough")
    ffmpeg("-i", whole, *kept, *X264, "-bf", "0", "-g", "15", path)
    _, found = windows(path, stride_ns=NS // 2)
    assert {number_of(s) - round(s.image.time_ns * 30 / NS) for s in found} == {0}
    shown = [round(s.image.time_ns * 30 / NS) for s in found]
    assert not [n for n in shown if 40 <= n < 70]
    assert max(shown) > 100


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_other_codecs_keep_the_times_they_have(tmp_path, codec):
    path = numbered(tmp_path / "x.avi", range(120), "-c:v", codec, "-q:v", "2", sound=False)
    _, found = windows(path)
    assert {number_of(s) - round(s.image.time_ns * 30 / NS) for s in found} == {0}
    assert {s.quality.image_time_quality for s in found} == {"nominal"}


def test_a_container_with_times_is_not_nominal(tmp_path):
    path = numbered(tmp_path / "x.mkv", range(60), *X264, sound=False)
    plan, found = windows(path)
    assert {s.quality.image_time_quality for s in found} == {None}
    assert "nominal_times" not in {f.code for f in plan.faults}


def test_the_real_instance_has_one_constant(shared_data):
    _, found = windows(shared_data / "awkward" / "avi_h264_bframes.avi.mp4")
    assert {_blocks_of(sample) - round(sample.image.time_ns * 30 / NS) for sample in found} == {0}


def _blocks_of(sample):
    """The number in two rows of eight blocks, each a quarter of the picture's height, lowest bit first."""
    pixels = cv2.imdecode(np.frombuffer(sample.image.data, np.uint8), 1)
    bits = pixels[:16].reshape(2, 8, 8, 8, 3)[:, 2:-2, :, 2:-2].mean(axis=(1, 3, 4)) > 127
    return int((bits.ravel() << np.arange(16)).sum())


# -- Reading slice headers -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_the_order_read_from_slices_is_that_of_stored_times(tmp_path, suffix):
    """In containers that store times, within each group; with start codes and with lengths."""
    structure = STRUCTURES["pyramid"]
    path = numbered(tmp_path / f"x{suffix}", range(400), *X264, *structure, sound=False)
    with open_media(str(path)) as container:
        stream = container.streams.video[0]
        order = PictureOrder(stream.codec_context.extradata or b"", length_prefix(stream))
        group = []
        for packet in [*packets_of(container, [stream]), None]:
            if packet is None or packet.is_keyframe:
                assert [p for _, p in sorted(group)] == sorted(p for _, p in group)
                group = []
                order.restart()
            if packet is not None:
                group.append((order.count(bytes(packet)), packet.pts))


@given(st.lists(st.integers(0, 1 << 16), max_size=20))
def test_exp_golomb_numbers_are_read_back(numbers):
    bits = "1" + "".join("0" * ((n + 1).bit_length() - 1) + f"{n + 1:b}" for n in numbers)
    bits += "0" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    reader = Bits(data.replace(b"\0\0", b"\0\0\3"))  # as an encoder guards what looks like a start code
    assert reader.u(1) == 1
    assert [reader.ue() for _ in numbers] == numbers


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_bytes_make_the_reading_raise(units):
    order = PictureOrder(b"", 0)
    for unit in units:
        assert isinstance(order.count(b"\0\0\1\x67" + unit + b"\0\0\1\x65" + unit), int)


def test_counts_that_wrap_go_on(tmp_path):
    """``pic_order_cnt_lsb`` has few bits: in a long group it begins again many times."""
    path = numbered(tmp_path / "x.ts", range(400), *X264, *STRUCTURES["one GOP"], sound=False)
    with open_media(str(path)) as container:
        stream = container.streams.video[0]
        order = PictureOrder(b"", 0)
        shown = sorted((order.count(bytes(p)), p.pts) for p in packets_of(container, [stream]))
    assert all(a[1] < b[1] for a, b in pairwise(shown))
