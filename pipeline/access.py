"""The one place that opens, guards and probes the files of a recording, for run, plan, sync and inspect.

Whatever a library has to make sense of is read in a child process, within limits and a time-out
(:mod:`align.pipeline.process.isolation`); with isolation off, the same work is done here. Answers of a child
are checked: one that makes no sense is the fault of its file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from align.pipeline.config import RunConfig
from align.pipeline.process.decoder_tasks import TASKS
from align.pipeline.process.isolation import borrow
from align.pipeline.storage.files import leaves, opener_for
from align.schemas.errors import AlignError
from align.schemas.media import ImuTrack, MediaInfo, VideoInfo
from align.schemas.plan import ImuRange
from align.schemas.recording import ImuColumns, Recording, Stream
from align.schemas.time import NS, TimeSpan
from align.schemas.wire import from_plain, to_plain
from align.transforms.check.inspect import StreamView
from align.transforms.read.probe import no_video, probe_media
from align.transforms.sync.flow import Flow
from align.transforms.sync.flow_bytes import flows_from_bytes
from align.transforms.sync.gcc_phat import Sound
from align.transforms.sync.sound import hearing_file
from align.transforms.sync.sound_search import Hear
from align.transforms.tables.survey import ImuSurvey
from align.transforms.tables.table import imu_range

Look = Callable[[Sequence[TimeSpan]], list[list[Flow]]]

_STRETCH_NS = 600 * NS
"""Of a table, read at once: a child's memory is bounded, a table is not."""


def allowed(stream: Stream, config: RunConfig) -> str:
    """The URI of a stream that may be read.

    Raises:
        AlignError: ``link_outside``: it is a link out of the input folder.
    """
    if not config.inputs.allow_symlinks and leaves(stream.uri, config.inputs.input):
        detail = f"{stream.name} is a link out of the input folder; add --allow-symlinks if it is meant"
        raise AlignError("link_outside", detail, stage="probe")
    return stream.uri


def probe(recording: Recording, config: RunConfig) -> MediaInfo:
    """Probe the master file of a recording.

    Raises:
        AlignError: see :func:`allowed` and :func:`~align.transforms.read.probe.probe_media`; with isolation
            also ``decoder_crashed``, ``decode_timeout``, ``memory_limit``.
    """
    video, audio = recording.video, recording.audio
    within = audio is not None and recording.sound_file is None
    return _probed(allowed(video, config), video.index, audio.index if audio and within else None, config)


def probe_sound(stream: Stream, config: RunConfig) -> MediaInfo:
    """Probe the file of a sound; errors as :func:`probe`, and ``no_audio`` where the file holds none."""
    media = _probed(allowed(stream, config), None, stream.index, config)
    if media.audio is None:
        raise AlignError("no_audio", f"{stream.name} holds no audio stream; check the file", stage="probe")
    return media


def _probed(uri: str, video_index: int | None, audio_index: int | None, config: RunConfig) -> MediaInfo:
    if not config.execution.isolate:
        return probe_media(uri, video_index=video_index, audio_index=audio_index, opener=opener_for(uri))
    with borrow(config) as decoder:
        return decoder.probe(uri, video_index, audio_index)


def usable_video(stream: Stream, media: MediaInfo, config: RunConfig) -> VideoInfo:
    """The video of a probed file.

    Raises:
        AlignError: ``no_video``; ``too_many_pixels``.
    """
    video = media.video
    if video is None:
        raise no_video(media, stream.name)
    if video.width * video.height > config.sample.max_pixels:
        detail = f"{stream.name} is {video.width} x {video.height} pixels; raise --max-pixels to decode it"
        raise AlignError("too_many_pixels", detail, stage="probe")
    return video


def survey(stream: Stream, config: RunConfig) -> ImuSurvey:
    """Survey a table of IMU rows.

    Raises:
        AlignError: see :func:`allowed` and :func:`~align.transforms.tables.table.survey_imu`.
    """
    request = {"uri": allowed(stream, config), "columns": to_plain(_columns(stream))}
    with _asked("survey", request, config) as answer:
        found: ImuSurvey = from_plain(ImuSurvey, json.loads(next(answer)))
    return found


def gyro_rows(stream: Stream, found: ImuSurvey, config: RunConfig) -> ImuTrack:
    """The gyroscope of a surveyed table, all of it, on the recording clock; the accelerometer is left out."""
    clock = stream.clock
    whole = TimeSpan(clock.at(found.span.start_ns), clock.at(found.span.end_ns) + 1)
    edges = [*range(whole.start_ns, whole.end_ns, _STRETCH_NS), whole.end_ns]
    parts = []
    for start, end in pairwise(edges):
        span = TimeSpan(start, end)
        where = imu_range(found, clock.span_on_stream(span))
        parts.append(_gyro_rows(stream, where, span, config))
    return ImuTrack(
        np.concatenate([p.gyro_ns for p in parts]),
        np.concatenate([p.gyro for p in parts]),
        np.empty(0, np.int64),
        np.empty((0, 3)),
        found.gyro_rate_hz,
        found.accl_rate_hz,
        tuple(sorted({joint for p in parts for joint in p.joints_ns})),
    )


