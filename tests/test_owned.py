"""What is removed from an output: files that a list of ours names, and no other, whatever the command."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import align
import align.pipeline.job.run as running
from align.pipeline.config import RunConfig
from align.pipeline.job.owned import LEDGER, STARTED, former, owned, remember, remove_data_set
from align.pipeline.job.resume import begin, clean, keep_for_later, look_at_inputs
from align.pipeline.storage.lock import LOCK, locked
from align.schemas.errors import AlignError, UsageError
from align.schemas.options import AlignOptions
from align.transforms.check.verify import verify
from align.transforms.index.balance import add_index
from align.transforms.index.loaders import KINDS, write_loader_indexes
from align.transforms.store.publish import LocalStore, local, publish_json, read_json
from align.transforms.write.names import FOLDERS, has_our_form, index_names, our_leftovers

NAMES = ("a", "b")
TEMP = "0123456789abcdef.tmp"
FOREIGN = (
    "my_embeddings.parquet",
    "features/clip.tar",
    "data/notes.parquet",
    "data/train-00007-of-00009.parquet",
    "index/train-00007-of-00009.parquet",
    "webdataset/train-000099.tar",
    "webdataset/train-000099.tar.idx",
    "webdataset/.nv-meta/mine.yaml",
    f".notes.parquet.{TEMP}",
    f"data/.notes.parquet.{TEMP}",
    "_work/notes.txt",
    "_work/reports/mine.json",
    f"v2/.manifest.json.{TEMP}",
    f"v2/data/.train-00000-of-00001.parquet.{TEMP}",
    f"v2/_work/.lock.{TEMP}",
    "v2/_work/lock",
    "v2/_work/run.json",
)


def tree(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def put(out, names):
    """Foreign files, each with a content of its own."""
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(f"mine: {name}".encode())
    return {name: f"mine: {name}".encode() for name in names}


def configured(folder, **changes):
    options = AlignOptions(window=1, stride=1)
    given = {"workers": 1, "shard_size": 100_000, "isolate": False, "max_failures": 1.0, **changes}
    formats = ("parquet", "webdataset")
    return RunConfig(
        source="ego4d",
        input=str(folder / "in"),
        output=str(folder / "out"),
        sample=options,
        format=formats,
        **given,
    )


@pytest.fixture(scope="module")
def finished(clone_input, tmp_path_factory):
    """An input and what a run made of it, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    clone_input(folder / "in", NAMES)
    align.run(configured(folder))
    return folder


@pytest.fixture
def place(finished, tmp_path):
    shutil.copytree(finished / "in", tmp_path / "in")
    shutil.copytree(finished / "out", tmp_path / "out")
    return tmp_path


# -- Whole commands --------------------------------------------------------------------------------------


def damaged(place):
    shard = min((place / "out/data").glob("train-*.parquet"))
    shard.write_bytes(b"?")


def shorter(place):
    """A recording whose video got so short that the number of shards changes."""
    (place / "in/v2/full_scale/b.mp4").write_bytes(b"broken")


