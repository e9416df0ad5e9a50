"""The benchmark's arithmetic: start-ups come off, ratios go round by round, no round is taken twice."""

import sys
from itertools import pairwise

import av
import pytest

from benchmarks import variants as v
from benchmarks.figures import figures, ratios, spread
from benchmarks.long import PIECE_S, make_long
from benchmarks.measure import Usage
from benchmarks.proof import clock_rows
from benchmarks.proof.imu_rows import sparse_video
from benchmarks.recordings import FPS, ffmpeg
from benchmarks.rounds import Taken, Variant, left, take_rounds
from benchmarks.targets import results


def usage(cpu_s, wall_s=1.0, peak=0):
    return Usage(cpu_s, wall_s, peak)


@pytest.fixture
def taken(tmp_path):
    return Taken(tmp_path / "rounds.jsonl", "one")


def test_a_figure_is_per_hour_of_media_and_less_the_start_up(taken):
    run = Variant("run", (), hours=0.5, start_up="start", watch_memory=True)
    for number, (start, whole) in enumerate([(1.0, 11.0), (3.0, 13.0), (1.0, 6.0)]):
        taken.add("m", "start", number, usage(start))
        taken.add("m", "run", number, usage(whole, peak=10**6 * number))
    found = figures(taken, "m", [Variant("start", ()), run])
    assert found["run"].cpu == {0: 20.0, 1: 24.0, 2: 10.0}
    assert found["start"].cpu == {0: 1.0, 1: 3.0, 2: 1.0}
    assert (found["run"].peak_mb, found["start"].peak_mb) == (2.0, None)


def test_ratios_are_of_rounds_that_both_were_part_of():
    assert ratios({0: 2.0, 1: 9.0, 3: 1.0}, {0: 1.0, 1: 3.0, 2: 5.0}) == [2.0, 3.0]
    assert spread([3.0, 1.0, 2.0], ".1f") == "2.0 (1.0 to 3.0)"
    assert spread([], ".1f") == ""


def test_rounds_are_kept_and_go_on_where_they_stopped(tmp_path, capsys):
    path = tmp_path / "rounds.jsonl"
    variants = [Variant("a", (sys.executable, "-c", "")), Variant("b", (sys.executable, "-c", ""), rounds=1)]
    assert [(n, one.name) for n, one in left(Taken(path, "one"), "m", variants, 2)] == [
        *((0, "a"), (0, "b"), (1, "a")),
    ]
    take_rounds(Taken(path, "one"), "m", variants, 1)
    again = Taken(path, "one")
    assert [(n, one.name) for n, one in left(again, "m", variants, 2)] == [(1, "a")]
    assert again.of("m", "a")[0].cpu_s > 0
    assert len(left(Taken(path, "two"), "m", variants, 2)) == 3
    assert capsys.readouterr().out.count("round 1/1") == 2


def test_targets_are_judged_by_the_median(taken):
    kind, media = v.GRID, "h264-gop30"
    variants = [Variant(name, (), hours=1.0) for name in (v.FULL, kind.floor, kind.name, v.FFMPEG)]
    for number, ours in enumerate([90.0, 100.0, 200.0]):
        for variant, cpu_s in zip(variants, [1000.0, 90.0, ours, 290.0], strict=True):
            taken.add(media, variant.name, number, usage(cpu_s))
    judged = {r.what: r for r in results(media, figures(taken, media, variants), {})}
    assert judged[f"{kind.name}, of a full decode"].met is True
    assert judged[f"{kind.name}, over its floor"].met is True
    assert judged[f"{kind.name}, over its floor"].measured == "10.0 (0.0 to 110.0)"
    assert judged[v.FFMPEG].met is False


def test_narrations_are_compared_by_the_groups_that_they_need(taken):
    grid, narrated, media = v.GRID, v.NARRATION, "vp9"
    costs = {grid.name: 100.0, narrated.name: 90.0, grid.floor: 80.0, narrated.floor: 80.0}
    variants = [Variant(name, (), hours=1.0) for name in costs]
    for name, cpu_s in costs.items():
        taken.add(media, name, 0, usage(cpu_s))
    groups = {grid.name: 20, narrated.name: 15}
    judged = {r.what: r for r in results(media, figures(taken, media, variants), groups)}
    row = judged[f"{narrated.name}, per needed group against the grid's"]
    assert (row.met, row.measured) == (True, "1.20; their floors' 1.33")


def test_long_recordings_are_made_of_pieces_that_join_without_gap_or_overlap(tmp_path):
    picture = ("-f", "lavfi", "-i", f"testsrc2=s=32x16:r={FPS}", "-f", "lavfi", "-i", "anoisesrc=r=48000")
    encoder = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "60", "-sc_threshold", "0")
    ffmpeg(tmp_path / "240p-piece.mp4", *picture, *encoder, "-c:a", "aac", "-t", PIECE_S + 1)
    download = make_long(tmp_path, 2 * PIECE_S + 6, 1)
    with av.open(str(download.media)) as container:
        packets = [(p.stream.type, p.pts, p.duration) for p in container.demux() if p.size]
    for kind in ("video", "audio"):
        times = sorted((pts, duration) for found, pts, duration in packets if found == kind)
        assert times[0][0] == 0
        assert all(start + length == following for (start, length), (following, _) in pairwise(times))


def test_the_proof_reads_back_what_the_pipeline_wrote(tmp_path):
    row = clock_rows.batched(tmp_path, sparse_video(tmp_path / "short.mp4", 20))
    assert row.holds, row
