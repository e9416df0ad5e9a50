"""The data set's card: what it is, for ``datasets`` (the YAML on top) and for people (the rest).

``datasets`` takes one builder per folder. So the card at the root describes the Parquet files where there
are any, and ``webdataset/`` has a card of its own, whose declared features spare the builder its guess from
five samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from align.schemas.columns import MASK, MEDIA, MEDIA_LIST, ROWS, Column, row_columns
from align.schemas.errors import Reason
from align.schemas.features import HUGGINGFACE_COLUMNS, huggingface_features, plain_feature
from align.schemas.modality import DEFAULT, Modality, with_rates
from align.schemas.options import MODALITIES
from align.schemas.time import NS
from align.transforms.store.publish import Store, publish_bytes

CARD = "README.md"
WEBDATASET_CARD = f"webdataset/{CARD}"


def card(manifest: Mapping[str, Any], statistics: Mapping[str, Any]) -> str:
    """The card at the root.

    Args:
        manifest: content of ``manifest.json``.
        statistics: content of ``stats.json``.
    """
    formats = {shard["format"] for shard in manifest["shards"]}
    main = "parquet" if "parquet" in formats or not formats else "webdataset"
    return "\n".join(
        [
            _front_matter(manifest, main, folder=""),
            "# Time-aligned windows of multi-sensor recordings",
            "",
            *_summary(manifest, statistics),
            *_licence(manifest["source"]),
            *_reading(manifest, formats),
            *_columns(manifest),
            *_numbers(statistics),
            *_training(manifest),
            *_making(manifest),
        ]
    )


def webdataset_card(manifest: Mapping[str, Any]) -> str:
    """The card inside ``webdataset/``, which lets ``datasets`` load that folder without a guess."""
    return "\n".join(
        [
            _front_matter(manifest, "webdataset", folder="webdataset/"),
            "# Windows as WebDataset shards",
            "",
            "What they are, columns and units: `../README.md`. Give `load_dataset` this folder rather than",
            "bare tar files: this card declares the columns; else five samples decide.",
            "",
            *_parts(manifest["config"]),
        ]
    )


def write_card(store: Store, manifest: Mapping[str, Any], statistics: Mapping[str, Any]) -> None:
    """Publish the card, and the one of ``webdataset/`` where there are tar files."""
    publish_bytes(store, CARD, card(manifest, statistics).encode())
    if any(shard["format"] == "webdataset" for shard in manifest["shards"]):
        publish_bytes(store, WEBDATASET_CARD, webdataset_card(manifest).encode())


def _front_matter(manifest: Mapping[str, Any], fmt: str, folder: str) -> str:
    """The YAML block; ``folder`` is where the card lies, since its patterns are relative to it."""
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo  # costs a second: only here
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    totals = _split_totals(manifest["shards"], fmt)
    features = (_webdataset_features if fmt == "webdataset" else _parquet_features)(manifest["config"])
    splits = SplitDict()
    for name, (samples, size) in totals.items():
        splits.add(SplitInfo(name, num_bytes=size, num_examples=samples))
    size = sum(size for _, size in totals.values())
    info = DatasetInfo(
        features=Features.from_dict(features), splits=splits, download_size=size, dataset_size=size
    )
    config = {"config_name": "default", "data_files": _data_files(totals, fmt, folder)}
    if fmt == "parquet":
        config["columns"] = list(HUGGINGFACE_COLUMNS)
    data = DatasetCardData(
        license="other",
        pretty_name="Time-aligned multi-sensor windows",
        tags=["multimodal", "egocentric", "imu", "audio", "video", "contrastive-learning"],
        configs=[config] if totals else None,
    )
    if totals:
        DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    return f"---\n{data.to_yaml()}\n---\n"


def _split_totals(shards: Iterable[Mapping[str, Any]], fmt: str) -> dict[str, tuple[int, int]]:
    totals: dict[str, tuple[int, int]] = {}
    for shard in shards:
        if shard["format"] == fmt:
            samples, size = totals.get(shard["split"], (0, 0))
            totals[shard["split"]] = (samples + shard["samples"], size + shard["bytes"])
    return totals


def _data_files(splits: Iterable[str], fmt: str, folder: str) -> list[dict[str, str]]:
    """Patterns that match a split's shards, and not those of a split whose name begins alike."""
    pattern = "data/{}-?????-of-?????.parquet" if fmt == "parquet" else "webdataset/{}-??????.tar"
    return [{"split": split, "path": pattern.format(split).removeprefix(folder)} for split in splits]


