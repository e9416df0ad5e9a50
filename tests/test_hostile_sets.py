"""A finished data set by a stranger: no name, link, size or header in it is trusted."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from align.schemas.errors import AlignError, UsageError
from align.schemas.time import NS
from align.transforms.check.verify import verify
from align.transforms.index.balance import add_index
from align.transforms.index.loaders import write_loader_indexes
from align.transforms.load.committed import open_committed
from align.transforms.store.publish import local

COMMANDS = (("verify",), ("verify", "--deep"), ("index",), ("index", "--loaders", "energon,dali,wids"))
LOOKS = (*COMMANDS, ("stats",), ("inspect",))


@pytest.fixture
def out(make_sample, write_dataset):
    return write_dataset([make_sample(i) for i in range(4)], shards=1)


def edit(out, change, name="manifest.json"):
    path = out / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def relist(out, path, **also):
    """List a file as it now is, so that its checksum holds."""
    data = (out / path).read_bytes()

    def change(manifest):
        (entry,) = (s for s in manifest["shards"] if s["path"] == path)
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), **also)

    edit(out, change)


def tree(folder):
    """Every file and link below a folder, with its content."""
    return {
        p.relative_to(folder).as_posix(): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_symlink() or p.is_file()
    }


SHARD = "data/train-00000-of-00001.parquet"
ALIGN = (sys.executable, "-P", "-m", "align.pipeline.cli")
MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"MEASURED {used.ru_maxrss >> 10} {used.ru_utime + used.ru_stime}", file=sys.stderr)
sys.exit(done.returncode)
"""


def command(*words, timeout=120):
    """Carry out a command: exit code, output, and messages; its peak memory must stay under 1 GB."""
    ran = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            MEASURED,
            sys.executable,
            "-P",
            "-m",
            "align.pipeline.cli",
            *map(str, words),
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    told, _, measured = ran.stderr.rpartition("MEASURED ")
    megabytes, seconds = measured.split()
    assert int(megabytes) < 1000
    assert float(seconds) < 60
    assert "defect of align" not in told
    assert "Traceback" not in told
    return ran.returncode, ran.stdout, told


