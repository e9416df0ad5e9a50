"""Decodes exactly the frames that are asked for, and as little else as their references allow.

The unit of decoding is a *run*: one keyframe, the packets after it in decoding order up to the next
keyframe, and, where the group of pictures is open, the packets after that next keyframe whose pictures
are shown before it (leading pictures: they refer to both groups)::

    decode order   K0  P3  b1  b2  P6  b4  b5 | K9  b7  b8  P12 ...
    shown from     0   3   1   2   6   4   5    9   7   8   12
    run of K0      [---------------------------------------)       shown in [0, 9)

A run is decoded from its keyframe with a flushed decoder, whatever was decoded before. So a frame is a
function of the stream and the time asked for, and never of the other targets or of where reading began.

Packets after the last one needed are not decoded, nor are pictures that no other refers to, unless they are
asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from align.schemas.errors import AlignError
from align.transforms.read.nal import PacketTest, disposable_test

MAX_RUN_BYTES = 256 << 20
"""Packets are held until their run is complete; a longer one is refused."""


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """A frame and its own presentation time on the recording clock."""

    time_ns: int
    frame: VideoFrame


@dataclass(frozen=True, slots=True)
class Run:
    """Packets of one keyframe's span of display, in decoding order.

    Attributes:
        packets: from the keyframe on; leading pictures of the next keyframe, with that keyframe and what
            lies between, at the end.
        end: presentation time (ticks) of the next keyframe, or an earlier one before which every picture is
            among the packets; None at the end of the stream.
    """

    packets: tuple[Packet[VideoStream], ...]
    end: int | None

    @property
    def shown(self) -> dict[int, int]:
        """Presentation time (ticks) -> place among the packets, for every picture that is shown."""
        return {
            p.pts: n
            for n, p in enumerate(self.packets)
            if p.pts is not None and not p.is_discard and (self.end is None or p.pts < self.end)
        }

    @property
    def is_exact(self) -> bool:
        """Whether every packet has a presentation time of its own, so that a frame's packet is known."""
        times = [p.pts for p in self.packets]
        return None not in times and len(set(times)) == len(times)


class RunAssembler:
    """Cuts a stream of packets, in decoding order, into runs.

    Args:
        is_entry: whether decoding can begin at a packet.
        from_start: the first packet is the stream's first. Otherwise what cannot be decoded from the first
            keyframe on is left out: the packets before it, and its leading pictures.
    """

    def __init__(self, is_entry: PacketTest, *, from_start: bool = True) -> None:
        self._is_entry = is_entry
        self._from_start = from_start
        self._own: list[Packet[VideoStream]] = []
        self._own_bytes = 0
        self._next: list[Packet[VideoStream]] = []

    def push(self, packet: Packet[VideoStream]) -> Iterator[Run]:
        """Take the next packet; yield the run that it completes, if any.

        Raises:
            AlignError: ``no_keyframes`` where a run would not fit into memory.
        """
        if self._own and self._is_entry(packet):
            if self._next:
                yield self._complete()
            self._next = [packet]
        elif self._next:
            self._next.append(packet)
            if self._is_past_leading(packet):
                yield self._complete()
        elif self._from_start or not self._is_cut_off(packet):
            self._own.append(packet)
            self._own_bytes += packet.size
            if self._own_bytes > MAX_RUN_BYTES:
                detail = (
                    f"{MAX_RUN_BYTES >> 20} MB of video without a keyframe: re-encode it with more of them"
                )
                raise AlignError("no_keyframes", detail)

    @property
    def is_landing(self) -> bool:
        """Whether packets are left out until the next one at which decoding can begin."""
        return not self._from_start and not self._own

    def begun_with(self, dts: int) -> bool:
        """Whether a run is being gathered whose keyframe is decoded at ``dts``, and no later one is known."""
        return bool(self._own) and not self._next and self._own[0].dts == dts

    def cut(self, end: int) -> Run:
        """The run as far as it was gathered, for what is shown before ``end``; its rest is left out."""
        run = Run(tuple(self._own), end)
        self._own, self._own_bytes, self._from_start = [], 0, False
        return run

    def finish(self) -> Iterator[Run]:
        """Yield what is left at the end of the stream."""
        if self._next:
            yield self._complete()
        if self._own:
            yield Run(tuple(self._own), None)
        self._own = []

    def _is_cut_off(self, packet: Packet[VideoStream]) -> bool:
        return _is_before(packet, self._own[0].pts) if self._own else not self._is_entry(packet)

    def _is_past_leading(self, packet: Packet[VideoStream]) -> bool:
        """Whether no later packet can be shown before the pending keyframe: none decodes after its time.

        Without decoding times, a packet shown after the keyframe ends its leading pictures, as it must in
        HEVC and as encoders of H.264 do.
        """
        pending = self._next[0].pts
        latest = packet.pts if packet.dts is None else packet.dts
        return pending is None or latest is None or latest >= pending

    def _complete(self) -> Run:
        """The run of the pending packets' predecessor; the pending ones begin the next run."""
        keyframe = self._next[0].pts
        leading = [n for n, p in enumerate(self._next) if _is_before(p, keyframe)]
        run = Run((*self._own, *self._next[: leading[-1] + 1 if leading else 0]), keyframe)
        self._own = [p for p in self._next if not _is_before(p, keyframe)]
        self._own_bytes = sum(p.size for p in self._own)
        self._next, self._from_start = [], True
        return run


