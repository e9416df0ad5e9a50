"""Whatever a decoder that was taken over sends costs the windows it had not delivered, never the run.

The hostile children here are short programs: they take the request, send two true samples, and go wrong.
"""

import json
import struct
import sys
from dataclasses import asdict, replace

import pyarrow as pa
import pytest

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.process import channel, conversation, isolation
from align.pipeline.process.frames import (
    COUNTS,
    DEFECT,
    DONE,
    ERROR,
    FAULT,
    KEYFRAMES,
    MEDIA,
    OPEN,
    READ,
    READY,
    SAMPLE,
    SOUND,
    header,
)
from align.pipeline.process.isolation import Decoder
from align.pipeline.process.replies import has_absurd_number, row_bound
from align.pipeline.process.vitals import Vitals
from align.schemas.errors import AlignError, Fault
from align.schemas.features import arrow_schema
from align.schemas.media import MediaInfo
from align.schemas.options import AlignOptions
from align.schemas.recording import Narration
from align.schemas.time import ClockMap, TimeSpan
from align.schemas.wire import from_plain, to_plain
from align.transforms.align.segment import align_segment
from align.transforms.write.encoded import EncodedRow
from align.transforms.write.media_counts import media_counts
from align.transforms.write.row import from_batch, to_batch, to_row

SECOND = AlignOptions(window=1, stride=1)
SCHEMA = arrow_schema(SECOND.audio_rate, SECOND.imu_rate)

CHILD = """
import os, sys, time
head = sys.stdin.buffer.read(5)
sys.stdin.buffer.read(int.from_bytes(head[1:], "big"))
out = sys.stdout.buffer
out.write(open(sys.argv[1], "rb").read())
out.flush()
{then}
"""
WAIT = "sys.stdin.buffer.read(1)"


@pytest.fixture(scope="module")
def segment(clone_input, tmp_path_factory):
    root = clone_input(tmp_path_factory.mktemp("hostile"), ["bad"])
    config = RunConfig(source="ego4d", input=str(root.parent), sample=SECOND, isolate=False)
    (recording,) = list_recordings(config)
    (planned,) = plan_recording(recording, config).segments
    return planned


@pytest.fixture(scope="module")
def true(segment):
    """The rows that a faithful child would send."""
    return [to_row(sample) for sample in align_segment(segment, SECOND, "c")]


@pytest.fixture
def ask(tmp_path, segment, monkeypatch):
    """What becomes of a segment, or another question, whose child sends some bytes, then does something."""
    monkeypatch.setattr(conversation, "_START_S", 1.0)
    monkeypatch.setattr(conversation, "_LAST_S", 0.5)
    started = []

    def run(sent, then=WAIT, question=None, timeout_s=0.5):
        (tmp_path / "sent").write_bytes(sent)
        command = (sys.executable, "-I", "-S", "-c", CHILD.format(then=then), str(tmp_path / "sent"))
        started.append(Decoder(timeout_s, command))
        if question is not None:
            return question(started[-1])
        return list(started[-1].samples(segment, SECOND, "c"))

    yield run
    for decoder in started:
        decoder.stop()


def frame(kind, payload):
    return header(kind, len(payload)) + payload


def packed(batch):
    return batch.serialize().to_pybytes()


def counted(row, payload, **changes):
    """A sample's frame after that of its counts: the true row's, of what it still has."""
    true = media_counts(row)
    kept = replace(
        true,
        pixels=None if changes.get("image", row["image"]) is None else true.pixels,
        sound=None if changes.get("audio", row["audio"]) is None else true.sound,
    )
    return frame(COUNTS, kept.to_bytes()) + frame(SAMPLE, payload)


def sample(row, **changes):
    return counted(row, packed(to_batch({**row, **changes}, SCHEMA)), **changes)


def fault(segment, number, **changes):
    true = Fault("bad", segment.starts_ns[number], "read", "decode_error", "lost")
    return frame(FAULT, json.dumps(asdict(true) | changes).encode())


def test_what_a_faithful_child_sends_is_taken(ask, segment, true):
    done = frame(DONE, b'{"decode.cpu_ns": 5}')
    assert [from_batch(i.batch)["key"] for i in ask(b"".join(map(sample, true)) + done)] == [
        r["key"] for r in true
    ]
    assert ask(sample(true[0]) + b"".join(fault(segment, n) for n in (1, 2, 3)) + done)[1:] == [
        Fault("bad", start, "read", "decode_error", "lost") for start in segment.starts_ns[1:]
    ]
    ready = frame(READY, b"")
    assert len(ask(ready + b"".join(map(sample, true)) + done)) == 4


