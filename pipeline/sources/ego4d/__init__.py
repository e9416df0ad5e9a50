"""EGO4D as its downloader leaves it on disk: recordings from ``ego4d.json`` and ``narration.json`` alone.

Layout (the EGO4D command line, version 1.7.3): ``DIR/v2/ego4d.json``, ``DIR/v2/full_scale/<video_uid>.mp4``
(or ``video_540ss``, ``clips``), ``DIR/v2/imu/<video_uid>.csv``, ``DIR/v2/annotations/narration.json``.

The master file is read twice. The first pass only learns which videos there are and what ties them together,
for a concurrent set stands at the file's end and yet decides the group of its first video. It also
finds a truncated file before any recording is given: that is fatal, because groups, and with them
splits, could not be trusted. A damaged narration file costs the text of the videos after the damage.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import replace

from align.pipeline.sources import SourceOptions, json_fields
from align.pipeline.sources.ego4d.catalogue import (
    MASTER,
    Catalogue,
    Choice,
    choose,
    is_clips,
    read_catalogue,
    read_entries,
)
from align.pipeline.sources.ego4d.imu import IMU_COLUMNS
from align.pipeline.sources.ego4d.metadata import Entry
from align.pipeline.sources.ego4d.narrations import Narrations
from align.pipeline.storage import files
from align.schemas.errors import AlignError, Fault, UsageError
from align.schemas.option import did_you_mean
from align.schemas.recording import Concurrent, Recording, Stream
from align.schemas.time import ClockMap, ClockPiece

MEDIA = ("full_scale", "video_540ss", "clips", "clips_540ss")
_NARRATIONS = "annotations/narration.json"
_HOUSEKEEPING = ("manifest.csv", "manifest.ver")


def recordings(options: SourceOptions) -> Iterator[Recording | Fault]:
    """Give the recordings of an EGO4D download, in the order of ``ego4d.json``.

    What is wrong with the options or the master file is found at once, not at the first recording. Memory
    grows with the number of videos (about 1 kB each), not with narrations or windows.

    Returns:
        Recordings; and a fault for each entry that is malformed, doubled, unfit for a file name or
        without its file, each file that no entry names, and narrations that had to be dropped.

    Raises:
        AlignError: ``bad_metadata`` or ``unreadable``: the master file is cut short or cannot be read.
        UsageError: there is no such folder or no master file in it; an unknown rendition, recording or
            scenario is asked for.
    """
    if options.media not in MEDIA:
        hint = did_you_mean(options.media, MEDIA)
        raise UsageError(f"unknown --media {options.media!r}{hint}; ego4d has {', '.join(MEDIA)}")
    root = _find_root(options.input)
    catalogue = read_catalogue(root)
    return _give(options, root, catalogue, choose(options, catalogue))


def _give(
    options: SourceOptions, root: str, catalogue: Catalogue, choice: Choice
) -> Iterator[Recording | Fault]:
    media_files = _list(root, options.media)
    imu_files = _list(root, "imu")
    given = 0
    with _open_narrations(root, choice.videos) as narrations:
        yield from (*catalogue.faults, *narrations.faults)
        for entry in read_entries(root, options.media, choice):
            if isinstance(entry, Fault):
                yield entry
            elif f"{entry.recording_id}.mp4" not in media_files:
                yield _missing(f"{options.media}/{entry.recording_id}.mp4", entry.recording_id)
            else:
                yield from _recording(entry, root, options.media, catalogue, narrations, imu_files)
                given += 1
                if given == options.limit:
                    return
    if not (options.recordings or options.scenario):
        yield from _unknown(options.media, media_files, catalogue.ids(options.media), ".mp4")
        yield from _unknown("imu", imu_files, catalogue.videos, ".csv")


def _find_root(folder: str) -> str:
    """The version folder: ``v2`` or ``v1`` below the given one, newest first, or the given one."""
    top = files.absolute(folder)
    if not files.is_remote(top) and not files.exists(top):
        raise UsageError(f"--input {folder}: there is no such folder", code="missing_input")
    for root in (files.join(top, "v2"), files.join(top, "v1"), top):
        if files.exists(files.join(root, MASTER)):
            return root
    raise UsageError(
        f"--input {folder}: no {MASTER} in it, nor in v2/ or v1/ below it; download it with: "
        f"ego4d --output_directory={folder} --datasets full_scale annotations imu --metadata",
        code="missing_metadata",
    )


def _list(root: str, folder: str) -> frozenset[str]:
    try:
        return files.list_names(files.join(root, folder))
    except OSError as e:
        raise AlignError("unreadable", f"{folder}/ cannot be listed: {e}", stage="source") from e


def _open_narrations(root: str, wanted: frozenset[str]) -> Narrations:
    uri = files.join(root, *_NARRATIONS.split("/"))
    return Narrations(uri if files.exists(uri) else None, _NARRATIONS, wanted)


def _recording(
    entry: Entry,
    root: str,
    media: str,
    catalogue: Catalogue,
    narrations: Narrations,
    imu_files: frozenset[str],
) -> Iterator[Recording | Fault]:
    """The recording, after notes on what of it had to be dropped."""
    absent: dict[str, str] = {}
    if not entry.has_audio:
        absent["audio"] = f"{MASTER} gives no audio stream for it"
    imu_name = f"imu/{entry.video_uid}.csv"
    has_table = f"{entry.video_uid}.csv" in imu_files
    if entry.has_imu and not has_table:
        absent["imu"] = f"has_imu is set but {imu_name} is not there"
    if has_table and not entry.has_imu:
        yield _note(entry, "unexpected_imu", f"{imu_name} is there and used, although has_imu is not set")
    if entry.hides_redaction:
        yield _note(
            entry, "unplaced_redaction", "has_redacted_regions is set but no redacted_intervals are given"
        )
    for detail in entry.bad:
        yield _note(entry, "bad_metadata_value", f"{MASTER}: {detail}; taken as absent")
    told = narrations.of(entry.video_uid, entry.origin_ns, entry.span)
    if told.narrations is None:
        absent["text"] = narrations.absence
    if told.malformed:
        yield _note(entry, "bad_narrations", f"{told.malformed} narrations without text or time dropped")
    if told.outside and not is_clips(media):  # a clip's video is longer than the clip
        yield _note(
            entry, "bad_narrations", f"{told.outside} narrations outside the recording's time dropped"
        )
    name = f"{media}/{entry.recording_id}.mp4"
    uri = files.join(root, name)
    table = Stream("imu", files.join(root, imu_name), imu_name, clock=_clock(entry), columns=IMU_COLUMNS)
    yield Recording(
        source="ego4d",
        recording_id=entry.recording_id,
        group_id=json_fields.clean(catalogue.groups[entry.video_uid]),
        video=Stream("video", uri, name),
        audio=Stream("audio", uri, name) if entry.has_audio else None,
        imu=table if has_table else None,
        span=entry.span,
        narrations=told.narrations,
        joints_ns=entry.joints_ns,
        redacted=entry.redacted,
        scenarios=entry.scenarios,
        stereo=entry.stereo,
        absent=absent,
        claimed=entry.claimed,
        concurrent=_concurrent(entry, catalogue),
        promised=entry.promised or None,
    )


def _concurrent(entry: Entry, catalogue: Catalogue) -> Concurrent | None:
    """The set of the entry's video, with the place of the entry's own 0 in it."""
    place = catalogue.concurrent.get(entry.video_uid)
    return place and replace(
        place, set_id=json_fields.clean(place.set_id), offset_ns=place.offset_ns + entry.origin_ns
    )


def _clock(entry: Entry) -> ClockMap:
    """From the canonical video's clock, which IMU tables keep, to the recording's."""
    return ClockMap((ClockPiece(0, -entry.origin_ns),)) if entry.origin_ns else ClockMap()


def _note(entry: Entry, code: str, detail: str) -> Fault:
    return Fault(entry.recording_id, None, "source", code, detail, "noted", 0)


def _missing(name: str, recording_id: str) -> Fault:
    detail = f"{name} is not there: download it, or leave it out"
    return Fault(recording_id, None, "source", "missing_file", detail, "noted", 0)


def _unknown(folder: str, names: Iterable[str], known: Container[str], extension: str) -> Iterator[Fault]:
    for name in sorted(names):
        is_ours = name.endswith(extension) and name.removesuffix(extension) in known
        if not is_ours and name not in _HOUSEKEEPING and not name.startswith("."):
            detail = f"{folder}/{json_fields.clean(name)} belongs to no entry of {MASTER}: not used"
            yield Fault("", None, "source", "unknown_file", detail, "noted", 0)
