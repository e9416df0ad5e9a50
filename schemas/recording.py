"""What a source says about a recording before any media is opened."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal

from align.schemas.media import MediaInfo
from align.schemas.time import ClockMap, TimeSpan
from align.schemas.wire import OMIT_NONE

Kind = Literal["video", "audio", "imu"]
SyncStatus = Literal["verified", "corrected", "refuted", "unobservable"]


@dataclass(frozen=True, slots=True)
class SyncPiece:
    """What was measured of the IMU's clock, from ``start_ns`` (recording clock) until the next piece.

    Attributes:
        offset_ns: what was added to the IMU's times at ``start_ns``; None where nothing was proven.
        drift_ppm: by how much the recording clock gains on the IMU's.
        sigma_ns: standard error of the offset.
    """

    start_ns: int
    status: SyncStatus
    offset_ns: int | None = None
    drift_ppm: float = 0.0
    sigma_ns: int | None = None

    def offset_at(self, time_ns: int) -> int | None:
        """What was added to the IMU's times to give this recording time."""
        if self.offset_ns is None:
            return None
        drift = self.drift_ppm * 1e-6
        return self.offset_ns + round(drift / (1 + drift) * (time_ns - self.start_ns))


@dataclass(frozen=True, slots=True)
class Concurrent:
    """The recordings of one event that a recording belongs to, as the metadata says.

    Attributes:
        set_id: names the set; unique within a source.
        offset_ns: where the recording clock's 0 stands on the set's clock; 0 where that is not told.
    """

    set_id: str
    offset_ns: int = 0


@dataclass(frozen=True, slots=True)
class ImuColumns:
    """Which columns of a table mean what.

    The time's unit is checked against the rows' spacing all the same. A scale that is not known is found from
    the values: gravity in g, turns in °/s.

    Attributes:
        time: name of the column.
        gyro: names of x, y and z.
        accl: names of x, y and z.
        time_scale_ns: nanoseconds per unit of the time column.
        component: name of the column that numbers the camera files behind a joined recording; it may be
            absent.
        gyro_scale: factor to rad/s; None where it is not known.
        accl_scale: factor to m/s²; None where it is not known.
    """

    time: str
    gyro: tuple[str, str, str]
    accl: tuple[str, str, str]
    time_scale_ns: float
    component: str = ""
    gyro_scale: float | None = None
    accl_scale: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Time, gyroscope, accelerometer."""
        return (self.time, *self.gyro, *self.accl)


@dataclass(frozen=True, slots=True)
class Stream:
    """Where one stream of a recording lies, and how its clock leads to the recording clock.

    Attributes:
        uri: path or URI of the file.
        name: the file's path relative to the input folder: what provenance and messages show, so that
            outputs do not depend on where the input lies and never hold a signed URL.
        index: the stream inside a container; None picks the default of its kind.
        clock: from the stream's own time to the recording clock.
        columns: of a table, what its columns mean; None for media.
    """

    kind: Kind
    uri: str
    name: str
    index: int | None = None
    clock: ClockMap = ClockMap()
    columns: ImuColumns | None = field(default=None, metadata=OMIT_NONE)


@dataclass(frozen=True, slots=True, order=True)
class Narration:
    """A sentence about one instant. ``raw`` is the original, tags included."""

    time_ns: int
    raw: str


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording: its streams, its text, and what the metadata claims of its time.

    Attributes:
        recording_id: unique within the source.
        group_id: what a split never cuts: participant, else recording set, else the recording.
        video: the master video; its presentation timeline is the recording clock.
        audio: None when the metadata says there is none; in the video's file or in one of its own.
        imu: None when there is none.
        span: the video's span as the metadata claims it; what the file says is measured later.
        narrations: sorted by time; None where the recording has none at all.
        joints_ns: where original camera files were joined: no window crosses one by default.
        redacted: spans that were blanked.
        stereo: frames hold two pictures side by side.
        imu_sync: what was measured of the IMU's clock, ascending; empty where nothing was.
        absent: stream kind -> why it is None although one might expect it, in words.
        claimed: what the metadata says of the file; enough for an estimate, never used for reading.
        concurrent: recordings of the same event; None where there are none.
        promised: what in the metadata says so -> when the video ends, ns; under ``duration_sec``, when the
            file's longest stream ends. Planning compares them with the file; segments do not carry them.
    """

    source: str
    recording_id: str
    group_id: str
    video: Stream
    audio: Stream | None = None
    imu: Stream | None = None
    span: TimeSpan | None = None
    narrations: tuple[Narration, ...] | None = None
    joints_ns: tuple[int, ...] = ()
    redacted: tuple[TimeSpan, ...] = ()
    scenarios: tuple[str, ...] = ()
    stereo: bool = False
    imu_sync: tuple[SyncPiece, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)
    claimed: MediaInfo | None = None
    concurrent: Concurrent | None = field(default=None, metadata=OMIT_NONE)
    promised: dict[str, int] | None = field(default=None, metadata=OMIT_NONE)

    @property
    def sound_file(self) -> Stream | None:
        """The sound, where it takes a pass of its own: not in the file, or on the clock, of the video."""
        if self.audio is None or (self.audio.uri == self.video.uri and self.audio.clock.is_identity):
            return None
        return self.audio

    def imu_sync_at(self, time_ns: int) -> SyncPiece | None:
        """The piece of the IMU's clock that an instant falls into; before the first piece, the first."""
        which = bisect_right(self.imu_sync, time_ns, key=attrgetter("start_ns")) - 1
        return self.imu_sync[max(which, 0)] if self.imu_sync else None
