"""The lock on an output: in every order of two takers' steps one holds it, and the dead do not keep it."""

import errno
import json
import os
import secrets
import threading
import time
from dataclasses import asdict, replace

import pytest

from align.pipeline.storage import lock as locking
from align.pipeline.storage.lock import LOCK, Holder, Lock, guard_of, holder_of, locked, state_of
from align.pipeline.storage.lock_files import LocalLockFiles, RemoteLockFiles, lock_files
from align.schemas.errors import UsageError
from align.transforms.store.publish import local, strict_json

NOBODY = 2**22 + 1


def written(**changes):
    return strict_json({**asdict(Holder.here()), **changes}).encode()


DEAD = written(pid=NOBODY, token="dead")


# -- Every order of steps --------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a taker between two of its steps."""


class SteppedFiles:
    """Lock files in memory, each of whose operations waits until it is let through."""

    def __init__(self, content, wait, seen=None):
        self.content, self.wait, self.seen = content, wait, [] if seen is None else seen

    def step(self, act):
        self.wait()
        result = act()
        self.seen.append(repr(result))
        return result

    def create(self, path, data):
        return self.step(lambda: self.content.setdefault(path, data) is data)

    def read(self, path):
        return self.step(lambda: self.content.get(path))

    def replace(self, path, data):
        self.step(lambda: self.content.__setitem__(path, data))

    def remove(self, path):
        self.step(lambda: self.content.pop(path, None))

    def guards(self):
        return self.step(lambda: [p for p in self.content if p != LOCK])


class Play:
    """Some takers, driven step by step; ``holding`` counts those inside at a time."""

    def __init__(self, content, takers):
        self.content, self.holding, self.most = dict(content), set(), 0
        self.pace = [threading.Semaphore(0) for _ in takers]
        self.rested = [threading.Semaphore(0) for _ in takers]
        self.seen = [[] for _ in takers]
        self.over, self.kill = [False] * len(takers), [False] * len(takers)
        self.threads = [
            threading.Thread(target=self.play, args=(i, mine), daemon=True) for i, mine in enumerate(takers)
        ]
        for i, thread in enumerate(self.threads):
            thread.start()
            self.rested[i].acquire()

    def wait(self, i):
        self.rested[i].release()
        self.pace[i].acquire()
        if self.kill[i]:
            raise Killed

    def play(self, i, mine):
        lock = Lock(SteppedFiles(self.content, lambda: self.wait(i), self.seen[i]), "OUT", lambda _: None)
        try:
            lock.take(mine)
            self.holding.add(i)
            self.most = max(self.most, len(self.holding))
            self.wait(i)
            self.holding.discard(i)
            lock.give_back(mine)
        except (UsageError, Killed):
            self.holding.discard(i)
        self.over[i] = True
        self.rested[i].release()

    def let(self, i, *, kill=False):
        self.kill[i] = kill
        self.pace[i].release()
        self.rested[i].acquire()

    def end(self):
        for i in range(len(self.threads)):
            while not self.over[i]:
                self.let(i, kill=True)

    def state(self):
        seen = tuple(map(tuple, self.seen))
        return seen, tuple(self.over), tuple(self.holding), tuple(sorted(self.content.items()))


def every_order(content, takers, check, *, kills):
    """Drive takers through every order of steps, so many of them killed at any; gives the number of ends.

    What a taker does next follows from what it has seen: from equal states one goes on once.
    """
    seen, orders, todo = set(), 0, [()]
    while todo:
        moves = todo.pop()
        play = Play(content, takers)
        for i, kill in moves:
            play.let(i, kill=kill)
        may_kill = kills > sum(kill for _, kill in moves)
        if (play.state(), may_kill) not in seen:
            seen.add((play.state(), may_kill))
            free = [i for i, over in enumerate(play.over) if not over]
            todo += [(*moves, (i, kill)) for i in free for kill in ((False, True) if may_kill else (False,))]
            if not free:
                orders += 1
                check(play)
        assert play.most <= 1, moves
        play.end()
    return orders


@pytest.fixture
def living(monkeypatch):
    """Tokens of takers that count as alive: all takers are threads of this one process."""
    dead = {"dead"}
    monkeypatch.setattr(
        locking,
        "state_of",
        lambda files, path, data: "dead" if json.loads(data)["token"] in dead else "alive",
    )
    return dead