def _is_before(packet: Packet[VideoStream], time: int | None) -> bool:
    return packet.pts is not None and time is not None and packet.pts < time


def on_screen(times: Collection[int], targets: Collection[int]) -> dict[int, int]:
    """For each target the latest time that is not after it; targets before all times are left out."""
    found: dict[int, int] = {}
    ascending = sorted(times)
    at = -1
    for target in sorted(targets):
        while at + 1 < len(ascending) and ascending[at + 1] <= target:
            at += 1
        if at >= 0:
            found[target] = ascending[at]
    return found


class RunDecoder:
    """Decodes chosen frames of runs, one run at a time."""

    def __init__(self, stream: VideoStream) -> None:
        self._context = stream.codec_context
        self._is_disposable = disposable_test(stream)

    def frames(self, run: Run, targets: Collection[int]) -> dict[int, VideoFrame]:
        """The frame on screen at each target.

        A damaged frame is never an answer, nor is one that may refer to a damaged one; the last sound frame
        before it is, where the run has one.

        Args:
            run: the run in whose span of display the targets lie.
            targets: presentation times in ticks.

        Returns:
            target -> frame; without the targets for which nothing sound could be decoded.
        """
        shown = run.shown
        wanted = on_screen(shown, targets)
        if run.is_exact and wanted:
            last = max(shown[time] for time in wanted.values())
            frames, damaged = self._decode(run.packets[: last + 1], set(wanted.values()))
            if not damaged and all(time in frames for time in wanted.values()):
                return {target: frames[time] for target, time in wanted.items()}
        return self._sound_frames(run, targets)

    def _sound_frames(self, run: Run, targets: Collection[int]) -> dict[int, VideoFrame]:
        """Decode plainly up to the first damaged picture that others refer to, and choose among the frames.

        Damage to a picture that none refers to costs only itself, so that the choice for one target does
        not depend on which others were asked for.
        """
        _, damaged = self._decode(run.packets, ())
        sound = run.packets[: min(damaged, default=len(run.packets))]
        best: dict[int, VideoFrame] = {}
        for frame in self._feed(sound, set()):
            if frame.pts is None or frame.is_corrupt or (run.end is not None and frame.pts >= run.end):
                continue
            for target in targets:
                if frame.pts <= target and (target not in best or _time(best[target]) <= frame.pts):
                    best[target] = frame
        return best

    def _decode(
        self, packets: Sequence[Packet[VideoStream]], wanted: Collection[int]
    ) -> tuple[dict[int, VideoFrame], set[int]]:
        """Decode what the wanted frames need: those frames by time, and the places of damaged packets."""
        place = {p.pts: n for n, p in enumerate(packets)}
        frames: dict[int, VideoFrame] = {}
        damaged: set[int] = set()
        for frame in self._feed(packets, damaged, wanted):
            if frame.is_corrupt:
                damaged.add(place.get(frame.pts, 0))
            elif frame.pts in wanted:
                frames[_time(frame)] = frame
        return frames, damaged

    def _feed(
        self,
        packets: Sequence[Packet[VideoStream]],
        damaged: set[int],
        wanted: Collection[int] | None = None,
    ) -> Iterator[VideoFrame]:
        """Feed packets to a flushed decoder and drain it; add the places of broken packets to ``damaged``.

        ``wanted`` holds the times of pictures to decode though none may refer to them; None: all.
        """
        self._context.flush_buffers()
        for place, packet in enumerate((*packets, None)):
            if packet is not None:
                if wanted is not None and packet.pts not in wanted and self._is_disposable(packet):
                    continue
                if packet.is_corrupt:
                    damaged.add(place)
            try:
                yield from self._context.decode(packet)
            except av.error.FFmpegError:
                damaged.add(place)
        self._context.flush_buffers()


def _time(frame: VideoFrame) -> int:
    if frame.pts is None:
        raise ValueError("a frame that was placed has a time")
    return frame.pts