def _modalities(config: Mapping[str, Any]) -> tuple[Modality, ...]:
    return with_rates(DEFAULT, audio=config["audio_rate"], imu=config["imu_rate"])


def _parquet_features(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(huggingface_features(row_columns(_modalities(config))))


def _webdataset_features(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the WebDataset builder makes of our parts; ``json`` stays as free as it is.

    Sound is declared as bytes: for an ``Audio`` column this builder (5.2) asks for torchcodec even where
    it only stores what is encoded already. ``cast_column("flac", Audio())`` decodes it.
    """
    string = {"dtype": "string", "_type": "Value"}
    frames = config.get("frames", 1)
    parts: dict[str, Any] = {}
    for column in row_columns(_modalities(config)):
        names = range(frames if frames > 1 else 0) if column.dtype == MEDIA_LIST else range(bool(column.part))
        parts |= {column.part.format(i): _part_feature(column) for i in names}
    return {**parts, "json": {"_type": "Json"}, "__key__": string, "__url__": string}


def _part_feature(column: Column) -> object:
    if column.dtype in (ROWS, MASK):
        return plain_feature(column.dtype)
    if column.dtype in (MEDIA, MEDIA_LIST):
        is_picture = "Audio" not in str(column.feature)
        return {"_type": "Image"} if is_picture else {"dtype": "binary", "_type": "Value"}
    return {"dtype": "string", "_type": "Value"}


def _summary(manifest: Mapping[str, Any], statistics: Mapping[str, Any]) -> list[str]:
    counts, seconds = manifest["counts"], manifest["config"]["window_ns"] / NS
    lines = [
        f"{counts['windows_written']} windows of {seconds:g} s from {counts['recordings']} recordings of "
        f"`{manifest['source']}`, each paired with the picture on screen at its anchor. Every picture,",
        "sound sample and IMU row stands by its own timestamp on the recording's clock. What a window lacks",
        "is null, with a reason: never zeros.",
        "",
        f"| split | windows | hours of windows | {' | '.join(MODALITIES)} |",
        "|---|---|---|" + "---|" * len(MODALITIES),
    ]
    for split, found in statistics["splits"].items():
        present = " | ".join(str(found["modalities"][m]["present"]) for m in MODALITIES)
        lines.append(f"| `{split}` | {found['windows']} | {found['window_hours']:.3g} | {present} |")
    return [*lines, ""]


def _licence(source: str) -> list[str]:
    lines = [
        "## Licence",
        "",
        "The licence of the recordings holds for everything made from them: set `license` above accordingly.",
    ]
    if source.lower() == "ego4d":
        lines.append(
            "**EGO4D's agreement forbids redistribution.** Do not publish this data set, nor frames, sound "
            "or IMU taken from it: share the configuration and window times instead, from which others who "
            "signed the agreement can make it anew."
        )
    return [*lines, ""]


def _reading(manifest: Mapping[str, Any], formats: set[str]) -> list[str]:
    split = next((shard["split"] for shard in manifest["shards"]), "train")
    lines = ["## Reading", "", "```python"]
    if "parquet" in formats:
        lines += [
            "# Hugging Face datasets; streaming=True reads while it goes. Decoding sound needs torchcodec.",
            "from datasets import load_dataset",
            f'windows = load_dataset("OUT", split="{split}")',
            "",
            "# pyarrow: every column, maps too",
            "import pyarrow.dataset",
            'table = pyarrow.dataset.dataset("OUT/data").to_table(columns=["key", "imu", "missing"])',
        ]
    if "webdataset" in formats:
        names = [s["path"] for s in manifest["shards"] if s["format"] == "webdataset"]
        lines += [
            "",
            "# webdataset",
            "import glob, webdataset",
            f'tars = sorted(glob.glob("OUT/webdataset/{split}-*.tar"))',
            'windows = webdataset.WebDataset(tars, shardshuffle=False).decode("rgb")',
            f'# {len(names)} tar files; or load_dataset("OUT/webdataset", split="{split}"), then',
            '# .cast_column("flac", datasets.Audio()) to decode sound',
        ]
    lines += ["```", ""]
    return [*lines, *(_parts(manifest["config"]) if "webdataset" in formats else [])]


def _parts(config: Mapping[str, Any]) -> list[str]:
    return [
        "Parts of a WebDataset sample: `KEY.jpg`, `KEY.f00.jpg` … (with several frames), `KEY.flac`,",
        "`KEY.imu.npy` (float32 [6, n]), `KEY.imu_mask.npy` (bool [n]), `KEY.txt` (sentences, one per line)",
        "and `KEY.json` (everything else; null and empty values left out, `missing` says what is null, and",
        "why). What a window lacks has no part. The first five samples of each tar have the same parts where",
        "five are alike, because some readers take their columns from them; the others stand in an order",
        "shuffled by the seed.",
        "",
    ]


def _columns(manifest: Mapping[str, Any]) -> list[str]:
    modalities = _modalities(manifest["config"])
    rows = [_channels(m) for m in modalities if m.kind == "series"]
    rates = [f"{m.name} at {m.rate_hz} Hz" for m in modalities if m.kind == "sound"]
    return [
        "## Columns",
        "",
        "| column | unit | meaning |",
        "|---|---|---|",
        *(f"| `{c.name}` | {c.unit} | {c.meaning} |" for c in row_columns(modalities)),
        "",
        *rows,
        f"Sound: {', '.join(rates)}. Times are integer nanoseconds on the presentation timeline of the",
        "recording's master video; intervals are half-open. The reasons in `missing`:",
        ", ".join(f"`{reason}`" for reason in Reason) + ".",
        "",
    ]


def _channels(m: Modality) -> str:
    channels = ", ".join(f"{c} ({unit})" for c, unit in zip(m.channels, m.units, strict=True))
    return f"Rows of `{m.name}`, in this order: {channels}; {m.rate_hz} Hz, in the sensor's own axes."


def _numbers(statistics: Mapping[str, Any]) -> list[str]:
    lines = ["## Which modalities stand together", "", "| split | pattern | windows |", "|---|---|---|"]
    for split, found in statistics["splits"].items():
        ranked = sorted(found["patterns"].items(), key=lambda item: (-item[1], item[0]))
        lines += [f"| `{split}` | {pattern} | {n} |" for pattern, n in ranked]
    return [*lines, "", "Coverage, reasons and normalisation statistics per split: `stats.json`.", ""]


def _training(manifest: Mapping[str, Any]) -> list[str]:
    """What lies beside the shards for a training loop, and how it is used."""
    balance, others = manifest.get("balance"), manifest.get("loader_index", ())
    if not balance and not others:
        return []
    lines = ["## Training", ""]
    if balance:
        lines += [
            f"`index/` has a row per window: `weight` (classes by {balance['by']} drawn in proportion to",
            f"n^{balance['alpha']:g}, each window at most {balance['cap']:g} times an epoch), `duplicate_of` "
            f"({balance['duplicates']:,} near-duplicates, {balance['across_splits']:,}",
            "of them of a window in another split), `text_hash`, `phash`. `align.load` uses it:",
            "",
            "```python",
            "import align",
            'windows = align.load("OUT", split="train", batch_size=64, balance=True, duplicates="drop")',
            "```",
            "",
            '`batch["ids"]` marks pairs that are no negatives: the same picture, narration or group.',
        ]
    if others:
        kinds = ", ".join(sorted({entry["kind"] for entry in others}))
        lines += ["", f"In `webdataset/` lie indexes for other loaders: {kinds}."]
    return [*lines, ""]


def _making(manifest: Mapping[str, Any]) -> list[str]:
    counts = manifest["counts"]
    skipped = ", ".join(f"{n} {reason}" for reason, n in counts["windows_skipped"].items()) or "none"
    return [
        "## How it was made",
        "",
        f"By `align` {manifest['align_version']}, schema {manifest['schema_version']}. Of "
        f"{counts['windows_planned']} planned windows {counts['windows_written']} were written, skipped: "
        f"{skipped}, failed: {counts['failed']} (`failures.jsonl` lists each). Only what `manifest.json`",
        "lists belongs to the data set; `align verify OUT` checks all of it.",
        "",
        "| option | value |",
        "|---|---|",
        *(f"| `{name}` | {_cell(value)} |" for name, value in sorted(manifest["config"].items())),
        "",
    ]


def _cell(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if value is None or text == "":
        return "–"
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