def forged_offsets(row):
    """The key ends a gigabyte behind its buffer."""
    data = bytearray(packed(to_batch(row, SCHEMA)))
    body = 8 + struct.unpack_from("<I", data, 4)[0]
    at = data.index(struct.pack("<ii", 0, len(row["key"])), body)
    struct.pack_into("<ii", data, at, 0, 1 << 30)
    return counted(row, bytes(data))


def forged_metadata(row, at, piece):
    data = bytearray(packed(to_batch(row, SCHEMA)))
    data[at : at + len(piece)] = piece
    return counted(row, bytes(data))


def compressed(row):
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA, options=options) as writer:
        writer.write_batch(to_batch(row, SCHEMA))
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    reader.read_next_message()  # the schema
    return counted(row, reader.read_next_message().serialize().to_pybytes())


def two_rows(row):
    table = pa.Table.from_batches([to_batch(row, SCHEMA)] * 2)
    return counted(row, packed(table.combine_chunks().to_batches()[0]))


def of_other_schema(row):
    narrower = SCHEMA.remove(SCHEMA.get_field_index("provenance"))
    return counted(row, packed(to_batch(row, narrower)))


def larger_jpeg(row):
    data = bytearray(row["image"]["bytes"])
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, 65000, 65000)
    return sample(row, image={**row["image"], "bytes": bytes(data)})


def longer_flac(row):
    data = bytearray(row["audio"]["bytes"])
    data[21:26] = (int.from_bytes(data[21:26], "big") | (1 << 36) - 1).to_bytes(5, "big")
    return sample(row, audio={**row["audio"], "bytes": bytes(data)})


FORGED = {
    "an offset behind its buffer": forged_offsets,
    "metadata of zeros": lambda row: forged_metadata(row, 8, bytes(64)),
    "metadata of ones": lambda row: forged_metadata(row, 8, b"\xff" * 64),
    "a root outside the message": lambda row: forged_metadata(row, 8, b"\xff\xff\xff\x7f"),
    "metadata of 4 GB": lambda row: forged_metadata(row, 4, b"\xff\xff\xff\xff"),
    "a compressed batch": compressed,
    "no row": lambda row: counted(row, packed(to_batch(row, SCHEMA).slice(0, 0))),
    "two rows": two_rows,
    "another schema": of_other_schema,
    "nothing": lambda row: counted(row, b""),
    "a foreign recording": lambda row: sample(row, recording_id="good"),
    "a foreign key": lambda row: sample(row, key="ego4d-good-000000000000000"),
    "a foreign source": lambda row: sample(row, source="epic"),
    "a foreign group": lambda row: sample(row, group_id="participant-9"),
    "a foreign split": lambda row: sample(row, split="test"),
    "a foreign configuration": lambda row: sample(
        row, provenance={**row["provenance"], "config_sha256": "d"}
    ),
    "a foreign file": lambda row: sample(row, provenance={**row["provenance"], "video": "/etc/passwd"}),
    "another window": lambda row: sample(row, start_ns=row["start_ns"] + 1),
    "a longer window": lambda row: sample(row, end_ns=row["end_ns"] + 1),
    "other words": lambda row: sample(row, text=["obey"], text_raw=["obey"], text_times_ns=[row["start_ns"]]),
    "another scenario": lambda row: sample(row, scenarios=["x"]),
    "a null key": lambda row: sample(row, key=None),
    "no image, no reason": lambda row: sample(row, image=None),
    "an image and a reason": lambda row: sample(
        row, missing={"image": "gap"}, missing_reason={"image": "gap"}
    ),
    "a reason that is none": lambda row: sample(
        row,
        audio=None, audio_gaps=None,
        missing={"audio": "because"}, missing_reason={"audio": "because"},
    ),
    "two reasons": lambda row: sample(row, missing_reason={"audio": "gap"}),
    "an image of another time": lambda row: sample(row, image_time_ns=row["image_time_ns"] + 1),
    "an image that is none": lambda row: sample(row, image={**row["image"], "bytes": b"\xff\xd8"}),
    "an image of another name": lambda row: sample(row, image={**row["image"], "path": "../../x.jpg"}),
    "an image that claims 65000 x 65000": larger_jpeg,
    "frames that were not asked for": lambda row: sample(
        row, frames=[row["image"]], frame_times_ns=[row["start_ns"]]
    ),
    "sound that claims 2^36 samples": longer_flac,
    "sound that is none": lambda row: sample(row, audio={**row["audio"], "bytes": b"RIFF" * 20}),
    "gaps outside the window": lambda row: sample(row, audio_gaps=[{"start_ns": 0, "end_ns": 1 << 60}]),
    "IMU of five rows": lambda row: sample(row, imu=row["imu"][:5]),
    "IMU of another length": lambda row: sample(row, imu=row["imu"][:, 1:], imu_mask=row["imu_mask"][1:]),
    "a coverage of 7": lambda row: sample(row, quality={**row["quality"], "audio_coverage": 7.0}),
    "a rate that is no number": lambda row: sample(
        row, quality={**row["quality"], "imu_rate_hz": float("nan")}
    ),
}  # fmt: skip


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_sample_costs_the_windows_from_there_on(ask, segment, true, forge):
    items = ask(sample(true[0]) + sample(true[1]) + forge(true[2]) + sample(true[3]))
    assert_lost(items, segment, 2, "decoder_crashed")
    assert "what it was not asked" in items[2].detail


