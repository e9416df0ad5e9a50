"""What may be done in another process: a function of ours, and the records that go in and come out as JSON.

Nothing is pickled. A worker process knows the tasks of a job by the module that declares them; what comes
over the pipe can choose among these, no more.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from align.pipeline.process.progress import Heartbeat
from align.schemas.wire import from_plain, to_plain


@dataclass(frozen=True, slots=True)
class Task:
    """One step of a job.

    Attributes:
        name: within its job.
        item: the type of what it is done with, a dataclass of ours.
        result: the type of what it gives.
        do: the step: configuration, item, where to count → result.
        cost: how long an item takes, in any unit: the longest are begun first.
    """

    name: str
    item: type
    result: type
    do: Callable[[Any, Any, Heartbeat], Any]
    cost: Callable[[Any], float]


@dataclass(frozen=True, slots=True)
class Job:
    """The tasks that share a configuration.

    Attributes:
        config: the type of its configuration.
        begin: gets a worker ready.
    """

    config: type
    begin: Callable[[Any], None]
    tasks: tuple[Task, ...]


_JOBS = {"run": "align.pipeline.job.tasks", "sync": "align.pipeline.sync.tasks"}


def job_of(name: str) -> Job:
    """The job of a name, which its module declares as ``JOB``.

    Raises:
        KeyError: there is none.
    """
    job: Job = import_module(_JOBS[name]).JOB
    return job


def packed(kind: type, value: Any) -> bytes:
    """A record as it travels and waits: compressed JSON. Segments of one recording have most in common."""
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} is no {kind.__name__}")
    return zlib.compress(json.dumps(to_plain(value)).encode("ascii"), 1)


def unpacked(kind: type, data: bytes) -> Any:
    """The record that :func:`packed` packed.

    Raises:
        KeyError, TypeError, ValueError, zlib.error: it is none.
    """
    return from_plain(kind, json.loads(zlib.decompress(data)))
