"""What a run adds beside its shards, and what it says of its splits."""

import json
import shutil

import pytest

import align
from align.pipeline.cli.main import main
from align.pipeline.config import RunConfig
from align.pipeline.job.planning import list_recordings
from align.schemas.errors import AlignError, Fault, UsageError
from align.schemas.options import AlignOptions
from align.transforms.check.verify import verify
from align.transforms.index.balance import add_index
from align.transforms.index.loaders import write_loader_indexes
from align.transforms.store.publish import local
from align.transforms.write.manifest import disjoint_splits
from align.transforms.write.stats import Statistics

NAMES = ("a", "b", "c", "d")
BOTH = ("parquet", "webdataset")
ASSIGNED = {"a": "train", "b": "train", "c": "val"}


def tree(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def manifest_of(out):
    return json.loads((out / "manifest.json").read_text())


@pytest.fixture(scope="module")
def recordings(clone_input, tmp_path_factory):
    """Four copies of one recording by four participants: every picture has its like in another split."""
    folder = tmp_path_factory.mktemp("copies")
    master = clone_input(folder, NAMES) / "ego4d.json"
    content = json.loads(master.read_text())
    for video in content["videos"]:  # else shared footage joins them
        video |= {"origin_video_id": video["video_uid"], "video_components": None}
    master.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def configured(recordings):
    def make(out, **changes):
        options = AlignOptions(window=1, stride=1)
        given = {"workers": 1, "format": BOTH, "assignments": ASSIGNED, **changes}
        return RunConfig(source="ego4d", input=str(recordings), output=str(out), sample=options, **given)

    return make


@pytest.fixture(scope="module")
def finished(configured, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    align.run(configured(out, index=("energon", "dali", "wids")))
    return out


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def test_a_run_leaves_what_indexing_by_hand_leaves(out):
    made = tree(out)
    assert {f["kind"] for f in manifest_of(out)["loader_index"]} == {"energon", "dali", "wids"}
    add_index(local(out))
    write_loader_indexes(local(out))
    assert tree(out) == made
    assert verify(str(out)).problems == ()


def test_splits_by_file_keep_groups_whole_and_leave_out_what_is_not_named(out):
    manifest = manifest_of(out)
    assert manifest["splits"] == {"train": {"groups": 2, "windows": 8}, "val": {"groups": 1, "windows": 4}}
    assert manifest["config"]["splits"].startswith("by file, sha256 ")
    faults = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert [(f["recording_id"], f["outcome"]) for f in faults if f["code"] == "no_split"] == [("d", "noted")]


def test_pictures_alike_in_two_splits_are_reported(out):
    balance = manifest_of(out)["balance"]
    assert balance["across_splits"] > 0
    faults = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    (told,) = (f for f in faults if f["code"] == "alike_across_splits")
    assert told["detail"].startswith(f"{balance['across_splits']} windows")


def test_what_is_complete_with_its_indexes_is_left_alone(out, configured):
    before = tree(out)
    result = align.run(configured(out, index=("energon", "dali", "wids"), resume=True))
    assert result.already
    assert tree(out) == before


def test_resume_adds_indexes_that_were_asked_for_later_without_writing_shards_anew(configured, out, tmp_path):
    later = tmp_path / "later"
    align.run(configured(later, index=("none",)))
    assert not (later / "index").exists()
    assert "index" not in manifest_of(later)
    stamps = {p: p.stat().st_mtime_ns for p in [*later.glob("data/*"), *later.glob("webdataset/*.tar")]}
    align.run(configured(later, index=("energon", "dali", "wids"), resume=True))
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert tree(later) == tree(out)


@pytest.mark.parametrize("victim", ["index/*.parquet", "webdataset/*.wids.json"])
def test_resume_makes_a_damaged_index_anew(out, configured, victim):
    before = tree(out)
    path = next(out.glob(victim))
    path.write_bytes(path.read_bytes()[:-1])
    assert not align.run(configured(out, index=("energon", "dali", "wids"), resume=True)).already
    assert tree(out) == before


def test_index_files_that_no_list_of_ours_names_stay_and_are_not_taken_for_ours(out, configured):
    foreign = [out / "index" / "old-00000-of-00001.parquet", out / "webdataset" / "old-000000.idx"]
    for path in foreign:
        path.write_bytes(b"old")
    (out / "manifest.json").unlink()
    align.run(configured(out, index=("dali",), resume=True))
    assert [path.read_bytes() for path in foreign] == [b"old", b"old"]
    listed = json.loads((out / "manifest.json").read_text())["loader_index"]
    assert {entry["kind"] for entry in listed} == {"dali"}
    assert not {entry["path"] for entry in listed} & {str(path.relative_to(out)) for path in foreign}
    assert {problem.code for problem in verify(str(out)).problems} <= {"unlisted"}


def test_stale_indexes_go_with_the_commit(out, configured):
    """Those that the former commit wrote, also where its manifest is gone."""
    names = ["webdataset/.nv-meta/index.sqlite", *(f"webdataset/{n}" for n in ("*.wids.json", "*.tar.idx"))]
    stale = [path for name in names for path in out.glob(name)]
    assert len(stale) >= 3
    (out / "manifest.json").unlink()
    align.run(configured(out, index=("dali",), resume=True))
    assert not [p for p in stale if p.exists()]
    assert verify(str(out)).problems == ()


@pytest.mark.parametrize(
    ("output", "formats", "indexes", "expected"),
    [
        ("out", ("parquet",), (), {"balance"}),
        ("out", ("webdataset",), (), set()),
        ("out", BOTH, ("wids",), {"balance", "wids"}),
        ("out", BOTH, ("none",), set()),
        ("gs://b/out", BOTH, (), set()),
        ("gs://b/out", BOTH, ("balance", "dali"), {"balance", "dali"}),
    ],
)
def test_weights_are_indexed_of_themselves_where_that_is_cheap(output, formats, indexes, expected):
    config = RunConfig(source="ego4d", input="in", output=output, format=formats, index=indexes)
    assert config.outputs.index_kinds == expected
    assert config.as_manifest() == config.but(index=()).as_manifest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"index": ("wid",), "format": BOTH}, "did you mean wids"),
        ({"index": ("dali",), "format": ("parquet",)}, "need tar files"),
        ({"index": ("balance",), "format": ("webdataset",)}, "needs Parquet"),
        ({"index": ("none", "dali"), "format": BOTH}, "stands alone"),
    ],
)
def test_indexes_that_cannot_be_made_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        RunConfig(source="ego4d", input="in", output="out", **changes)


