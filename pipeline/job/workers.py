"""How many processes a run takes, where it is left to us."""

from __future__ import annotations

import os

from align.pipeline.config import RunConfig
from align.pipeline.job.planning import plan_recording
from align.schemas.recording import Recording

ALONE_BELOW_S = 60.0
"""Below so much estimated work a second process costs more to start, about 3 CPU s, than it saves."""

_CPU_PER_MEDIA_S = 0.06  # of media that the metadata only gives the length of: 1080p, a picture per 5 s


def workers_for(work_s: float) -> int:
    """All cores for a long job, one process for a short one; ``work_s`` in CPU seconds."""
    return (os.cpu_count() or 1) if work_s > ALONE_BELOW_S else 1


def claimed_work_s(recording: Recording, config: RunConfig) -> float:
    """CPU seconds that aligning a recording should take, by what the metadata says of it."""
    if recording.claimed is not None:
        plan = plan_recording(recording, config.but(trust_metadata=True, clocks=""), survey=False)
        return sum(segment.cost_s for segment in plan.segments)
    return _CPU_PER_MEDIA_S * recording.span.length_ns / 1e9 if recording.span else 0.0