PATHS = {
    "absolute": "/etc/passwd",
    "parent": "../secret.parquet",
    "parent inside": "data/../../secret.parquet",
    "parent at the end": "data/..",
    "nul": "data/train-00000-of-00001.parquet\0",
    "backslash": "data\\train-00000-of-00001.parquet",
    "drive": "C:/train-00000-of-00001.parquet",
    "empty part": "data//train-00000-of-00001.parquet",
    "dot part": "data/./train-00000-of-00001.parquet",
    "case": "Data/train-00000-of-00001.parquet",
    "case of the end": "data/train-00000-of-00001.PARQUET",
    "another name": "data/x.parquet",
    "not in data": "x.parquet",
    "deeper": "data/l/train-00000-of-00001.parquet",
    "newline": "data/train-00000-of-00001.parquet\n",
    "uri": "http://127.0.0.1/train-00000-of-00001.parquet",
    "long": "data/" + "a" * 5000,
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_a_shard_listed_elsewhere_is_refused_by_all_who_read_it(out, path):
    edit(out, lambda m: m["shards"][0].update(path=path))
    before = tree(out.parent)
    assert {p.code for p in verify(str(out)).problems} & {"bad_path", "bad_manifest"}
    for reader in (add_index, write_loader_indexes):
        with pytest.raises(AlignError) as caught:
            reader(local(out))
        assert caught.value.code in ("bad_path", "bad_manifest")
    with pytest.raises(AlignError) as caught:
        open_committed(out)
    assert caught.value.code in ("bad_path", "bad_manifest")
    assert tree(out.parent) == before


def test_a_shard_listed_twice_is_refused(out):
    edit(out, lambda m: m["shards"].append(m["shards"][0]))
    assert "bad_path" in {p.code for p in verify(str(out)).problems}
    with pytest.raises(AlignError, match="twice"):
        add_index(local(out))


def test_a_tar_listed_as_parquet_is_not_replaced_by_its_index(out):
    edit(out, lambda m: m["shards"][1].update(format="parquet"))
    before = tree(out)
    with pytest.raises(AlignError, match="contradicts"):
        add_index(local(out))
    assert tree(out) == before


@pytest.mark.parametrize("place", ["index/../../x.parquet", "data/train-00000-of-00001.parquet", "/tmp/x"])
@pytest.mark.parametrize("kind", ["index", "loader_index"])
def test_an_index_listed_elsewhere_is_refused(out, kind, place):
    add_index(local(out))
    write_loader_indexes(local(out), ("dali",))
    edit(out, lambda m: m[kind][0].update(path=place))
    assert "bad_path" in {p.code for p in verify(str(out)).problems}
    if kind == "index":
        with pytest.raises(AlignError):
            open_committed(out)


def links(out):
    """Folders and files that are replaced by links to what lies outside."""
    outside = out.parent / "outside"
    outside.mkdir()
    yield "data", outside / "data"
    yield "index", outside / "index"
    yield "webdataset", outside / "webdataset"
    yield "data/train-00000-of-00001.parquet", outside / "shard"


@pytest.mark.parametrize("number", range(4))
def test_a_link_on_the_way_is_followed_neither_to_read_nor_to_write(out, number):
    add_index(local(out))
    place, target = list(links(out))[number]
    os.rename(out / place, target)
    os.symlink(target, out / place)
    before = tree(out.parent)
    problems = {p.code for p in verify(str(out)).problems}
    assert "bad_path" in problems
    if place != "webdataset":
        with pytest.raises(AlignError, match="link") as caught:
            add_index(local(out))
        assert caught.value.code == "bad_path"
    else:
        with pytest.raises(AlignError, match="link"):
            write_loader_indexes(local(out), ("dali",))
    assert tree(out.parent) == before


@pytest.mark.parametrize(
    "name", ["manifest.json", "stats.json", "failures.jsonl", "data/train-00000-of-00001.parquet"]
)
@pytest.mark.parametrize("special", ["fifo", "folder", "link"])
def test_what_is_no_regular_file_is_refused_and_never_waited_for(out, name, special):
    (out / name).rename(out.parent / "was")
    if special == "fifo":
        os.mkfifo(out / name)
    elif special == "folder":
        (out / name).mkdir()
    else:
        (out / name).symlink_to("/dev/zero")
    problems = verify(str(out)).problems
    assert problems
    assert all("\n" not in str(p) for p in problems)


def test_the_root_itself_may_be_a_link(out):
    (out.parent / "named").symlink_to(out)
    assert verify(str(out.parent / "named")).ok
    add_index(local(out.parent / "named"))


FIELDS = {
    "shards no list": lambda m: m.update(shards={}),
    "shard no object": lambda m: m.update(shards=[7]),
    "bytes a float": lambda m: m["shards"][0].update(bytes=1.5),
    "bytes negative": lambda m: m["shards"][0].update(bytes=-1),
    "bytes true": lambda m: m["shards"][0].update(bytes=True),
    "samples huge": lambda m: m["shards"][0].update(samples=10**30),
    "samples a text": lambda m: m["shards"][0].update(samples="7"),
    "path null": lambda m: m["shards"][0].update(path=None),
    "path a list": lambda m: m["shards"][0].update(path=["data"]),
    "sha256 short": lambda m: m["shards"][0].update(sha256="00"),
    "format unknown": lambda m: m["shards"][0].update(format="pickle"),
    "config null": lambda m: m.update(config=None),
    "window of years": lambda m: m["config"].update(window_ns=10**18),
    "rate absurd": lambda m: m["config"].update(audio_rate=2**40),
    "rate a text": lambda m: m["config"].update(imu_rate="200"),
    "counts no object": lambda m: m.update(counts=[]),
    "skipped a list": lambda m: m["counts"].update(windows_skipped=[1]),
    "version a list": lambda m: m.update(schema_version=[1]),
    "splits absurd": lambda m: m.update(splits={"train": 7}),
    "balance absurd": lambda m: m.update(balance={"classes": 7}),
    "index absurd": lambda m: m.update(index=[{"path": 7}]),
    "no object": None,
}


@pytest.mark.parametrize("change", FIELDS.values(), ids=FIELDS.keys())
def test_a_manifest_of_wrong_types_is_one_line(out, change):
    if change:
        edit(out, change)
    else:
        (out / "manifest.json").write_text("[1, 2]")
    (problem,) = verify(str(out)).problems
    assert problem.code == "bad_manifest"
    assert "\n" not in str(problem)
    for reader in (open_committed, lambda o: add_index(local(o)), lambda o: write_loader_indexes(local(o))):
        with pytest.raises(AlignError) as caught:
            reader(out)
        assert caught.value.code == "bad_manifest"


BOMBS = {
    "nested": b"[" * 100_000,
    "nested and closed": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "many values": b"[" + b"[]," * 15_000_000 + b"1]",
    "many digits": b"[" + b"9" * 1_000_000 + b"]",
    "not a number": b'{"schema_version": NaN}',
    "not text": b"\xff\xfe\x00" * 100,
    "empty": b"",
    "null": b"null",
}


@pytest.mark.parametrize("name", ["manifest.json", "stats.json"])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_json_bombs_are_one_line(out, name, bomb):
    (out / name).write_bytes(bomb)
    problems = verify(str(out)).problems
    assert [p for p in problems if p.path == name]
    with pytest.raises((AlignError, UsageError)):
        open_committed(out).stats()


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_a_manifest_of_gigabytes_is_one_line_of_every_command(out, words):
    with (out / "manifest.json").open("r+b") as stream:
        stream.truncate(2 << 30)  # sparse: it takes no room
    name, *options = words
    code, shown, told = command(name, out, *options)
    assert code in (1, 2)
    assert len((shown + told).strip().splitlines()) <= 2
    assert "larger than 64 MB" in shown + told


STATS = {
    "splits a list": lambda s: s.update(splits=[]),
    "windows a text": lambda s: s["splits"]["train"].update(windows="many"),
    "no modalities": lambda s: s["splits"]["train"].update(modalities={}),
    "mean a list": lambda s: s["splits"]["train"]["normalisation"]["audio"].update(mean=[1]),
    "std negative": lambda s: s["splits"]["train"]["normalisation"]["audio"].update(std=-1),
    "patterns of texts": lambda s: s["splits"]["train"].update(patterns={"image": "x"}),
}


@pytest.mark.parametrize("change", STATS.values(), ids=STATS.keys())
def test_statistics_of_wrong_types_are_one_line(out, change):
    edit(out, change, "stats.json")
    assert "bad_stats" in {p.code for p in verify(str(out)).problems}
    with pytest.raises(AlignError) as caught:
        open_committed(out).stats()
    assert caught.value.code == "bad_stats"


@pytest.mark.parametrize(
    "line",
    [
        b"{" * 100_000,
        b"7\n",
        b"a" * (3 << 20),
        json.dumps({"recording_id": "a", "start_ns": None, "stage": "x", "code": [], "detail": ""}).encode(),
        b'{"recording_id":"a","start_ns":0,"stage":"x","code":"c","detail":"","outcome":"failed","windows":"9"}',
    ],
    ids=["nested", "no object", "long", "code a list", "windows a text"],
)
def test_absurd_failures_are_one_line(out, line):
    (out / "failures.jsonl").write_bytes(line)
    (problem,) = verify(str(out)).problems
    assert (problem.path, problem.code) == ("failures.jsonl", "bad_failures")


def test_a_window_of_another_length_costs_no_decoding(out):
    edit(out, lambda m: m["config"].update(window_ns=3600 * NS, audio_rate=192_000))
    assert "bad_audio" in {p.code for p in verify(str(out), deep=True).problems}


def test_a_healthy_set_passes_every_command(out):
    for words in (*COMMANDS, ("verify", "--deep"), ("stats",), ("inspect",)):
        name, *options = words
        assert command(name, out, *options)[0] == 0
