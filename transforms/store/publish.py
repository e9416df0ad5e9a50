"""The write protocol: a final name appears only when its bytes are whole, checked and on the disk.

temp name in the same folder -> write, hashing and counting -> sync -> rename -> (sync the folder).
Never a final name directly: on object stores an exception inside a writer publishes what came so far.
Everything goes through a :class:`Store`, so that a bucket can take the place of a folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, cast

from align.schemas.errors import AlignError
from align.transforms.store.places import create_inside, open_listed, remove_inside, rename_inside

_TEMP = re.compile(r"^\.(?P<name>.+)\.[0-9a-f]{16}\.tmp$")
_CHUNK = 1 << 20


class Sink(Protocol):
    """What a shard writer needs of a stream."""

    def write(self, data: Any, /) -> int:
        """Write all of ``data`` and return its length."""

    def tell(self) -> int:
        """Bytes written so far."""


class Store(Protocol):
    """Where an output lies. Paths are relative to its root, with ``/`` between the parts."""

    def create(self, path: str) -> IO[bytes]:
        """Open a new file for writing, making its folders; its ``write`` takes all it is given."""

    def seal(self, stream: IO[bytes]) -> None:
        """Close a stream of :meth:`create` so that its bytes survive a crash of the machine."""

    def rename(self, source: str, target: str) -> None:
        """Give ``source`` the name ``target``, replacing what bore it. Repeating it is harmless."""

    def open(self, path: str) -> IO[bytes]:
        """Open for reading.

        Raises:
            FileNotFoundError: there is no such file.
        """

    def remove(self, path: str) -> None:
        """Delete one file; one that is not there is no error."""

    def names(self) -> Iterator[str]:
        """Every file under the root, sorted."""


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder on this machine; no link inside it is followed, neither to read nor to write."""

    root: str

    def create(self, path: str) -> IO[bytes]:
        """See :class:`Store`."""
        return create_inside(self.root, path)

    def seal(self, stream: IO[bytes]) -> None:
        """Flush, fsync, close."""
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()

    def rename(self, source: str, target: str) -> None:
        """See :class:`Store`; the folder is synced too."""
        rename_inside(self.root, source, target)

    def open(self, path: str) -> IO[bytes]:
        """See :class:`Store`."""
        return open_listed(self.root, path)

    def remove(self, path: str) -> None:
        """See :class:`Store`."""
        remove_inside(self.root, path)

    def names(self) -> Iterator[str]:
        """See :class:`Store`."""
        root = Path(self.root)
        return iter(sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir()))


class HashingWriter(io.RawIOBase):
    """Passes bytes on while it counts and hashes them: the checksum costs no second reading."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._bytes = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any, /) -> int:
        """Write all of ``data``."""
        view = memoryview(data).cast("B")
        self._stream.write(view)
        self._hash.update(view)
        self._bytes += len(view)
        return len(view)

    def tell(self) -> int:
        """Bytes written so far."""
        return self._bytes

    @property
    def sha256(self) -> str:
        """Hex digest of what was written so far."""
        return self._hash.hexdigest()


@dataclass(slots=True)
class Publication:
    """A file in the making. ``bytes`` and ``sha256`` hold once it is published."""

    path: str
    stream: HashingWriter
    bytes: int = field(default=0)
    sha256: str = field(default="")


@contextmanager
def publish(store: Store, path: str) -> Iterator[Publication]:
    """Write a file under a temporary name; the final name appears when the block ends well.

    Raises:
        AlignError: ``write_failed``, the disk or bucket refused. Whatever else the block raises passes
            through. In either case no final name appears.
    """
    temp = temp_name(path)
    try:
        raw = store.create(temp)
        try:
            publication = Publication(path, HashingWriter(raw))
            yield publication
            store.seal(raw)
        finally:
            with suppress(OSError):
                raw.close()
        store.rename(temp, path)
    except BaseException as error:
        with suppress(OSError):
            store.remove(temp)
        if isinstance(error, OSError):
            detail = f"cannot write {path}: {error.strerror or error}; free space or rights, then --resume"
            raise AlignError("write_failed", detail, stage="write") from error
        raise
    publication.bytes = publication.stream.tell()
    publication.sha256 = publication.stream.sha256


def publish_bytes(store: Store, path: str, data: bytes) -> None:
    """Publish a small file."""
    with publish(store, path) as publication:
        publication.stream.write(data)


def publish_json(store: Store, path: str, value: object) -> None:
    """Publish a value as strict JSON: sorted keys, ASCII (so lone surrogates stay escaped), no NaN."""
    publish_bytes(store, path, (strict_json(value, indent=2) + "\n").encode("ascii"))


def strict_json(value: object, *, indent: int | None = None) -> str:
    """JSON that every parser reads and that is the same for equal values."""
    return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=True, indent=indent)


def read_json(store: Store, path: str) -> Any:
    """Read a small JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        AlignError: ``bad_json``, it is not JSON.
    """
    with store.open(path) as stream:
        data = stream.read()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AlignError("bad_json", f"{path} is not JSON: {error}; write it anew", stage="verify") from error


def digest(store: Store, path: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file as it lies there.

    Raises:
        FileNotFoundError: there is no such file.
    """
    sha, size = hashlib.sha256(), 0
    with store.open(path) as stream:
        while chunk := stream.read(_CHUNK):
            sha.update(chunk)
            size += len(chunk)
    return size, sha.hexdigest()


def temp_name(path: str) -> str:
    """A fresh temporary name beside ``path``: hidden, and recognisable by :func:`leftovers`."""
    folder, _, name = path.rpartition("/")
    temp = f".{name}.{secrets.token_hex(8)}.tmp"
    return f"{folder}/{temp}" if folder else temp


def leftovers(store: Store) -> list[str]:
    """Temporary files below a folder, of whatever run, sorted."""
    return [name for name in store.names() if _TEMP.match(name.rpartition("/")[2])]


def local(root: str | os.PathLike[str]) -> Store:
    """The store of a local folder."""
    return cast(Store, LocalStore(os.fspath(root)))
