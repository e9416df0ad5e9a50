"""Keeps a media file open from one segment to the next.

The header of an MP4 lists every packet: of ten hours, parsing it takes 0.25 CPU seconds and 150 MB, which a
file opened anew for each five minutes would pay 120 times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.container import InputContainer

from align.schemas.media import MediaInfo
from align.transforms.read.container import rewind
from align.transforms.read.guard import Opener, open_media, open_probed


class KeptFile:
    """The file that was read last, open. Whoever holds one closes it."""

    def __init__(self) -> None:
        self._uri = ""
        self._container: InputContainer | None = None

    @contextmanager
    def open(
        self, uri: str, opener: Opener | None = None, media: MediaInfo | None = None
    ) -> Iterator[InputContainer]:
        """A file at its first packet: the one kept, or newly opened.

        Where it was probed, it is opened as :func:`~align.transforms.read.guard.open_probed` does.

        Only an MP4 is kept, and only if nothing went wrong with it: other headers are short.
        """
        container = self._taken(uri) or _opened(uri, opener, media)
        try:
            yield container
        except BaseException:
            container.close()
            raise
        if "mov" in container.format.name.split(","):
            self.close()
            self._uri, self._container = uri, container
        else:
            container.close()

    def close(self) -> None:
        """Close the file that is kept, if any."""
        if self._container is not None:
            self._container.close()
        self._container = None

    def _taken(self, uri: str) -> InputContainer | None:
        """The kept file, rewound, if it is the one asked for."""
        container, self._container = self._container, None
        if container is None:
            return None
        if uri == self._uri:
            try:
                rewind(container)
            except av.error.FFmpegError:
                pass
            else:
                return container
        container.close()
        return None


def _opened(uri: str, opener: Opener | None, media: MediaInfo | None) -> InputContainer:
    return open_media(uri, opener=opener) if media is None else open_probed(uri, media, opener)
