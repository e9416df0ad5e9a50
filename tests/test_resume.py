"""Going on with a run: what is kept, what is refused, who may write, and what is cleaned up."""

import json
import os
import shutil
import socket
import time
from dataclasses import asdict

import pytest

import align
from align.pipeline.config import RunConfig
from align.pipeline.job import run as running
from align.pipeline.job.resume import clean
from align.pipeline.storage.lock import LOCK, Holder, holder_of, locked
from align.schemas.errors import AlignError, UsageError
from align.schemas.options import AlignOptions
from align.transforms.check.verify import verify
from align.transforms.store.publish import local, publish_json
from align.transforms.write import shard as shards
from align.transforms.write.shard import ShardFile, ShardReport

NAMES = ("a", "b", "c", "d")


def tree(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def configured(folder):
    options = AlignOptions(window=1, stride=1)
    given = {"workers": 1, "shard_size": 100_000, "isolate": False, "max_failures": 1.0}
    given |= {"input": str(folder / "in"), "output": str(folder / "out")}
    return RunConfig(source="ego4d", sample=options, **given)


@pytest.fixture(scope="module")
def finished(clone_input, tmp_path_factory):
    """An input and what a run made of it, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    clone_input(folder / "in", NAMES)
    align.run(configured(folder))
    return folder


@pytest.fixture
def root(finished, tmp_path):
    shutil.copytree(finished / "in", tmp_path / "in")
    return tmp_path / "in" / "v2"


@pytest.fixture
def config(root, tmp_path):
    return configured(tmp_path)


@pytest.fixture
def out(finished, config, tmp_path):
    shutil.copytree(finished / "out", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def no_pipeline(monkeypatch):
    """No run may get as far as touching the output."""

    def begin(*_):
        raise AssertionError("the run has begun")

    monkeypatch.setattr(running, "begin", begin)


def unfinished(out):
    """Take back the commit."""
    (out / "manifest.json").unlink()


@pytest.mark.usefixtures("no_pipeline")
def test_a_finished_output_is_complete_at_once(out, config):
    before = tree(out)
    result = align.run(config.but(resume=True))
    assert result.already
    assert align.run(config.but(resume=True, retry_failed=True)).already
    assert tree(out) == before


def test_only_what_is_damaged_is_made_anew(out, config, monkeypatch):
    before = tree(out)
    files = sorted(out.glob("data/*.parquet"))
    assert len(files) > 2
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"?")
    files[1].unlink()
    made = []
    real = shards._write_files
    monkeypatch.setattr(
        shards, "_write_files", lambda spec, *rest: made.append(spec.name) or real(spec, *rest)
    )
    align.run(config.but(resume=True))
    assert sorted(made) == [f.stem for f in files[:2]]
    assert tree(out) == before
    assert verify(str(out)).ok


def test_an_input_that_was_moved_is_still_the_same(out, config, root, tmp_path):
    before = tree(out)
    unfinished(out)
    os.rename(root.parent, tmp_path / "elsewhere")
    align.run(config.but(input=str(tmp_path / "elsewhere"), resume=True))
    assert tree(out) == before


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "full_scale/a.mp4").write_bytes(b"x" * 99), "full_scale/a.mp4: "),
        (lambda root: (root / "imu/b.csv").unlink(), "metadata of b"),
        (lambda root: (root / "full_scale/c.mp4").unlink(), "recording c is gone"),
        (
            lambda root: (root / "ego4d.json").write_text(
                (root / "ego4d.json").read_text().replace('"Walking"', '"Cooking"')
            ),
            "metadata of a",
        ),
    ],
    ids=["file", "table", "recording", "metadata"],
)
@pytest.mark.usefixtures("no_pipeline")
def test_a_changed_input_is_refused_with_the_difference(out, config, root, change, said, committed):
    if not committed:
        unfinished(out)
    change(root)
    with pytest.raises(UsageError, match=said):
        align.run(config.but(resume=True))


@pytest.mark.usefixtures("no_pipeline")
def test_a_changed_config_is_refused_with_the_difference(out, config):
    with pytest.raises(UsageError, match="seed: 0 then, 1 now"):
        align.run(config.but(resume=True, seed=1))
    with pytest.raises(UsageError, match="add --resume"):
        align.run(config)


def test_an_input_touched_after_a_failed_run_is_refused(config, root, monkeypatch):
    def full(*_):
        raise AlignError("write_failed", "the disk is full", stage="commit")

    monkeypatch.setattr("align.pipeline.job.graph.commit_run", full)
    with pytest.raises(AlignError, match="the disk is full"):
        align.run(config)
    os.utime(root / "full_scale/a.mp4")
    with pytest.raises(UsageError, match=r"full_scale/a\.mp4 was written anew"):
        align.run(config.but(resume=True))


def test_retrying_takes_in_what_was_mended_and_ends_as_a_clean_run(config, root, tmp_path):
    video = root / "full_scale/b.mp4"
    whole = video.read_bytes()
    video.write_bytes(b"broken")
    result = align.run(config)
    assert result.manifest["counts"]["failed"] == 4
    video.write_bytes(whole)
    with pytest.raises(UsageError, match=r"full_scale/b\.mp4"):
        align.run(config.but(resume=True))
    result = align.run(config.but(resume=True, retry_failed=True))
    assert result.manifest["counts"]["failed"] == 0
    align.run(config.but(output=str(tmp_path / "clean")))
    assert tree(tmp_path / "out") == tree(tmp_path / "clean")


# -- The lock --------------------------------------------------------------------------------------------


def fail(error):
    raise error


def put_lock(out, **changes):
    publish_json(local(out), LOCK, {**asdict(Holder.here()), **changes})


def test_a_second_run_is_refused_while_the_first_lives(tmp_path):
    store = local(tmp_path)
    with locked(store, "OUT", fail):
        with pytest.raises(UsageError, match=f"process {os.getpid()} on {socket.gethostname()}"):
            locked(store, "OUT", fail).__enter__()
        assert holder_of(store).pid == os.getpid()
    assert holder_of(store) is None


@pytest.mark.parametrize(
    "stale",
    [
        {"pid": 2**22 + 1},
        {"started": "1"},  # another process bears the id now
    ],
    ids=["dead", "other process"],
)
def test_the_lock_of_a_dead_run_is_taken_over(tmp_path, stale):
    put_lock(tmp_path, **stale)
    with locked(local(tmp_path), "OUT", fail):
        assert holder_of(local(tmp_path)).pid == os.getpid()


def test_a_lock_from_elsewhere_with_a_fresh_sign_holds(tmp_path):
    put_lock(tmp_path, host="elsewhere")
    with pytest.raises(UsageError, match="on elsewhere"):
        locked(local(tmp_path), "OUT", fail).__enter__()
    with pytest.raises(UsageError, match="on elsewhere"):
        clean(str(tmp_path))


@pytest.mark.usefixtures("no_pipeline")
def test_a_locked_output_is_refused_before_anything_else(out, config):
    put_lock(out, host="elsewhere")
    with pytest.raises(UsageError, match="another run is writing"):
        align.run(config.but(resume=True))


def test_an_output_that_is_taken_away_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("align.pipeline.storage.lock.BEAT_S", 0.01)
    told = []
    store = local(tmp_path)
    with locked(store, "OUT", told.append):
        store.remove(LOCK)
        for _ in range(500):
            if told:
                break
            time.sleep(0.01)
    assert [error.code for error in told] == ["output_lost"]


def test_shards_that_vanish_under_way_are_never_committed(config, monkeypatch, tmp_path):
    from align.pipeline.job import tasks

    real = tasks.write_one_shard

    def vanishing(*given):
        report = real(*given)
        for file in (tmp_path / "out/data").glob("*.parquet"):
            file.unlink()
        return report

    monkeypatch.setattr(tasks, "write_one_shard", vanishing)
    with pytest.raises(AlignError, match="no longer there") as caught:
        align.run(config)
    assert caught.value.code == "lost_shards"
    assert not (tmp_path / "out/manifest.json").exists()


def test_a_run_that_died_right_after_its_commit_is_committed_and_tidied_up_later(config, out, monkeypatch):
    before = tree(out)
    shutil.rmtree(out)

    def died(*_):
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("align.pipeline.job.shards.keep_for_later", died)
        assert not align.run(config).already
    assert tree(out) != before
    assert not align.run(config.but(resume=True)).already
    assert tree(out) == before
    put_lock(out, pid=2**22 + 1)
    (out / "data/.train-00000-of-00001.parquet.0123456789abcdef.tmp").write_bytes(b"half")
    assert align.run(config.but(resume=True)).already
    assert tree(out) == before


# -- Cleaning --------------------------------------------------------------------------------------------


OLD, FACTS = "train-00009-of-00010.parquet", ("parquet", "train", 1, 3, "")


def test_cleaning_removes_what_the_dead_left_and_nothing_else(out):
    old = ShardReport("train-00009-of-00010", "train", "", 1, (ShardFile(f"data/{OLD}", *FACTS),))
    publish_json(local(out), f"_work/reports/{old.name}.json", old.as_dict())
    before = tree(out)
    put_lock(out, pid=2**22 + 1)
    (out / "data/.train-00000-of-00001.parquet.0123456789abcdef.tmp").write_bytes(b"half")
    (out / "data" / OLD).write_bytes(b"old")
    assert clean(str(out)) == {"temporary files": 1, "locks of dead runs": 1, "unlisted shards": 1}
    assert tree(out) == before
    assert not clean(str(out))


def test_cleaning_keeps_the_shards_of_an_unfinished_run(out):
    unfinished(out)
    before = tree(out)
    clean(str(out))
    assert tree(out) == before


def test_what_a_run_keeps_for_later_holds_no_time_and_no_place(out, root):
    kept = json.loads((out / "_work/run.json").read_text())
    size, content = kept["inputs"]["a"]["files"]["full_scale/a.mp4"]
    assert size == (root / "full_scale/a.mp4").stat().st_size
    assert len(content) == 32
    assert str(root.parent) not in json.dumps(kept)
