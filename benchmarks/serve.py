"""The online service against its own predictor called directly: requests a second, percentiles, where the time goes.

python jobs/benchmark.py serve --config configs/demo.yaml
python jobs/benchmark.py serve --config configs/demo.yaml --burst 64
python jobs/benchmark.py serve --config configs/vaihingen.yaml --model models:/idgbr-vaihingen@champion --requests 96

Both take a PNG and give a PNG. Direct is one process of one thread; the service has one replica of each deployment,
each model of one thread too, and is asked over HTTP. One request at a time, service and direct take turns, so that what
else the machine does hits both; the platform's own share is the difference of their medians. Deployments with nothing
in them, chained alike, take their turn as well: what Ray Serve itself takes of that share on this machine.
"""

from __future__ import annotations

import io
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from idgbr.cli import ExperimentFlags
from idgbr.config.tree import Experiment, ResourcesConfig
from idgbr.errors import IdgbrError, UserError

HOPS = "/hops"
"""Where the deployments with nothing in them answer."""


class Flags(ExperimentFlags):
    """Flags of the benchmark."""

    model: str = ""
    """Model to serve; default: the configuration's networks with random weights, which take as long."""
    size: int = Field(256, ge=32)
    """Side of the image in pixels."""
    requests: int = Field(48, ge=1)
    """Requests at each concurrency, and direct calls."""
    concurrency: list[int] = [1, 4, 16]
    """Requests in flight."""
    tries: int = Field(2, ge=1)
    """Runs of what is compared by throughput, in turn; the fastest counts."""
    burst: int = Field(0, ge=0)
    """Instead of the comparison: so many requests at once, and what becomes of them by status."""


def main(flags: Flags, experiment: Experiment) -> dict[str, object]:
    """Serves, asks, compares."""
    from benchmarks._directly import predictor_alone, untrained
    from idgbr.distributed.session import worker_environment
    from idgbr.models.description import load_spec
    from serve_apps.model_folder import find, pinned

    with tempfile.TemporaryDirectory() as scratch:
        tracking = experiment.tracking.uri
        model = pinned(flags.model, tracking) if flags.model else str(untrained(Path(scratch) / "model", experiment))
        folder, batches = find(model, tracking).folder, (4, 16)
        spec = load_spec(folder)
        body = _png(flags.size, len(spec.bands))
        if flags.burst:
            with _service(model, tracking, batches, _shapes(spec, flags.size)) as post:
                return _burst(post, body, flags.burst)
        with (
            _service(model, tracking, batches, _shapes(spec, flags.size)) as post,
            predictor_alone(folder, batches, worker_environment(1)) as direct,
        ):
            return _compared(flags, post, lambda count: direct([body] * count), body)