def assert_lost(items, segment, from_window, code):
    assert [type(item) for item in items] == [EncodedRow] * from_window + [Fault] * (4 - from_window)
    lost = [(i.recording_id, i.start_ns, i.code, i.outcome, i.windows) for i in items[from_window:]]
    assert lost == [("bad", start, code, "failed", 1) for start in segment.starts_ns[from_window:]]
    assert all(item.detail.startswith("full_scale/bad.mp4: ") for item in items[from_window:])


FALSE = {
    "someone else's fault": lambda s, _: fault(s, 2, recording_id="good"),
    "another window's fault": lambda s, _: fault(s, 3),
    "the whole recording's fault": lambda s, _: fault(s, 2, start_ns=None),
    "a fault of 10^9 windows": lambda s, _: fault(s, 2, windows=10**9),
    "a fault of no window": lambda s, _: fault(s, 2, windows=0),
    "a fault of True windows": lambda s, _: fault(s, 2, windows=True),
    "a note": lambda s, _: fault(s, 2, outcome="noted"),
    "a fault without a code": lambda s, _: fault(s, 2, code=""),
    "a code of many words": lambda s, _: fault(s, 2, code="x\ny"),
    "a stage that is none": lambda s, _: fault(s, 2, stage="lunch"),
    "a stage that is a list": lambda s, _: fault(s, 2, stage=[]),
    "a detail of 20 kB": lambda s, _: fault(s, 2, detail="x" * 20_000),
    "a detail of two lines": lambda s, _: fault(s, 2, detail="x\ny"),
    "a fault with more fields": lambda s, _: fault(s, 2, more=1),
    "a list": lambda *_: frame(FAULT, b"[]"),
    "no JSON": lambda *_: frame(FAULT, b"\xff{"),
    "nested JSON": lambda *_: frame(FAULT, b"[" * 60_000),
    "an integer of 60,000 digits": lambda *_: frame(FAULT, b"9" * 60_000),
    "a sample doubled": lambda _, true: sample(true[1]),
    "the next but one": lambda _, true: sample(true[3]),
    "an end too early": lambda *_: frame(DONE, b"{}"),
    "a probe's answer": lambda *_: frame(MEDIA, b"{}"),
    "a sound": lambda *_: frame(SOUND, bytes(8)),
    "a second start": lambda *_: frame(READY, b""),
    "a wish to read": lambda *_: frame(READ, b'["/etc/passwd", 0, 100]'),
    "a wish to open": lambda *_: frame(OPEN, b'"/etc/passwd"'),
    "an unknown kind": lambda *_: frame(b"?", b""),
    "text": lambda *_: b"Segmentation fault, or so they say\n",
    "an error that is none": lambda *_: frame(ERROR, b'["x"]'),
    "an error with a stage that is none": lambda *_: frame(ERROR, b'["x", "y", "z"]'),
    "a frame of 4 GB": lambda *_: SAMPLE + b"\xff" * 4,
    "a traceback of 4 GB": lambda *_: DEFECT + b"\xff" * 4,
}


@pytest.mark.parametrize("forge", FALSE.values(), ids=FALSE)
def test_a_false_frame_costs_the_windows_from_there_on(ask, segment, true, forge):
    items = ask(sample(true[0]) + sample(true[1]) + forge(segment, true))
    assert_lost(items, segment, 2, "decoder_crashed")


ENDS = {
    "more windows than asked for": lambda s, true: sample(true[3]),
    "counters of nothing": lambda *_: frame(DONE, b'{"lunch.cpu_ns": 1}'),
    "negative counters": lambda *_: frame(DONE, b'{"read.bytes": -1}'),
    "counters that are words": lambda *_: frame(DONE, b'{"read.bytes": "1"}'),
    "counters that are true": lambda *_: frame(DONE, b'{"read.bytes": true}'),
    "counters without end": lambda *_: frame(DONE, b'{"read.bytes": 1' + b"0" * 4000 + b"}"),
}


