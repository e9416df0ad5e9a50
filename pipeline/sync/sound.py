"""Compares the sounds of concurrent recordings: one of a set lends its clock, the others are led to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from align.pipeline import access
from align.pipeline.config import RunConfig
from align.schemas.errors import AlignError
from align.schemas.media import MediaInfo
from align.schemas.recording import Recording, Stream
from align.schemas.time import TimeSpan
from align.transforms.sync.clocks import ClockRow
from align.transforms.sync.measure import nothing_to_compare
from align.transforms.sync.sound import Listener, MeasuredSound, measure_sound
from align.transforms.sync.verdict import SyncOptions


@dataclass(frozen=True, slots=True)
class ConcurrentSet:
    """Recordings of one event.

    Attributes:
        set_id: its name.
        members: in the order in which they are asked for their clock: the longest first, then by id; without
            narrations.
    """

    set_id: str
    members: tuple[Recording, ...]


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """What was measured of a set.

    Attributes:
        reference: the recording whose clock is shared; "" where none has sound that can be heard.
        found: of each other recording.
        failures: recordings that could not be read: (id, why).
    """

    set_id: str
    reference: str
    found: tuple[MeasuredSound, ...]
    failures: tuple[tuple[str, str], ...]

    @property
    def is_known(self) -> bool:
        """Whether any clock was measured."""
        return any(row.is_known for one in self.found for row in one.rows)


def concurrent_sets(recordings: Iterable[Recording]) -> tuple[ConcurrentSet, ...]:
    """The sets that some recordings belong to, by id."""
    sets: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        if recording.concurrent is not None:
            sets[recording.concurrent.set_id].append(replace(recording, narrations=None))
    return tuple(
        ConcurrentSet(set_id, tuple(sorted(members, key=_eligibility)))
        for set_id, members in sorted(sets.items())
    )


def _eligibility(recording: Recording) -> tuple[int, str]:
    span = recording.span
    return -span.length_ns if span is not None else 0, recording.recording_id


def measure_set(item: ConcurrentSet, options: SyncOptions, run: RunConfig) -> MeasuredSet:
    """Lead the clocks of a set's recordings to that of the first one that any other agrees with.

    A file that cannot be read costs its own recording.

    Args:
        item: the set.
        options: how far is searched.
        run: the input folder, whether links may leave it, and whether files are decoded in child processes.
    """
    ears = {r.recording_id: _listener(r, run) for r in item.members}
    listeners = [ear for ear in ears.values() if isinstance(ear, Listener)]
    if len(listeners) < 2:
        return _led_to(None, item, ears, options)
    attempts = (_led_to(reference, item, ears, options) for reference in listeners)
    first = next(attempts)
    return next((a for a in chain([first], attempts) if a.is_known), first)


def _led_to(
    reference: Listener | None,
    item: ConcurrentSet,
    ears: Mapping[str, Listener | _Deaf],
    options: SyncOptions,
) -> MeasuredSet:
    found: list[MeasuredSound] = []
    failures: list[tuple[str, str]] = []
    for recording in item.members:
        ear = ears[recording.recording_id]
        if reference is not None and ear is reference:
            continue
        one = ear if isinstance(ear, _Deaf) else _compared(recording, ear, reference, item, options)
        if isinstance(one, _Deaf):
            failures += [(recording.recording_id, one.reason)] if one.is_fault else []
            one = MeasuredSound((_unheard(recording, one.reason),))
        found.append(one)
    return MeasuredSet(
        item.set_id, reference.recording_id if reference else "", tuple(found), tuple(failures)
    )


@dataclass(frozen=True, slots=True)
class _Deaf:
    """Why a recording cannot be compared; whether its file is to blame."""

    reason: str
    is_fault: bool = False


def _listener(recording: Recording, run: RunConfig) -> Listener | _Deaf:
    stream = recording.audio
    if stream is None:
        return _Deaf(recording.absent.get("audio", "the recording has no sound"))
    try:
        media = _probed(recording, stream, run)
        if media.audio is None:
            return _Deaf("the file has no sound")
        clock = stream.clock
        span = TimeSpan(clock.at(media.audio.span.start_ns), clock.at(media.audio.span.end_ns))
        hear = access.hearing(stream, media, run)
        listener = Listener(recording.recording_id, span, recording.joints_ns, hear)
        return listener if listener.hears_anything() else _Deaf("the recording is silent")
    except AlignError as error:
        return _broken(recording, error)


def _probed(recording: Recording, stream: Stream, run: RunConfig) -> MediaInfo:
    """The file that a run would take the sound from."""
    if recording.sound_file is None:
        return access.probe(recording, run)
    return access.probe_sound(stream, run)


def _compared(
    recording: Recording, own: Listener, reference: Listener | None, item: ConcurrentSet, options: SyncOptions
) -> MeasuredSound | _Deaf:
    if reference is None:
        return _Deaf(f"no other recording of set {item.set_id} that can be heard is here")
    at_ns = {r.recording_id: r.concurrent.offset_ns for r in item.members if r.concurrent is not None}
    expected_ns = at_ns[own.recording_id] - at_ns[reference.recording_id]
    try:
        return measure_sound(own, reference, expected_ns, options)
    except AlignError as error:
        return _broken(recording, error)


def _broken(recording: Recording, error: AlignError) -> _Deaf:
    stream = recording.audio or recording.video
    return _Deaf(f"cannot be read: {error.naming(stream.uri, stream.name).detail}", is_fault=True)


def _unheard(recording: Recording, reason: str) -> ClockRow:
    return nothing_to_compare(recording.recording_id, recording.span or TimeSpan(0, 0), reason, "audio")
