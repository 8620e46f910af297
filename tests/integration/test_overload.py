"""More requests than can be answered in time: maps for those that fit, 429 at once for the others."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from serving import npy, picture, refine, service

from idgbr.client import Client


@pytest.mark.slow
def test_a_burst_ends_in_maps_or_in_429(ray_session: None, toy_model: Path) -> None:
    """64 images of 256 px at once, each an eighth of the work that fits into the time limit."""
    seconds, side = 20.0, 256
    with service(toy_model, limits={"steps": 50, "samples": 16, "request_s": seconds}) as url:
        limits = requests.get(f"{url}/v1/model", timeout=30).json()["limits"]
        assert limits["pixels"] > 0 and 0 < limits["seconds"] <= limits["request_s"] == seconds
        largest = int(limits["pixels"] ** 0.5)
        too_much = refine(url, npy(np.zeros((3, largest, largest), np.uint8)), steps=50, samples=16, guidance=2.0)
        assert too_much.status_code == 413 and "50 steps and 16 samples take about" in too_much.json()["detail"]
        one = limits["seconds"] * side**2 / limits["pixels"]
        samples = int(np.clip(2 * 0.75 * seconds / 8 / one, 1, 16))
        steps = int(np.clip(2 * 0.75 * seconds / 8 / one / samples, 1, 50))
        body = npy(picture(side, side))

        def send(_: int) -> requests.Response:
            return refine(url, body, steps=steps, samples=samples)

        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(send, range(64)))
        counts = Counter(answer.status_code for answer in answers)
        assert set(counts) == {200, 429}, counts
        waits = [int(answer.headers["retry-after"]) for answer in answers if answer.status_code == 429]
        assert min(waits) >= 1 and len(set(waits)) > 1
        # Clients that wait as long as Retry-After says all get their maps.
        client = Client(url, retries=20)
        with ThreadPoolExecutor(16) as pool:
            maps = list(pool.map(lambda _: client.refine(picture(side, side), steps=steps, samples=samples), range(16)))
        assert len(maps) == 16
