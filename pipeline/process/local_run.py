"""A run as this machine carries it out: its progress, its workers, and what ended it.

The steps of the graph find it by a token. On a machine of another runner there is none, and they do their
work where they are.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from align.pipeline.process.pool import Pool
from align.pipeline.process.progress import Progress, watch


class LocalRun:
    """What the steps of one run share in its launcher.

    Attributes:
        token: finds it again.
        progress: the counts so far.
        pool: the worker processes; None where the work is done in the launcher.
        failure: the first exception of a step, which Beam passes on as text only.
    """

    def __init__(self, progress: Progress, pool: Pool | None) -> None:
        self.token = secrets.token_hex(8)
        self.progress, self.pool = progress, pool
        self.failure: Exception | None = None

    def noted(self, error: Exception) -> None:
        """Keep the first exception of a step."""
        self.failure = self.failure or error

    def end_workers(self) -> None:
        """Nothing more will be asked of them."""
        if self.pool is not None:
            self.pool.close()


_RUNS: dict[str, LocalRun] = {}


def local_run(token: str) -> LocalRun | None:
    """The run of a token, if it is this process that carries it out."""
    return _RUNS.get(token)


@contextmanager
def carried_out_here(
    job: str, config: Any, workers: int, stores: Sequence[str], show: Callable[[Counter[str]], None]
) -> Iterator[LocalRun]:
    """Show progress, and have so many workers while the block runs.

    Args:
        job: the tasks: see :func:`align.pipeline.process.tasks.job_of`.
        config: of the job.
        workers: processes; with one, the launcher does the work itself.
        stores: URIs that the workers read and write.
        show: called now and then with the counts.
    """
    with watch(show) as progress:
        run = LocalRun(progress, Pool(job, config, workers, progress, stores) if workers > 1 else None)
        _RUNS[run.token] = run
        try:
            yield run
        finally:
            del _RUNS[run.token]
            run.end_workers()
