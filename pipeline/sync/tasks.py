"""The steps of ``align sync`` that may be done in a worker process: measure a recording, compare a set."""

from __future__ import annotations

from align.pipeline.job.tasks import use_stores
from align.pipeline.process.progress import Heartbeat
from align.pipeline.process.tasks import Job, Task
from align.pipeline.sync.run import SyncConfig, sync_recording, sync_set
from align.pipeline.sync.sound import ConcurrentSet
from align.schemas.recording import Recording


def _begin(config: SyncConfig) -> None:
    use_stores(config.run)


def _recording(config: SyncConfig, item: Recording, heartbeat: Heartbeat) -> str:
    found = sync_recording(item, config)
    heartbeat.add(recordings=1)
    return found


def _set(config: SyncConfig, item: ConcurrentSet, heartbeat: Heartbeat) -> str:
    found = sync_set(item, config)
    heartbeat.add(recordings=1)
    return found


def _length(recording: Recording) -> float:
    return float(recording.span.length_ns) if recording.span else 0.0


def _lengths(item: ConcurrentSet) -> float:
    return sum(map(_length, item.members))


RECORDING = Task("recording", Recording, str, _recording, _length)
SET = Task("set", ConcurrentSet, str, _set, _lengths)
JOB = Job(SyncConfig, _begin, (RECORDING, SET))
