"""Admission by estimated work: what is admitted is done in time, what is refused learns when to come back."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from idgbr.config.models import SamplerConfig
from serve_apps.admission import SHARE, Job, Workload
from serve_apps.costs import Estimate, measure_refiner, passes
from serve_apps.problems import ProblemError

LIMIT_S = 120.0


class Replica:
    """Works on all jobs of a workload at the same pace, on a clock of its own."""

    def __init__(self, speed: float, assumed: float) -> None:
        self.now, self._speed = 0.0, speed
        self.workload = Workload(LIMIT_S, assumed, lambda: self.now)
        self.jobs: dict[Job, tuple[ExitStack, float]] = {}
        self.late: list[float] = []

    def send(self, work_s: float) -> int:
        """0 where a request is admitted, else the seconds of Retry-After."""
        stack = ExitStack()
        try:
            job = stack.enter_context(self.workload.admitted(work_s))
        except ProblemError as error:
            return error.problem.retry_after or 0
        self.jobs[job] = stack, self.now
        return 0

    def work(self, seconds: float, step: float = 0.25) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step
            share = step * self._speed / max(1, len(self.jobs))
            for job, (stack, since) in list(self.jobs.items()):
                self.workload.progress(job, share)
                if job.remaining <= 1e-9:
                    self.late.append(self.now - since - LIMIT_S)
                    del self.jobs[job]
                    stack.close()


@pytest.mark.parametrize("speed", [1.0, 0.8, 3.0])
def test_a_burst_is_answered_in_time_or_refused_at_once(speed: float) -> None:
    replica = Replica(speed, assumed=1.0)
    refused = [retry for _ in range(64) if (retry := replica.send(5.0))]
    assert len(refused) == 64 - int(SHARE * LIMIT_S / 5)
    # Those refused later get a later time: all of them cannot come back at once.
    assert refused == sorted(refused) and refused[0] < refused[-1]
    replica.work(300)
    assert len(replica.late) == 64 - len(refused) and max(replica.late) <= 0


def test_whoever_comes_back_when_the_answer_says_so_gets_a_map() -> None:
    replica = Replica(1.0, assumed=1.0)
    waiting = [0.0] * 64
    tries = 0
    while waiting:
        due = [at for at in waiting if at <= replica.now]
        waiting = [at for at in waiting if at > replica.now]
        for _ in due:
            tries += 1
            retry = replica.send(5.0)
            waiting += [replica.now + retry] if retry else []
        replica.work(1)
    replica.work(300)
    assert len(replica.late) == 64 and max(replica.late) <= 0
    assert tries <= 3 * 64
    assert replica.now <= 64 * 5 + 420


def test_small_requests_do_not_starve_a_large_one_that_was_admitted_before() -> None:
    replica = Replica(1.0, assumed=1.0)
    assert replica.send(80.0) == 0
    sent = 0
    for _ in range(100):
        sent += replica.send(2.0) == 0
        replica.work(1)
    replica.work(300)
    assert sent > 10 and max(replica.late) <= 0


@pytest.mark.parametrize("speed", [4.0, 0.5])
def test_more_replicas_and_slower_ones_are_noticed(speed: float) -> None:
    replica = Replica(speed, assumed=1.0)
    for _ in range(150):
        while not replica.send(4.0):
            pass
        replica.work(1)
    pending_s = sum(job.remaining for job in replica.jobs) / speed
    assert replica.workload.seconds == pytest.approx(pending_s, rel=0.2)


def test_an_idle_service_admits_what_fits_alone_whatever_it_was_like_before() -> None:
    replica = Replica(0.1, assumed=1.0)
    replica.send(30.0)
    replica.work(400)
    assert replica.send(SHARE * LIMIT_S) == 0


def test_costs_of_windows_and_of_passes() -> None:
    assert passes(SamplerConfig(steps=4, samples=2)) == 8
    assert passes(SamplerConfig(steps=4, samples=2, guidance=3.0)) == 16
    seen: list[tuple[int, int]] = []

    def run(windows: int, sampler: SamplerConfig) -> None:
        seen.append((windows, passes(sampler)))

    cost = measure_refiner(run, 8, SamplerConfig(steps=1, samples=1))
    assert cost.pass_s >= 0 and cost.window_s >= 0 and (8, 4) in seen and (8, 1) in seen
    assert Estimate({"coarse": 2, "refiner": 9}, {"coarse": 0.5, "refiner": 2.0}).seconds == 19.0
