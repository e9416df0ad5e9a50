"""Reading objects of a store: the bytes are the file's, and few are fetched in vain."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.pipeline.storage import read_ahead
from align.pipeline.storage.read_ahead import FIRST_BYTES, MOST_BYTES, ReadAhead


class Store(io.RawIOBase):
    """An object whose ranges are noted, as Beam's ``DownloaderStream`` reads them."""

    def __init__(self, data):
        self.data, self.at, self.ranges = data, 0, []

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self.at = min(offset + {0: 0, 1: self.at, 2: len(self.data)}[whence], len(self.data))
        return self.at

    def readinto(self, buffer):
        self._checkClosed()
        part = self.data[self.at : self.at + len(buffer)]
        buffer[: len(part)] = part
        self.ranges.append((self.at, self.at + len(part)))
        self.at += len(part)
        return len(part)

    @property
    def fetched(self):
        return sum(end - start for start, end in self.ranges)


def payload(size):
    return bytes(i * 7919 >> 5 & 255 for i in range(size))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 400)),
        st.tuples(st.just("seek"), st.integers(0, 1200)),
        st.tuples(st.just("skip"), st.integers(-50, 50)),
        st.tuples(st.just("end"), st.integers(-300, 0)),
    ),
    max_size=30,
)


@given(STEPS)
def test_any_walk_reads_what_a_plain_file_reads(steps):
    data = payload(1000)
    plain = io.BytesIO(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_ahead, "FIRST_BYTES", 64)
        patch.setattr(read_ahead, "MOST_BYTES", 256)
        ours = ReadAhead(io.BufferedReader(Store(data), buffer_size=512))
        for step, number in steps:
            if step == "read":
                assert ours.read(number) == plain.read(number)
                continue
            goal = {"seek": number, "skip": max(plain.tell() + number, 0), "end": len(data) + number}[step]
            whence = io.SEEK_END if step == "end" else io.SEEK_SET
            assert ours.seek(number if step == "end" else goal, whence) == plain.seek(goal)
        assert ours.tell() == plain.tell()


def read_through(ours, start, end, piece=32 << 10):
    ours.seek(start)
    while start < end:
        start += len(ours.read(min(piece, end - start)))


def test_a_group_of_pictures_here_and_there_costs_little_more_than_its_bytes():
    store = Store(bytes(64 << 20))
    ours = ReadAhead(io.BufferedReader(store, buffer_size=16 << 20))
    groups = [(start << 20, (start << 20) + 1_900_000) for start in range(0, 64, 8)]
    for group in groups:
        read_through(ours, *group)
    assert store.fetched <= 1.1 * sum(end - start for start, end in groups)


def test_reading_on_fetches_ever_more_at_once_and_nothing_twice():
    store = Store(bytes(200 << 20))
    ours = ReadAhead(store)
    read_through(ours, 0, 200 << 20, 1 << 20)
    assert store.fetched == 200 << 20
    sizes = [end - start for start, end in store.ranges]
    assert sizes[0] == 1 << 20 > FIRST_BYTES
    assert max(sizes) == MOST_BYTES
    assert len(sizes) < 80


def test_what_is_held_is_not_fetched_again():
    store = Store(payload(300_000))
    ours = ReadAhead(store)
    first = ours.read(1000)
    ours.seek(0)
    assert ours.read(1000) == first
    ours.seek(100_000)
    ours.read(1000)
    assert len(store.ranges) == 1


def test_closing_closes_what_was_opened():
    store = Store(b"x")
    with ReadAhead(store):
        pass
    assert store.closed
