"""What a lock needs of the place it lies in: few operations, each of which happens as a whole.

Ages are told by the place itself: the time of change of a file written just now, less that of the lock.
Clocks of two machines are never compared.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

from align.pipeline.storage.files import join, sizes_and_stamps
from align.schemas.errors import AlignError
from align.transforms.store.publish import LocalStore, Store, publish_bytes, temp_name

FOLDER = "_work"
LOCK = f"{FOLDER}/lock"
_GUARD = re.compile(r"lock\.after-[0-9a-f]{16}")
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EINVAL)


class LockFiles(Protocol):
    """The small files of a lock.

    Raises:
        OSError: from each method: the place did not answer, perhaps for a moment only.
    """

    def create(self, path: str, data: bytes) -> bool:
        """Make a file that is not there yet, with all of its content at once; False where there is one."""

    def read(self, path: str) -> bytes | None:
        """Its content; None where there is none."""

    def replace(self, path: str, data: bytes) -> None:
        """Give the file another content at once."""

    def remove(self, path: str) -> None:
        """Delete it; one that is not there is no error."""

    def touch(self, path: str) -> None:
        """Make it a file that was changed just now."""

    def sign(self, path: str) -> object:
        """What differs once it has been touched; None where there is no such file."""

    def age_s(self, path: str) -> float | None:
        """Seconds since it was touched, by the clock of the place; None where there is no such file."""

    def guards(self) -> list[str]:
        """Every guard of a succession: see :mod:`align.pipeline.storage.lock`."""


def lock_files(store: Store) -> LockFiles:
    """Those of an output."""
    if isinstance(store, LocalStore):
        return cast(LockFiles, LocalLockFiles(store))
    return cast(LockFiles, RemoteLockFiles(store))


class LocalLockFiles:
    """In a folder of this machine, or of a file server: a hard link appears whole, and only once."""

    def __init__(self, store: LocalStore) -> None:
        self._store, self._root = cast(Store, store), Path(store.root)

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`LockFiles`."""
        temp, final = self._root / self._written(path, data), self._root / path
        try:
            os.link(temp, final)
        except FileExistsError:
            return temp.stat().st_nlink > 1  # a file server's answer was lost, and the request repeated
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _created(final, data)
        finally:
            temp.unlink(missing_ok=True)
        return True

    def read(self, path: str) -> bytes | None:
        """See :class:`LockFiles`."""
        try:
            return (self._root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def replace(self, path: str, data: bytes) -> None:
        """See :class:`LockFiles`."""
        with _os_errors():
            publish_bytes(self._store, path, data)

    def remove(self, path: str) -> None:
        """See :class:`LockFiles`."""
        (self._root / path).unlink(missing_ok=True)

    def touch(self, path: str) -> None:
        """See :class:`LockFiles`."""
        os.utime(self._root / path)

    def sign(self, path: str) -> object:
        """See :class:`LockFiles`."""
        return self._changed_ns(path)

    def age_s(self, path: str) -> float | None:
        """See :class:`LockFiles`."""
        probe = self._written(path, b"")
        try:
            changed, now = self._changed_ns(path), self._changed_ns(probe)
        finally:
            self.remove(probe)
        return None if changed is None or now is None else (now - changed) / 1e9

    def guards(self) -> list[str]:
        """See :class:`LockFiles`."""
        return [f"{FOLDER}/{name}" for name in os.listdir(self._root / FOLDER) if _GUARD.fullmatch(name)]

    def _written(self, path: str, data: bytes) -> str:
        temp = temp_name(path)
        with self._store.create(temp) as stream:
            stream.write(data)
            self._store.seal(stream)
        return temp

    def _changed_ns(self, path: str) -> int | None:
        try:
            return (self._root / path).stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None


def _created(path: Path, data: bytes) -> bool:
    """Where there are no hard links: for a moment the file is there and empty, which counts as held."""
    try:
        with path.open("xb") as stream:
            stream.write(data)
    except FileExistsError:
        return False
    return True


class RemoteLockFiles:
    """In a bucket. Beam's file systems offer no exclusive creation: two at the same instant may both pass."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`LockFiles`."""
        if self.read(path) is not None:
            return False
        self.replace(path, data)
        return True

    def read(self, path: str) -> bytes | None:
        """See :class:`LockFiles`."""
        try:
            with _os_errors(), self._store.open(path) as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def replace(self, path: str, data: bytes) -> None:
        """See :class:`LockFiles`. An object appears when it is closed, whole."""
        stream = self._store.create(path)
        stream.write(data)
        self._store.seal(stream)

    def remove(self, path: str) -> None:
        """See :class:`LockFiles`."""
        self._store.remove(path)

    def touch(self, path: str) -> None:
        """See :class:`LockFiles`."""
        data = self.read(path)
        if data is not None:
            self.replace(path, data)

    def sign(self, path: str) -> object:
        """See :class:`LockFiles`."""
        return self._stamps().get(path)

    def age_s(self, path: str) -> float | None:
        """See :class:`LockFiles`."""
        probe = temp_name(path)
        self.replace(probe, b"-")
        try:
            stamps = self._stamps()
        finally:
            self.remove(probe)
        return stamps[probe] - stamps[path] if probe in stamps and path in stamps else None

    def guards(self) -> list[str]:
        """See :class:`LockFiles`."""
        return [path for path in self._stamps() if _GUARD.fullmatch(path.rpartition("/")[2])]

    def _stamps(self) -> dict[str, float]:
        found = sizes_and_stamps(join(getattr(self._store, "root"), FOLDER))  # noqa: B009
        return {f"{FOLDER}/{name}": float(stamp) for name, (_, stamp) in found.items()}


@contextmanager
def _os_errors() -> Iterator[None]:
    """Raise what the write protocol says of a refused write or read as the ``OSError`` that it was."""
    try:
        yield
    except AlignError as error:
        raise error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error)) from error
