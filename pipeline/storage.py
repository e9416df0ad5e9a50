"""Files by path or URI: local ones directly, any other scheme through Beam's file systems."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, BinaryIO, cast

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
    if not is_remote(uri):
        return open(uri, "rb")
    from apache_beam.io.filesystem import CompressionTypes

    return cast(BinaryIO, file_systems().open(uri, compression_type=CompressionTypes.UNCOMPRESSED))


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
    return FileSystems


def use_options(arguments: Sequence[str]) -> None:
    """Give Beam's file systems the run's options (endpoints, credentials, regions)."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    FileSystems.set_options(PipelineOptions(list(arguments)))


def opener_for(uri: str) -> Callable[[str], BinaryIO] | None:
    """How to open a remote URI; None for a local path, which libraries read fastest by themselves."""
    return open_binary if is_remote(uri) else None