COMMANDS = {
    "resume": (damaged, lambda c: align.run(c.but(resume=True))),
    "resume of an unfinished run": (
        lambda place: (place / "out/manifest.json").unlink(),
        lambda c: align.run(c.but(resume=True)),
    ),
    "already complete": (lambda place: None, lambda c: align.run(c.but(resume=True))),
    "retry, other shards": (shorter, lambda c: align.run(c.but(resume=True, retry_failed=True))),
    "clean": (lambda place: None, lambda c: clean(c.outputs.output)),
    "overwrite": (lambda place: None, lambda c: align.run(c.but(overwrite=True, seed=3))),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_foreign_files_and_a_nested_data_set_survive_every_command(place, finished, command):
    prepare, act = COMMANDS[command]
    out = place / "out"
    names = [n for n in FOREIGN if command != "overwrite" or not has_our_form(n)]
    shutil.copytree(finished / "out", out / "v2")
    nested = {f"v2/{name}": data for name, data in tree(finished / "out").items()}
    mine = {**nested, **put(out, [n for n in names if n not in nested])}
    prepare(place)
    act(configured(place))
    left = tree(out)
    assert {name: left.get(name) for name in mine} == mine
    listed = {
        f["path"]
        for kind in ("shards", "index", "files")
        for f in read_json(local(out), "manifest.json")[kind]
    }
    work = {name for name in left if name.startswith("_work/")}
    assert left.keys() - mine.keys() == listed | {"manifest.json"} | (work - mine.keys())
    assert not [p for p in verify(str(out / "v2")).problems if p.code != "leftover"]


def test_after_a_retry_with_other_shards_nothing_of_the_former_ones_is_left(place):
    before = set(tree(place / "out"))
    shorter(place)
    config = configured(place, resume=True, retry_failed=True)
    align.run(config)
    align.run(config.but(resume=False, retry_failed=False, output=str(place / "clean")))
    assert tree(place / "out") == tree(place / "clean")
    assert before - set(tree(place / "out"))


# -- Any foreign files, the steps that remove ------------------------------------------------------------

_PART = st.sampled_from(
    ["data", "webdataset", "index", "_work", "reports", "v2", ".nv-meta", "a b", "é", "train-000000.tar.d"]
)
_FILE = st.one_of(
    st.sampled_from(["x.parquet", "x.tar", "x.idx", "x.wids.json", ".x", f".x.parquet.{TEMP}", ".lock.tmp"]),
    st.from_regex(r"[a-z]{1,5}-[0-9]{5}-of-[0-9]{5}\.(parquet|json)", fullmatch=True),
    st.from_regex(r"[a-z]{1,5}-[0-9]{6}\.(tar|idx)", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
        lambda s: s not in (".", "..") and len(s.encode()) < 200
    ),
)  # fmt: skip
_PLACES = st.tuples(st.lists(_PART, max_size=3), _FILE).map(lambda t: "/".join([*t[0], t[1]]))

STEPS = {
    "clean": lambda config, inputs: clean(config.outputs.output),
    "resume": lambda config, inputs: begin(config.but(resume=True), inputs),
    "retry": lambda config, inputs: begin(config.but(resume=True, retry_failed=True), inputs),
    "overwrite": lambda config, inputs: begin(config.but(overwrite=True), inputs),
    "after the commit": lambda config, inputs: keep_for_later(local(config.outputs.output), set()),
    "before the manifest": lambda config, inputs: [
        local(config.outputs.output).remove(name) for name in former(local(config.outputs.output), (), ())
    ],
}


def test_no_step_removes_what_no_list_of_ours_names(finished, tmp_path_factory):
    inputs, ours = look_at_inputs(configured(finished)), tree(finished / "out")

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sets(_PLACES, max_size=6), st.sampled_from(sorted(STEPS)))
    def check(names, step):
        folder = tmp_path_factory.mktemp("any")
        shutil.copytree(finished / "out", folder / "out")
        taken, mine = set(ours), {}
        for name in sorted(names):
            parents = {"/".join(name.split("/")[:i]) for i in range(1, name.count("/") + 1)}
            inside = any(other.startswith(f"{name}/") for other in taken)
            temporary = our_leftovers([name]) or (name.startswith("_work/") and has_our_form(name))
            if name not in taken and not parents & taken and not inside and not temporary:
                taken.add(name)
                mine |= put(folder / "out", [name])
        STEPS[step](configured(folder), inputs)
        left = tree(folder / "out")
        assert {name: left.get(name) for name in mine} == mine
        shutil.rmtree(folder)

    check()


