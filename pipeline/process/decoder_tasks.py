"""What the decoding process does besides probing and segments: looks, surveys tables, inspects files.

Each task takes a request of plain values and how files are opened, and gives frames of kind ``PART``.
:mod:`align.pipeline.access` asks for them and checks the answers; without isolation it calls them in its own
process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from align.pipeline.process.frames import PART, to_json
from align.schemas.errors import AlignError
from align.schemas.media import MediaInfo
from align.schemas.plan import ImuRange
from align.schemas.recording import ImuColumns
from align.schemas.time import ClockMap, TimeSpan
from align.schemas.wire import from_plain, to_plain
from align.transforms.read.guard import Opener, first_timeline

Reply = tuple[bytes, bytes]
"""Kind and payload of a frame."""

OpenerFor = Callable[[str], Opener | None]
"""How a URI is opened; None for a local path."""


def look(request: Mapping[str, Any], opener_for: OpenerFor) -> Iterator[Reply]:
    """What moves in windows of a video: a part for each, see :mod:`align.transforms.sync.flow_bytes`."""
    import cv2

    from align.transforms.sync.flow_bytes import flows_to_bytes
    from align.transforms.sync.picture import each_look

    uri, media = request["uri"], from_plain(MediaInfo, request["media"])
    opener = first_timeline(media, opener_for(uri))
    windows = from_plain(tuple[TimeSpan, ...], request["windows"])
    try:
        for flows in each_look(uri, media.video, windows, opener, max_pixels=request["max_pixels"]):
            yield PART, flows_to_bytes(flows)
    except cv2.error as error:
        detail = f"{uri!r} has pictures that cannot be looked at: {error.err}"
        raise AlignError("invalid_picture", detail) from error


def survey(request: Mapping[str, Any], opener_for: OpenerFor) -> Iterator[Reply]:
    """What a table of IMU rows says of itself: one part."""
    from align.transforms.tables.table import survey_imu

    uri, columns = request["uri"], from_plain(ImuColumns, request["columns"])
    yield PART, to_json(to_plain(survey_imu(uri, columns, opener=opener_for(uri))))


def gyro(request: Mapping[str, Any], opener_for: OpenerFor) -> Iterator[Reply]:
    """The gyroscope's rows in a span: their times, int64, their values, float64 [n, 3], and the joints."""
    from align.transforms.tables.table import read_imu

    uri, columns = request["uri"], from_plain(ImuColumns, request["columns"])
    where, clock = from_plain(ImuRange, request["range"]), from_plain(ClockMap, request["clock"])
    track = read_imu(uri, where, clock, from_plain(TimeSpan, request["span"]), columns, opener_for(uri))
    yield PART, track.gyro_ns.astype("<i8").tobytes()
    yield PART, track.gyro.astype("<f8").tobytes()
    yield PART, to_json(track.joints_ns)


def inspect(request: Mapping[str, Any], opener_for: OpenerFor) -> Iterator[Reply]:
    """A media file's streams, or a table as one: one part."""
    from align.transforms.check.inspect import inspect_imu, inspect_media

    columns, uri = request["columns"], request["uri"]
    views = inspect_media(uri) if columns is None else (inspect_imu(uri, from_plain(ImuColumns, columns)),)
    yield PART, to_json(to_plain(views))


TASKS: dict[str, Callable[[dict[str, Any], OpenerFor], Iterator[Reply]]] = {
    "look": look,
    "survey": survey,
    "gyro": gyro,
    "inspect": inspect,
}
