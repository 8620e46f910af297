"""A service with a tiny model for the tests, and images to send."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import ray
import requests
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import HTTPOptions

from serve_apps.refinement import build
from serve_apps.settings import Args

ROOT = Path(__file__).parents[2]
with socket.socket() as _free:  # two test runs on one machine must not answer each other's requests
    _free.bind(("127.0.0.1", 0))
    PORT = _free.getsockname()[1]
URL = f"http://127.0.0.1:{PORT}"
SMALL: dict[str, Any] = {
    "gateway": {"num_cpus": 0.1, "max_replicas": 1},
    "scenes": {"num_cpus": 0.1, "max_replicas": 1},
    "coarse": {"num_cpus": 0.1, "max_replicas": 1},
    "refiner": {"num_cpus": 0.1, "max_replicas": 1},
}


OPEN = "open"
"""The application of `open_service`; others are named refinement."""


@contextmanager
def service(model: str | Path, **args: Any) -> Iterator[str]:
    """The service in the running Ray, at the URL it yields; the open one ends, since there is one address."""
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=PORT))
    if OPEN in serve.status().applications:
        serve.delete(OPEN)
    serve.run(build(Args(model=str(model), **(SMALL | args))), name="refinement", route_prefix="/")
    try:
        yield URL
    finally:
        serve.delete("refinement")


def open_service(model: str | Path, limits: dict[str, float]) -> str:
    """The URL of a service without keys that stays for the tests after this one; it starts unless it runs."""
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=PORT))
    if OPEN not in serve.status().applications:
        serve.run(build(Args(model=str(model), limits=limits, **SMALL)), name=OPEN, route_prefix="/")
    return URL


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """(3, H, W) of coloured blocks and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (3, -(-height // 24), -(-width // 24)))
    blocks = coarse.repeat(24, 1).repeat(24, 2)[:, :height, :width]
    return (blocks + rng.integers(0, 55, (3, height, width))).astype(np.uint8)


def geotiff(
    pixels: NDArray, nodata: float | None = None, gsd: float = 0.5, west: float = 500000, crs: str = "EPSG:32633"
) -> bytes:
    """A GeoTIFF of the pixels, in UTM 33N by default."""
    bands, height, width = pixels.shape
    with MemoryFile() as file:
        with file.open(
            driver="GTiff", height=height, width=width, count=bands, dtype=pixels.dtype, nodata=nodata,
            crs=crs, transform=from_origin(west, 5000000, gsd, gsd),
        ) as out:  # fmt: skip
            out.write(pixels)
        return bytes(file.getbuffer())


def npy(array: NDArray) -> bytes:
    """The array as a file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def read(body: bytes) -> tuple[NDArray, rasterio.profiles.Profile]:
    """First band and profile of a raster in memory."""
    with MemoryFile(body) as file, file.open() as dataset:
        return dataset.read(1), dataset.profile


def refine(url: str, body: bytes, accept: str = "image/tiff", **query: Any) -> requests.Response:
    """POST /v1/refine."""
    return requests.post(f"{url}/v1/refine", body, params=query, headers={"accept": accept}, timeout=560)


def pids(deployment: str) -> list[int]:
    """Processes of a deployment's replicas."""
    found = []
    for name in (actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)):
        if f"#{deployment}#" in name:
            with suppress(ValueError, RayActorError):  # one that is ending
                found.append(ray.get(ray.get_actor(name, "serve").__ray_call__.remote(lambda _: os.getpid())))
    return found


def memory_mb(deployments: Sequence[str]) -> float:
    """Memory of their own of all replicas, in MB."""
    total = 0
    for pid in (pid for deployment in deployments for pid in pids(deployment)):
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.split("RssAnon:")[1].split()[0])
    return total / 1e3
