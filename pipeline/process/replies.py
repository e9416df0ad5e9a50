"""What a child may answer to each task: every reply is checked in full, and must belong to what was asked.

A class for each task: ``most`` says which kinds of frames may come and how large they may be, ``check`` turns
a frame into what the caller gets or refuses it, ``finish`` refuses an answer that ends too early. A new task
adds its class here and its entry in :data:`align.pipeline.process.decoder_process.TASKS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from align.pipeline.process.frames import COUNTS, FAULT, KEYFRAMES, MEDIA, PART, SAMPLE, SOUND
from align.pipeline.process.reply_rows import check_row, read_batch, refuse
from align.schemas.errors import AlignError, Fault, Stage
from align.schemas.features import arrow_schema
from align.schemas.media import MediaInfo
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.time import NS, TimeSpan, count_in
from align.schemas.wire import from_plain
from align.transforms.align.identity import columns_of_segment, columns_of_window
from align.transforms.read.guard import MAX_STREAMS
from align.transforms.stages import STAGES
from align.transforms.write.encoded import EncodedRow, received

MOST_BYTES = 512 << 20
"""Of any frame, whatever was asked for."""

TEXT_BYTES = 64 << 10
COUNTS_BYTES = 4 << 20
MOST_PART = 256 << 20
MOST_KEYFRAMES = 4_000_000
"""Of one file; all frames of eighteen hours at 60 a second."""

LAST_TIME_NS = 1 << 62
"""A century and a half."""

_DETAIL = 16_000
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_COUNTERS = frozenset(f"{stage}.{what}" for stage in STAGES for what in ("cpu_ns", "elements", "bytes"))


class Replies(Protocol):
    """The answer to one request."""

    @property
    def most(self) -> Mapping[bytes, int]:
        """Kinds of frames that may come, and the bytes that one may have."""

    def check(self, kind: bytes, payload: bytes) -> Any:
        """What a frame gives the caller; None for one that is part of a later one.

        Raises:
            Exception: it does not belong to the answer.
        """

    def finish(self) -> None:
        """Refuse an answer that ends here and is not whole."""


class ProbeReplies:
    """Of a probe: instants of keyframes, then the media."""

    most: Mapping[bytes, int] = {KEYFRAMES: 8 * MOST_KEYFRAMES, MEDIA: TEXT_BYTES}

    def __init__(self) -> None:
        self._keyframes: tuple[int, ...] | None = None
        self._found = False

    def check(self, kind: bytes, payload: bytes) -> MediaInfo | None:
        """See :class:`Replies`."""
        refuse(self._found or (kind == KEYFRAMES and self._keyframes is not None), "more than was asked for")
        if kind == KEYFRAMES:
            times = np.frombuffer(payload, "<i8")
            refuse(bool((np.diff(times) < 0).any()), "keyframes out of order")
            self._keyframes = tuple(times.tolist())
            return None
        media = _media(payload)
        self._found = True
        if media.video is None:
            return media
        return replace(media, video=replace(media.video, keyframes_ns=self._keyframes or ()))

    def finish(self) -> None:
        """See :class:`Replies`."""
        refuse(not self._found, "an answer that ends too early")


class SoundReplies:
    """Of hearing some spans: little-endian float64 for each."""

    def __init__(self, spans: Sequence[TimeSpan], rate: int) -> None:
        self._counts = [count_in(span.length_ns, rate) for span in spans]
        self.most: Mapping[bytes, int] = {SOUND: 8 * max(self._counts, default=0)}
        self._done = 0

    def check(self, kind: bytes, payload: bytes) -> NDArray[np.float64]:
        """See :class:`Replies`."""
        refuse(self._done == len(self._counts), "more sounds than were asked for")
        samples = np.frombuffer(payload, "<f8")
        refuse(len(samples) != self._counts[self._done], "a sound of another length")
        refuse(not np.isfinite(samples).all(), "a sound that is no number")
        self._done += 1
        return samples

    def finish(self) -> None:
        """See :class:`Replies`."""
        refuse(self._done < len(self._counts), "an answer that ends too early")


class PartReplies:
    """Of one of the decoder's other tasks: so many parts. Who asked makes sense of them."""

    most: Mapping[bytes, int] = {PART: MOST_PART}

    def __init__(self, parts: int) -> None:
        self._left = parts

    def check(self, kind: bytes, payload: bytes) -> bytes:
        """See :class:`Replies`."""
        refuse(self._left == 0, "more than was asked for")
        self._left -= 1
        return payload

    def finish(self) -> None:
        """See :class:`Replies`."""
        refuse(self._left > 0, "an answer that ends too early")


