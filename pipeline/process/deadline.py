"""When a child is taken to hang: a deadline for each reply that pauses do not use up.

Only whole replies count, so a child that sends a byte now and then is not alive for it. Of the time since the
last one two things are measured:

- CPU time of the child. A child that was stopped, or gets no processor, uses none.
- Time in which the child *idled*: it slept or waited for a disk, and used less than a tenth of a processor.
  It may idle several times as long. Not counted: time in which it was stopped, or was ready to run and did
  not get to; time between two looks that lie much further apart than they should, because then this process
  itself was stopped, or the whole machine asleep; time in which this process fetched bytes for the child.

Where the system says nothing of other processes (no ``/proc``), all time counts as idle but for the gaps
between looks.
"""

from __future__ import annotations

from align.pipeline.process.vitals import Vitals

LOOK_S = 0.2
IDLE_FACTOR = 3.0
_PAUSE_S = 5 * LOOK_S
_BUSY = 0.1  # of a processor


class Deadline:
    """Of one reply after the other.

    Args:
        limit_s: CPU time that a reply may take.
        now: a monotonic clock, seconds.
    """

    def __init__(self, limit_s: float, now: float) -> None:
        self._limit_s, self._seen = limit_s, now
        self._cpu_s: float | None = None
        self._from_cpu_s: float | None = None
        self._idle_s = 0.0

    def restart(self) -> None:
        """A reply is whole, or the next one is being waited for: count from the next look on."""
        self._from_cpu_s, self._idle_s = None, 0.0

    def excuse(self, now: float) -> None:
        """What passed since the last look was not the child's doing."""
        self._seen = now

    def is_due(self, now: float) -> bool:
        """Whether it is time for a look."""
        return now - self._seen >= LOOK_S

    def passed(self, now: float, child: Vitals) -> bool:
        """Look at the child; whether it has used up its time."""
        step, self._seen = now - self._seen, now
        before, self._cpu_s = self._cpu_s, child.cpu_s
        if child.cpu_s is not None:
            if self._from_cpu_s is None:
                self._from_cpu_s = child.cpu_s
            if child.cpu_s - self._from_cpu_s > self._limit_s:
                return True
            if before is not None and child.cpu_s - before > _BUSY * step:
                return False
        if step < _PAUSE_S and child.state not in ("R", "T", "t"):
            self._idle_s += step
        return self._idle_s > IDLE_FACTOR * self._limit_s