@pytest.mark.parametrize("forge", ENDS.values(), ids=ENDS)
def test_a_false_end_costs_no_window_that_was_delivered(ask, segment, true, forge):
    assert len(ask(b"".join(map(sample, true)) + forge(segment, true))) == 4


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("while True: out.write(b'S\\xff\\xff\\xff\\xff' + bytes(1 << 20))", "decoder_crashed"),
        ("while True: out.write(b'H\\x00\\x00\\x00\\x00' * 1000)", "decoder_crashed"),
        ("out.write(b'S\\x00\\x00\\x40\\x00'); out.flush()\n"
         "while True: time.sleep(0.1); out.write(b'x'); out.flush()", "decode_timeout"),
        ("while True: time.sleep(9)", "decode_timeout"),
        ("while True: pass", "decode_timeout"),
        ("os.close(1); time.sleep(60)", "decoder_crashed"),
        ("os.abort()", "decoder_crashed"),
    ],
    ids=["4 GB", "a flood", "a byte now and then", "sleep", "an endless loop", "hung up", "abort"],
)  # fmt: skip
def test_a_child_that_goes_wrong_ends_and_costs_what_it_had_not_delivered(ask, segment, true, then, code):
    before = held_most()
    assert_lost(ask(sample(true[0]) + sample(true[1]), then), segment, 2, code)
    assert held_most() - before < 300_000_000


@pytest.mark.parametrize("then", ["while True: time.sleep(9)", "while True: pass"])
def test_a_hang_ends_on_a_system_that_says_nothing_of_processes(ask, segment, true, then, monkeypatch):
    monkeypatch.setattr(channel, "vitals", lambda _: Vitals())
    assert_lost(ask(sample(true[0]), then), segment, 1, "decode_timeout")