class SegmentReplies:
    """Of a segment: for each window, in their order, its sample, after its counts, or a fault.

    So a segment's bytes are bounded, too: windows times what one may have.

    Args:
        segment: what was asked for.
        options: the same.
        config_sha256: the same.
    """

    def __init__(self, segment: Segment, options: AlignOptions, config_sha256: str) -> None:
        self._segment, self._options = segment, options
        self._shared = columns_of_segment(segment, config_sha256)
        self._schema = arrow_schema(options.audio_rate, options.imu_rate)
        row = row_bound(segment, options)
        self.most: Mapping[bytes, int] = {SAMPLE: row, COUNTS: COUNTS_BYTES, FAULT: TEXT_BYTES}
        self.done = 0
        self._counts: bytes | None = None

    def check(self, kind: bytes, payload: bytes) -> EncodedRow | Fault | None:
        """See :class:`Replies`."""
        refuse(self.done == len(self._segment.starts_ns), "more windows than were asked for")
        refuse(
            (kind == SAMPLE) != (self._counts is not None), "counts without their sample, or a sample without"
        )
        if kind == COUNTS:
            self._counts = payload
            return None
        start = self._segment.starts_ns[self.done]
        if kind == FAULT:
            item: EncodedRow | Fault = _fault(payload, self._segment.recording.recording_id, start)
        else:
            window = TimeSpan(start, start + self._segment.window_ns)
            batch = read_batch(payload, self._schema)
            known = {**self._shared, **columns_of_window(self._segment, window)}
            check_row(batch, known, window, self._options)
            item, self._counts = received(batch, self._counts or b""), None
        self.done += 1
        return item

    def finish(self) -> None:
        """See :class:`Replies`."""
        refuse(self.done < len(self._segment.starts_ns), "an answer that ends too early")


def row_bound(segment: Segment, options: AlignOptions) -> int:
    """Bytes that a window's row cannot exceed: generous, and never more than :data:`MOST_BYTES`.

    A picture of 4 bytes a pixel, as long as the header says or sixteen times its height; sound and IMU as if
    they were not packed; all sentences of the segment; a gap each millisecond.
    """
    video, seconds = segment.media.video, segment.window_ns / NS
    shape = video.width / max(video.height, 1) * float(video.sample_aspect) if video else 1.0
    long = max(16.0, 2 * shape, 2 / shape if shape > 0 else 1.0)
    pictures = (1 + options.frames) * (4 * options.image_size**2 * long + 64_000)
    sound = 4 * seconds * options.audio_rate + 64_000 + 16 * 1_000 * seconds
    imu = 64 * seconds * options.imu_rate
    recording = segment.recording
    words = [*recording.scenarios, recording.recording_id, recording.group_id, recording.video.name]
    texts = sum(len(n.raw) + 8 for n in recording.narrations or ()) + sum(map(len, words))
    clock = len(repr(recording.imu.clock)) if recording.imu else 0
    return int(min(pictures + sound + imu + 16 * texts + 4 * clock + (1 << 20), MOST_BYTES))


def error_of(payload: bytes) -> AlignError:
    """The error that a child reports.

    Raises:
        ValueError, TypeError: it reports none.
    """
    told = json.loads(payload)
    refuse(not isinstance(told, list) or len(told) != 3, "an error that is none")
    code, detail, stage = told
    _check_words(code, detail, stage)
    return AlignError(code, detail, stage=stage)


def counters_of(payload: bytes) -> dict[str, int]:
    """What a child has counted.

    Raises:
        ValueError: names or numbers that no stage counts.
    """
    told = _object(payload)
    refuse(not told.keys() <= _COUNTERS, "counters that do not exist")
    refuse(any(type(n) is not int or not 0 <= n < 1 << 62 for n in told.values()), "counters out of range")
    return told


def _media(payload: bytes) -> MediaInfo:
    told = _object(payload)
    refuse(has_absurd_number(told), "a number that is none")
    media: MediaInfo = from_plain(MediaInfo, told)
    video, audio = media.video, media.audio
    refuse(len(media.streams) > MAX_STREAMS, "more streams than are let in")
    amounts: list[Any] = []
    if video is not None:
        amounts += [video.width, video.height, video.frame_ns, video.frames, video.shortfall_ns]
        amounts += [video.bytes_per_s, video.time_base, video.sample_aspect, video.index]
        refuse(video.keyframes_ns != () or video.frame_ns == 0, "a video that is none")
    if audio is not None:
        amounts += [audio.rate, audio.channels, audio.time_base, audio.index]
    refuse(any(amount < 0 for amount in amounts), "less than nothing")
    return media


def _values(told: Any) -> Iterator[Any]:
    """What lies in a JSON value: no lists or objects."""
    if isinstance(told, (dict, list)):
        for item in told.values() if isinstance(told, dict) else told:
            yield from _values(item)
    else:
        yield told


def has_absurd_number(told: Any) -> bool:
    """Whether a JSON value holds a number that no medium has: of another century, or not finite."""
    return any(_is_absurd(value) for value in _values(told))


def _is_absurd(value: object) -> bool:
    return isinstance(value, (int, float)) and not abs(value) < LAST_TIME_NS  # no NaN either


def _fault(payload: bytes, recording_id: str, start_ns: int) -> Fault:
    told = _object(payload)
    refuse(told.keys() != {f.name for f in fields(Fault)}, "a fault that is none")
    fault = Fault(**told)
    whose = (fault.recording_id, fault.start_ns, fault.windows)
    refuse(whose != (recording_id, start_ns, 1) or type(fault.windows) is not int, "another window's fault")
    refuse(fault.outcome not in ("failed", "skipped"), "a fault that costs nothing")
    _check_words(fault.code, fault.detail, fault.stage)
    refuse(fault.detail != " ".join(fault.detail.split()), "a detail of several lines")
    return fault


def _check_words(code: object, detail: object, stage: object) -> None:
    refuse(not isinstance(code, str) or not _CODE.fullmatch(code), "a code that is none")
    refuse(not isinstance(detail, str) or len(detail) > _DETAIL, "a detail that is none")
    refuse(stage not in get_args(Stage), "a stage that is none")


def _object(payload: bytes) -> dict[str, Any]:
    told = json.loads(payload)
    refuse(not isinstance(told, dict), "JSON that is no object")
    return dict(told)
