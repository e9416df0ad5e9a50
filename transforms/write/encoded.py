"""A sample as writers take it: one row, and what was counted of its media where they were encoded."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from align.schemas.sample import Sample
from align.transforms.write.media_counts import MediaCounts, media_counts
from align.transforms.write.row import from_batch, to_batch, to_row


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row of the schema with its counts.

    Attributes:
        batch: of one row.
        counts: so that the media need not be decoded for statistics.
    """

    batch: pa.RecordBatch
    counts: MediaCounts


def encoded(item: Sample | EncodedRow | pa.RecordBatch, schema: pa.Schema) -> EncodedRow:
    """A sample or a bare row with its media counted; one that is counted already, as it is.

    Raises:
        AlignError: ``bad_media``, its JPEG or FLAC cannot be decoded.
    """
    if isinstance(item, EncodedRow):
        return item
    if isinstance(item, Sample):
        row = to_row(item)
        return EncodedRow(to_batch(row, schema), media_counts(row, item.audio))
    return EncodedRow(item, media_counts(from_batch(item)))


def received(batch: pa.RecordBatch, counts: bytes) -> EncodedRow:
    """A row and its counts as another process sent them.

    Raises:
        ValueError: no sample has such counts, or this one has not.
    """
    found = MediaCounts.from_bytes(counts)
    held = [bool(batch.column(name)[0].is_valid) for name in ("image", "audio")]
    if held != [found.pixels is not None, found.sound is not None]:
        raise ValueError("the counts are of other modalities than the row holds")
    return EncodedRow(batch, found)
