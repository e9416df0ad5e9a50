"""Reads the media of a segment's windows in one pass over the file.

Packets of video and audio come as the file interleaves them. Video goes run by run through the frame
decoder, which decodes only what the targets need; audio packets are kept while a window may still want
them. Stretches that no window needs are skipped by seeking; where only the sound is needed, the demuxer steps
over the video. What a window gets does not depend on which other windows are read with it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeAlias, TypeVar, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.stream import VideoStream

from align.schemas.errors import AlignError
from align.schemas.media import MediaInfo
from align.schemas.time import NS, tick_clock
from align.transforms.read.audio_packets import AudioPackets
from align.transforms.read.container import clock_offset_ns, packets_of, rewind, time_base
from align.transforms.read.edited import read_edited
from align.transforms.read.frames import DecodedFrame
from align.transforms.read.requests import WindowMedia, WindowRequest
from align.transforms.read.sample_table import SampleTable, Wake
from align.transforms.read.timeline import Timeline, longest_jump_ns, one_way, tolerance_ns
from align.transforms.read.video_targets import VideoTargets
from align.transforms.stages import count, stage

__all__ = ["WindowMedia", "WindowRequest", "read_media"]

_S = TypeVar("_S", VideoStream, AudioStream)
_AnyPacket: TypeAlias = "Packet[VideoStream] | Packet[AudioStream]"

_INTERLEAVE_NS = 10 * NS
"""How far a stream may lag behind the other in the file before it is taken to have ended."""

_JUMP_NS = 10 * NS
"""Shorter stretches are read through, unless a table of all packets shows what lies between."""

_NEVER_NS = 1 << 62

_LANDING_PACKETS = 2000
_BACKOFF_NS = (0, NS, 4 * NS, 16 * NS, 64 * NS)


def read_media(
    container: InputContainer,
    media: MediaInfo,
    requests: Sequence[WindowRequest],
    *,
    max_pixels: int | None = None,
) -> Iterator[WindowMedia]:
    """Read windows from an open file, in the order given.

    Memory is bounded by a run of packets, the audio of the windows in flight, and their frames.

    Args:
        container: as :func:`~align.transforms.read.guard.open_media` opens it.
        media: the same file, probed.
        requests: ascending by window; they may overlap and leave gaps.
        max_pixels: larger pictures than this are not decoded, whatever the header says.

    Raises:
        AlignError: ``no_such_stream`` where the file has not the streams that were probed.
    """
    if not media.is_edited:
        yield from _read(
            _Reader(container, media, requests, max_pixels, clock_offset_ns(container)), requests
        )
        return

    def read(alone: MediaInfo, request: WindowRequest, offset_ns: int) -> WindowMedia:
        rewind(container)
        (found,) = _read(_Reader(container, alone, [request], max_pixels, offset_ns), [request])
        return found

    sound = _stream(container, media.audio.index, AudioStream) if media.audio is not None else None
    yield from read_edited(read, media, requests, sound)


def _read(reader: _Reader, requests: Iterable[WindowRequest]) -> Iterator[WindowMedia]:
    for request in requests:
        with stage("read"):
            found = reader.window(request)
        count("read", *reader.taken())
        yield found


class _Reader:
    """One pass over a file; skips forward where nothing is needed."""

    def __init__(
        self,
        container: InputContainer,
        media: MediaInfo,
        requests: Sequence[WindowRequest],
        max_pixels: int | None,
        offset: int,
    ) -> None:
        self._container = container
        self._video = self._table = self._audio = None
        if media.video is not None:
            video = _stream(container, media.video.index, VideoStream)
            if max_pixels is not None and not video.codec_context.is_open:
                video.codec_context.options = {"max_pixels": str(max_pixels)}
            self._table = SampleTable.of(container, video, media.video)
            targets = (t for r in requests for t in r.targets_ns)
            self._video = VideoTargets(video, media.video, targets, self._table)
        wanted = [r.audio for r in requests if r.audio is not None]
        if media.audio is not None and wanted:
            audio = _stream(container, media.audio.index, AudioStream)
            self._audio = AudioPackets(audio, media.audio, wanted)
        self._keyframes = media.video.keyframes_ns if media.video is not None else ()
        self._start_ns = min(i.span.start_ns for i in (media.video, media.audio) if i is not None)
        self._streams = [r.stream for r in (self._video, self._audio) if r is not None]
        self._clocks = {s.index: tick_clock(time_base(s), offset) for s in self._streams}
        self._offset = offset
        for stream in container.streams:
            stream.discard = Discard.default if stream in self._streams else Discard.all
        self._packets: Iterator[_AnyPacket] = self._demux()
        self._at_ns = self._start_ns
        self._may_seek = True
        self._sought_ns = self._start_ns
        self._sleep: Wake | None = None  # while video is stepped over: until when
        self._video_alone_ns = 0  # how much of it came since the last sound
        self._packets_read = self._bytes_read = 0

    def window(self, request: WindowRequest) -> WindowMedia:
        """Read on until the window has all it wants."""
        left = None
        while not self._has(request):
            now_left = self._video.left if self._video is not None else 0
            if now_left != left:  # what is needed next may be far away
                left = now_left
                self._skip_ahead()
            self._step()
        frames: tuple[DecodedFrame | None, ...] = (None,) * len(request.targets_ns)
        error = ""
        if self._video is not None:
            frames, error = self._video.take(request.targets_ns)
        if self._audio is None or request.audio is None:
            return WindowMedia(request, frames, frame_error=error)
        return WindowMedia(request, frames, self._audio.take(request.audio), self._audio.stream, error)

    def taken(self) -> tuple[int, int]:
        """Packets and bytes read since the last time."""
        packets, size = self._packets_read, self._bytes_read
        self._packets_read = self._bytes_read = 0
        return packets, size

    def _has(self, request: WindowRequest) -> bool:
        if self._audio is not None and request.audio and not self._audio.has(request.audio.end_ns):
            return False
        return self._video is None or not request.targets_ns or self._video.has(max(request.targets_ns))

    def _demux(self) -> Iterator[_AnyPacket]:
        """Packets from where the demuxer stands, up to where time would step back.

        A table of all packets leaves no doubt; elsewhere large files were not read through when probed.
        """
        packets = cast("Iterator[_AnyPacket]", packets_of(self._container, self._streams))
        if self._table is not None:
            return packets
        jump = longest_jump_ns(self._container.format.name)
        watched = {s.index: Timeline(tolerance_ns(self._frame_ns(s)), jump) for s in self._streams}
        return one_way(packets, watched, self._clocks)

    def _frame_ns(self, stream: VideoStream | AudioStream) -> int:
        return self._video.frame_ns if self._video is not None and stream is self._video.stream else 0

    def _step(self) -> None:
        """Take one packet."""
        packet = next(self._packets, None)
        if packet is None:
            self._end()
            return
        before_ns, self._at_ns = self._at_ns, self._packet_ns(packet, self._at_ns)
        self._packets_read += 1
        self._bytes_read += packet.size
        if self._video is not None and packet.stream_index == self._video.stream.index:
            self._video_alone_ns += min(max(self._at_ns - before_ns, 0), NS)  # clocks may jump ahead
            self._take_video(self._video, cast("Packet[VideoStream]", packet))
        elif self._audio is not None:
            self._video_alone_ns = 0
            self._audio.push(cast("Packet[AudioStream]", packet), self._at_ns)
            if self._audio.is_torn and self._video is not None:
                self._go_back(self._video)
                return
            if self._video is not None and self._at_ns > self._video.end_ns + _INTERLEAVE_NS:
                self._video.finish()
            if self._sleep is not None and self._at_ns >= self._sleep.time_ns:
                self._wake(self._sleep)

    def _take_video(self, video: VideoTargets, packet: Packet[VideoStream]) -> None:
        video.carry(packet)
        if video.is_landing and video.is_entry(packet):
            need = video.need_ns()
            if need is not None and self._at_ns > need:
                self._go_back(video)
                return
        video.push(packet)
        if self._audio is None or self._video_alone_ns <= _INTERLEAVE_NS:
            return
        if self._at_ns > self._audio.last_ns + _INTERLEAVE_NS:
            self._audio.reached(self._at_ns - _INTERLEAVE_NS)

    def _packet_ns(self, packet: _AnyPacket, default_ns: int) -> int:
        ticks = packet.pts if packet.pts is not None else packet.dts
        return default_ns if ticks is None else self._clocks[packet.stream_index](ticks)

    def _end(self) -> None:
        """The file has ended, for what is listened to."""
        video = self._video
        if video is not None and video.left and (self._sleep is not None or video.is_landing):
            self._go_back(video)
            return
        for reader in (self._video, self._audio):
            if reader is not None:
                reader.finish()

    def _need_ns(self) -> int | None:
        """The earliest instant that is still to be read, or None where nothing is."""
        needs = [r.need_ns() for r in (self._video, self._audio) if r is not None]
        return min((n for n in needs if n is not None), default=None)

    def _skip_ahead(self) -> None:
        need = self._need_ns()
        if need is not None and self._may_seek and self._is_far(need, max(self._at_ns, self._sought_ns)):
            self._seek(need)
        self._doze()

    def _is_far(self, need_ns: int, at_ns: int) -> bool:
        """Whether what lies between is worth a seek."""
        if self._table is not None:
            return self._table.keyframe_ns(need_ns) > at_ns + NS
        if need_ns - at_ns < _JUMP_NS:
            return False
        before = bisect_right(self._keyframes, need_ns - NS)
        return not self._keyframes or (before > 0 and self._keyframes[before - 1] > at_ns)

    def _doze(self) -> None:
        """Where no frame is needed for a while, let the demuxer step over video while sound goes on."""
        if self._video is None or self._audio is None or self._table is None or not self._may_seek:
            return
        need = self._video.need_ns()
        wake = Wake(_NEVER_NS) if need is None else self._table.wake(need, self._audio.stream)
        if wake.time_ns > self._at_ns:
            self._video.stream.discard = Discard.all
            self._sleep = wake

    def _wake(self, wake: Wake) -> None:
        """Read video again: from where the demuxer stands, or from the keyframe if that is farther on."""
        if self._video is None or self._audio is None:
            return
        self._video.stream.discard = Discard.default
        self._sleep = None
        if wake.seek_ticks is not None:
            try:
                self._container.seek(wake.seek_ticks, stream=self._video.stream)
            except av.error.FFmpegError:
                self._go_back(self._video)
                return
            self._packets = self._demux()
            self._audio.expect_again()
        self._video.restart(from_start=False)

    def _go_back(self, video: VideoTargets) -> None:
        """Read on from before what was stepped over and is needed after all."""
        video.missed()
        if self._audio is not None:
            self._audio.restart()
        need = self._need_ns()
        if need is not None:
            self._seek(need)

    def _seek(self, need_ns: int) -> None:
        """Go to packets from which everything at ``need_ns`` can be decoded; at worst, to the beginning."""
        for stream in self._streams:
            stream.discard = Discard.default
        for margin in _BACKOFF_NS:
            goal = need_ns - margin
            if goal <= self._start_ns:
                break
            try:
                self._container.seek((goal + self._offset) // 1000)
            except av.error.FFmpegError:
                break
            packets = self._demux()
            head = list(self._head(packets))
            if self._covers(head, need_ns):
                self._restart(chain(head, packets), goal, from_start=False)
                self._sought_ns = need_ns
                return
        self._may_seek = False
        rewind(self._container)
        self._restart(self._demux(), self._start_ns, from_start=True)

    def _head(self, packets: Iterator[_AnyPacket]) -> Iterator[_AnyPacket]:
        """Packets up to where every stream has begun."""
        waiting = {s.index for s in self._streams}
        for packet in islice(packets, _LANDING_PACKETS):
            yield packet
            if self._begins(packet):
                waiting.discard(packet.stream_index)
            if not waiting:
                return

    def _begins(self, packet: _AnyPacket) -> bool:
        """Whether the packet's stream can be decoded from here on."""
        video = self._video
        if video is None or packet.stream_index != video.stream.index:
            return True
        return video.is_entry(cast("Packet[VideoStream]", packet))

    def _covers(self, head: Sequence[_AnyPacket], need_ns: int) -> bool:
        """Whether reading on from ``head`` misses nothing: keyframe and audio pre-roll precede the need."""
        begins: dict[int, int] = {}
        for packet in head:
            if packet.pts is not None and self._begins(packet):
                begins.setdefault(packet.stream_index, self._packet_ns(packet, 0))
        video_ok = self._video is None or begins.get(self._video.stream.index, need_ns + 1) <= need_ns
        audio_ok = (
            self._audio is None
            or self._audio.end_ns < need_ns - NS
            or begins.get(self._audio.stream.index, need_ns) < need_ns - NS // 2
        )
        return video_ok and audio_ok

    def _restart(self, packets: Iterator[_AnyPacket], at_ns: int, *, from_start: bool) -> None:
        self._packets, self._at_ns = packets, at_ns
        self._sleep = None
        if self._video is not None:
            self._video.restart(from_start=from_start)
        if self._audio is not None:
            self._audio.restart()


def _stream(container: InputContainer, index: int, kind: type[_S]) -> _S:
    stream = container.streams[index] if index < len(container.streams) else None
    if not isinstance(stream, kind):
        raise AlignError(
            "no_such_stream", f"stream {index} is no longer what was probed: has the file changed?"
        )
    return stream
