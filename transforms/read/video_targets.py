"""Resolves the instants whose frames are wanted, as the packets of their runs come by."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from av.packet import Packet, PacketSideData
from av.video.stream import VideoStream

from align.schemas.media import VideoInfo
from align.schemas.time import latest_tick, tick_clock, ticks_to_ns
from align.transforms.read.container import time_base
from align.transforms.read.frames import DecodedFrame, Run, RunAssembler, RunDecoder
from align.transforms.read.nal import entry_test
from align.transforms.read.sample_table import SampleTable
from align.transforms.stages import count, stage

STALE_FRAMES = 3
"""A damaged frame is replaced by a sound one at most so many nominal frames before it."""


class VideoTargets:
    """The frames on screen at given instants of one stream.

    Args:
        stream: what is read.
        info: the same, probed.
        targets_ns: an instant for each use that will be made of its frame, recording clock.
        table: says which targets share a keyframe, so that a run need not be gathered beyond them.
    """

    def __init__(
        self,
        stream: VideoStream,
        info: VideoInfo,
        targets_ns: Iterable[int],
        table: SampleTable | None = None,
    ) -> None:
        self.stream = stream
        self.end_ns = info.span.end_ns
        self.frame_ns = info.frame_ns
        self._info = info
        self._base = time_base(stream)
        self._ns = tick_clock(self._base, info.clock_offset_ns)
        self._uses = Counter(targets_ns)
        self._frames: dict[int, DecodedFrame] = {}
        self._errors: dict[int, str] = {}
        self._pending = deque(t for t in sorted(self._uses) if self._is_covered(t))
        self.is_entry = entry_test(stream)
        self._assembler = RunAssembler(self.is_entry)
        self._decoder = RunDecoder(stream)
        self._table = table
        self._cut = self._next_cut()
        self._parameters: PacketSideData | None = None

    def _is_covered(self, target_ns: int) -> bool:
        """The first frame holds for less than a frame before its time, the last for as long after its end."""
        span, frame = self._info.span, self._info.frame_ns
        return span.start_ns - frame < target_ns < span.end_ns + frame

    def has(self, target_ns: int) -> bool:
        """Whether this instant and those before it are resolved."""
        return not self._pending or target_ns < self._pending[0]

    @property
    def left(self) -> int:
        """How many targets are still to be resolved."""
        return len(self._pending)

    def need_ns(self) -> int | None:
        """The earliest instant whose frame is still to be found, or None."""
        return max(self._pending[0], self._info.span.start_ns) if self._pending else None

    @property
    def is_landing(self) -> bool:
        """Whether packets are left out until the next one at which decoding can begin."""
        return self._assembler.is_landing

    def missed(self) -> None:
        """The keyframe of the next target was left out: it is shown later than the table lets think."""
        if self._table is not None:
            self._table.is_trusted = False
            self._cut = self._next_cut()

    def carry(self, packet: Packet[VideoStream]) -> None:
        """Let every keyframe bring the decoder's parameters that are in force, where they change in the file.

        The demuxer puts them on the first packet after a change alone, which may be one that is not decoded.
        """
        if not self._info.is_reconfigured:
            return
        if packet.has_sidedata("new_extradata"):
            self._parameters = packet.get_sidedata("new_extradata")
        elif self._parameters is not None and packet.is_keyframe:
            packet.set_sidedata(self._parameters)

    def push(self, packet: Packet[VideoStream]) -> None:
        """Take the next packet, in decoding order."""
        for run in self._assembler.push(packet):
            self._resolve(run)
        if self._cut is None or packet.dts is None:
            return
        keyframe, last = self._cut
        if packet.dts > last and self._assembler.begun_with(keyframe):
            self._resolve(self._assembler.cut(packet.dts))  # nothing that comes is shown before its decoding

    def finish(self) -> None:
        """There are no more packets."""
        for run in self._assembler.finish():
            self._resolve(run)
        for target in self._pending:
            self._errors[target] = "the file ends before this frame"
        self._pending.clear()

    def restart(self, *, from_start: bool) -> None:
        """Packets go on elsewhere: at the stream's first one, or in its middle."""
        self._assembler = RunAssembler(self.is_entry, from_start=from_start)

    def take(self, targets_ns: tuple[int, ...]) -> tuple[tuple[DecodedFrame | None, ...], str]:
        """The frames of resolved instants, None where none could be had, and why the first of these failed.

        A frame is forgotten with the last use that was announced of it.
        """
        frames = tuple(self._frames.get(t) for t in targets_ns)
        errors = [self._errors[t] for t in targets_ns if t in self._errors]
        for target in targets_ns:
            self._uses[target] -= 1
            if not self._uses[target]:
                self._frames.pop(target, None)
                self._errors.pop(target, None)
        return frames, errors[0] if errors else ""

    def _next_cut(self) -> tuple[int, int] | None:
        """Ticks: when the next target's keyframe is decoded, and the last target that shares it."""
        if self._table is None or not self._pending:
            return None
        ticks = map(self._ticks, self._pending)
        last = next(ticks)
        keyframe = self._table.keyframe(last)
        for later in ticks:
            if self._table.keyframe(later) != keyframe:
                break
            last = later
        return keyframe, last

    def _resolve(self, run: Run) -> None:
        """Decode the frames of all targets that lie before the run's end."""
        targets: dict[int, int] = {}
        while self._pending and (run.end is None or self._ticks(self._pending[0]) < run.end):
            target = self._pending.popleft()
            targets[target] = self._ticks(target)
        if targets:
            self._cut = self._next_cut()
        if run.end is None:
            targets = self._within_reach(run, targets)
        if not targets:
            return
        with stage("decode"):
            frames = self._decoder.frames(run, set(targets.values()))
        count("decode", len(frames), sum(p.size for p in run.packets))
        for target, ticks in targets.items():
            if ticks in frames:
                frame = DecodedFrame(self._ns(frames[ticks].pts or 0), frames[ticks])
                self._accept(run, target, ticks, frame)
            else:
                self._errors[target] = "the frame cannot be decoded"

    def _accept(self, run: Run, target: int, ticks: int, frame: DecodedFrame) -> None:
        due = max((t for t in run.shown if t <= ticks), default=ticks)
        if self._ns(due) - frame.time_ns > STALE_FRAMES * self._info.frame_ns:
            self._errors[target] = "the frame is damaged, and so are those before it"
            return
        if due != frame.frame.pts:
            self._errors[target] = "the frame is damaged: the one before it stands in"
        self._frames[target] = frame

    def _within_reach(self, run: Run, targets: dict[int, int]) -> dict[int, int]:
        """Of the stream's last run, the targets that its last frame reaches: a file may be cut short."""
        shown = run.shown
        if not shown:
            return targets
        last = max(shown)
        length_ns = ticks_to_ns(run.packets[shown[last]].duration or 0, self._base)
        end = self._ns(last) + max(length_ns, self._info.frame_ns) + self._info.frame_ns
        for target in [t for t in targets if t >= end]:
            del targets[target]
            self._errors[target] = "the file ends before this frame"
        return targets

    def _ticks(self, time_ns: int) -> int:
        """The latest tick that is not after an instant; before the first frame, that frame's."""
        time = max(time_ns, self._info.span.start_ns)
        return latest_tick(time, self._base, self._info.clock_offset_ns)
