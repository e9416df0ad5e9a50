"""Which videos and clips ``ego4d.json`` holds, which of them are meant, and what ties them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from align.pipeline.sources import SourceOptions, json_fields
from align.pipeline.sources.ego4d.metadata import (
    Entry,
    check_file_name,
    concurrent,
    links,
    read_clip,
    read_uid,
    read_video,
    set_members,
)
from align.pipeline.sources.groups import Groups
from align.pipeline.sources.json_fields import Fields
from align.pipeline.sources.json_stream import stream_items
from align.pipeline.storage import files
from align.schemas.errors import AlignError, Fault, UsageError
from align.schemas.option import did_you_mean
from align.schemas.recording import Concurrent

MASTER = "ego4d.json"


@dataclass(slots=True)
class Catalogue:
    """What one pass over the master file learns.

    Attributes:
        videos: uid of each video.
        clips: uid of each clip -> uid of its video.
        labels: every scenario.
        groups: uid of each video -> its group.
        concurrent: uid of each video -> the set that it belongs to; of several the largest, then the first.
        faults: sets that cannot be read.
    """

    videos: dict[str, str] = field(default_factory=dict)
    clips: dict[str, str] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    groups: dict[str, str] = field(default_factory=dict)
    concurrent: dict[str, Concurrent] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    _set_sizes: Counter[str] = field(default_factory=Counter)

    def learn_set(self, members: Mapping[str, Concurrent]) -> None:
        """Note the videos of a concurrent set."""
        self._set_sizes.update(place.set_id for place in members.values())
        for uid, place in members.items():
            known = self.concurrent.get(uid)
            if known is None or self._set_sizes[known.set_id] < self._set_sizes[place.set_id]:
                self.concurrent[uid] = place

    def ids(self, media: str) -> dict[str, str]:
        """Uid of each recording of a rendition -> uid of its video."""
        return self.clips if is_clips(media) else self.videos


@dataclass(frozen=True, slots=True)
class Choice:
    """Which recordings are meant, and the videos they are or belong to."""

    ids: frozenset[str]
    videos: frozenset[str]
    scenarios: frozenset[str]

    def has_label(self, entry: Entry) -> bool:
        """Whether the entry has one of the scenarios asked for."""
        return not self.scenarios or any(label.casefold() in self.scenarios for label in entry.scenarios)


def is_clips(media: str) -> bool:
    """Whether a rendition's recordings are clips of videos."""
    return media.startswith("clips")


def read_catalogue(root: str) -> Catalogue:
    """Read the master file through once.

    Raises:
        AlignError: ``bad_metadata`` or ``unreadable``; the file is cut short or cannot be read.
    """
    found, groups = Catalogue(), Groups()
    for section, item in _items(root):
        try:
            _learn(section, json_fields.as_object(item), found, groups)
        except AlignError as e:
            # A video's or clip's faults are named when it is read in earnest; sets are read only here.
            if section == "concurrent_video_sets":
                detail = f"{MASTER}: a concurrent set cannot be read whole: {e.detail}"
                found.faults.append(Fault("", None, "source", e.code, detail, "noted", 0))
    found.groups = groups.names({*found.videos, *found.clips.values()})
    return found


def _learn(section: str, entry: Fields, found: Catalogue, groups: Groups) -> None:
    if section == "videos":
        uid = read_uid(entry, "video_uid")
        found.videos[uid] = uid
        groups.link(uid, ())
        found.labels.update(json_fields.texts(entry, "scenarios"))
        groups.link(uid, links(entry))
    elif section == "clips":
        uid, video = read_uid(entry, "clip_uid"), entry.get("video_uid")
        found.clips.setdefault(uid, video if isinstance(video, str) else "")
    elif section == "concurrent_video_sets":
        for uid, name in set_members(entry):
            groups.link(uid, (name,))
        found.learn_set(concurrent(entry))


def choose(options: SourceOptions, catalogue: Catalogue) -> Choice:
    """Apply the options that select recordings.

    Raises:
        UsageError: they name a recording or scenario that there is not.
    """
    ids = catalogue.ids(options.media)
    known = {*ids, *ids.values()}
    for uid in options.recordings:
        if uid not in known:
            raise UsageError(f"--recordings: {MASTER} has no {uid!r}{did_you_mean(uid, known)}")
    labels = {label.casefold() for label in catalogue.labels}
    scenarios = _whole_labels(options.scenario, labels)
    for label in scenarios:
        if label.casefold() not in labels:
            hint = did_you_mean(label, catalogue.labels)
            raise UsageError(f"--scenario: no recording is labelled {label!r}{hint}")
    only, never = set(options.recordings), set(options.excluded)
    chosen = {
        uid: video
        for uid, video in ids.items()
        if never.isdisjoint((uid, video)) and (not only or not only.isdisjoint((uid, video)))
    }
    return Choice(
        frozenset(chosen), frozenset(chosen.values()), frozenset(label.casefold() for label in scenarios)
    )


def _whole_labels(words: Sequence[str], labels: AbstractSet[str]) -> list[str]:
    """Neighbouring words that make one label are one: "Car - commuting, road trip" holds a comma."""
    found: list[str] = []
    left = list(words)
    while left:
        together = (n for n in range(len(left), 1, -1) if ", ".join(left[:n]).casefold() in labels)
        taken = next(together, 1)
        found.append(", ".join(left[:taken]))
        left = left[taken:]
    return found


def _items(root: str) -> Iterator[tuple[str, object]]:
    try:
        with files.open_input(files.join(root, MASTER)) as file:
            yield from stream_items(file, MASTER)
    except OSError as e:
        raise AlignError("unreadable", f"{MASTER} cannot be read: {e}", stage="source") from e


def read_entries(root: str, media: str, choice: Choice) -> Iterator[Entry | Fault]:
    """The chosen entries, and a fault for each one that cannot be used."""
    if is_clips(media):
        entries = _clips(root, choice)
    else:
        entries = _read(root, "videos", "video_uid", choice.ids, read_video)
    return (one for one in entries if isinstance(one, Fault) or choice.has_label(one))


def _clips(root: str, choice: Choice) -> Iterator[Entry | Fault]:
    videos: dict[str, Entry] = {}
    for video in _read(root, "videos", "video_uid", choice.videos, read_video):
        if isinstance(video, Fault):
            yield video
        else:
            videos[video.video_uid] = video

    def read(entry: Fields) -> Entry:
        uid = read_uid(entry, "video_uid")
        if uid not in videos:
            raise AlignError("bad_metadata", f"its video {uid!a} has no usable entry", stage="source")
        return read_clip(entry, videos[uid])

    yield from _read(root, "clips", "clip_uid", choice.ids, read)


def _read(
    root: str, section: str, uid_field: str, wanted: frozenset[str], read: Callable[[Fields], Entry]
) -> Iterator[Entry | Fault]:
    """One section's wanted entries. A fault costs only its entry; of two with one uid the first counts."""
    seen: set[str] = set()
    for number, item in enumerate(item for name, item in _items(root) if name == section):
        uid = ""
        found: Entry | Fault
        try:
            uid = read_uid(json_fields.as_object(item), uid_field)
            if uid not in wanted:
                continue
            if uid in seen:
                raise AlignError("duplicate_id", "an entry before it has the same uid and is used instead")
            seen.add(uid)
            check_file_name(uid)
            found = read(json_fields.as_object(item))
        except AlignError as e:
            where = f"{MASTER}: {section}[{number}]"
            found = Fault(json_fields.clean(uid), None, "source", e.code, f"{where}: {e.detail}", "failed", 0)
        yield found