def _compared(
    flags: Flags, post: Callable[..., Any], direct: Callable[[int], tuple[float, list[bytes]]], body: bytes
) -> dict[str, object]:
    same = _same(post(body).content, direct(1)[1][0])
    if same < 0.999:
        raise IdgbrError(f"service and predictor disagree: {same:.2%} of the pixels are equal; nothing to compare")
    alone, calls, stages, empty = [], [], [], []
    post(body, HOPS)  # the first one makes connections
    for _ in range(flags.requests):
        empty.append(_timed(lambda: post(body, HOPS))[0])
        alone.append(direct(1)[0])
        took, answer = _timed(lambda: post(body))
        calls.append(took)
        stages.append(_stages(answer, took))
    found: dict[int, tuple[float, list[float]]] = {1: (1e3 / float(np.mean(calls)), calls)}
    batched = 0.0
    most = max(flags.concurrency)
    for _ in range(flags.tries):
        latencies = [direct(most)[0] for _ in range(-(-flags.requests // most))]
        batched = max(batched, len(latencies) * most / sum(latencies) * 1e3)
        for many in flags.concurrency:
            if many > 1:
                rate, latencies = _many(post, body, many, flags.requests)
                if many not in found or rate > found[many][0]:
                    found[many] = rate, latencies
    share, hops = float(np.median(calls) - np.median(alone)), float(np.median(empty))
    where = {name: float(np.median([s[name] for s in stages])) for name in stages[0]}
    shares = {"platform's own share": share, "of it Ray Serve, with nothing in it": hops}
    _tables(flags, found, alone, batched, where, shares)
    return {
        "pixels_equal": same,
        "direct_p50_ms": round(float(np.median(alone)), 1),
        "share_ms": round(share, 1),
        "serve_alone_ms": round(hops, 1),
        "direct_batched_per_s": round(batched, 3),
        "per_s": {str(many): round(rate, 3) for many, (rate, _) in found.items()},
        "percentiles_ms": {
            str(many): np.percentile(latencies, (50, 95, 99)).round(1).tolist()
            for many, (_, latencies) in found.items()
        },
        "ratio": round(found[most][0] / batched, 3),
        "where_ms": {name: round(value, 1) for name, value in where.items()},
    }


@contextmanager
def _service(
    model: str, tracking: str, batches: tuple[int, int], shapes: tuple[tuple[int, ...], ...]
) -> Iterator[Callable[..., Any]]:
    """The service and its empty likeness in a Ray of their own; a function that sends an image to one."""
    import requests
    from ray import serve
    from ray.serve.config import HTTPOptions

    from benchmarks._hops import empty_service
    from idgbr.distributed.session import start_ray
    from serve_apps.refinement import build
    from serve_apps.settings import Args

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = {"min_replicas": 1, "max_replicas": 1, "num_cpus": 0.1, "max_ongoing_requests": 64}
    stages = ({**one, "target_ongoing_requests": 64, "batch": batch} for batch in batches)
    args = Args.model_validate(
        {"model": model, "tracking_uri": tracking, "gateway": one, "scenes": one}
        | dict(zip(("coarse", "refiner"), stages, strict=True))
    )
    with start_ray(ResourcesConfig(logical_cpus=4)), requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        serve.run(build(args), name="refinement", route_prefix="/")
        serve.run(empty_service(*shapes), name="empty", route_prefix=HOPS)

        def post(body: bytes, route: str = "/v1/refine", checked: bool = True) -> requests.Response:
            url = f"http://127.0.0.1:{port}{route}"
            answer = session.post(url, body, headers={"accept": "image/png"}, timeout=600)
            if checked:
                answer.raise_for_status()
            return answer

        yield post
        serve.shutdown()


def _shapes(spec: Any, size: int) -> tuple[tuple[int, ...], ...]:
    """Of the image, and of what stage 1 and stage 2 give for all of its windows."""
    from idgbr.raster.windows import plan_windows

    classes, cuts = len(spec.classes), (spec.inference.coarse, spec.inference.refiner)
    counts = (len(plan_windows(size, size, cut.window, cut.overlap)) for cut in cuts)
    first, second = (
        (count, channels, cut.window, cut.window)
        for count, cut, channels in zip(counts, cuts, (classes, classes + 1), strict=True)
    )
    return (len(spec.bands), size, size), first, second


def _png(size: int, bands: int) -> bytes:
    """Blocks and noise, so that the codecs have something to do."""
    from PIL import Image

    if bands not in (3, 4):
        raise UserError(f"the model takes {bands} bands; a PNG has 3 or 4")
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 200, (-(-size // 24), -(-size // 24), bands)).repeat(24, 0).repeat(24, 1)[:size, :size]
    stream = io.BytesIO()
    Image.fromarray((blocks + rng.integers(0, 55, (size, size, bands))).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds, and what came of it."""
    began = time.perf_counter()
    result = work()
    return (time.perf_counter() - began) * 1e3, result


def _many(post: Callable[[bytes], Any], body: bytes, at_once: int, requests: int) -> tuple[float, list[float]]:
    """Requests a second, and the milliseconds of each."""
    with ThreadPoolExecutor(at_once) as pool:
        took, answers = _timed(lambda: list(pool.map(lambda _: _timed(lambda: post(body))[0], range(requests))))
    return requests / took * 1e3, answers


def _burst(post: Callable[..., Any], body: bytes, count: int) -> dict[str, object]:
    """Sends many requests at once: how many end in which status, how late, and maps a second."""
    post(body)
    with ThreadPoolExecutor(count) as pool:
        seconds, answers = _timed(
            lambda: list(pool.map(lambda _: _timed(lambda: post(body, checked=False)), range(count)))
        )
    by_status: dict[str, list[float]] = {}
    for milliseconds, answer in answers:
        by_status.setdefault(str(answer.status_code), []).append(milliseconds / 1e3)
    for status, waits in sorted(by_status.items()):
        print(f"{status}: {len(waits)} of {count}, after {min(waits):.1f} to {max(waits):.1f} s")
    maps = len(by_status.get("200", []))
    return {
        "statuses": {status: len(waits) for status, waits in by_status.items()},
        "slowest_s": {status: round(max(waits), 1) for status, waits in by_status.items()},
        "maps_per_s": round(maps / seconds * 1e3, 3),
    }


def _stages(answer: Any, took: float) -> dict[str, float]:
    """Where the milliseconds of a request went; parts that add up to all of them."""
    timings = dict(item.split(";dur=") for item in answer.headers["server-timing"].split(", "))
    ms = {name: float(value) for name, value in timings.items()}
    worker = sum(ms[name] for name in ("decode", "coarse", "refine", "encode"))
    return {
        "HTTP": took - ms["total"],
        "gateway": ms["total"] - worker,
        "decode": ms["decode"],
        "stage 1: model": ms["coarse-model"],
        "stage 1: around it": ms["coarse"] - ms["coarse-model"] - ms.get("coarse-blend", 0.0),
        "stage 2: model": ms["refine-model"],
        "stage 2: around it": ms["refine"] - ms["refine-model"] - ms["refine-blend"],
        "blending": ms["refine-blend"] + ms.get("coarse-blend", 0.0),
        "encode": ms["encode"],
    }


def _tables(
    flags: Flags,
    found: dict[int, tuple[float, list[float]]],
    alone: list[float],
    batched: float,
    where: dict[str, float],
    shares: dict[str, float],
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=110)
    table = Table(title=f"{flags.size} px PNG to PNG, {flags.requests} requests each", caption="milliseconds")
    for heading in ("", "requests/s", "of direct batched", "p50", "p95", "p99"):
        table.add_column(heading, justify="right")
    rows = [("direct", 1e3 / float(np.mean(alone)), alone), ("direct, batched", batched, [])]
    rows += [(f"service, {many} at a time", *found[many]) for many in sorted(found)]
    for name, rate, latencies in rows:
        percentiles = [f"{p:.0f}" for p in np.percentile(latencies, (50, 95, 99))] if latencies else [""] * 3
        table.add_row(name, f"{rate:.2f}", f"{rate / batched:.2f}", *percentiles)
    console.print(table)
    parts = Table(
        title="where a request's time goes, one at a time (medians)", caption=f"direct: {np.median(alone):.1f}"
    )
    for heading in ("", "ms"):
        parts.add_column(heading, justify="right")
    for name, value in where.items():
        parts.add_row(name, f"{value:.1f}")
    for name, value in shares.items():
        parts.add_row(name, f"{value:.1f}")
    console.print(parts)


def _same(left: bytes, right: bytes) -> float:
    """Share of equal pixels of two PNGs."""
    from PIL import Image

    one, other = (np.asarray(Image.open(io.BytesIO(png))) for png in (left, right))
    return float((one == other).mean())
