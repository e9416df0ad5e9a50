"""Where outputs go: a local folder, or a bucket through Beam's file systems."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, cast

from align.pipeline.storage.files import (
    RemoteFile,
    absolute,
    as_os_error,
    file_systems,
    is_remote,
    join,
    open_binary,
)
from align.transforms.store.places import split_place
from align.transforms.store.publish import Store, local


def store(root: str) -> Store:
    """The store of an output folder or bucket prefix."""
    return cast(Store, BeamStore(root.rstrip("/"))) if is_remote(root) else local(absolute(root))


@dataclass(frozen=True, slots=True)
class BeamStore:
    """A prefix of an object store. See :class:`align.transforms.store.publish.Store`."""

    root: str

    def create(self, path: str) -> IO[bytes]:
        """Open for writing; the object appears when the stream is closed."""
        return cast(IO[bytes], RemoteFile.create(self._full(path)))

    def seal(self, stream: IO[bytes]) -> None:
        """Close: an object store has what was closed without an error."""
        stream.close()

    def rename(self, source: str, target: str) -> None:
        """Copy and delete; a repeated rename finds its work done."""
        full_source, full_target = self._full(source), self._full(target)
        with as_os_error():
            try:
                file_systems().rename([full_source], [full_target])
            except OSError:
                if file_systems().exists(full_source) or not file_systems().exists(full_target):
                    raise

    def open(self, path: str) -> IO[bytes]:
        """Open for reading."""
        full = self._full(path)
        with as_os_error():
            if not file_systems().exists(full):  # Google's tells only at the first read
                raise FileNotFoundError(errno.ENOENT, "not there", full)
            return open_binary(full)

    def remove(self, path: str) -> None:
        """Delete; what is not there is no error."""
        with suppress(OSError):
            file_systems().delete([self._full(path)])

    def names(self) -> Iterator[str]:
        """Every object under the prefix, sorted."""
        with as_os_error():
            found = file_systems().match([f"{self.root}/**"])[0].metadata_list
        return iter(sorted(meta.path[len(self.root) + 1 :] for meta in found))

    def _full(self, path: str) -> str:
        return join(self.root, *split_place(path))
