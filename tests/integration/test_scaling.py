"""The deployments under load: each scales by itself, holds its share of a GPU, and may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from ray import serve
from serving import geotiff, picture, pids, read, refine, service

HERE = Path(__file__).parent
SECONDS = 400
LIMITS = {"request_s": 600}
"""On a busy machine too, what these tests send fits into the time limit."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def until(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.2)


def running(deployment: str) -> int:
    """Replicas that are up."""
    states = serve.status().applications["refinement"].deployments[deployment].replica_states
    return states.get("RUNNING", 0)


@contextmanager
def load(ask: Callable[[int], None], at_once: int) -> Iterator[None]:
    """Requests in flight, as many at a time, while the body runs; what a request raises is raised at its end."""
    stop = threading.Event()

    def client(number: int) -> None:
        while not stop.is_set():
            ask(number)

    with ThreadPoolExecutor(at_once) as pool:
        clients = [pool.submit(client, number) for number in range(at_once)]
        try:
            yield
        finally:
            stop.set()
        for each in clients:
            each.result()


def test_stages_scale_on_their_own(ray_session: None, toy_model: Path) -> None:
    stage = {"num_cpus": 0.1, "max_replicas": 3, "upscale_delay_s": 1, "downscale_delay_s": 1}
    stages = {"coarse": {**stage, "target_ongoing_requests": 2}, "refiner": {**stage, "target_ongoing_requests": 1}}
    with service(toy_model, limits=LIMITS, **stages) as url:
        body = geotiff(picture(60, 60))

        def ask(_: int) -> None:
            assert refine(url, body, steps=20, samples=4).status_code == 200

        most = 0
        with load(ask, 6):
            until(lambda: running("DiffusionRefiner") > 1, "the refiner did not scale up")
            most = max(most, running("CoarseSegmenter"))
        assert most == 1
        until(lambda: running("DiffusionRefiner") == running("CoarseSegmenter") == 1, "the refiner did not scale down")
        assert refine(url, body).status_code == 200


def test_killed_replicas_cost_a_retry_at_most(ray_session: None, toy_model: Path) -> None:
    two = {"num_cpus": 0.1, "min_replicas": 2, "max_replicas": 2}
    names = {"gateway": "Gateway", "scenes": "SceneWorker", "coarse": "CoarseSegmenter", "refiner": "DiffusionRefiner"}
    with service(toy_model, limits=LIMITS, **dict.fromkeys(names, two)) as url:
        bodies = [geotiff(picture(60 + 30 * n, 60, n)) for n in range(4)]
        expected = [read(refine(url, body, samples=2).content)[0] for body in bodies]
        statuses: list[int] = []

        def ask(number: int) -> None:
            answer = refine(url, bodies[number], samples=2)
            statuses.append(answer.status_code)
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) > 0
                assert answer.headers["content-type"] == "application/problem+json"
            else:
                assert answer.status_code == 200, answer.text
                assert (read(answer.content)[0] == expected[number]).mean() > 0.999

        with load(ask, len(bodies)):
            for name in names.values():
                victim, before = pids(name)[0], len(statuses)
                until(lambda before=before: len(statuses) > before, "no answers")  # type: ignore[misc]
                os.kill(victim, signal.SIGKILL)
                until(
                    lambda name=name, victim=victim: running(name) == 2 and victim not in pids(name),  # type: ignore[misc]
                    f"no replica took over in {name}",
                )
        assert statuses.count(200) > len(names)
        assert requests.get(f"{url}/readyz", timeout=60).ok


def test_shares_of_a_gpu(worker_path: None, toy_model: Path) -> None:
    """On a cluster of its own, which declares GPUs; the models run on the CPU."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    env |= {"RAY_AUTH_MODE": "disabled", "SERVE_SLOW_STARTUP_WARNING_S": "2"}
    words = [sys.executable, str(HERE / "drive_gpus.py"), str(toy_model)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
