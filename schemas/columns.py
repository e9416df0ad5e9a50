"""The columns that each kind of modality gives a row: their types, units, meanings and WebDataset parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from align.schemas.modality import IMAGE, IMU, Kind, Modality

MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MEDIA_LIST = pa.list_(MEDIA)
SPAN = pa.struct([("start_ns", pa.int64()), ("end_ns", pa.int64())])
ROWS = pa.list_(pa.list_(pa.float32()))
MASK = pa.list_(pa.bool_())
SENTENCES = pa.list_(pa.string())
REASONS = pa.map_(pa.string(), pa.string())


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a row, or one field of ``quality``.

    Attributes:
        name: of the column.
        dtype: its Arrow type.
        unit: of its values, for the card.
        meaning: one line, for the card.
        part: the member of a WebDataset sample that carries it; "" stands for ``KEY.json`` alone. Of a list
            of media a pattern: ``f{:02d}.jpg``.
        feature: Hugging Face's feature, where the Arrow type does not say it.
    """

    name: str
    dtype: pa.DataType
    unit: str = ""
    meaning: str = ""
    part: str = ""
    feature: Mapping[str, object] | None = None

    @property
    def is_in_json(self) -> bool:
        """Whether ``KEY.json`` holds it too: a text's own line breaks would be lost in a member of lines."""
        return not self.part or self.dtype == SENTENCES


HEAD = (
    Column("key", pa.string(), "", "names the window; unique over the data set, stable under re-runs"),
    Column("source", pa.string(), "", "where the recording comes from"),
    Column("recording_id", pa.string(), "", "the recording, as its source names it"),
    Column(
        "group_id", pa.string(), "", "what no split cuts: participant, else set of recordings, else recording"
    ),
    Column("split", pa.string(), "", "the split"),
    Column("start_ns", pa.int64(), "ns", "start of the window on the recording's clock, inclusive"),
    Column("end_ns", pa.int64(), "ns", "its end, exclusive"),
)


def _picture(m: Modality) -> tuple[Column, ...]:
    feature = {"_type": "Image"}
    main = (
        Column(m.name, MEDIA, m.unit or _ENCODING[m.encoding], m.meaning, m.member(m.encoding), feature),
        Column(f"{m.name}_time_ns", pa.int64(), "ns", "that frame's own presentation time"),
    )
    if m.name != IMAGE.name:
        return main
    several = "frames at the centres of equal parts of the window; null if only one was asked for"
    frames = {"feature": feature, "_type": "List"}
    return (
        *main,
        Column("frames", MEDIA_LIST, "JPEG", several, m.member("f{:02d}.jpg"), frames),
        Column("frame_times_ns", pa.list_(pa.int64()), "ns", "their own presentation times"),
    )


_ENCODING = {"jpg": "JPEG", "png": "PNG"}


def _sound(m: Modality) -> tuple[Column, ...]:
    feature = {"sampling_rate": m.rate_hz, "num_channels": 1, "_type": "Audio"}
    exact = "mono, 16 bit; exactly rate · length samples"
    return (
        Column(m.name, MEDIA, "FLAC", exact, m.member("flac"), feature),
        Column(f"{m.name}_gaps", pa.list_(SPAN), "ns", "where samples are filled with silence, not recorded"),
    )


def _series(m: Modality) -> tuple[Column, ...]:
    unit = ", ".join(dict.fromkeys(u.replace("^2", "²") for u in m.units))
    shape = f"[{len(m.channels)}, n] on a regular grid from the window's start; 0 where not measured"
    return (
        Column(m.name, ROWS, unit, shape, f"{m.name}.npy"),
        Column(f"{m.name}_mask", MASK, "", "[n], true where measured", f"{m.name}_mask.npy"),
    )


def _sentences(m: Modality) -> tuple[Column, ...]:
    inside = "sentences narrated inside the window, without tags; empty if none falls inside"
    return (
        Column(m.name, SENTENCES, "", inside, m.member("txt")),
        Column(f"{m.name}_raw", SENTENCES, "", "the same sentences as annotated"),
        Column(f"{m.name}_times_ns", pa.list_(pa.int64()), "ns", "the instants they speak of"),
    )


