"""The child side of :mod:`align.pipeline.process.isolation`: probes files, decodes, a request at a time.

Requests come on standard input, replies go to standard output, both as frames: one byte of kind, four of
length (big-endian), the payload. Records travel as JSON, samples as Arrow record batches: nothing is
pickled, so that a child taken over by a hostile file can send data, but no code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from align.pipeline.process import tasks
from align.pipeline.process.worker_process import end_with
from align.schemas.errors import AlignError, Fault
from align.schemas.features import arrow_schema
from align.schemas.media import MediaInfo
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.time import ClockMap, TimeSpan
from align.schemas.wire import from_plain, to_plain
from align.transforms.read.kept_file import KeptFile
from align.transforms.stages import count, stage, take

SAMPLE, COUNTS, FAULT, MEDIA, SOUND, ERROR, DEFECT, DONE = (bytes([c]) for c in b"SCFMAEXD")

_file = KeptFile()

Reply = tuple[bytes, bytes]
"""Kind and payload of a frame."""


def send(stream: BinaryIO, kind: bytes, payload: bytes) -> None:
    """Write one frame."""
    stream.write(kind + len(payload).to_bytes(4, "big"))
    stream.write(payload)
    stream.flush()


def read_segment(request: dict[str, Any]) -> Iterator[Reply]:
    """Decode and align a segment: a frame for each window, before that of a sample one of its counts."""
    from align.pipeline.storage.files import opener_for
    from align.transforms.align.segment import align_segment
    from align.transforms.write.encoded import encoded

    segment: Segment = from_plain(Segment, request["segment"])
    options: AlignOptions = from_plain(AlignOptions, request["options"])
    schema = arrow_schema(options.audio_rate, options.imu_rate)
    opener = opener_for(segment.recording.video.uri)
    for item in align_segment(segment, options, request["config_sha256"], opener, _file):
        if isinstance(item, Fault):
            yield FAULT, _json(to_plain(item))
        else:
            row = encoded(item, schema)
            yield COUNTS, row.counts.to_bytes()
            yield SAMPLE, row.batch.serialize().to_pybytes()
    if not request["keep_open"]:
        _file.close()


def probe(request: dict[str, Any]) -> Iterator[Reply]:
    """Probe a media file: one frame."""
    from align.pipeline.storage.files import opener_for
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
    yield MEDIA, _json(to_plain(media))


def hear(request: dict[str, Any]) -> Iterator[Reply]:
    """Decode the sound of some spans of a file: a frame of little-endian float64 for each."""
    from align.pipeline.storage.files import opener_for
    from align.transforms.sync.sound import hearing_file

    uri, media = request["uri"], from_plain(MediaInfo, request["media"])
    spans = from_plain(tuple[TimeSpan, ...], request["spans"])
    clock = from_plain(ClockMap, request["clock"])
    for sound in hearing_file(uri, media, opener_for(uri), clock)(spans, request["rate"]):
        yield SOUND, sound.samples.astype("<f8").tobytes()


TASKS: dict[str, Callable[[dict[str, Any]], Iterator[Reply]]] = {
    "probe": probe,
    "segment": read_segment,
    "hear": hear,
    **tasks.TASKS,
}


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while header := requests.read(5):
        request = json.loads(requests.read(int.from_bytes(header[1:], "big")))
        _limit_memory(request["memory"])
        try:
            for reply in TASKS[request["task"]](request):
                send(replies, *reply)
            send(replies, DONE, _json(take()))
        except AlignError as error:
            send(replies, ERROR, _json([error.code, error.detail, error.stage]))
        except MemoryError:
            send(replies, ERROR, _json(["memory_limit", "needs more memory than a segment may take", "read"]))
        except Exception:
            send(replies, DEFECT, traceback.format_exc().encode("utf-8", "backslashreplace"))


def _limit_memory(size: int) -> None:
    """Refuse to allocate much more than the parent would let pass: it looks only now and then."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    used = next((int(s.split()[1]) * 1024 for s in _status() if s.startswith("VmData:")), 0)
    resource.setrlimit(resource.RLIMIT_DATA, (used + size, resource.RLIM_INFINITY))


def _status() -> list[str]:
    try:
        with open("/proc/self/status") as file:
            return file.readlines()
    except OSError:
        return []


def main() -> None:
    """Serve the process that started this one, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    end_with(os.getppid())
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not reach the frames
    if "--use" in sys.argv:
        from align.pipeline.storage.files import use_options

        use_options(sys.argv[sys.argv.index("--use") + 1 :])
    import align.transforms.align.segment  # noqa: F401  (while the parent has other things to do)

    try:
        serve(sys.stdin.buffer, replies)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)


def _json(value: object) -> bytes:
    return json.dumps(value).encode("ascii")


if __name__ == "__main__":
    main()
