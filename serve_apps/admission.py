"""Admission of requests by estimated work: what cannot be answered in time is refused at once, with a time to retry.

The work of a request is estimated in seconds of one idle replica of stage 2, from costs that are measured when a model
is loaded (`costs.py`). A scene worker knows the work it admitted and how fast that gets done, by replicas that it
shares with other workers; so it needs no ledger that all workers share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serve_apps.problems import ProblemError

SHARE = 0.75
"""Share of the time limit that estimated work may fill; the rest is for decoding, encoding and wrong estimates."""
_MEMORY_S = 20.0
"""Busy seconds after which the measured speed is mostly that of these seconds."""
_FORGET_S = 60.0
"""Idle seconds after which the first estimate of the speed holds again: replicas may have been added or removed."""
_SLOWEST = 0.05
"""Lowest speed, as a share of the first estimate."""


@dataclass(eq=False)
class Job:
    """An admitted request.

    Attributes:
        remaining: seconds of work that are not done yet.
        deadline: when it must be done.
    """

    remaining: float
    deadline: float


class Workload:
    """The work of one scene worker.

    Args:
        limit_s: how long a request may take.
        speed: first estimate of the seconds of work done in a second: replicas of stage 2 by scene workers.
        clock: seconds.
    """

    def __init__(self, limit_s: float, speed: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s, self._first_speed, self._clock = limit_s, speed, clock
        self._speed = speed
        self._jobs: list[Job] = []
        self._refused: list[tuple[float, float]] = []
        self._busy = self._done = 0.0
        self._seen = clock()

    @property
    def budget_s(self) -> float:
        """The largest work of one request, in seconds of one idle replica."""
        return SHARE * self._limit_s * self._first_speed

    def clock_s(self, work_s: float) -> float:
        """Seconds that some work takes while there is no other."""
        return work_s / self._first_speed

    @property
    def seconds(self) -> float:
        """Work that is admitted and not done, in seconds of the clock."""
        return sum(job.remaining for job in self._jobs) / self._speed

    @contextmanager
    def admitted(self, work_s: float) -> Iterator[Job]:
        """A request for as long as it is worked on.

        Args:
            work_s: its estimated work; the caller has compared it with `budget_s`.

        Raises:
            ProblemError: 429, it, or one that was admitted before, would not be done in time.
        """
        now = self._elapsed()
        job = Job(work_s, now + SHARE * self._limit_s)
        if self._jobs and self._late([*self._jobs, job], now) > 0:
            raise self._overloaded(job, now)
        self._jobs.append(job)
        try:
            yield job
        finally:
            self._elapsed()
            self._jobs.remove(job)

    def progress(self, job: Job, work_s: float) -> None:
        """A part of a request's work is done."""
        self._elapsed()
        self._done += min(work_s, job.remaining)
        job.remaining = max(0.0, job.remaining - work_s)
        if self._busy >= 1.0:
            weight = 1 - math.exp(-self._busy / _MEMORY_S)
            self._speed += weight * (self._done / self._busy - self._speed)
            self._speed = max(self._speed, _SLOWEST * self._first_speed)
            self._busy = self._done = 0.0

    def _elapsed(self) -> float:
        """Counts the time since the last event as busy or idle; now."""
        now = self._clock()
        if any(job.remaining for job in self._jobs):
            self._busy += now - self._seen
        elif now - self._seen > _FORGET_S:
            self._speed, self._busy, self._done = self._first_speed, 0.0, 0.0
        self._seen = now
        return now

    def _late(self, jobs: list[Job], now: float) -> float:
        """Seconds by which the latest of some requests misses its deadline, if all get equal shares of the replicas."""
        late, finish, done, left = -math.inf, now, 0.0, len(jobs)
        for job in sorted(jobs, key=lambda job: job.remaining):
            finish += (job.remaining - done) * left / self._speed
            done, left = job.remaining, left - 1
            late = max(late, finish - job.deadline)
        return late

    def _overloaded(self, job: Job, now: float) -> ProblemError:
        """Refuses a request; the time to retry counts those that were refused before and come back earlier."""
        self._refused = [(due, work) for due, work in self._refused if due > now]
        coming = sum(work for _, work in self._refused) / self._speed
        wait = self._late([*self._jobs, job], now) + coming
        retry = max(1, math.ceil(min(wait, 10 * self._limit_s)))
        self._refused.append((now + retry, job.remaining))
        return ProblemError.of(
            429,
            "Too many requests",
            f"the service has {self.seconds + coming:.0f} s of work, and a map may take {self._limit_s:g} s; "
            f"try again in {retry} s",
            retry,
        )
