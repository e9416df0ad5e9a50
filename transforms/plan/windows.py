"""Where the windows of a recording stand, and which of them a rule leaves out."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from align.schemas.errors import AlignError
from align.schemas.options import AlignOptions
from align.schemas.recording import Recording
from align.schemas.time import NS, TimeSpan

MAX_WINDOWS = 2_000_000
"""Of one recording: ten hours, one each 18 ms. More means a header that lies, or a stride in wrong units."""
_FEW = 10_000
"""So many windows are planned however small the file is: fourteen hours at the default stride."""


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The windows of one recording.

    Attributes:
        starts_ns: of the windows to be written, ascending, distinct, recording clock.
        skipped: start, code and reason in words of those left out, ascending.
    """

    starts_ns: tuple[int, ...]
    skipped: tuple[tuple[int, str, str], ...] = ()

    @property
    def planned(self) -> int:
        """How many windows there are, kept and skipped."""
        return len(self.starts_ns) + len(self.skipped)


def plan_windows(
    recording: Recording,
    span: TimeSpan,
    keyframes_ns: Sequence[int],
    options: AlignOptions,
    *,
    payload: int | None = None,
) -> WindowPlan:
    """Place the windows and apply the rules to them.

    A window is left out as ``stereo`` (the video is side by side and is not cropped), ``redacted`` (it
    touches a blanked span), ``sync_refuted`` (its IMU is not the picture's, and that was to be left out),
    ``joint`` (it crosses the joint of two camera files) or ``outside_video``
    (it is centred on a narration so close to an end that it does not fit).

    Args:
        recording: narrations, joints and redactions are taken from it, in any order.
        span: the video as probed, recording clock.
        keyframes_ns: presentation times of the video's keyframes; used by the keyframe anchor only.
        options: window length, stride, anchor and rules.
        payload: bytes that the video takes; None where that is not known. Even a still picture in
            time-lapse takes more than a byte for each window of a dense grid: a file that takes less claims
            times that it does not have.

    Returns:
        The plan; a pure function of the arguments.

    Raises:
        AlignError: ``too_many_windows``; a grid of more than :data:`MAX_WINDOWS`, or than the payload allows.
    """
    if options.anchor == "grid":
        _refuse_bomb(recording, span, options, payload)
    skip = _skip_rule(recording, span, options)
    kept, skipped = [], []
    for start_ns in _PLACES[options.anchor](recording, span, keyframes_ns, options):
        reason = skip(start_ns)
        if reason is None:
            kept.append(start_ns)
        else:
            skipped.append((start_ns, *reason))
    return WindowPlan(tuple(kept), tuple(skipped))


def _grid(
    recording: Recording, span: TimeSpan, keyframes_ns: Sequence[int], options: AlignOptions
) -> Iterable[int]:
    return range(span.start_ns, span.end_ns - options.window_ns + 1, options.stride_ns)


def _refuse_bomb(recording: Recording, span: TimeSpan, options: AlignOptions, payload: int | None) -> None:
    """Refuse a grid that a lying header, or a stride in wrong units, makes endless."""
    count = max(span.length_ns - options.window_ns, 0) // options.stride_ns + 1
    most = MAX_WINDOWS if payload is None else min(_FEW + payload, MAX_WINDOWS)
    if count > most:
        held = "" if payload is None else f" of {payload} bytes"
        detail = (
            f"{recording.video.name} is said to last {span.length_ns / NS:.0f} s, which is {count} windows"
            f"{held}: check the file, or take a larger --stride"
        )
        raise AlignError("too_many_windows", detail, stage="plan")


def _at_narrations(
    recording: Recording, span: TimeSpan, keyframes_ns: Sequence[int], options: AlignOptions
) -> Iterable[int]:
    return sorted({_centred(n.time_ns, options) for n in recording.narrations or ()})


