"""The CPU side of a map: decode, cut, fan out, blend, encode. Between the gateway and the stages; holds no weights."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from idgbr import IGNORE
from idgbr.config.models import SamplerConfig
from idgbr.errors import UserError
from idgbr.raster.decoding import BadImage, ImageLimits, Picture, check_values, decode_coarse, decode_image
from idgbr.raster.encoding import preview_png
from serve_apps.assembly import Assembly, Maps, Stages
from serve_apps.calls import every_replica, replica_lost
from serve_apps.encoders import check_polygons, encoded
from serve_apps.messages import MapReply, MapRequest, Problem, ProblemError
from serve_apps.metrics import StageMetrics
from serve_apps.model_folder import Served, find, refuse_other_task
from serve_apps.model_shelf import ModelShelf, ModelUnavailable, ShelfStatus
from serve_apps.settings import Args
from serve_apps.steps import step_lines

T = TypeVar("T")

_FAULTS = {
    "format": (415, "Unsupported format"),
    "damaged": (400, "Damaged body"),
    "size": (413, "Too large"),
    "content": (422, "Unfit image"),
}


@serve.deployment
class SceneWorker:
    """Makes maps out of bodies by calling the stages.

    Which version a request gets is decided here, once per request. `user_config` is as in `stages._Stage`; a new
    version becomes the active one when a replica of each stage has it and it passed its smoke test there.
    """

    def __init__(self, args: Args, coarse: DeploymentHandle, refiner: DeploymentHandle) -> None:
        self._args = args
        self._stages = Stages(coarse, refiner, args.coarse.batch, args.refiner.batch, args.scenes.calls)
        self._limits = ImageLimits(args.limits.pixels, args.limits.bands)
        self._pool = ThreadPoolExecutor(args.scenes.threads, "scenes")
        self._metrics = StageMetrics()
        self._shelf: ModelShelf[Served] = ModelShelf(self._load, args.limits.request_s, self._metrics.show_model)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls this with the `user_config`: which model to serve."""
        await self._shelf.follow(user_config)

    async def status(self) -> ShelfStatus:
        """Versions desired, active and held here, and why the desired one is not active."""
        return self._shelf.status

    async def describe(self) -> dict[str, Any]:
        """What /v1/model tells: the model, and its versions in every replica of the deployments that know one."""
        context = serve.get_replica_context()
        handles = {
            "scenes": serve.get_deployment_handle(context.deployment, context.app_name),
            "coarse": self._stages.coarse,
            "refiner": self._stages.refiner,
        }
        states: list[list[ShelfStatus]] = await asyncio.gather(*(every_replica(h, "status") for h in handles.values()))
        replicas = dict(zip(handles, states, strict=True))
        faults = {name: dict.fromkeys(one.error for one in several if one.error) for name, several in replicas.items()}
        told: dict[str, Any] = {
            "desired": self._shelf.status.desired,
            "active": self._shelf.status.active,
            "replicas": {
                name: [{"desired": one.desired, "active": one.active, "held": one.held} for one in several]
                for name, several in replicas.items()
            },
            "errors": {name: "; ".join(several) for name, several in faults.items() if several},
        }
        if not self._shelf.status.active:
            return told
        async with self._shelf.lease() as (_, served):
            spec = served.spec
            return told | {
                "name": spec.name,
                "version": served.label,
                "classes": [{"id": i, "name": c.name, "colour": c.colour} for i, c in enumerate(spec.classes)],
                "bands": spec.bands,
                "gsd": spec.gsd,
                "sampler": spec.sampler.model_dump(),
                "stages": {"coarse": spec.coarse is not None, "refine": spec.refiner is not None},
                "metrics": spec.metrics,
                "provenance": spec.provenance,
            }

    async def sample(self) -> bytes | Problem:
        """The image that travels with the active model, as .npy."""
        try:
            async with self._shelf.lease() as (_, served):
                return await self._threaded(_sample_npy, served.folder)
        except Exception as error:
            return self._problem(error)

    async def make(self, request: MapRequest) -> MapReply | Problem:
        """A map, or why there is none. Never raises, but for cancellation."""
        started = time.perf_counter()
        try:
            async with self._shelf.lease() as (address, served):
                assembly, own = await self._decoded(request, address, served)
                decoded_ms = (time.perf_counter() - started) * 1e3
                maps = await assembly.maps(self._sampler(request, served), own, request.stage == "refine")
                maps.milliseconds = {"decode": decoded_ms, **maps.milliseconds}
                return await self._reply(request, served, assembly.picture, maps)
        except Exception as error:
            return self._problem(error)

    async def make_stream(self, request: MapRequest) -> AsyncIterator[bytes | Problem]:
        """Lines of NDJSON: the coarse map, every denoising step, the result."""
        started = time.perf_counter()
        try:
            async with self._shelf.lease() as (address, served):
                assembly, own = await self._decoded(request, address, served)
                decoded_ms = (time.perf_counter() - started) * 1e3
                if "image" in request.outputs:
                    yield _line(await self._threaded(_image_line, assembly.picture))
                maps = await assembly.coarse_maps() if own is None else Maps(own)
                maps.milliseconds = {"decode": decoded_ms, **maps.milliseconds}
                sampler = self._sampler(request, served)
                async for line in step_lines(assembly, maps, sampler, self._args.scenes.calls, self._threaded):
                    yield _line(line)
                reply = await self._reply(request, served, assembly.picture, maps)
                yield _line(_result(reply))
        except Exception as error:
            yield self._problem(error)

    async def _load(self, address: str) -> Served:
        served = await self._threaded(find, address, self._args.tracking_uri)
        if self._shelf.status.active:
            async with self._shelf.lease() as (_, before):
                refuse_other_task(before.spec, served.spec)
        await asyncio.gather(self._stages.coarse.prepare.remote(address), self._stages.refiner.prepare.remote(address))
        return served

    async def _decoded(
        self, request: MapRequest, address: str, served: Served
    ) -> tuple[Assembly, NDArray[np.uint8] | None]:
        spec = served.spec
        check_polygons(request, served)
        if request.coarse is None and spec.coarse is None:
            raise ProblemError.of(422, "No stage 1", f"{served.label} has no stage 1: send a coarse map with the image")
        if request.stage == "refine" and spec.refiner is None:
            raise ProblemError.of(422, "No stage 2", f"{served.label} has no stage 2: ask /v1/coarse")
        picture: Picture = await self._threaded(decode_image, request.image, spec.bands, self._limits, spec.gsd)
        await self._threaded(check_values, picture, spec.values)
        own = None
        if request.coarse is not None:
            own = await self._threaded(decode_coarse, request.coarse, picture.grid, len(spec.classes), self._limits)
            own[0][~picture.valid] = IGNORE
        return Assembly(self._stages, self._pool, address, spec, picture), own

    def _sampler(self, request: MapRequest, served: Served) -> SamplerConfig:
        return SamplerConfig.model_validate(served.spec.sampler.model_dump() | request.sampler)

    async def _reply(self, request: MapRequest, served: Served, picture: Picture, maps: Maps) -> MapReply:
        started = time.perf_counter()
        parts = await self._threaded(encoded, request, served, picture, maps)
        maps.milliseconds["encode"] = (time.perf_counter() - started) * 1e3
        for stage, value in maps.milliseconds.items():
            self._metrics.latency.observe(value, {"stage": stage})
        ids = maps.planes[0] if maps.refined is None else maps.refined
        counts = np.bincount(ids.ravel(), minlength=256)[: len(served.spec.classes)]
        shares = {}
        for spec, count in zip(served.spec.classes, counts.tolist(), strict=True):
            if count:
                self._metrics.pixels.inc(count, {"model": served.label, "class": spec.name})
            shares[spec.name] = round(count / max(1, int(counts.sum())), 4)
        milliseconds = {name: round(value, 1) for name, value in maps.milliseconds.items()}
        return MapReply(tuple(parts), served.label, maps.windows, milliseconds, shares)

    async def _threaded(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, functools.partial(work, *arguments))

    def _problem(self, error: Exception) -> Problem:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, ProblemError):
            return cause.problem
        if isinstance(cause, BadImage):
            return Problem(*_FAULTS[cause.fault], str(cause))
        if isinstance(cause, ModelUnavailable):
            return Problem(503, "Model not ready", str(cause), 5)
        if isinstance(cause, ValidationError):
            return Problem(422, "Unfit parameters", "; ".join(e["msg"] for e in cause.errors()))
        if isinstance(cause, UserError):
            return Problem(422, "Unfit image", str(cause))
        if isinstance(cause, BackPressureError):
            return Problem(429, "Busy", "every replica and its queue are full; try again a little later", 2)
        if replica_lost(error):
            return Problem(503, "Replica lost", "a replica ended while it worked on this request; try again", 1)
        serve_log().exception("request failed", exc_info=error)
        return Problem(500, "Failure of ours", "the request failed for a reason that is in the service's log")


def serve_log() -> Any:
    """The logger whose lines Serve writes with request and replica."""
    import logging

    return logging.getLogger("ray.serve")


def _image_line(picture: Picture) -> dict[str, Any]:
    height, width = picture.valid.shape
    png = base64.b64encode(preview_png(picture.pixels, picture.valid)).decode()
    return {"type": "image", "width": width, "height": height, "png": png}


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _result(reply: MapReply) -> dict[str, Any]:
    outputs: dict[str, dict[str, str]] = {}
    for name, media, data in reply.parts:
        outputs.setdefault(name, {})[media] = base64.b64encode(data).decode()
    return {
        "type": "result",
        "model": reply.model,
        "windows": reply.windows,
        "milliseconds": reply.milliseconds,
        "shares": reply.shares,
        "outputs": outputs,
    }


def _sample_npy(folder: str) -> bytes:
    import io

    from idgbr.models.description import load_sample

    sample = load_sample(folder)
    if sample is None:
        raise ProblemError.of(404, "No sample", "this model carries no sample image")
    stream = io.BytesIO()
    np.save(stream, sample.image)
    return stream.getvalue()
