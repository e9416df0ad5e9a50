"""A file that a run reads, looked at: size, time of change, and a fingerprint of its content.

The fingerprint of a file of up to 1 MiB covers all of it; of a larger one its size and eight blocks of
64 kB, head and tail among them. It is the same on a disk and in a bucket, wherever the input lies.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import BinaryIO

from align.pipeline.storage.files import is_remote, open_input, sizes_and_stamps
from align.schemas.errors import AlignError
from align.schemas.plan import InputFile, Segment
from align.schemas.recording import Recording, Stream

_WHOLE = 1 << 20
_BLOCKS, _BLOCK = 8, 1 << 16


def streams_of(recording: Recording) -> list[Stream]:
    """One stream for each of its files."""
    streams = (recording.video, recording.audio, recording.imu)
    return list({s.name: s for s in streams if s is not None}.values())


class Stamps:
    """Sizes and times of change in a bucket, listed by folder: a request per file would take minutes."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, tuple[int, str]]] = {}

    def of(self, uri: str) -> tuple[int, str] | None:
        """Of one object; None where there is none."""
        folder, _, name = uri.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = sizes_and_stamps(folder)
        return self._folders[folder].get(name)


def look(stream: Stream, stamps: Stamps | None = None) -> InputFile:
    """A file as it lies there now; of a bucket's object a fingerprint only where ``stamps`` are given."""
    if is_remote(stream.uri):
        found = (stamps or Stamps()).of(stream.uri)
        if found is None:
            return InputFile(stream.name)
        size, stamp = found
        return InputFile(stream.name, size, stamp, fingerprint(stream.uri, size) if stamps else "")
    try:
        with open_input(stream.uri) as file:
            stat = os.fstat(file.fileno())
            content = _fingerprint(file, stat.st_size)
    except OSError:
        return _unreadable(stream)
    return InputFile(stream.name, stat.st_size, str(stat.st_mtime_ns), content, stat.st_ino, stat.st_ctime_ns)


def _unreadable(stream: Stream) -> InputFile:
    try:
        stat = os.stat(stream.uri)
    except OSError:
        return InputFile(stream.name)
    return InputFile(stream.name, stat.st_size, str(stat.st_mtime_ns), "", stat.st_ino, stat.st_ctime_ns)


def fingerprint(uri: str, size: int) -> str:
    """Of a file's content; "" where it cannot be read."""
    try:
        with open_input(uri) as file:
            return _fingerprint(file, size)
    except (OSError, AlignError):
        return ""


def _fingerprint(file: BinaryIO, size: int) -> str:
    sha = hashlib.sha256(f"{size}\n".encode())
    for start, end in blocks_of(size):
        file.seek(start)
        sha.update(file.read(end - start))
    return sha.hexdigest()[:32]


def blocks_of(size: int) -> list[tuple[int, int]]:
    """The half-open ranges of a file that its fingerprint covers."""
    if size <= _WHOLE:
        return [(0, size)]
    starts = [(size - _BLOCK) * i // (_BLOCKS - 1) for i in range(_BLOCKS)]
    return [(start, start + _BLOCK) for start in starts]


class Watch:
    """Looks whether a segment's files are still those that planning saw.

    Local ones are looked at whenever one asks, which costs microseconds; objects of a bucket, which cannot be
    written in part, once.
    """

    def __init__(self, segment: Segment) -> None:
        where = {s.name: s for s in streams_of(segment.recording)}
        self._looks: list[Callable[[], str | None]] = []
        for file in segment.inputs:
            if file.name in where and file.size is not None:
                remote = is_remote(where[file.name].uri)
                self._looks.append((_once if remote else _each_time)(where[file.name], file))

    def changed(self) -> str | None:
        """The name of a file that was replaced or written to, or None."""
        return next((name for look_at in self._looks if (name := look_at()) is not None), None)


def _once(stream: Stream, then: InputFile) -> Callable[[], str | None]:
    now = look(stream)
    name = None if (now.size, now.stamp) == (then.size, then.stamp) else then.name
    return lambda: name


def _each_time(stream: Stream, then: InputFile) -> Callable[[], str | None]:
    trusted = [then.changed_ns]

    def look_at() -> str | None:
        try:
            stat = os.stat(stream.uri)
        except OSError:
            return then.name
        if (stat.st_size, str(stat.st_mtime_ns), stat.st_ino) != (then.size, then.stamp, then.inode):
            return then.name
        if stat.st_ctime_ns != trusted[0]:  # a link or other rights, or content whose time was put back
            if then.content and look(stream).content != then.content:
                return then.name
            trusted[0] = stat.st_ctime_ns
        return None

    return look_at
