"""Counting by stage: each stage's time is its own, and what was counted is handed on once."""

import time

from align.transforms import stages


def burn(ns):
    until = time.thread_time_ns() + ns
    while time.thread_time_ns() < until:
        pass


def test_an_inner_stage_takes_its_time_from_the_outer_one():
    stages.take()
    with stages.stage("read"):
        burn(2_000_000)
        with stages.stage("decode"):
            burn(40_000_000)
        with stages.stage("decode"):
            burn(40_000_000)
    counted = stages.take()
    assert counted["decode.cpu_ns"] >= 80_000_000
    assert 2_000_000 <= counted["read.cpu_ns"] < counted["decode.cpu_ns"] / 2


def test_counts_of_other_processes_add_up_and_are_taken_once():
    stages.take()
    stages.count("write", 2, 300)
    stages.add({"write.elements": 3, "decode.cpu_ns": 7})
    assert stages.take() == {"write.elements": 5, "write.bytes": 300, "decode.cpu_ns": 7}
    assert stages.take() == {}
