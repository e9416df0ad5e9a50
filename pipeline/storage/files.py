"""Files by path or URI: local ones directly, any other scheme through Beam's file systems."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO, cast

from align.pipeline.storage.read_ahead import ReadAhead
from align.pipeline.storage.s3_clients import mend_s3
from align.schemas.errors import AlignError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_remote(uri: str) -> bool:
    """Whether the URI has a scheme such as ``gs://``; everything else is a local path."""
    return _SCHEME.match(uri) is not None


def join(folder: str, *names: str) -> str:
    """The path or URI of something below a folder."""
    if is_remote(folder):
        return "/".join((folder.rstrip("/"), *names))
    return os.path.join(folder, *names)


def absolute(uri: str) -> str:
    """A local path made absolute, ``~`` expanded; a URI unchanged."""
    return uri if is_remote(uri) else os.path.abspath(os.path.expanduser(uri))


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    if not is_remote(uri):
        return os.path.exists(uri)
    return bool(file_systems().exists(uri))


def open_binary(uri: str) -> BinaryIO:
    """Open a file for reading bytes, undecoded.

    Raises:
        OSError: it is not there or cannot be read.
    """
    return cast(BinaryIO, RemoteFile.open(uri)) if is_remote(uri) else open(uri, "rb")


def open_input(uri: str) -> BinaryIO:
    """Open a file of an input folder for reading; there a pipe or device would hang or feed its reader.

    Raises:
        OSError: it is not there, cannot be read, or is no regular file.
    """
    if is_remote(uri):
        return open_binary(uri)
    number = os.open(uri, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would wait
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "is no regular file", uri)
    return open(number, "rb")


class RemoteFile(io.BufferedIOBase):
    """An object of a store, open for reading or for writing; it appears when it is closed.

    Beam lets the errors of each store's own client through. Here they are those of a file, except while
    reading: there a fault costs the windows that wanted the bytes, whatever library asked for them.

    Raises:
        OSError: from :meth:`write` and :meth:`close`, after the client's own retries.
        AlignError: ``unreadable_file``: from :meth:`read` and :meth:`seek`, after the client's own retries.
    """

    def __init__(self, stream: BinaryIO, uri: str) -> None:
        self._stream, self._uri = stream, uri

    @classmethod
    def open(cls, uri: str) -> RemoteFile:
        """Open for reading."""

        def ranges(*given: Any, **how: Any) -> BinaryIO:
            return cast(BinaryIO, ReadAhead(file_systems().open(*given, **how)))

        return cls._on(uri, ranges)

    @classmethod
    def create(cls, uri: str) -> RemoteFile:
        """Open for writing."""
        return cls._on(uri, file_systems().create)

    @classmethod
    def _on(cls, uri: str, way: Callable[..., BinaryIO]) -> RemoteFile:
        from apache_beam.io.filesystem import CompressionTypes

        with as_os_error():
            return cls(way(uri, compression_type=CompressionTypes.UNCOMPRESSED), uri)

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        return self._stream.readable()

    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self._stream.writable()

    def seekable(self) -> bool:
        """Whether :meth:`seek` works."""
        return self._stream.seekable()

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, less only at the end."""
        with self._readable():
            return self._stream.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go somewhere."""
        with self._readable():
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Where it stands."""
        return self._stream.tell()

    def write(self, data: Any, /) -> int:
        """Write all of ``data``."""
        with as_os_error():
            return self._stream.write(data)

    def close(self) -> None:
        """Let go of it; what was written is there then."""
        if not self.closed:
            super().close()
            with as_os_error():
                self._stream.close()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            with as_os_error():
                yield
        except OSError as error:
            detail = f"{self._uri!r} cannot be read: {error.strerror}; --resume --retry-failed tries again"
            raise AlignError("unreadable_file", detail, stage="read") from error


@contextmanager
def as_os_error() -> Iterator[None]:
    """Turn whatever the client of an object store raises into an ``OSError`` that says why."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        said = error.args[0] if error.args else type(error).__name__
        raise OSError(errno.EIO, str(said)) from error


def list_names(folder: str) -> frozenset[str]:
    """Names of what lies directly in a folder; empty where there is no such folder.

    One listing answers for thousands of files what a request per file would cost minutes for.
    """
    if not is_remote(folder):
        try:
            return frozenset(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
    found = file_systems().match([join(folder, "*")])[0].metadata_list
    return frozenset(meta.path.rsplit("/", 1)[-1] for meta in found)


def sizes_and_stamps(folder: str) -> dict[str, tuple[int, str]]:
    """Size and time of change of every file that lies directly in a folder, by name."""
    if not is_remote(folder):
        try:
            found = {name: os.stat(os.path.join(folder, name)) for name in _present(folder)}
        except OSError:
            return {}
        return {name: (stat.st_size, str(stat.st_mtime_ns)) for name, stat in found.items()}
    objects = file_systems().match([join(folder, "*")])[0].metadata_list
    return {m.path.rsplit("/", 1)[-1]: (m.size_in_bytes, str(m.last_updated_in_seconds)) for m in objects}


def _present(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if os.path.exists(os.path.join(folder, name))]


def leaves(uri: str, folder: str) -> bool:
    """Whether a local path leads, by links, out of a folder."""
    if is_remote(uri):
        return False
    root = os.path.realpath(absolute(folder))
    return os.path.commonpath([root, os.path.realpath(uri)]) != root


@cache
def file_systems() -> Any:
    """Beam's file systems, ready for use: some do not work before they were given options, be they empty."""
    from apache_beam.io.filesystems import FileSystems

    if FileSystems._pipeline_options is None:  # a pipeline or worker that began before has set them
        use_options(())
    mend_s3()
    return FileSystems


def use_options(arguments: Sequence[str]) -> None:
    """Give Beam's file systems the run's options (endpoints, credentials, regions)."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    FileSystems.set_options(PipelineOptions(list(arguments)))


def opener_for(uri: str) -> Callable[[str], BinaryIO] | None:
    """How to open a remote URI; None for a local path, which libraries read fastest by themselves."""
    return open_binary if is_remote(uri) else None
