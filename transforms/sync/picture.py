"""Which parts of a video are looked at, and their frames as small luma pictures.

Decoding a whole recording costs far more than judging it. A few windows spread over it tell as much: they are
looked at first, the others only where those leave the answer open.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import av
import numpy as np
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from align.schemas.errors import AlignError
from align.schemas.media import VideoInfo
from align.schemas.time import NS, TimeSpan, ticks_to_ns
from align.transforms.read.container import clock_offset_ns, time_base
from align.transforms.read.guard import Opener, open_media
from align.transforms.sync.flow import WIDTH, Flow, Gray, follow, small_luma

_SHORTEST_NS, _LONGEST_NS = 3 * NS, 12 * NS
_PARTS = 12  # a short piece is cut into so many windows
_FIRST_SHARE, _FIRST_LEAST, _FIRST_MOST = 0.25, 5, 40
_ROUGHLY = {"skip_loop_filter": "all"}  # a tenth of the time, and flow needs no exact pixels
_LONGEST_STEP_NS = 80_000_000  # from frame to frame where those no other refers to are passed over ...
_WIDEST_STEP = 0.05  # ... and picture widths moved meanwhile, beyond which every frame is wanted
_PLANAR_8_BIT = frozenset(
    {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "gray"}
)


def cut_windows(piece: TimeSpan, keyframes_ns: Sequence[int] = ()) -> tuple[TimeSpan, ...]:
    """Adjacent windows that cover a piece, of 3 to 12 s; at keyframes where that leaves them enough.

    Args:
        piece: recording clock.
        keyframes_ns: ascending; may be empty.
    """
    length = min(max(piece.length_ns // _PARTS, _SHORTEST_NS), _LONGEST_NS)
    count = max(1, round(piece.length_ns / length))
    edges = [piece.start_ns + piece.length_ns * k // count for k in range(count + 1)]
    snapped = sorted({piece.start_ns, *(_nearest(keyframes_ns, e) for e in edges[1:-1]), piece.end_ns})
    if len(snapped) > 2 * _FIRST_LEAST and snapped[0] == piece.start_ns and snapped[-1] == piece.end_ns:
        edges = snapped
    return tuple(TimeSpan(a, b) for a, b in pairwise(edges))


def _nearest(keyframes_ns: Sequence[int], time_ns: int) -> int:
    i = bisect_left(keyframes_ns, time_ns)
    return min(keyframes_ns[max(i - 1, 0) : i + 1], key=lambda k: abs(k - time_ns), default=time_ns)


def looks(windows: Sequence[TimeSpan]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which windows of a piece to look at first, spread from end to end, and which if that is not enough."""
    n = len(windows)
    first = min(n, max(_FIRST_LEAST, min(int(np.ceil(_FIRST_SHARE * n)), _FIRST_MOST)))
    chosen = {round(x) for x in np.linspace(0, n - 1, first)}
    left = [i for i in range(n) if i not in chosen]
    if len(left) > _FIRST_MOST:
        left = [left[round(x)] for x in np.linspace(0, len(left) - 1, _FIRST_MOST)]
    return tuple(sorted(chosen)), tuple(left)


def look(
    uri: str,
    video: VideoInfo,
    windows: Sequence[TimeSpan],
    opener: Opener | None = None,
    *,
    max_pixels: int | None = None,
) -> list[list[Flow]]:
    """What moves where in each window: :func:`each_look` to its end."""
    return list(each_look(uri, video, windows, opener, max_pixels=max_pixels))


def each_look(
    uri: str,
    video: VideoInfo,
    windows: Sequence[TimeSpan],
    opener: Opener | None = None,
    *,
    max_pixels: int | None = None,
) -> Iterator[list[Flow]]:
    """What moves where in each window, in one pass over the file.

    Args:
        uri: of the video.
        video: as probed.
        windows: ascending, disjoint, recording clock.
        opener: opens the URI as a seekable file object.
        max_pixels: larger pictures than this are not decoded, whatever the header says.

    Raises:
        AlignError: the file cannot be opened, or its video stream is not there.
    """
    container = open_media(uri, opener)
    try:
        if video.index >= len(container.streams) or container.streams[video.index].type != "video":
            raise AlignError("no_such_stream", f"stream {video.index} of {uri!r} is not video", stage="read")
        stream = cast(VideoStream, container.streams[video.index])
        for other in container.streams:
            other.discard = Discard.default if other is stream else Discard.all
        if max_pixels is not None:
            stream.codec_context.options = {"max_pixels": str(max_pixels)}
        yield from _Look(container, stream, clock_offset_ns(container), video).flows(windows)
    finally:
        container.close()


