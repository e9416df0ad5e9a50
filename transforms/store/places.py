"""Files below a root by names that others wrote: nothing outside it is opened, followed or written.

A data set that came from elsewhere names its own files. Each name is checked as text, then walked folder by
folder without following a link; what it leads to must be a regular file, so that a pipe or device cannot
hang or feed the reader.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from align.schemas.errors import AlignError

_MOST = 1024
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\:]")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LINKS = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)


def split_place(path: str) -> tuple[str, ...]:
    """The parts of a relative path with ``/`` between them.

    Raises:
        AlignError: ``bad_path``: absolute, out of its root, or with a control character, backslash or colon.
    """
    parts = tuple(path.split("/")) if len(path) <= _MOST and not _UNFIT.search(path) else ()
    if not parts or any(part in ("", ".", "..") for part in parts):
        detail = f"{path[:_MOST]!r} is no path inside a data set; take one that align wrote"
        raise AlignError("bad_path", detail, stage="verify")
    return parts


def open_listed(root: str, path: str) -> IO[bytes]:
    """Open a file below ``root`` for reading.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be read.
        AlignError: ``bad_path``, see :func:`split_place`; or a part of it is a link, or no regular file.
    """
    with _parent(root, path, make=False) as (folder, name):
        try:
            number = os.open(name, _FILE, dir_fd=folder)
        except OSError as error:
            raise _refused(error, path, folder, name) from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise AlignError("bad_path", f"{path} is no regular file", stage="verify")
    return open(number, "rb")


def create_inside(root: str, path: str) -> IO[bytes]:
    """Open a new file below ``root`` for writing, making its folders; errors as of :func:`open_listed`."""
    with _parent(root, path, make=True) as (folder, name):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return open(os.open(name, flags, 0o666, dir_fd=folder), "wb")


def rename_inside(root: str, source: str, target: str) -> None:
    """Rename atomically, then sync the folder: without it the new name may be lost in a crash."""
    with _parent(root, source, make=False) as (old, name), _parent(root, target, make=False) as (new, final):
        os.replace(name, final, src_dir_fd=old, dst_dir_fd=new)
        os.fsync(new)


def remove_inside(root: str, path: str) -> None:
    """Delete one file, or link itself; one that is not there is no error."""
    try:
        with _parent(root, path, make=False) as (folder, name):
            os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass


@contextmanager
def _parent(root: str, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
    """The folder that holds a file, open, and the file's name in it."""
    *folders, name = split_place(path)
    if make:
        os.makedirs(root, exist_ok=True)
    here = os.open(
        root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    )  # whoever named the root chose its links
    try:
        for part in folders:
            here = _step(here, part, path, make)
        yield here, name
    finally:
        os.close(here)


def _step(here: int, part: str, path: str, make: bool) -> int:
    """The folder ``part`` of an open one, which is closed only when that succeeds."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=here)
    try:
        below = os.open(part, _FOLDER, dir_fd=here)
    except OSError as error:
        raise _refused(error, path, here, part) from None
    os.close(here)
    return below


def _refused(error: OSError, path: str, folder: int, part: str) -> Exception:
    """What a part that is a link (or a special file) is refused with; other errors stay as they are."""
    try:
        kind = os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return error
    if stat.S_ISLNK(kind):
        detail = f"{path} leads through a link, {part!r}; copy the data set with its links resolved (cp -rL)"
        return AlignError("bad_path", detail, stage="verify")
    if error.errno in (*_LINKS, errno.ENXIO):
        return AlignError(
            "bad_path", f"{path} leads through {part!r}, which is no folder or regular file", stage="verify"
        )
    return error