def test_a_file_of_splits_that_cuts_a_group_apart_is_refused_before_any_work(
    clone_input, tmp_path, configured
):
    root = clone_input(tmp_path / "in", ["a", "b"])
    content = json.loads((root / "ego4d.json").read_text())
    for video in content["videos"]:
        video["fb_participant_id"] = 7
    (root / "ego4d.json").write_text(json.dumps(content))
    split = {"a": "train", "b": "val"}
    (tmp_path / "splits.csv").write_text("".join(f"{uid},{name}\n" for uid, name in split.items()))
    folders = {name: str(tmp_path / folder) for name, folder in (("input", "in"), ("output", "out"))}
    config = RunConfig(source="ego4d", split=f"file:{tmp_path / 'splits.csv'}", **folders)
    with pytest.raises(UsageError, match="a group \\(participant\\) must stay on one side"):
        align.run(config)
    assert not (tmp_path / "out").exists()


def test_a_group_can_be_named_in_the_file_of_splits(configured, recordings):
    group = next(r for r in list_recordings(configured("out")) if r.recording_id == "b").group_id
    offered = list(list_recordings(configured("out", assignments={group: "val"})))
    assert [r.recording_id for r in offered if not isinstance(r, Fault)] == ["b"]


def test_a_group_in_two_splits_is_never_committed():
    sums = {"train": {"windows": 2, "group:p1": 1, "group:p2": 1}, "val": {"windows": 1, "group:p2": 1}}
    with pytest.raises(AlignError, match="p2 is in the splits train and val"):
        disjoint_splits(Statistics(sums))
    del sums["val"]["group:p2"]
    assert disjoint_splits(Statistics(sums))["train"] == {"windows": 2, "groups": 2}


def test_the_command_takes_index_and_file_of_splits_from_toml(recordings, tmp_path, capsys):
    (tmp_path / "splits.csv").write_text("id,split\na,train\nb,val\n")
    toml = tmp_path / "run.toml"
    toml.write_text(
        f'source = "ego4d"\ninput = "{recordings}"\nwindow = "1"\nworkers = 1\n'
        f'format = ["parquet", "webdataset"]\nindex = ["dali"]\nsplit = "file:{tmp_path}/splits.csv"\n'
    )
    with pytest.raises(SystemExit) as stop:
        main(["run", "--config", str(toml), "--output", str(tmp_path / "out")])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "4 windows of 1 groups, in no other split" in said
    assert "across splits" in said
    assert manifest_of(tmp_path / "out")["indexes"] == ["balance", "dali"]


def test_the_card_says_how_weights_are_used_and_a_run_without_an_index_does_not(out, configured, tmp_path):
    card = (out / "README.md").read_text()
    assert "near-duplicates" in card
    assert "balance=True" in card
    assert "dali, energon, wids" in card
    align.run(configured(tmp_path / "plain", index=("none",), limit=1))
    assert "## Training" not in (tmp_path / "plain" / "README.md").read_text()