@pytest.mark.parametrize("content", [{}, {LOCK: DEAD}], ids=["free", "left by a dead run"])
def test_in_every_order_of_steps_one_holds_it_and_nothing_is_left(content, living):
    takers = [written(token="a"), written(token="b")]

    def check(play):
        assert play.content == {}

    assert every_order(content, takers, check, kills=0) > 10


def test_whoever_is_killed_at_whatever_step_somebody_takes_it_later(living):
    takers = [written(token="a"), written(token="b")]

    def check(play):
        living.update(("a", "b"))
        late = Lock(SteppedFiles(play.content, lambda: None), "OUT", lambda _: None)
        mine = written(token="c")
        late.take(mine)
        late.give_back(mine)
        living.difference_update(("a", "b"))
        assert LOCK not in play.content
        assert not [g for g in play.content if g == guard_of(mine)]

    assert every_order({LOCK: DEAD}, takers, check, kills=1) > 10


def test_removing_a_stale_lock_before_creating_ones_own_is_caught_here(living, monkeypatch):
    """The test above sees what it is there for."""

    def taken_over(self, path, mine):
        found = self._files.read(path)
        if found is not None:
            self._refuse_unless_dead(path, found)
            self._files.remove(path)
        return False

    monkeypatch.setattr(Lock, "_taken_over", taken_over)
    with pytest.raises(AssertionError):
        every_order({LOCK: DEAD}, [written(token="a"), written(token="b")], lambda _: None, kills=0)


# -- Files on a disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_a_lock_file_is_created_once_and_whole(tmp_path, links, monkeypatch):
    if not links:

        def link(*_):
            raise OSError(errno.EPERM, "no hard links")

        monkeypatch.setattr(os, "link", link)
    files = lock_files(local(tmp_path))
    assert files.create(LOCK, b"a")
    assert not files.create(LOCK, b"b")
    assert files.read(LOCK) == b"a"
    assert os.listdir(tmp_path / "_work") == ["lock"]


def test_many_threads_want_the_lock_of_a_dead_run_and_one_gets_it(tmp_path):
    for _ in range(10):
        (tmp_path / "_work").mkdir(exist_ok=True)
        (tmp_path / LOCK).write_bytes(written(pid=NOBODY, token=secrets.token_hex(8)))
        start, got = threading.Barrier(6), []

        def want(start=start, got=got):
            mine = written(token=secrets.token_hex(8))
            start.wait()
            try:
                Lock(lock_files(local(tmp_path)), "OUT", lambda _: None).take(mine)
                got.append(mine)
            except UsageError:
                pass

        threads = [threading.Thread(target=want) for _ in range(6)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert [(tmp_path / LOCK).read_bytes()] == got
        (tmp_path / LOCK).unlink()


def test_a_run_that_lost_its_output_does_not_make_it_again(tmp_path):
    store = local(tmp_path / "out")
    with locked(store, "OUT", lambda _: None):
        (tmp_path / "out" / LOCK).unlink()
        (tmp_path / "out" / "_work").rmdir()
        (tmp_path / "out").rmdir()
    assert not (tmp_path / "out").exists()


# -- Who is alive ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "age_s", "state"),
    [
        ({}, 9999, "alive"),  # a process of this system is asked, not timed
        ({"pid": NOBODY}, 0, "dead"),
        ({"started": "1"}, 0, "dead"),
        ({"host": "elsewhere"}, 20, "alive"),
        ({"host": "elsewhere"}, 301, "unclear"),
        ({"host": "elsewhere"}, -3600, "unclear"),  # a lock from the future: some clock is wrong
        ({"space": "pid:[1]", "pid": NOBODY}, 20, "alive"),  # another container numbers its own processes
        ({"space": "pid:[1]", "pid": NOBODY}, 301, "unclear"),
        ({"machine": "another boot", "pid": NOBODY}, 20, "alive"),
        ({"machine": "", "space": "", "pid": NOBODY}, 20, "alive"),
    ],
)
def test_what_is_told_at_once(tmp_path, changes, age_s, state):
    files = lock_files(local(tmp_path))
    found = written(**changes)
    files.create(LOCK, found)
    os.utime(tmp_path / LOCK, (time.time() - age_s,) * 2)
    assert state_of(files, LOCK, found) == state


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "1"}', b'{"beat": 1}'])
@pytest.mark.parametrize(("age_s", "state"), [(0, "alive"), (301, "unclear")])
def test_a_lock_that_names_nobody_goes_by_its_age(tmp_path, content, age_s, state):
    files = lock_files(local(tmp_path))
    files.create(LOCK, content)
    os.utime(tmp_path / LOCK, (time.time() - age_s,) * 2)
    assert state_of(files, LOCK, content) == state


