"""A finished data set as a reader sees it: what the manifest lists, wherever it lies."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.fs
import pyarrow.parquet as pq

from align.schemas.errors import UsageError
from align.schemas.features import SCHEMA_VERSION

_BUFFER = 1 << 18


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

    def stats(self) -> Mapping[str, Any]:
        """Content of ``stats.json``."""
        with self.files.open_input_stream(f"{self.root}/stats.json") as stream:
            found: Mapping[str, Any] = json.loads(stream.read())
        return found

    def parquet(self, path: str) -> pq.ParquetFile:
        """Open a Parquet file of the data set. Close it after use."""
        local = isinstance(self.files, pyarrow.fs.LocalFileSystem)
        return pq.ParquetFile(
            f"{self.root}/{path}",
            filesystem=self.files,
            pre_buffer=not local,
            buffer_size=_BUFFER if local else 0,
        )

    def table(self, path: str, columns: Sequence[str]) -> Any:
        """Some columns of a small Parquet file."""
        with pq.ParquetFile(
            f"{self.root}/{path}", filesystem=self.files
        ) as parquet:  # read_table loads pandas
            return parquet.read(columns=list(columns), use_threads=False)


def open_committed(out: str | os.PathLike[str]) -> Committed:
    """Open a data set by folder, ``gs://`` or ``s3://`` URI.

    Raises:
        UsageError: there is no manifest, or it is of a version that this code does not know.
    """
    out = os.fspath(out)
    files, root = _locate(out)
    try:
        with files.open_input_stream(f"{root}/manifest.json") as stream:
            manifest = json.loads(stream.read())
    except FileNotFoundError:
        detail = f"{out} has no manifest.json; name the output folder of a finished align run"
        raise UsageError(detail) from None
    if manifest["schema_version"] != SCHEMA_VERSION:
        detail = (
            f"{out} has schema version {manifest['schema_version']}, this is {SCHEMA_VERSION}: update align"
        )
        raise UsageError(detail)
    return Committed(root, manifest, files)


def _locate(out: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", out):
        files, root = pyarrow.fs.FileSystem.from_uri(out)
        return files, root.rstrip("/")
    return pyarrow.fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(out))
