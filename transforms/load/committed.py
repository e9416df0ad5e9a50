"""A finished data set as a reader sees it: what the manifest lists, wherever it lies."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.fs
import pyarrow.parquet as pq

from align.schemas.errors import AlignError, UsageError
from align.schemas.manifest import check_manifest, check_places, check_stats
from align.transforms.check.described import versioned
from align.transforms.formats.parquet_footer import check_footer
from align.transforms.store.bounded import MOST_BYTES, parse_bounded
from align.transforms.store.places import open_listed, split_place

_BUFFER = 1 << 18
_ROWS, _MOST_BYTES = 64, 16 << 20


@dataclass(frozen=True, slots=True)
class Committed:
    """A data set with a manifest.

    Attributes:
        root: its folder, as the file system names it.
        manifest: content of ``manifest.json``.
        files: local, or a bucket's, as pyarrow reaches them; travels to loader workers.
    """

    root: str
    manifest: Mapping[str, Any]
    files: pyarrow.fs.FileSystem

    @property
    def options(self) -> Mapping[str, Any]:
        """The ``AlignOptions`` it was written with."""
        config: Mapping[str, Any] = self.manifest["config"]
        return config

    def shards(self, split: str) -> list[Mapping[str, Any]]:
        """The Parquet shards of a split, as the manifest lists them.

        Raises:
            UsageError: there is no such split, or there are only tar files.
        """
        found = [s for s in self.manifest["shards"] if s["split"] == split]
        if not found:
            names = sorted({s["split"] for s in self.manifest["shards"]}) or ["none"]
            raise UsageError(f"{self.root} has no split {split!r}; it has {', '.join(names)}")
        parquet = [s for s in found if s["format"] == "parquet"]
        if not parquet:
            detail = (
                f"{self.root} holds tar files only; read them with webdataset, or run with --format parquet"
            )
            raise UsageError(detail)
        return parquet

    def indexes(self) -> dict[str, Mapping[str, Any]]:
        """Path of a shard -> its entry in the manifest's ``index``; empty where none was made."""
        return {entry["shard"]: entry for entry in self.manifest.get("index", ())}

    def samples(self) -> dict[str, int]:
        """Path of a shard -> its rows, as the manifest says."""
        return {shard["path"]: shard["samples"] for shard in self.manifest["shards"]}

    def stats(self) -> Mapping[str, Any]:
        """Content of ``stats.json``."""
        return check_stats(_json(self.files, self.root, "stats.json"))

    def parquet(self, path: str, samples: int) -> pq.ParquetFile:
        """Open a Parquet file of the data set that is to hold so many rows. Close it after use.

        Raises:
            AlignError: ``bad_path``, it is a link or no file; ``bad_shard``, it is no Parquet file of ours.
        """
        local = isinstance(self.files, pyarrow.fs.LocalFileSystem)
        stream = _open(self.files, self.root, path)
        try:
            check_footer(stream, samples)
            return pq.ParquetFile(stream, pre_buffer=not local, buffer_size=_BUFFER if local else 0)
        except BaseException:
            stream.close()
            raise

    def table(self, path: str, columns: Sequence[str], samples: int) -> dict[str, list[Any]]:
        """Some columns of a small Parquet file of so many rows, each a list.

        Raises:
            AlignError: ``bad_shard``, it is another, or one row takes megabytes.
        """
        found: dict[str, list[Any]] = {name: [] for name in columns}
        with self.parquet(path, samples) as parquet:  # read_table loads pandas
            for batch in parquet.iter_batches(_ROWS, columns=list(columns), use_threads=False):
                if batch.nbytes > _MOST_BYTES:
                    raise AlignError(
                        "bad_shard", f"{path} unfolds to more than an index holds", stage="verify"
                    )
                for name in columns:
                    found[name] += batch.column(name).to_pylist()
        return found


def open_committed(out: str | os.PathLike[str]) -> Committed:
    """Open a data set by folder, ``gs://`` or ``s3://`` URI.

    Raises:
        UsageError: there is no manifest, or it is of a version that this code does not know.
        AlignError: ``bad_manifest``, ``bad_path``, ``bad_json``: not a data set of ours.
    """
    out = os.fspath(out)
    files, root = _locate(out)
    try:
        manifest = check_manifest(versioned(_json(files, root, "manifest.json")))
    except FileNotFoundError:
        detail = f"{out} has no manifest.json; name the output folder of a finished align run"
        raise UsageError(detail) from None
    check_places(manifest)
    return Committed(root, manifest, files)


def _locate(out: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", out):
        files, root = pyarrow.fs.FileSystem.from_uri(out)
        return files, root.rstrip("/")
    return pyarrow.fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(out))


def _open(files: pyarrow.fs.FileSystem, root: str, path: str) -> Any:
    """A listed file, open for reading at any place; no link below the root is followed."""
    if isinstance(files, pyarrow.fs.LocalFileSystem):
        return open_listed(root, path)
    return files.open_input_file("/".join((root, *split_place(path))))


def _json(files: pyarrow.fs.FileSystem, root: str, path: str) -> Any:
    with _open(files, root, path) as stream:
        return parse_bounded(stream.read(MOST_BYTES + 1), path)
