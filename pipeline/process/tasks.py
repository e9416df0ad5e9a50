"""What the decoding process does besides probing and segments: looks, surveys tables, inspects files.

Each task takes a request of plain values and gives frames: ``PART`` with a piece of the answer, or
``PROGRESS``, empty, so that long work is not taken for a hang. :mod:`align.pipeline.access` asks for them and
checks the answers; without isolation it calls them in its own process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from align.pipeline.storage.files import opener_for
from align.schemas.errors import AlignError
from align.schemas.media import VideoInfo
from align.schemas.plan import ImuRange
from align.schemas.recording import ImuColumns
from align.schemas.time import ClockMap, TimeSpan
from align.schemas.wire import from_plain, to_plain

PART, PROGRESS = b"R", b"P"

Reply = tuple[bytes, bytes]
"""Kind and payload of a frame."""

_BLOCKS = 16  # of a table, between two signs of life


def look(request: Mapping[str, Any]) -> Iterator[Reply]:
    """What moves in windows of a video: a part for each, see :mod:`align.transforms.sync.flow_bytes`."""
    import cv2

    from align.transforms.sync.flow_bytes import flows_to_bytes
    from align.transforms.sync.picture import each_look

    uri, video = request["uri"], from_plain(VideoInfo, request["video"])
    windows = from_plain(tuple[TimeSpan, ...], request["windows"])
    try:
        for flows in each_look(uri, video, windows, opener_for(uri), max_pixels=request["max_pixels"]):
            yield PART, flows_to_bytes(flows)
    except cv2.error as error:
        detail = f"{uri!r} has pictures that cannot be looked at: {error.err}"
        raise AlignError("invalid_picture", detail) from error


def survey(request: Mapping[str, Any]) -> Iterator[Reply]:
    """What a table of IMU rows says of itself: one part."""
    from align.transforms.tables.table import survey_steps

    uri, columns = request["uri"], from_plain(ImuColumns, request["columns"])
    for count, found in enumerate(survey_steps(uri, columns, opener=opener_for(uri))):
        if found is not None:
            yield PART, _json(to_plain(found))
        elif count % _BLOCKS == 0:
            yield PROGRESS, b""


def gyro(request: Mapping[str, Any]) -> Iterator[Reply]:
    """The gyroscope's rows in a span: their times, int64, their values, float64 [n, 3], and the joints."""
    from align.transforms.tables.table import read_imu

    uri, columns = request["uri"], from_plain(ImuColumns, request["columns"])
    where, clock = from_plain(ImuRange, request["range"]), from_plain(ClockMap, request["clock"])
    track = read_imu(uri, where, clock, from_plain(TimeSpan, request["span"]), columns, opener_for(uri))
    yield PART, track.gyro_ns.astype("<i8").tobytes()
    yield PART, track.gyro.astype("<f8").tobytes()
    yield PART, _json(track.joints_ns)


def inspect(request: Mapping[str, Any]) -> Iterator[Reply]:
    """A media file's streams, or a table as one: one part."""
    from align.transforms.check.inspect import inspect_imu, inspecting

    if request["columns"] is not None:
        columns = from_plain(ImuColumns, request["columns"])
        yield PART, _json(to_plain((inspect_imu(request["uri"], columns),)))
        return
    for views in inspecting(request["uri"]):
        yield (PROGRESS, b"") if views is None else (PART, _json(to_plain(views)))


TASKS: dict[str, Callable[[dict[str, Any]], Iterator[Reply]]] = {
    "look": look,
    "survey": survey,
    "gyro": gyro,
    "inspect": inspect,
}


def _json(value: object) -> bytes:
    return json.dumps(value).encode("ascii")
