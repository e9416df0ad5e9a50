"""The child side of :mod:`align.pipeline.process.isolation`: probes files, decodes, a request at a time.

How the two talk: :mod:`align.pipeline.process.frames`. What the child may do:
:mod:`align.pipeline.process.limits`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from align.pipeline.process import decoder_tasks
from align.pipeline.process.frames import (
    COUNTS,
    DEFECT,
    DONE,
    ERROR,
    FAULT,
    KEYFRAMES,
    MEDIA,
    READY,
    SAMPLE,
    SOUND,
    receive,
    send,
    to_json,
)
from align.pipeline.process.limits import confine, limit_memory
from align.pipeline.process.remote_reads import relayed
from align.pipeline.process.replies import MOST_KEYFRAMES, has_absurd_number
from align.pipeline.process.worker_process import end_with
from align.pipeline.storage.files import is_remote
from align.schemas.errors import AlignError, Fault
from align.schemas.features import arrow_schema
from align.schemas.media import MediaInfo
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.time import ClockMap, TimeSpan
from align.schemas.wire import from_plain, to_plain
from align.transforms.read.guard import Opener
from align.transforms.read.kept_file import KeptFile
from align.transforms.stages import count, stage, take

Reply = tuple[bytes, bytes]
"""Kind and payload of a frame."""

_file = KeptFile()


def read_segment(request: dict[str, Any], opener_for: decoder_tasks.OpenerFor) -> Iterator[Reply]:
    """Decode and align a segment: a frame for each window, before that of a sample one of its counts."""
    from align.transforms.align.segment import align_segment
    from align.transforms.write.encoded import encoded

    segment: Segment = from_plain(Segment, request["segment"])
    options: AlignOptions = from_plain(AlignOptions, request["options"])
    schema = arrow_schema(options.audio_rate, options.imu_rate)
    opener = opener_for(segment.recording.video.uri)
    for item in align_segment(segment, options, request["config_sha256"], opener, _file):
        if isinstance(item, Fault):
            yield FAULT, to_json(to_plain(item))
        else:
            row = encoded(item, schema)
            yield COUNTS, row.counts.to_bytes()
            yield SAMPLE, row.batch.serialize().to_pybytes()
    if not request["keep_open"]:
        _file.close()


def probe(request: dict[str, Any], opener_for: decoder_tasks.OpenerFor) -> Iterator[Reply]:
    """Probe a media file: a frame of the keyframes' instants, little-endian int64, and one of the rest."""
    from align.transforms.read.probe import probe_media

    uri = request["uri"]
    with stage("probe"):
        media = probe_media(
            uri,
            video_index=request["video_index"],
            audio_index=request["audio_index"],
            opener=opener_for(uri),
        )
    count("probe", 1)
    times = media.video.keyframes_ns if media.video is not None else ()
    if len(times) > MOST_KEYFRAMES or has_absurd_number(to_plain(media)):
        detail = f"{uri!r} has {len(times)} keyframes, or times of another century: it is damaged"
        raise AlignError("bad_container", detail, stage="probe")
    if media.video is not None:
        yield KEYFRAMES, np.array(times, "<i8").tobytes()
        media = replace(media, video=replace(media.video, keyframes_ns=()))
    yield MEDIA, to_json(to_plain(media))


def hear(request: dict[str, Any], opener_for: decoder_tasks.OpenerFor) -> Iterator[Reply]:
    """Decode the sound of some spans of a file: a frame of little-endian float64 for each."""
    from align.transforms.sync.sound import hearing_file

    uri, media = request["uri"], from_plain(MediaInfo, request["media"])
    spans = from_plain(tuple[TimeSpan, ...], request["spans"])
    clock = from_plain(ClockMap, request["clock"])
    for sound in hearing_file(uri, media, opener_for(uri), clock)(spans, request["rate"]):
        yield SOUND, sound.samples.astype("<f8").tobytes()


TASKS: dict[str, Callable[[dict[str, Any], decoder_tasks.OpenerFor], Iterator[Reply]]] = {
    "probe": probe,
    "segment": read_segment,
    "hear": hear,
    **decoder_tasks.TASKS,
}
"""What may be asked for. What may be answered: :mod:`align.pipeline.process.replies`."""


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until there are no more."""

    def ask(kind: bytes, payload: bytes) -> tuple[bytes, bytes]:
        send(replies, kind, payload)
        answer = receive(requests)
        if answer is None:
            os._exit(1)  # the parent has gone
        return answer

    def opener_for(uri: str) -> Opener | None:
        return relayed(ask) if is_remote(uri) else None

    while frame := receive(requests):
        request = json.loads(frame[1])
        limit_memory(request["memory"])
        try:
            for reply in TASKS[request["task"]](request, opener_for):
                send(replies, *reply)
            send(replies, DONE, to_json(take()))
        except AlignError as error:
            send(replies, ERROR, to_json([error.code, error.detail, error.stage]))
        except MemoryError:
            send(
                replies, ERROR, to_json(["memory_limit", "needs more memory than a segment may take", "read"])
            )
        except Exception:
            send(replies, DEFECT, traceback.format_exc()[-60_000:].encode("ascii", "backslashreplace"))


def main() -> None:
    """Serve the process that started this one, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    end_with(os.getppid())
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not reach the frames
    import align.transforms.align.segment
    import align.transforms.sync.sound
    import align.transforms.write.row  # noqa: F401  (before the limits: an import may need what they take)

    confine()
    try:
        send(replies, READY, b"")
        serve(sys.stdin.buffer, replies)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)


if __name__ == "__main__":
    main()