def test_lists_that_were_made_up_name_nothing_outside_our_places(finished, tmp_path):
    shutil.copytree(finished / "out", tmp_path / "out")
    store = local(tmp_path / "out")
    bad = ["../secret", "/etc/passwd", "data/../../secret", "notes.txt", "v2/manifest.json", "data/x.parquet"]
    mine = put(tmp_path / "out", ["notes.txt", "v2/manifest.json", "data/x.parquet"])
    (tmp_path / "secret").write_text("secret")
    remember(store, bad)
    publish_json(store, "_work/reports/train-00000-of-00009.json", {"files": [{"path": p} for p in bad]})
    manifest = read_json(store, "manifest.json")
    publish_json(store, "manifest.json", manifest | {"index": [{"path": p} for p in bad]})
    assert not owned(store, [*store.names(), *bad]) & set(bad)
    remove_data_set(store)
    assert (tmp_path / "secret").read_text() == "secret"
    assert tree(tmp_path / "out").items() >= mine.items()


def test_index_names_are_those_that_are_written(finished, tmp_path):
    shutil.copytree(finished / "out", tmp_path / "out")
    store = local(tmp_path / "out")
    before = set(store.names())
    add_index(store)
    write_loader_indexes(store)
    shards = read_json(store, "manifest.json")["shards"]
    written = (set(store.names()) - before) | {n for n in before if n.startswith("index/")}
    assert set(index_names(shards, {"balance", *KINDS})) == written
    assert all(map(has_our_form, set(store.names())))


# -- Links -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FOLDERS, "manifest.json", "_work/run.json", "_work/lock"])
@pytest.mark.parametrize("act", ["run", "resume", "overwrite", "clean"])
def test_a_link_in_the_place_of_a_file_or_folder_of_ours_is_refused_before_any_work(place, name, act):
    out, elsewhere = place / "out", place / "elsewhere"
    if act == "run":
        shutil.rmtree(out)
        out.mkdir()
    if (out / name).exists():
        shutil.move(out / name, elsewhere)
    elif "." in name or "lock" in name:
        elsewhere.write_text("mine")
    else:
        elsewhere.mkdir()
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).symlink_to(elsewhere)
    before = tree(place)
    config = configured(place, **({act: True} if act in ("resume", "overwrite") else {}))
    with pytest.raises(UsageError, match=rf"out/{name} is a link"):
        clean(config.outputs.output) if act == "clean" else align.run(config)
    assert tree(place) == before


def test_the_output_itself_may_be_a_link_to_another_disk(place, finished):
    shutil.rmtree(place / "out")
    (place / "disk").mkdir()
    (place / "out").symlink_to(place / "disk")
    align.run(configured(place))
    assert tree(place / "disk") == tree(finished / "out")
    assert align.run(configured(place, resume=True)).already


# -- Overwrite -------------------------------------------------------------------------------------------


def test_overwrite_replaces_a_data_set_and_ends_as_a_clean_run(place):
    mine = put(place / "out", ["notes.txt", "data/notes.parquet", "v3/x.tar"])
    config = configured(place, overwrite=True, seed=1)
    align.run(config)
    align.run(config.but(overwrite=False, output=str(place / "clean")))
    assert tree(place / "out") == {**tree(place / "clean"), **mine}


def test_overwrite_begins_a_new_or_empty_output_too(finished, tmp_path):
    shutil.copytree(finished / "in", tmp_path / "in")
    align.run(configured(tmp_path, overwrite=True))
    assert tree(tmp_path / "out") == tree(finished / "out")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"notes.txt": b"mine"}, "holds no data set of align's"),
        ({"manifest.json": b'{"name": "my web app"}'}, "holds no data set of align's"),
        ({"data/train-00000-of-00001.parquet": b"mine"}, "holds no data set of align's"),
    ],
)
def test_overwrite_refuses_a_folder_of_other_files(finished, tmp_path, content, said):
    for name, data in content.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True)
        (tmp_path / "out" / name).write_bytes(data)
    config = configured(finished).but(output=str(tmp_path / "out"), overwrite=True)
    with pytest.raises(UsageError, match=said):
        align.run(config)
    assert tree(tmp_path / "out") == content


