"""An input that was repaired, or changed, between runs or under way: taken in whole, or noticed."""

import json
import os
import shutil
from itertools import pairwise

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

import align
from align.pipeline.config import RunConfig
from align.pipeline.job import shards as writing
from align.pipeline.job.input_files import blocks_of, look
from align.pipeline.job.inputs import changed_inputs, look_at_inputs, without_times
from align.pipeline.job.resume import begin
from align.schemas.errors import AlignError, UsageError
from align.schemas.options import AlignOptions
from align.schemas.plan import InputFile
from align.schemas.recording import Stream
from align.transforms.store.publish import LocalStore

NAMES = ("a", "b", "c", "d")


def tree(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def configured(folder, **changes):
    options = AlignOptions(window=1, stride=1)
    given = {"workers": 1, "shard_size": 100_000, "isolate": False, "max_failures": 1.0, **changes}
    return RunConfig(
        source="ego4d", input=str(folder / "in"), output=str(folder / "out"), sample=options, **given
    )


@pytest.fixture(scope="module")
def whole(clone_input, tmp_path_factory):
    """A whole input, and what a clean run makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    clone_input(folder / "in", NAMES)
    align.run(configured(folder))
    return folder


def without_sound(path):
    source, draft = av.open(str(path)), path.with_suffix(".draft.mp4")
    with source, av.open(str(draft), "w") as target:
        video = source.streams.video[0]
        copy = target.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    draft.replace(path)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def re_exported(path):
    """Other values, the same size, and the old time: what ``rsync -t`` or ``cp -p`` brings."""
    stat, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-4000] + data[-4000:].replace(b"1", b"2"))
    assert path.stat().st_size == stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def broken_and_re_exported(root):
    (root / "full_scale/b.mp4").write_bytes(b"broken")
    re_exported(root / "imu/b.csv")


HURT = {
    "video": lambda root: (root / "full_scale/b.mp4").write_bytes(b"broken"),
    "end of the video": lambda root: os.truncate(root / "full_scale/b.mp4", 60_000),
    "sound": lambda root: without_sound(root / "full_scale/b.mp4"),
    "IMU table": lambda root: (root / "imu/b.csv").write_bytes(b"\0garbage"),
    "no IMU table": lambda root: (root / "imu/b.csv").unlink(),
    "IMU values": lambda root: re_exported(root / "imu/b.csv"),
    "video and IMU values": broken_and_re_exported,
    "narrations": lambda root: edit(root / "annotations/narration.json", lambda told: told.pop("b")),
    "metadata": lambda root: edit(root / "ego4d.json", lambda m: m["videos"][1].update(duration_sec="?")),
}


@pytest.fixture(scope="module", params=HURT, ids=[w.replace(" ", "-") for w in HURT])
def hurt(request, whole, tmp_path_factory):
    """A run on an input with one thing wrong: as it stood before its commit, and after."""
    folder = tmp_path_factory.mktemp("hurt")
    shutil.copytree(whole / "in", folder / "in")
    HURT[request.param](folder / "in" / "v2")
    with pytest.MonkeyPatch.context() as patched:

        def full(*_):
            raise AlignError("write_failed", "the disk is full", stage="commit")

        patched.setattr("align.pipeline.job.graph.commit_run", full)
        with pytest.raises(AlignError, match="disk is full"):
            align.run(configured(folder))
    (folder / "out").rename(folder / "before the commit")
    shutil.copytree(folder / "before the commit", folder / "out")
    align.run(configured(folder, resume=True))
    (folder / "out").rename(folder / "after the commit")
    return folder


def damage(out):
    shard = sorted(out.glob("data/*.parquet"))[-1]
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("when", ["before the commit", "after the commit", "after, a shard damaged"])
def test_whatever_is_repaired_and_whenever_a_retry_ends_as_a_clean_run(hurt, whole, tmp_path, when):
    shutil.copytree(hurt / when.replace(", a shard damaged", " the commit"), tmp_path / "out")
    if "damaged" in when:
        damage(tmp_path / "out")
    shutil.copytree(whole / "in", tmp_path / "in")  # times of change and all, as a repair from a backup has
    config = configured(tmp_path)
    with pytest.raises(UsageError, match="--resume --retry-failed takes it in"):
        align.run(config.but(resume=True))
    assert not align.run(config.but(resume=True, retry_failed=True)).already
    assert tree(tmp_path / "out") == tree(whole / "out")
    assert align.run(config.but(resume=True, retry_failed=True)).already


@pytest.fixture
def place(whole, tmp_path):
    """A finished run and its input, to be changed."""
    shutil.copytree(whole / "in", tmp_path / "in")
    shutil.copytree(whole / "out", tmp_path / "out")
    return tmp_path


@pytest.fixture
def made(monkeypatch):
    """Names of the shards that are written."""
    names = []

    def write(spec, *rest, real=writing.write_shard):
        names.append(spec.name)
        return real(spec, *rest)

    monkeypatch.setattr(writing, "write_shard", write)
    return names


def test_only_the_shards_of_the_repaired_recording_are_written(place, whole, made):
    re_exported(place / "in/v2/imu/b.csv")
    config = configured(place, resume=True, retry_failed=True)
    align.run(config)
    holding = {
        report["name"]
        for path in (whole / "out/_work/reports").iterdir()
        if "b" in (report := json.loads(path.read_text()))["recordings"]
    }
    assert set(made) == holding
    assert 0 < len(holding) < len(list((whole / "out/_work/reports").iterdir()))


@pytest.fixture(scope="module")
def clean_after_repair(whole, tmp_path_factory):
    """A clean run on the input with other values in one IMU table."""
    folder = tmp_path_factory.mktemp("clean")
    shutil.copytree(whole / "in", folder / "in")
    re_exported(folder / "in/v2/imu/b.csv")
    align.run(configured(folder))
    return tree(folder / "out")


class Killed(BaseException):
    """Ends a run between two of its steps."""


@pytest.mark.parametrize("step", range(4))
def test_a_retry_killed_at_any_step_of_its_beginning_is_begun_again(
    place, clean_after_repair, monkeypatch, step
):
    """The steps: names into the ledger, no manifest, no reports that do not hold, new facts."""
    re_exported(place / "in/v2/imu/b.csv")
    config = configured(place, resume=True, retry_failed=True)
    left = [step]

    def dying(real):
        def call(*given):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return real(*given)

        return call

    with monkeypatch.context() as patched:
        for method in ("rename", "remove"):
            patched.setattr(LocalStore, method, dying(getattr(LocalStore, method)))
        with pytest.raises(Killed):
            begin(config, look_at_inputs(config))
    align.run(config)
    assert tree(place / "out") == clean_after_repair


def test_an_input_of_other_recordings_is_no_repair(place, clone_input, tmp_path):
    clone_input(tmp_path / "other", ("x", "y"))
    config = configured(place, resume=True, retry_failed=True)
    with pytest.raises(UsageError, match="shares no recording"):
        align.run(config.but(input=str(tmp_path / "other")))


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[1]", b'{"config": 1, "inputs": 2}'])
def test_what_a_run_had_read_must_be_known(place, damaged):
    (place / "out/_work/run.json").write_bytes(damaged)
    with pytest.raises(UsageError, match=r"run\.json is damaged.*--overwrite"):
        align.run(configured(place, resume=True))


@pytest.mark.parametrize("how", ["emptied", "altered", "removed"])
def test_a_report_that_cannot_be_trusted_is_made_again_with_its_shard(place, whole, made, how):
    report = min((place / "out/_work/reports").iterdir())
    if how == "altered":
        edit(report, lambda content: content.update(samples=content["samples"] + 1))
    else:
        report.write_bytes(b"")
    if how == "removed":
        report.unlink()
    assert not align.run(configured(place, resume=True)).already
    assert made == [report.stem]
    assert tree(place / "out") == tree(whole / "out")


# -- Under way -------------------------------------------------------------------------------------------


def swapping(monkeypatch, where, act):
    """Do something once, when planning is done and the first shard is to be written, or one window is."""
    done = []

    def before_shard(*given, real=writing.write_shard):
        if not done:
            done.append(act())
        return real(*given)

    def before_second_window(segment, items, real=writing.unchanged):
        for number, item in enumerate(real(segment, items)):
            yield item
            if number == 1 and segment.recording.recording_id == "b" and not done:
                done.append(act())

    name, changed = ("write_shard", before_shard) if where == "shard" else ("unchanged", before_second_window)
    monkeypatch.setattr(writing, name, changed)


def by_replacing(root):
    (root / "full_scale/new").write_bytes((root / "full_scale/b.mp4").read_bytes() + bytes(8))
    (root / "full_scale/new").replace(root / "full_scale/b.mp4")


SWAPS = {
    "replaced": by_replacing,
    "written to, its time put back": lambda root: re_exported(root / "imu/b.csv"),
    "gone": lambda root: (root / "imu/b.csv").unlink(),
}


@pytest.mark.parametrize(
    ("how", "isolate"), [*((how, False) for how in SWAPS), ("replaced", True)], ids=[*SWAPS, "in the child"]
)
def test_a_file_swapped_after_planning_fails_its_windows_and_names_it(
    whole, tmp_path, monkeypatch, how, isolate
):
    shutil.copytree(whole / "in", tmp_path / "in")
    swapping(monkeypatch, "shard", lambda: SWAPS[how](tmp_path / "in" / "v2"))
    result = align.run(configured(tmp_path, isolate=isolate))
    faults = [json.loads(line) for line in (tmp_path / "out/failures.jsonl").read_text().splitlines()]
    assert {(f["recording_id"], f["code"]) for f in faults} == {("b", "input_changed")}
    assert result.manifest["counts"]["failed"] == len(faults) == 4
    assert "b.mp4" in faults[0]["detail"] or "b.csv" in faults[0]["detail"]
    with pytest.raises(UsageError, match="retry-failed"):
        align.run(configured(tmp_path, resume=True))


def test_a_file_written_to_while_it_is_read_fails_the_windows_after_that(whole, tmp_path, monkeypatch):
    shutil.copytree(whole / "in", tmp_path / "in")
    swapping(monkeypatch, "window", lambda: re_exported(tmp_path / "in/v2/imu/b.csv"))
    align.run(configured(tmp_path))
    faults = [json.loads(line) for line in (tmp_path / "out/failures.jsonl").read_text().splitlines()]
    assert [(f["recording_id"], f["code"], f["start_ns"]) for f in faults] == [
        ("b", "input_changed", start) for start in sorted(f["start_ns"] for f in faults)
    ]
    assert len(faults) == 2


def test_a_file_swapped_between_the_start_and_planning_is_noticed(whole, tmp_path, monkeypatch):
    shutil.copytree(whole / "in", tmp_path / "in")
    from align.pipeline.job import run as running

    def begin(*given, real=running.begin):
        real(*given)
        re_exported(tmp_path / "in/v2/imu/b.csv")

    monkeypatch.setattr(running, "begin", begin)
    assert align.run(configured(tmp_path)).manifest["counts"]["failed"] == 4


def test_all_that_a_decoder_says_is_heard(whole, monkeypatch, tmp_path):
    """What comes after the last window too: the child's account of its time, and that it is free again."""
    ended = []

    def counted(segment, items, real=writing.unchanged):
        def to_the_end():
            yield from items
            ended.append(segment.key)

        return real(segment, to_the_end())

    monkeypatch.setattr(writing, "unchanged", counted)
    result = align.run(configured(whole, isolate=True).but(output=str(tmp_path / "out")))
    assert len(ended) == len(set(ended)) == len(NAMES)
    assert any(name.startswith("decode") and value for name, value in result.stages.items())


def test_links_and_rights_that_change_under_way_cost_nothing(whole, tmp_path, monkeypatch):
    shutil.copytree(whole / "in", tmp_path / "in")
    swapping(
        monkeypatch, "shard", lambda: os.link(tmp_path / "in/v2/imu/b.csv", tmp_path / "a backup's hard link")
    )
    align.run(configured(tmp_path))
    assert tree(tmp_path / "out") == tree(whole / "out")


# -- Fingerprints ----------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 40))
def test_a_fingerprint_covers_head_tail_and_little_of_a_large_file(size):
    blocks = blocks_of(size)
    assert (blocks[0][0], blocks[-1][1]) == (0, size)
    assert all(0 <= start <= end <= size for start, end in blocks)
    assert all(a[1] <= b[0] for a, b in pairwise(blocks))
    assert sum(end - start for start, end in blocks) <= 1 << 20


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_a_changed_byte_in_a_block_changes_the_fingerprint(tmp_path, size):
    file, stream = tmp_path / "file", Stream("video", str(tmp_path / "file"), "file")
    file.write_bytes(bytes(size))
    before = look(stream)
    assert before.size == size
    for start, end in [b for b in blocks_of(size) if b[0] < b[1]]:
        for at in {start, end - 1}:
            with file.open("r+b") as writing_to:
                writing_to.seek(at)
                writing_to.write(b"x")
            assert look(stream).content != before.content
            with file.open("r+b") as writing_to:
                writing_to.seek(at)
                writing_to.write(b"\0")
    assert look(stream).content == before.content


def test_what_is_kept_for_later_tells_a_change_of_content_but_not_of_time(place):
    kept = json.loads((place / "out/_work/run.json").read_text())["inputs"]
    os.utime(place / "in/v2/imu/a.csv")
    assert not list(changed_inputs(kept, look_at_inputs(configured(place)).facts))
    re_exported(place / "in/v2/imu/b.csv")
    now = look_at_inputs(configured(place)).facts
    assert [name for name, _ in changed_inputs(kept, now)] == ["b"]
    assert without_times(now).keys() == kept.keys()


def test_a_file_that_is_not_there_is_told_from_one_that_is(tmp_path):
    stream = Stream("imu", str(tmp_path / "x"), "x")
    assert look(stream) == InputFile("x")
    (tmp_path / "x").touch()
    assert look(stream).size == 0
