"""A Beam step whose elements may be worked on in other processes, on pipes instead of Beam's ports.

The in-memory runner hands over all elements of a step in one bundle, one after the other, in one thread. So
``process`` only submits an element, and the end of the bundle waits for what comes of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.utils.windowed_value import WindowedValue

from align.pipeline.process.local_run import local_run
from align.pipeline.process.pool import Ticket
from align.pipeline.process.progress import Heartbeat
from align.pipeline.process.tasks import Task
from align.transforms.stages import NAMESPACE, take


class Pooled(beam.DoFn):
    """Does a task for each element: in the worker processes of the run where it has some, else here.

    Args:
        config: of the task.
        run: token of the run as this machine carries it out; "" where it is another's.
        tasks: the element's type chooses; an element of no task's type is given to the first, here.
    """

    def __init__(self, config: Any, run: str, *tasks: Task) -> None:
        self.config, self.run, self.tasks = config, run, tasks

    def setup(self) -> None:
        here = local_run(self.run)
        self.heartbeat = Heartbeat(here.progress.add if here else None)

    def start_bundle(self) -> None:
        self.submitted: list[tuple[Ticket, Any, Any]] = []

    def process(
        self, element: Any, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[Any]:
        here = local_run(self.run)
        task = next((task for task in self.tasks if isinstance(element, task.item)), None)
        if here is not None and here.pool is not None and task is not None:
            self.submitted.append((here.pool.submit(task, element), timestamp, window))
            return
        try:
            result = (task or self.tasks[0]).do(self.config, element, self.heartbeat)
        except Exception as error:
            if here is not None:
                here.noted(error)
            raise
        _report_stages()
        yield result

    def finish_bundle(self) -> Iterator[WindowedValue]:
        here = local_run(self.run)
        for ticket, timestamp, window in self.submitted:
            assert here is not None
            assert here.pool is not None
            try:
                result = here.pool.result(ticket)
            except Exception as error:
                here.noted(error)
                raise
            _report_stages()
            yield WindowedValue(result, timestamp, (window,))
        self.submitted = []
        self.heartbeat.flush()


def _report_stages() -> None:
    """Give what was counted to Beam, whose runners add it up over all workers."""
    for name, value in take().items():
        beam.metrics.Metrics.counter(NAMESPACE, name).inc(value)
