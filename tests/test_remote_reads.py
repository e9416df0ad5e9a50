"""A child reads files of an object store through its parent: the same bytes, and no others."""

import io
import json
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings, plan_recording
from align.pipeline.process import remote_reads
from align.pipeline.process.frames import BYTES, MOST_READ, OPEN, READ, REFUSED, SIZE
from align.pipeline.process.isolation import Decoder
from align.pipeline.process.remote_reads import RelayedFile, ServedFiles
from align.pipeline.storage.read_ahead import ReadAhead
from align.schemas.errors import AlignError, Fault
from align.schemas.features import arrow_schema
from align.schemas.options import AlignOptions
from align.transforms.align.segment import align_segment
from align.transforms.write.row import to_batch, to_row

URI = "s3://bucket/a.mp4"
SECOND = AlignOptions(window=1, stride=1)


class Noting(io.BytesIO):
    """An object of a store that notes the ranges that are fetched from it."""

    def __init__(self, data):
        super().__init__(data)
        self.ranges = []

    def read(self, size=-1):
        at = self.tell()
        data = super().read(size)
        self.ranges.append((at, len(data)))
        return data


def served(files):
    """Files by URI; what they raise where they are exceptions."""

    def opener(uri):
        if isinstance(files[uri], Exception):
            raise files[uri]
        return files[uri] if isinstance(files[uri], io.IOBase) else io.BytesIO(files[uri])

    found = ServedFiles(opener)
    found.begin(files)
    return found


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 400)),
        st.tuples(st.just("seek"), st.integers(0, 1200)),
        st.tuples(st.just("skip"), st.integers(-50, 50)),
        st.tuples(st.just("end"), st.integers(-300, 20)),
    ),
    max_size=30,
)


@given(STEPS)
def test_any_walk_reads_what_a_plain_file_reads(steps):
    data = bytes(i * 7919 >> 5 & 255 for i in range(1000))
    plain = io.BytesIO(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_reads, "MOST_READ", 64)
        ours = RelayedFile(URI, served({URI: data}).answer)
        for step, number in steps:
            if step == "read":
                assert ours.read(number) == plain.read(number)
                continue
            goal = {"seek": number, "skip": max(plain.tell() + number, 0), "end": len(data) + number}[step]
            whence = io.SEEK_END if step == "end" else io.SEEK_SET
            assert ours.seek(number if step == "end" else goal, whence) == plain.seek(goal)
        assert ours.tell() == plain.tell()


def test_what_is_fetched_is_what_reading_it_here_would_fetch():
    data, walk = bytes(3_000_000), [(0, 1024), (0, 32_768), (2_900_000, 32_768), (2_932_768, 32_768)]
    walk += [(40_000 + n * 32_768, 32_768) for n in range(20)] + [(1_900_000, 700_000)]
    here, there = Noting(data), Noting(data)
    for ours in (ReadAhead(here), RelayedFile(URI, served({URI: ReadAhead(there)}).answer)):
        for start, size in walk:
            ours.seek(start)
            ours.read(size)
    assert there.ranges == here.ranges
    assert len(here.ranges) < len(walk)


def test_errors_of_a_store_reach_the_child_as_they_are():
    files = served({"s3://a": FileNotFoundError(2, "not there"), "s3://b": PermissionError(13, "denied")})
    with pytest.raises(FileNotFoundError, match="not there"):
        RelayedFile("s3://a", files.answer)
    with pytest.raises(PermissionError, match="denied"):
        RelayedFile("s3://b", files.answer)

    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise AlignError("unreadable_file", "the line is cut", stage="read")

    file = RelayedFile("s3://c", served({"s3://c": Broken(b"abc")}).answer)
    with pytest.raises(AlignError, match="the line is cut") as caught:
        file.read()
    assert caught.value.code == "unreadable_file"


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (OPEN, "s3://bucket/b.mp4"),
        (OPEN, "/etc/passwd"),
        (OPEN, [URI]),
        (READ, ["s3://bucket/b.mp4", 0, 1]),
        (READ, [URI, 0, MOST_READ + 1]),
        (READ, [URI, -1, 1]),
        (READ, [URI, 0, -1]),
        (READ, [URI, 1 << 80, 1]),
        (READ, [URI, 0.5, 1]),
        (READ, [URI, True, 1]),
        (READ, [URI, 0]),
        (READ, {}),
    ],
)
def test_only_pieces_of_the_files_of_the_request_are_given(kind, asked):
    with pytest.raises((ValueError, TypeError)):
        served({URI: b"abc"}).answer(kind, json.dumps(asked).encode())


def test_a_child_cannot_read_for_ever(monkeypatch):
    monkeypatch.setattr(remote_reads, "_FREE", 1 << 20)
    files = served({URI: bytes(1000)})

    def read_on():
        while True:
            files.answer(READ, json.dumps([URI, 0, 10]).encode())

    with pytest.raises(ValueError, match="more bytes"):
        read_on()


