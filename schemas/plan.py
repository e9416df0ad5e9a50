"""What is going to be read: windows and the segments that hold them."""

from __future__ import annotations

from dataclasses import dataclass, field

from align.schemas.media import AudioInfo, MediaInfo
from align.schemas.recording import Recording
from align.schemas.time import TimeSpan
from align.schemas.wire import OMIT_NONE


@dataclass(frozen=True, slots=True)
class ImuRange:
    """Where in an IMU table the rows of a segment lie, and what the whole table said of itself.

    Attributes:
        byte_ranges: half-open ranges of whole lines, in file order, headers excluded.
        columns: names of the columns, in file order.
        delimiter: the column separator.
        time_scale_ns: nanoseconds per unit of the time column.
        gyro_scale: factor to rad/s.
        accl_scale: factor to m/s².
        gyro_rate_hz: measured over the whole table; 0.0 where it cannot be.
        accl_rate_hz: measured over the whole table; 0.0 where it cannot be.
        span: from the first to the last usable row of the whole table, stream clock.
        missing: why there is no usable IMU (a ``Reason`` value), or None.
        detail: the same in words.
        components: ``component_idx`` -> the stretch that is its own, ascending and disjoint, stream clock;
            none where the table has one component.
        gyro_row_ns: from row to row where rows share timestamps in batches and are spread; 0.0 where each has
            its own.
        accl_row_ns: the same of the accelerometer.
        batch_ns: by no more than this a row is put later than its timestamp.
    """

    byte_ranges: tuple[tuple[int, int], ...] = ()
    columns: tuple[str, ...] = ()
    delimiter: str = ","
    time_scale_ns: float = 1e6
    gyro_scale: float = 1.0
    accl_scale: float = 1.0
    gyro_rate_hz: float = 0.0
    accl_rate_hz: float = 0.0
    span: TimeSpan | None = None
    missing: str | None = None
    detail: str = ""
    components: tuple[tuple[int, TimeSpan], ...] = ()
    gyro_row_ns: float = 0.0
    accl_row_ns: float = 0.0
    batch_ns: int = 0


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that a segment reads, as planning found it.

    Attributes:
        name: as its stream names it.
        size: bytes; None where it was not there.
        stamp: time of its last change, as its store tells it.
        content: a fingerprint of its content; "" where none was taken.
        inode: of a local file.
        changed_ns: when a local file's content or attributes last changed (``st_ctime_ns``).
    """

    name: str
    size: int | None = None
    stamp: str = ""
    content: str = ""
    inode: int = 0
    changed_ns: int = 0


@dataclass(frozen=True, slots=True)
class SoundFile:
    """The sound that :attr:`~align.schemas.recording.Recording.sound_file` names, as planning found it.

    Attributes:
        media: the file as probed, without its video; None where it cannot be read.
        missing: why it has no sound (a ``Reason`` value), or None.
    """

    media: MediaInfo | None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive windows of one recording: the unit of reading.

    Attributes:
        recording: the recording, its narrations cut to what the windows hold.
        media: the master file as probed.
        window_ns: length of each window.
        starts_ns: ascending starts of the windows, recording clock.
        split: the split that all windows of the recording's group belong to.
        imu: where the IMU rows lie; None without an IMU stream.
        sound: what serves as sound instead of the master file's; None where that does.
        cost_s: estimated CPU seconds.
        cost_bytes: estimated bytes written.
        inputs: its files as planning found them; empty where nobody looks after them.
    """

    recording: Recording
    media: MediaInfo
    window_ns: int
    starts_ns: tuple[int, ...]
    split: str = "train"
    imu: ImuRange | None = None
    cost_s: float = 0.0
    cost_bytes: int = 0
    inputs: tuple[InputFile, ...] = ()
    sound: SoundFile | None = field(default=None, metadata=OMIT_NONE)

    @property
    def audio(self) -> AudioInfo | None:
        """The stream that serves as sound."""
        if self.recording.sound_file is None:
            return self.media.audio if self.recording.audio is not None else None
        return self.sound.media.audio if self.sound is not None and self.sound.media is not None else None

    @property
    def windows(self) -> tuple[TimeSpan, ...]:
        """The windows, ascending."""
        return tuple(TimeSpan(s, s + self.window_ns) for s in self.starts_ns)

    @property
    def key(self) -> str:
        """Names the segment; unique within a run."""
        return f"{self.recording.recording_id}@{self.starts_ns[0]}"
