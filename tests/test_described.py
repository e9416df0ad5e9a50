"""The manifest describes every file beside the shards, its configuration, and the libraries that made it."""

import hashlib
import json
import shutil

import pytest
from click.testing import CliRunner

import align
from align.pipeline.cli.main import align as command
from align.pipeline.config import RunConfig
from align.pipeline.job import resume
from align.schemas.errors import UsageError
from align.schemas.options import AlignOptions
from align.transforms.check.verify import verify
from align.transforms.write import versions
from align.transforms.write.versions import library_versions

DESCRIBED = ("README.md", "failures.jsonl", "stats.json", "webdataset/README.md")


def tree(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


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
    folder = tmp_path_factory.mktemp("finished")
    clone_input(folder / "in", ("a", "b"))
    align.run(configured(folder))
    return folder


@pytest.fixture
def out(finished, tmp_path):
    shutil.copytree(finished / "out", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def config(finished, out):
    return configured(finished).but(output=str(out))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def problems(out):
    return {(p.path, p.code) for p in verify(str(out)).problems}


def test_every_file_of_a_data_set_stands_in_the_manifest_with_size_and_checksum(out):
    manifest = json.loads((out / "manifest.json").read_text())
    listed = [f for kind in ("shards", "index", "files") for f in manifest[kind]]
    found = {n: d for n, d in tree(out).items() if not n.startswith("_work/") and n != "manifest.json"}
    assert {f["path"]: (f["bytes"], f["sha256"]) for f in listed} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in found.items()
    }
    assert [f["path"] for f in manifest["files"]] == list(DESCRIBED)
    assert not problems(out)


@pytest.mark.parametrize("name", DESCRIBED)
@pytest.mark.parametrize("how", ["replaced", "removed", "not listed"])
def test_a_described_file_that_is_not_what_the_manifest_says_is_found_and_mended(out, config, name, how):
    whole = tree(out)
    if how == "not listed":
        edit(out / "manifest.json", lambda m: m.update(files=[f for f in m["files"] if f["path"] != name]))
        assert ("manifest.json", "not_listed") in problems(out)
    elif how == "replaced":
        data = (out / name).read_bytes()
        (out / name).write_bytes(data[:-1] + b"?" if data else b"?")
        assert (name, "checksum" if data else "size") in problems(out)
    else:
        (out / name).unlink()
        assert (name, "no_file") in problems(out)
    if name == "README.md":
        align.run(config.but(resume=True))
        assert tree(out) == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["config"].update(jpeg_quality=91),
        lambda m: m["config"].pop("min_coverage"),
        lambda m: m.update(config_sha256="0" * 64),
        lambda m: m["config_sha256_of"].pop(),
        lambda m: m.update(source="another"),
        lambda m: m["config"].update(source="another"),
        lambda m: m.update(align_version="9.9"),
        lambda m: m["versions"].update(align="9.9"),
        lambda m: m["versions"].update(numpy="9.9"),
        lambda m: m["versions"].pop("ffmpeg"),
        lambda m: m["config"].update(seed=99),
        lambda m: m.pop("provenance_sha256"),
    ],
)
def test_a_configuration_that_was_altered_is_found_without_another_file(out, change):
    edit(out / "manifest.json", change)
    assert {code for _, code in problems(out)} & {"config", "bad_manifest"}


def test_the_digest_of_the_configuration_can_be_made_from_the_manifest_alone(out):
    manifest = json.loads((out / "manifest.json").read_text())
    named = {name: manifest["config"][name] for name in manifest["config_sha256_of"]}
    text = json.dumps(named, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == manifest["config_sha256"]
    assert {"window_ns", "image_size", "source"} <= named.keys()
    assert not {"seed", "formats", "shard_size"} & named.keys()


@pytest.mark.parametrize("path", ["../secret", "data/train-00000-of-00001.parquet", "_work/run.json"])
def test_only_what_describes_the_data_set_may_stand_among_the_files(out, path):
    edit(out / "manifest.json", lambda m: m["files"].append({"path": path, "bytes": 1, "sha256": "0" * 64}))
    assert ("manifest.json", "bad_path") in problems(out)


def test_an_index_made_later_leaves_a_data_set_that_holds(out):
    ran = CliRunner().invoke(command, ["index", str(out), "--loaders", "wids"])
    assert ran.exit_code == 0, ran.output
    assert "wids" in (out / "README.md").read_text()
    assert not problems(out)


# -- Versions --------------------------------------------------------------------------------------------


def test_the_libraries_stand_in_manifest_and_run_by_version(out):
    import av
    import cv2
    import numpy

    said = json.loads((out / "manifest.json").read_text())["versions"]
    assert said == json.loads((out / "_work/run.json").read_text())["versions"] == library_versions()
    assert said["av"] == av.__version__
    assert said["numpy"] == numpy.__version__
    assert said["ffmpeg"] == av.ffmpeg_version_info
    assert said["opencv"].startswith(cv2.__version__)
    assert {"align", "apache-beam", "libsndfile", "pyarrow", "scipy", "soundfile"} <= said.keys()
    assert "unknown" not in said.values()


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("retry", [True, False])
def test_going_on_with_other_libraries_is_refused_and_both_versions_are_named(
    out, config, monkeypatch, committed, retry
):
    if not committed:
        (out / "manifest.json").unlink()
    before = tree(out)
    now = library_versions()
    monkeypatch.setattr(resume, "library_versions", lambda: {**now, "av": "99.1"})
    with pytest.raises(UsageError, match=f"av {now['av']} then, 99.1 now.*--overwrite"):
        align.run(config.but(resume=True, retry_failed=retry))
    assert tree(out) == before


def test_a_shard_of_other_libraries_is_not_kept(out, config, monkeypatch):
    """Where the refusal is got round, the fingerprint still tells."""
    other = {**library_versions(), "numpy": "0.1"}
    for module in ("resume", "complete", "shards"):
        monkeypatch.setattr(f"align.pipeline.job.{module}.library_versions", lambda: other)
    edit(out / "_work/run.json", lambda run: run.update(versions=other))
    old = {p.name: json.loads(p.read_text())["fingerprint"] for p in (out / "_work/reports").iterdir()}
    align.run(config.but(resume=True))
    new = {p.name: json.loads(p.read_text())["fingerprint"] for p in (out / "_work/reports").iterdir()}
    assert old.keys() == new.keys()
    assert not set(old.values()) & set(new.values())


def test_a_library_that_is_not_installed_is_unknown_not_an_error(monkeypatch):
    monkeypatch.setattr(versions, "_PACKAGES", {"x": ("no-such-package",)})
    assert versions._found.__wrapped__()["x"] == "unknown"