class _Look:
    """A pass over a file: decodes on where the next window is near, else seeks."""

    def __init__(
        self, container: av.container.InputContainer, stream: VideoStream, offset_ns: int, video: VideoInfo
    ) -> None:
        self._container, self._stream, self._offset = container, stream, offset_ns
        self._video = video
        self._base = time_base(stream)
        self._pixel_aspect = float(stream.sample_aspect_ratio or 1)
        stream.codec_context.options = {**stream.codec_context.options, **_ROUGHLY}
        self._skip_frames(True)
        self._frames = self._decoded()
        self._at_ns = video.span.start_ns

    def _skip_frames(self, skipping: bool) -> None:
        """Whether to pass over frames that no other refers to: a third of the time where there are any."""
        self._skipping = skipping
        self._stream.codec_context.skip_frame = "NONREF" if skipping else "DEFAULT"

    def flows(self, windows: Sequence[TimeSpan]) -> Iterator[list[Flow]]:
        pending: tuple[int, Gray] | None = None
        for window in windows:
            if self._should_seek(window.start_ns):
                self._seek(window.start_ns)
                pending = None
            frames = [] if pending is None or not window.holds(pending[0]) else [pending]
            frames += list(self._until(window))
            flows = follow(frames)
            if self._skipping and _too_coarse(flows):
                self._skip_frames(False)
                self._seek(window.start_ns)
                frames = list(self._until(window))
                flows = follow(frames)
            pending = frames[-1] if frames else None
            yield flows

    def _until(self, window: TimeSpan) -> Iterator[tuple[int, Gray]]:
        """Frames of a window, and the one after it, which ends its last interval."""
        for time_ns, frame in self._frames:
            self._at_ns = time_ns
            if time_ns >= window.start_ns:
                yield time_ns, _luma(frame, self._pixel_aspect)
            if time_ns >= window.end_ns:
                return

    def _should_seek(self, time_ns: int) -> bool:
        keys = self._video.keyframes_ns
        if not keys:
            return time_ns - self._at_ns > 10 * NS
        before = bisect_left(keys, time_ns + 1) - 1
        return before >= 0 and keys[before] > self._at_ns + self._video.frame_ns

    def _seek(self, time_ns: int) -> None:
        target = time_ns + self._offset
        try:
            self._container.seek(int(target / NS / self._base), stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return
        self._frames = self._decoded()

    def _decoded(self) -> Iterator[tuple[int, VideoFrame]]:
        """Frames with their times, ascending, until the data ends; damaged packets are passed over."""
        last = None
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    continue
                for frame in frames:
                    if frame.pts is None or frame.is_corrupt:
                        continue
                    time_ns = ticks_to_ns(frame.pts, self._base) - self._offset
                    if last is None or time_ns > last:
                        last = time_ns
                        yield time_ns, frame
        except av.error.FFmpegError:
            return


def _too_coarse(flows: Sequence[Flow]) -> bool:
    """Whether frames lie too far apart, in time or by what moves between them, for skipping any."""
    if not flows:
        return True
    step = float(np.median([f.end_ns - f.start_ns for f in flows]))
    moved = [float(np.median(np.linalg.norm(f.moved, axis=1))) for f in flows if len(f.at)]
    return step > _LONGEST_STEP_NS or bool(moved and np.median(moved) > _WIDEST_STEP)


def _luma(frame: VideoFrame, pixel_aspect: float) -> Gray:
    """The small luma picture of a frame, with square pixels."""
    aspect = frame.width * pixel_aspect / frame.height
    if frame.format.name in _PLANAR_8_BIT:
        plane = frame.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        return small_luma(rows[: frame.height, : frame.width], aspect)
    gray = frame.reformat(4 * WIDTH, None, "gray", interpolation="AREA", threads=1)
    return small_luma(np.asarray(gray.to_ndarray(), np.uint8), aspect)