def stale_from_elsewhere(folder):
    files = lock_files(local(folder))
    files.create(LOCK, written(host="elsewhere"))
    os.utime(folder / LOCK, (1, 1))
    return files


def test_a_stale_lock_from_elsewhere_is_watched_then_taken_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "WATCH_S", 0.05)
    stale_from_elsewhere(tmp_path)
    said = []
    with locked(local(tmp_path), "OUT", lambda _: None, said.append):
        assert holder_of(local(tmp_path)).pid == os.getpid()
    assert len(said) == 1
    assert "on elsewhere" in said[0]


def test_a_holder_whose_clock_is_an_hour_slow_is_seen_to_live(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "WATCH_S", 20)
    files, looks = stale_from_elsewhere(tmp_path), []

    def sign(self, path, real=LocalLockFiles.sign):
        looks.append(path)
        if len(looks) == 2:
            os.utime(tmp_path / LOCK, (60, 60))
        return real(self, path)

    monkeypatch.setattr(LocalLockFiles, "sign", sign)
    with pytest.raises(UsageError, match="on elsewhere"):
        locked(local(tmp_path), "OUT", lambda _: None, lambda _: None).__enter__()
    assert files.read(LOCK)


# -- Renewal ---------------------------------------------------------------------------------------------


def wait_for(condition):
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("method", ["read", "touch"])
def test_a_moment_of_trouble_does_not_end_the_renewal(tmp_path, monkeypatch, number, method):
    monkeypatch.setattr(locking, "BEAT_S", 0.01)
    failing, real, lost = [], getattr(LocalLockFiles, method), []

    def trouble(self, path, *more):
        if threading.current_thread() is not threading.main_thread() and len(failing) < 3:
            failing.append(path)
            raise OSError(number, os.strerror(number))
        return real(self, path, *more)

    monkeypatch.setattr(LocalLockFiles, method, trouble)
    with locked(local(tmp_path), "OUT", lost.append):
        assert wait_for(lambda: len(failing) == 3)
        os.utime(tmp_path / LOCK, (1, 1))
        assert wait_for(lambda: (tmp_path / LOCK).stat().st_mtime > 1)
    assert not lost
    assert not (tmp_path / LOCK).exists()


def test_a_lock_that_was_taken_over_is_noticed_and_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "BEAT_S", 0.01)
    lost, other = [], written(token="another")
    with locked(local(tmp_path), "OUT", lost.append):
        lock_files(local(tmp_path)).replace(LOCK, other)
        assert wait_for(lambda: lost)
    assert [error.code for error in lost] == ["output_lost"]
    assert (tmp_path / LOCK).read_bytes() == other


def test_the_files_of_a_bucket_do_the_same(tmp_path, monkeypatch):
    """The same operations over a store's own, with a folder in the bucket's place."""
    store = local(tmp_path)

    class Bucket:
        root = str(tmp_path)
        open, remove, seal = store.open, store.remove, store.seal

        def create(self, path):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            return (tmp_path / path).open("wb")

    monkeypatch.setattr(
        "align.pipeline.storage.lock_files.sizes_and_stamps",
        lambda folder: {
            e.name: (e.stat().st_size, str(e.stat().st_mtime)) for e in os.scandir(folder) if e.is_file()
        },
    )
    files = RemoteLockFiles(Bucket())
    assert files.read(LOCK) is None
    assert files.create(LOCK, b"a")
    assert not files.create(LOCK, b"b")
    os.utime(tmp_path / LOCK, (1, 1))
    before = files.sign(LOCK)
    assert files.age_s(LOCK) > 1000
    files.touch(LOCK)
    assert files.sign(LOCK) != before
    assert files.age_s(LOCK) < 100
    lock = Lock(files, "OUT", lambda _: None)
    files.remove(LOCK)
    mine = written()
    lock.take(mine)
    assert holder_of(store) == replace(Holder.of(mine))
    lock.give_back(mine)
    assert not list((tmp_path / "_work").iterdir())
