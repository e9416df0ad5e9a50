"""Time-aligned, image-paired windows from raw egocentric recordings.

    import align

    result = align.run(source="ego4d", input="ego4d_data", output="out", window=2)
    result = align.run(align.RunConfig(source="ego4d", input="ego4d_data", output="out"))

As a part of a pipeline of your own: ``recordings | align.AlignRecordings(config)``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.pipeline.config import RunConfig
    from align.pipeline.job.graph import AlignRecordings
    from align.pipeline.job.run import plan, run
    from align.schemas.errors import AlignError, UsageError
    from align.schemas.options import AlignOptions
    from align.schemas.recording import ImuColumns, Narration, Recording, Stream
    from align.schemas.time import ClockMap, ClockPiece, TimeSpan
    from align.transforms.load.load import load
    from align.transforms.sync.clocks import read_clocks, shared_clock

# Imported when first used: Beam alone takes more than a second.
_HOMES = {
    "AlignError": "align.schemas.errors",
    "AlignOptions": "align.schemas.options",
    "AlignRecordings": "align.pipeline.job.graph",
    "ClockMap": "align.schemas.time",
    "ClockPiece": "align.schemas.time",
    "ImuColumns": "align.schemas.recording",
    "Narration": "align.schemas.recording",
    "Recording": "align.schemas.recording",
    "RunConfig": "align.pipeline.config",
    "Stream": "align.schemas.recording",
    "TimeSpan": "align.schemas.time",
    "UsageError": "align.schemas.errors",
    "load": "align.transforms.load.load",
    "plan": "align.pipeline.job.run",
    "read_clocks": "align.transforms.sync.clocks",
    "run": "align.pipeline.job.run",
    "shared_clock": "align.transforms.sync.clocks",
}

__all__ = [
    "AlignError",
    "AlignOptions",
    "AlignRecordings",
    "ClockMap",
    "ClockPiece",
    "ImuColumns",
    "Narration",
    "Recording",
    "RunConfig",
    "Stream",
    "TimeSpan",
    "UsageError",
    "load",
    "plan",
    "read_clocks",
    "run",
    "shared_clock",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'align' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