@pytest.mark.parametrize("name", ["data/train-00000-of-00099.parquet", "webdataset/train-000099.tar"])
def test_overwrite_refuses_foreign_files_in_its_way_and_touches_nothing(place, name):
    put(place / "out", [name])
    before = tree(place / "out")
    with pytest.raises(UsageError, match=f"{name}.*is not of the data set there"):
        align.run(configured(place, overwrite=True))
    assert tree(place / "out") == before


IN_THE_WAY = [
    *("README.md", "stats.json", "failures.jsonl", "manifest.json", "webdataset/README.md"),
    *("webdataset/.nv-meta/split.yaml", "webdataset/train-000000.tar.idx", "index/{first}"),
]


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_going_on_refuses_a_users_file_that_the_commit_would_replace(place, finished, tmp_path, name):
    unfinished, files = tmp_path / "unfinished", tree(finished / "out")
    first = min(n for n in files if n.startswith("data/")).removeprefix("data/")
    for path in (n for n in files if n.startswith(("data/", "webdataset/t", "_work/reports/"))):
        (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / path).write_bytes(files[path])
    started = json.loads(files[STARTED])
    del started["committed"]
    (unfinished / STARTED).write_text(json.dumps(started))
    name = name.format(first=first)
    put(unfinished, [name])
    before = tree(unfinished)
    config = configured(place).but(output=str(unfinished), resume=True)
    with pytest.raises(UsageError, match=f"{name} is not of the run there"):
        align.run(config)
    assert tree(unfinished) == before
    (unfinished / name).unlink()
    align.run(config)
    assert tree(unfinished) == files


def test_a_users_file_that_came_while_the_run_went_on_stops_the_commit(place, finished, monkeypatch):
    def begun(*given):
        begin(*given)
        put(place / "new", ["stats.json"])

    monkeypatch.setattr(running, "begin", begun)
    config = configured(place).but(output=str(place / "new"))
    with pytest.raises(AlignError, match=r"stats\.json is not of this run") as caught:
        align.run(config)
    assert caught.value.code == "foreign_file"
    assert (place / "new/stats.json").read_bytes() == b"mine: stats.json"
    (place / "new/stats.json").unlink()
    monkeypatch.undo()
    align.run(config.but(resume=True))
    assert tree(place / "new") == tree(finished / "out")


def test_overwrite_refuses_while_a_run_is_writing(place):
    before = tree(place / "out")
    store = local(place / "out")
    with locked(store, "OUT", lambda _: None), pytest.raises(UsageError, match="another run is writing"):
        align.run(configured(place, overwrite=True))
    assert tree(place / "out") == before


@pytest.mark.parametrize("other", ["resume", "retry_failed"])
def test_overwrite_and_going_on_exclude_each_other(place, other):
    with pytest.raises(UsageError, match="choose one"):
        configured(place, overwrite=True, **{other: True})


class Killed(BaseException):
    """Ends a run between two of its steps."""


@pytest.mark.parametrize("step", [0, 1, 2, 5, 11])
@pytest.mark.parametrize("then", ["overwrite", "resume"])
def test_a_removal_that_was_killed_is_gone_on_with(place, finished, monkeypatch, step, then):
    config, left = configured(place, overwrite=True), [step]
    inputs = look_at_inputs(config)
    mine = put(place / "out", ["notes.txt", "data/notes.parquet"])

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
            begin(config, inputs)
    if step > 1:
        assert not (place / "out/manifest.json").exists()
    align.run(config.but(overwrite=then == "overwrite", resume=then == "resume"))
    assert tree(place / "out") == {**tree(finished / "out"), **mine}


def test_an_interrupted_overwrite_still_knows_its_files(place):
    store = local(place / "out")
    before = owned(store, store.names())
    remember(store, before)
    (place / "out/manifest.json").unlink()
    shutil.rmtree(place / "out/_work/reports")
    assert {*json.loads((place / "out" / LEDGER).read_text())["names"]} == before
    now = owned(store, store.names())
    assert now - {LEDGER} == {n for n in before if not n.startswith("_work/reports") and n != "manifest.json"}
    assert {STARTED, LEDGER} <= now
    assert LOCK not in now
