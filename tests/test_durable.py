"""What has a final name is on the disk: written, synced, renamed, its folder synced, in this order."""

import os
import stat

import pytest

import align
from align.pipeline.config import RunConfig
from align.schemas.options import AlignOptions
from align.transforms.store.publish import local, publish, publish_bytes


@pytest.fixture
def calls(monkeypatch):
    """Every sync: file or folder, inode, size. Every rename: inode, size, new name, inode of its folder."""
    made = []
    real_sync, real_replace, real_rename = os.fsync, os.replace, os.rename

    def fsync(number):
        found = os.fstat(number)
        made.append(("folder" if stat.S_ISDIR(found.st_mode) else "file", found.st_ino, found.st_size))
        real_sync(number)

    def renaming(real):
        def rename(source, target, **where):
            found = os.stat(source, dir_fd=where.get("src_dir_fd"))
            real(source, target, **where)
            folder = where.get("dst_dir_fd") or os.path.dirname(os.fspath(target))
            made.append(
                ("rename", found.st_ino, found.st_size, os.path.basename(target), os.stat(folder).st_ino)
            )

        return rename

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renaming(real_replace))
    monkeypatch.setattr(os, "rename", renaming(real_rename))
    return made


def durable(calls, wanted):
    """Those of the names that were given to a file synced at its full size, their folder synced next."""
    names = set()
    for i, call in enumerate(calls):
        if call[0] != "rename" or call[3] not in wanted:
            continue
        _, inode, size, name, folder = call
        synced = ("file", inode, size) in calls[:i]
        noted = any(c[:2] == ("folder", folder) for c in calls[i + 1 : i + 2])
        assert synced, f"{name} got its name before its bytes were synced"
        assert noted, f"{name} got its name, but the folder was not synced"
        names.add(name)
    return names


def test_a_published_file_is_synced_before_it_has_its_name_and_its_folder_after(tmp_path, calls):
    publish_bytes(local(tmp_path), "data/x", b"some bytes")
    kinds = [call[0] for call in calls]
    assert kinds == ["file", "rename", "folder"]
    assert durable(calls, {"x"}) == {"x"}


def test_all_that_was_written_is_synced(tmp_path, calls):
    """Not only what had left the buffers."""
    with publish(local(tmp_path), "x") as publication:
        for _ in range(1000):
            publication.stream.write(b"0123456789")
    assert calls[0][2] == 10_000


def test_every_file_of_a_run_is_durable_and_the_manifest_is_after_all_it_lists(clone_input, tmp_path, calls):
    clone_input(tmp_path / "in", ("a", "b"))
    options = AlignOptions(window=1, stride=1)
    formats = ("parquet", "webdataset")
    config = RunConfig(
        source="ego4d",
        input=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        sample=options,
        format=formats,
        workers=1,
    )
    align.run(config.but(shard_size=100_000, isolate=False))
    out = tmp_path / "out"
    files = {p.name for p in out.rglob("*") if p.is_file()}
    assert durable(calls, files) == files
    order = [call[3] for call in calls if call[0] == "rename" and call[3] in files]
    manifest = order.index("manifest.json")
    listed = {p.name for p in out.rglob("*") if p.is_file() and "_work" not in p.parts} - {"manifest.json"}
    assert listed <= set(order[:manifest])
    assert set(order[manifest + 1 :]) == {"run.json"}
    for shard in out.glob("data/*.parquet"):
        assert order.index(f"{shard.stem}.json") < order.index(shard.name)