def test_files_stay_open_while_they_are_needed_and_no_longer():
    first, second = io.BytesIO(b"abc"), io.BytesIO(b"def")
    files = ServedFiles({"s3://a": first, "s3://b": second}.__getitem__)
    files.begin(["s3://a"])
    assert files.answer(OPEN, b'"s3://a"') == (SIZE, (3).to_bytes(8, "big"))
    files.begin(["s3://a", "s3://b"])
    assert files.answer(READ, b'["s3://a", 1, 9]') == (BYTES, b"bc")
    assert files.answer(READ, b'["s3://b", 0, 1]') == (BYTES, b"d")
    files.begin(["s3://b"])
    assert first.closed
    assert not second.closed
    files.close()
    assert second.closed


def test_a_missing_object_is_refused_not_fatal():
    kind, why = served({URI: FileNotFoundError(2, "not there")}).answer(OPEN, json.dumps(URI).encode())
    assert (kind, json.loads(why)) == (REFUSED, ["os", 2, "not there"])


GREEDY = """
import sys
import time
from align.pipeline.process import decoder_process
from align.pipeline.process.frames import SAMPLE

true = decoder_process.read_segment

def greedy(request, opener_for):
    samples = 0
    for reply in true(request, opener_for):
        samples += reply[0] == SAMPLE
        if samples == 3:
            opener_for("s3://else")("s3://else/where.mp4")
        yield reply

decoder_process.TASKS["segment"] = greedy
decoder_process.main()
"""


@pytest.fixture
def remote(clone_input, tmp_path, monkeypatch):
    """A segment whose files lie in a store, which only this process can open, and the rows it should give."""
    root = clone_input(tmp_path, ["a"])
    config = RunConfig(source="ego4d", input=str(root.parent), sample=SECOND, isolate=False)
    (recording,) = list_recordings(config)
    (segment,) = plan_recording(recording, config).segments
    schema = arrow_schema(SECOND.audio_rate, SECOND.imu_rate)
    rows = [to_batch(to_row(sample), schema) for sample in align_segment(segment, SECOND, "c")]
    opened = []

    def opener(uri):
        opened.append(uri)
        return open(uri.removeprefix("s3:/"), "rb")

    monkeypatch.setattr(ServedFiles.__init__, "__defaults__", (opener,))
    return elsewhere(segment), rows, opened


def elsewhere(segment):
    recording = segment.recording
    moved = {
        kind: replace(stream, uri=f"s3:/{stream.uri}")
        for kind in ("video", "audio", "imu")
        if (stream := getattr(recording, kind)) is not None
    }
    return replace(segment, recording=replace(recording, **moved))


def test_a_child_without_keys_gives_the_rows_of_a_local_file(remote):
    segment, rows, opened = remote
    decoder = Decoder(60.0)
    try:
        assert [i.batch for i in decoder.samples(segment, SECOND, "c", keep_open=True)] == rows
        assert [i.batch for i in decoder.samples(segment, SECOND, "c")] == rows
        assert decoder.probe(segment.recording.video.uri, None).video.frames == 120
    finally:
        decoder.stop()
    assert opened.count(segment.recording.video.uri) == 2  # kept open for the second segment, not the probe
    assert opened.count(segment.recording.imu.uri) == 2


def test_a_child_that_asks_for_another_file_is_ended(remote):
    segment, rows, _ = remote
    decoder = Decoder(60.0, (sys.executable, "-c", GREEDY))
    items = list(decoder.samples(segment, SECOND, "c"))
    decoder.stop()
    assert [i.batch for i in items[:2]] == rows[:2]
    assert [type(item) for item in items[2:]] == [Fault, Fault]
    assert "does not belong to the request" in items[2].detail


PATIENT = """
import json, sys
told, out = sys.stdin.buffer, sys.stdout.buffer

def take():
    return told.read(int.from_bytes(told.read(5)[1:], "big"))

def say(kind, payload):
    out.write(kind + len(payload).to_bytes(4, "big") + payload)
    out.flush()

starts = json.loads(take())["segment"]["starts_ns"]
for _ in range(8):
    say(b"R", json.dumps([sys.argv[1], 0, 10]).encode())
    assert len(take()) == 10
for start in starts:
    place = {"recording_id": "a", "start_ns": start, "stage": "read", "code": "seen", "detail": ""}
    say(b"F", json.dumps({**place, "outcome": "failed", "windows": 1}).encode())
say(b"D", b"{}")
told.read(1)
"""


def test_a_slow_store_is_not_the_childs_fault(remote, monkeypatch):
    """It may idle for 0.6 s here; eight answers take 2.4 s, each less than what counts as a pause."""
    segment, _, _ = remote
    real = ServedFiles.answer

    def slow(self, kind, payload):
        time.sleep(0.3)
        return real(self, kind, payload)

    monkeypatch.setattr(ServedFiles, "answer", slow)
    command = (sys.executable, "-I", "-S", "-c", PATIENT, segment.recording.video.uri)
    decoder = Decoder(0.2, command)
    assert [item.code for item in decoder.samples(segment, SECOND, "c")] == ["seen"] * 4
    decoder.stop()