def held_most():
    """The most memory that this process held since the last call, bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as file:
            (line,) = (line for line in file if line.startswith("VmHWM"))
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except (OSError, ValueError):
        return 0
    return int(line.split()[1]) * 1024


def told(segment, sentences):
    """The segment with as many sentences: its request is larger than a pipe holds."""
    narrations = tuple(Narration(i * 10_000, f"#C C says {i}") for i in range(sentences))
    return replace(segment, recording=replace(segment.recording, narrations=narrations))


def test_a_child_that_does_not_read_cannot_hold_up_its_parent(segment, monkeypatch):
    monkeypatch.setattr(conversation, "_START_S", 0.2)
    deaf = Decoder(0.2, (sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"))
    items = list(deaf.samples(told(segment, 100_000), SECOND, "c"))
    assert_lost(items, segment, 0, "decode_timeout")


def test_a_child_that_talks_before_it_reads_cannot_hold_up_its_parent(segment, true, tmp_path):
    """Both pipes are full: each would wait for the other."""
    (tmp_path / "sent").write_bytes(b"".join(map(sample, true)) * 20)
    code = "import sys; out = sys.stdout.buffer; out.write(open(sys.argv[1], 'rb').read()); out.flush()"
    child = Decoder(5.0, (sys.executable, "-I", "-S", "-c", code, str(tmp_path / "sent")))
    items = list(child.samples(told(segment, 100_000), SECOND, "c"))
    assert {item.code for item in items} == {"decoder_crashed"}  # these are not the segment's sentences


def test_sentences_do_not_make_a_true_row_too_large(segment):
    many = told(segment, 100_000)
    (row, *_) = (to_row(item) for item in align_segment(many, SECOND, "c"))
    assert len(row["text"]) == 100_000
    assert len(packed(to_batch(row, SCHEMA))) < row_bound(many, SECOND)


MEDIA_OF = {
    "no object": b"[]",
    "nothing": b"{}",
    "a width of words": {"width": "wide"},
    "a negative width": {"width": -1},
    "a width beyond all": {"width": 10**30},
    "a fraction without end": {"time_base": "1e999999999"},
    "a division by zero": {"time_base": "1/0"},
    "a rate that is no number": {"bytes_per_s": float("nan")},
    "a span that ends before it starts": {"span": {"start_ns": 1, "end_ns": 0}},
    "frames without length": {"frame_ns": 0},
    "keyframes in JSON": {"keyframes_ns": [1]},
}


@pytest.mark.parametrize("change", MEDIA_OF.values(), ids=MEDIA_OF)
def test_a_forged_probe_is_an_error_of_the_file(ask, segment, change):
    payload = change if isinstance(change, bytes) else json.dumps(media_of(segment, **change)).encode()
    with pytest.raises(AlignError) as caught:
        ask(frame(MEDIA, payload) + frame(DONE, b"{}"), question=lambda child: child.probe("x.mp4", None))
    assert caught.value.code == "decoder_crashed"


def media_of(segment, **changes):
    plain = to_plain(segment.media)
    return {**plain, "video": {**plain["video"], "keyframes_ns": [], **changes}}


def test_a_true_probe_is_taken_and_false_keyframes_are_not(ask, segment):
    media = frame(MEDIA, json.dumps(media_of(segment)).encode())
    times, done = struct.pack("<3q", -5, 7, 10**17), frame(DONE, b"{}")

    def probed(sent):
        return ask(sent, question=lambda child: child.probe("x.mp4", None))

    found = probed(frame(KEYFRAMES, times) + media + done)
    assert found.video.keyframes_ns == (-5, 7, 10**17)
    assert replace(found, video=None) == replace(from_plain(MediaInfo, media_of(segment)), video=None)
    for false in (times[:-1], times[::-1]):
        with pytest.raises(AlignError):
            probed(frame(KEYFRAMES, false) + media + done)
    with pytest.raises(AlignError):
        probed(media + media + done)
    with pytest.raises(AlignError):
        probed(done)


SPANS = (TimeSpan(0, 10**9), TimeSpan(10**9, 15 * 10**8))


@pytest.mark.parametrize(
    ("counts", "is_true"),
    [((8, 4), True), ((8,), False), ((8, 4, 4), False), ((4, 8), False), ((9, 4), False)],
)
def test_a_sound_has_the_length_that_was_asked_for(ask, segment, counts, is_true):
    sent = b"".join(frame(SOUND, struct.pack(f"<{n}d", *[0.5] * n)) for n in counts) + frame(DONE, b"{}")

    def hear(child):
        return [len(sound) for sound in child.sounds("x.mp4", segment.media, SPANS, 8, ClockMap())]

    if is_true:
        assert ask(sent, question=hear) == [8, 4]
    else:
        with pytest.raises(AlignError, match="not asked"):
            ask(sent, question=hear)


def test_a_sound_of_no_numbers_is_none(ask, segment):
    sent = frame(SOUND, struct.pack("<8d", *[float("nan")] * 8))
    with pytest.raises(AlignError, match="no number"):
        ask(sent, question=lambda child: list(child.sounds("x.mp4", segment.media, SPANS, 8, ClockMap())))


@pytest.mark.parametrize(
    ("told", "is_absurd"),
    [
        ({"end_ns": 1 << 61, "of": [{"rate": 48_000}], "name": "x"}, False),
        ({"restart": {"lost_ns": -(1 << 62)}}, True),
        ({"rates": [0.5, [float("nan")]]}, True),
        ({"rate": float("inf")}, True),
    ],
)
def test_numbers_that_no_medium_has_are_found_wherever_they_stand(told, is_absurd):
    assert has_absurd_number(told) == is_absurd


LIAR = """
import sys
from align.pipeline.process import decoder_process
from align.pipeline.process.frames import SAMPLE
from align.schemas.features import arrow_schema
from align.transforms.write.row import from_batch, to_batch
import pyarrow as pa

true = decoder_process.read_segment

def lie(request, opener_for):
    schema = arrow_schema(16_000, 200)
    sent = 0
    for kind, payload in true(request, opener_for):
        if kind == SAMPLE:
            row = from_batch(pa.ipc.read_record_batch(pa.py_buffer(payload), schema))
            if sent == 2 and row["recording_id"] == "bad":
                row["recording_id"] = "good"
            payload, sent = to_batch(row, schema).serialize().to_pybytes(), sent + 1
        yield kind, payload

decoder_process.TASKS["segment"] = lie
decoder_process.main()
"""


def test_a_run_goes_on_past_a_child_that_lies(align_run, clone_input, run_result, tmp_path, monkeypatch):
    monkeypatch.setattr(isolation, "COMMAND", (sys.executable, "-c", LIAR))
    root = clone_input(tmp_path, ["bad", "good"])
    out = align_run(root.parent, options={"window": 1, "stride": 1}, max_failures=1.0)
    rows, faults = run_result(out)
    assert sorted(row["recording_id"] for row in rows.values()) == ["bad"] * 2 + ["good"] * 4
    assert [(f["code"], f["windows"]) for f in faults["bad"]] == [("decoder_crashed", 1)] * 2
    assert "good" not in faults