def _at_keyframes(
    recording: Recording, span: TimeSpan, keyframes_ns: Sequence[int], options: AlignOptions
) -> Iterator[int]:
    """Greedy from the first that fits: any keyframe would do, so none is planned only to be skipped."""
    earliest, latest = span.start_ns, span.end_ns - options.window_ns
    for time_ns in sorted(keyframes_ns):
        start_ns = _centred(time_ns, options)
        if earliest <= start_ns <= latest:
            yield start_ns
            earliest = start_ns + options.stride_ns


_PLACES: dict[str, Callable[[Recording, TimeSpan, Sequence[int], AlignOptions], Iterable[int]]] = {
    "grid": _grid,
    "narration": _at_narrations,
    "keyframe": _at_keyframes,
}


def _centred(time_ns: int, options: AlignOptions) -> int:
    """Start of the window whose ``center_ns``, ties up, is the given time."""
    return time_ns - (options.window_ns + 1) // 2


def _skip_rule(
    recording: Recording, span: TimeSpan, options: AlignOptions
) -> Callable[[int], tuple[str, str] | None]:
    """Why a window is left out, by its start: code and words, or None."""
    length = options.window_ns
    stereo = recording.stereo and options.stereo == "skip"
    redacted = _merged(recording.redacted if options.redacted == "skip" else ())
    redacted_starts = [r.start_ns for r in redacted]
    drop_unsynced = options.unsynced == "drop"
    joints = sorted(() if options.cross_joints else recording.joints_ns)

    def rule(start_ns: int) -> tuple[str, str] | None:
        end_ns = start_ns + length
        if not (span.start_ns <= start_ns and end_ns <= span.end_ns):
            return "outside_video", f"the video spans {_shown(span)}"
        if stereo:
            return (
                "stereo",
                "the video holds two pictures side by side; --stereo crop-left takes the left one",
            )
        last = bisect_left(redacted_starts, end_ns) - 1  # of the spans that begin before the window's end
        if last >= 0 and redacted[last].end_ns > start_ns:
            return "redacted", f"touches the redacted span {_shown(redacted[last])}"
        sync = recording.imu_sync_at((start_ns + end_ns + 1) // 2) if drop_unsynced else None
        if sync is not None and sync.status == "refuted":
            return (
                "sync_refuted",
                "the IMU is not the picture's; --unsynced null keeps the rest of the window",
            )
        first = bisect_right(joints, start_ns)
        if first < len(joints) and joints[first] < end_ns:
            return "joint", f"crosses the joint of two camera files at {joints[first] / NS:.3f} s"
        return None

    return rule


def _merged(spans: Iterable[TimeSpan]) -> list[TimeSpan]:
    """The same instants as ascending spans that do not touch, so that one look-up answers for all."""
    merged: list[TimeSpan] = []
    for span in sorted(spans):
        if merged and span.start_ns <= merged[-1].end_ns:
            last = merged.pop()
            span = TimeSpan(last.start_ns, max(last.end_ns, span.end_ns))
        merged.append(span)
    return merged


def _shown(span: TimeSpan) -> str:
    return f"{span.start_ns / NS:.3f} to {span.end_ns / NS:.3f} s"


_PLAIN_SOURCE = re.compile(r"[A-Za-z0-9_]{1,20}")
_PLAIN_ID = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*")


def sample_key(source: str, recording_id: str, start_ns: int) -> str:
    """A sample's name: unique over the data set, the same in every run, at most 120 characters.

    ``ego4d-<uid>-000005000000000``. Only ``[A-Za-z0-9_-]``: a dot would end a WebDataset key. An id that
    is not plain is sanitised and told apart by a hash after ``--``, which no plain id holds. A window that
    starts before 0 has an ``m`` before its digits.
    """
    start = f"{'m' if start_ns < 0 else ''}{abs(start_ns):015d}"
    if _PLAIN_SOURCE.fullmatch(source) and _PLAIN_ID.fullmatch(recording_id):
        return f"{source}-{recording_id}-{start}"
    both = f"{source}\0{recording_id}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(both, digest_size=8).hexdigest()
    return f"{_sanitised(source)[:20]}-{_sanitised(recording_id)[:48]}--{digest}-{start}"


def _sanitised(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name) or "_"