def _gyro_rows(stream: Stream, where: ImuRange, span: TimeSpan, config: RunConfig) -> ImuTrack:
    plain = {"columns": _columns(stream), "range": where, "clock": stream.clock, "span": span}
    request = {"uri": allowed(stream, config), **{name: to_plain(value) for name, value in plain.items()}}
    with _asked("gyro", request, config, parts=3) as answer:
        times = np.frombuffer(next(answer), "<i8").astype(np.int64)
        values = np.frombuffer(next(answer), "<f8").astype(np.float64).reshape(len(times), 3)
        joints = from_plain(tuple[int, ...], json.loads(next(answer)))
        if (np.diff(times) <= 0).any() or not np.isfinite(values).all():
            raise ValueError("rows out of order, or no numbers")
    nothing = np.empty(0, np.int64), np.empty((0, 3))
    return ImuTrack(times, values, *nothing, where.gyro_rate_hz, where.accl_rate_hz, joints)


def looking(stream: Stream, media: MediaInfo, config: RunConfig) -> Look:
    """Looks at what moves in windows of a video: see :func:`align.transforms.sync.picture.look`."""
    video = usable_video(stream, media, config)
    request = {"uri": allowed(stream, config), "media": to_plain(media)}
    request |= {"max_pixels": config.sample.max_pixels}
    pixels = video.width * video.height

    def look(windows: Sequence[TimeSpan]) -> list[list[Flow]]:
        asked = {**request, "windows": to_plain(tuple(windows))}
        with _asked("look", asked, config, parts=len(windows), pixels=pixels) as answer:
            flows = [flows_from_bytes(part) for part in answer]
            if len(flows) != len(windows):
                raise ValueError("other windows than were asked for")
        return flows

    return look


def hearing(stream: Stream, media: MediaInfo, config: RunConfig) -> Hear:
    """Hears a sound on the recording clock: see :func:`align.transforms.sync.sound.hearing_file`."""
    uri, clock = allowed(stream, config), stream.clock
    if not config.execution.isolate:
        return hearing_file(uri, media, opener_for(uri), clock)

    def hear(spans: Sequence[TimeSpan], rate: int) -> Iterator[Sound]:
        with borrow(config) as decoder:
            heard = decoder.sounds(uri, media, spans, rate, clock)
            for span, samples in zip(spans, heard, strict=True):
                yield Sound(rate, span.start_ns / NS, samples)

    return hear


def inspect(path: str, *, isolate: bool = True, timeout_s: float = 300.0) -> tuple[StreamView, ...]:
    """The streams of a media file, and of the table that lies beside it in a download; or those of a table.

    Args:
        path: of a local file; a name that ends in ``.csv`` is a table's.
        isolate: read it in a child process.
        timeout_s: silence after which that is taken to hang.

    Raises:
        AlignError: the file cannot be read.
    """
    from align.pipeline.sources.ego4d.imu import IMU_COLUMNS, table_of

    config = RunConfig(allow_symlinks=True, isolate=isolate, decode_timeout=timeout_s)
    if path.lower().endswith(".csv"):
        return _inspected(path, IMU_COLUMNS, config)
    beside = table_of(path)
    views = _inspected(path, None, config)
    return views + (_inspected(beside, IMU_COLUMNS, config) if beside else ())


def _inspected(path: str, columns: ImuColumns | None, config: RunConfig) -> tuple[StreamView, ...]:
    with _asked("inspect", {"uri": path, "columns": columns and to_plain(columns)}, config) as answer:
        views: tuple[StreamView, ...] = from_plain(tuple[StreamView, ...], json.loads(next(answer)))
    return views


def _columns(stream: Stream) -> ImuColumns:
    if stream.columns is None:
        detail = f"the source does not say what the columns of {stream.name} mean (Stream.columns)"
        raise AlignError("imu_columns", detail, stage="probe")
    return stream.columns


@contextmanager
def _asked(
    task: str, request: Mapping[str, Any], config: RunConfig, parts: int = 1, pixels: int = 0
) -> Iterator[Iterator[bytes]]:
    """The parts of a task's answer, which is heard to its end when the block ends well.

    Raises:
        AlignError: ``decoder_crashed``: the block found no sense in the answer.
    """
    try:
        if config.execution.isolate:
            with (
                borrow(config) as decoder,
                closing(decoder.ask(task, request, parts=parts, pixels=pixels)) as answer,
            ):
                yield answer
                _at_end(answer)
        else:
            found = (payload for _, payload in TASKS[task](dict(request), opener_for))
            yield found
            _at_end(found)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, StopIteration) as error:
        if not config.execution.isolate:
            raise
        detail = f"the decoder's answer makes no sense ({error}): the file is damaged or hostile"
        raise AlignError("decoder_crashed", detail, stage="probe") from error


def _at_end(answer: Iterator[bytes]) -> None:
    if next(answer, None) is not None:
        raise ValueError("it is longer than asked for")
