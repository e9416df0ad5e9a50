"""What a person sees of a run under way, and how it is stopped."""

import io
import os
import signal
import threading
import time

import numpy as np
import pytest
import soundfile

from align.pipeline.process.progress import Heartbeat, watch
from align.pipeline.process.stopping import stoppable
from align.schemas.errors import AlignError
from align.transforms.align.audio import encode_flac


def test_counts_of_all_workers_are_added_up():
    with watch(lambda _: None) as progress:
        for written in (2, 3):
            heartbeat = Heartbeat(progress.add)
            heartbeat.add(written=written)
            heartbeat.add(failed=1)
            heartbeat.flush()
        assert progress.total() == {"written": 5, "failed": 2}


def test_counts_are_told_now_and_then_and_each_only_once():
    told = []
    heartbeat = Heartbeat(told.append)
    for _ in range(1000):
        heartbeat.add(written=1)
    heartbeat.flush()
    heartbeat.flush()
    assert sum(counts["written"] for counts in told) == 1000
    assert len(told) < 500


def test_what_was_counted_is_shown_under_way_and_at_the_end():
    shown = []
    with watch(shown.append) as progress:
        progress.add({"written": 1})
        while not shown:
            time.sleep(0.01)
        progress.add({"written": 1})
    assert shown[0] == {"written": 1}
    assert shown[-1] == {"written": 2}


def test_a_display_that_fails_costs_nothing():
    def show(_):
        raise BrokenPipeError

    with watch(show):
        time.sleep(0.1)


def test_a_block_that_is_stopped_ends_with_the_reason():
    def stopped():
        with stoppable() as stopper:
            threading.Timer(0.1, stopper.stop, [AlignError("output_lost", "gone")]).start()
            time.sleep(60)

    with pytest.raises(AlignError, match="gone"):
        stopped()


def test_ctrl_c_gets_through_where_c_calls_python():
    """libsndfile asks for bytes through Python functions; what these raise is printed and forgotten."""
    flac = encode_flac(np.zeros(16_000, np.int16), 16_000)
    went_on = []

    def listening(delay_s):
        with stoppable():
            threading.Timer(delay_s, os.kill, [os.getpid(), signal.SIGINT]).start()
            until = time.monotonic() + 2
            while time.monotonic() < until:
                soundfile.read(io.BytesIO(flac))
            went_on.append(delay_s)

    for i in range(40):
        with pytest.raises(KeyboardInterrupt):
            listening(0.01 + 0.0003 * i)
    assert not went_on
