"""The sound of a segment's windows from a file of its own: a second pass, beside the one over the video."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import BinaryIO

from align.schemas.errors import AlignError, Reason
from align.schemas.media import MediaInfo
from align.schemas.plan import Segment
from align.schemas.recording import Stream
from align.transforms.align.audio_clock import needed_span
from align.transforms.align.window import WindowSound
from align.transforms.read.container import clock_offset_ns
from align.transforms.read.demux import WindowRequest, read_media
from align.transforms.read.guard import open_probed

Opener = Callable[[str], BinaryIO]


def own_sounds(segment: Segment, opener: Opener | None) -> Generator[WindowSound, None, None]:
    """The sound of each window in turn; a file that cannot be read costs the sound alone."""
    stream, where = segment.recording.sound_file, segment.sound
    media = where.media if where is not None else None
    found = _read(segment, stream, media, opener) if stream and media and media.audio else iter(())
    missing = where.missing if where is not None else None
    for _ in segment.windows:
        try:
            yield next(found, WindowSound(missing=missing or Reason.NOT_RECORDED))
        except AlignError:
            found, missing = iter(()), Reason.DECODE_ERROR
            yield WindowSound(missing=missing)


def _read(segment: Segment, stream: Stream, media: MediaInfo, opener: Opener | None) -> Iterator[WindowSound]:
    requests = [WindowRequest(w, audio=needed_span(w, stream.clock)) for w in segment.windows]
    with closing(open_probed(stream.uri, media, opener)) as container:
        offset_ns = clock_offset_ns(container)
        for found in read_media(container, media, requests):
            yield WindowSound(media.audio, found, offset_ns, stream.clock)