_COLUMNS: dict[Kind, Callable[[Modality], tuple[Column, ...]]] = {
    "picture": _picture,
    "sound": _sound,
    "series": _series,
    "sentences": _sentences,
}


def modality_columns(m: Modality) -> tuple[Column, ...]:
    """The columns of a modality; the first is the main one, null where the modality is missing."""
    return _COLUMNS[m.kind](m)


def figures(m: Modality) -> tuple[Column, ...]:
    """What ``quality`` measures of a modality."""
    match m.kind:
        case "picture":
            meaning = "the frame's time minus the instant that was asked for"
            bound = "it serves only instants less than this after it; null without a bound"
            return (
                Column(f"{m.name}_offset_ns", pa.int64(), "ns", meaning),
                Column(f"{m.name}_max_age_ns", pa.int64(), "ns", bound),
            )
        case "sound":
            above = "by how much that is above the nominal rate, relative, in millionths"
            return (
                _coverage(m, "recorded"),
                Column(f"{m.name}_rate_hz", pa.float64(), "Hz", "of the samples, by their timestamps"),
                Column(f"{m.name}_rate_ppm", pa.float64(), "ppm", above),
            )
        case "series":
            return (
                _coverage(m, "measured"),
                Column(f"{m.name}_max_gap_ns", pa.int64(), "ns", "longest stretch without a measured row"),
                Column(f"{m.name}_rate_hz", pa.float64(), "Hz", "of the rows, measured over the recording"),
            )
        case "sentences":
            return ()


def _coverage(m: Modality, how: str) -> Column:
    return Column(f"{m.name}_coverage", pa.float32(), "", f"{how} share of the window, 0 to 1")


def marks(m: Modality) -> tuple[Column, ...]:
    """What ``quality`` says of how a modality was made, beside its figures."""
    of_times = Column(f"{m.name}_time_quality", pa.string(), "", _TIMES.get(m.kind, ""))
    if m.kind == "picture":
        mapped = Column("tone_mapped", pa.bool_(), "", "brought from HDR to SDR")
        return (of_times, mapped) if m.name == IMAGE.name else (of_times,)
    if m.name == IMU.name:
        return (
            Column("sync_status", pa.string(), "", "verdict on the IMU's clock, where one was given"),
            Column("sync_offset_ns", pa.int64(), "ns", "what was added to its times"),
            Column("sync_sigma_ns", pa.int64(), "ns", "standard error of that"),
            of_times,
        )
    return (of_times,) if m.kind == "series" else ()


_TIMES: dict[Kind, str] = {
    "picture": "nominal where the file gives pictures places on a grid, and no times; else null",
    "series": "measured where rows have timestamps of their own, spread where several shared one",
}


def quality_columns(modalities: Iterable[Modality]) -> tuple[Column, ...]:
    """The fields of ``quality``: every modality's figures, then the marks."""
    ms = tuple(modalities)
    return tuple(c for of in (figures, marks) for m in ms for c in of(m))


_QUALITY = "coverage, largest gap, measured rates, distance of the frame from its target and its bound"
_MADE_BY = "files, streams, clock and configuration that made the row"
_PROVENANCE = (
    ("video", pa.string()),
    ("video_stream", pa.int32()),
    ("audio", pa.string()),
    ("audio_stream", pa.int32()),
    ("imu", pa.string()),
    ("clock_offset_ns", pa.int64()),
    ("imu_clock", pa.string()),
    ("config_sha256", pa.string()),
)


def row_columns(modalities: Iterable[Modality]) -> tuple[Column, ...]:
    """Every column of a row, in order."""
    ms = tuple(modalities)
    quality = pa.struct([(c.name, c.dtype) for c in quality_columns(ms)])
    reasons = pa.struct([(m.name, pa.string()) for m in ms])
    return (
        *HEAD,
        *(column for m in ms for column in modality_columns(m)),
        Column("scenarios", pa.list_(pa.string()), "", "labels of the whole recording"),
        Column("missing", REASONS, "", "modality → why it is null (a map; `datasets` cannot read maps)"),
        Column("missing_reason", reasons, "", "the same as a struct, null where the modality is present"),
        Column("quality", quality, "", _QUALITY),
        Column("provenance", pa.struct(_PROVENANCE), "", _MADE_BY),
    )
