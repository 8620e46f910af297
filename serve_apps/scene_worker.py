"""The CPU side of a map: decode, cut, fan out, blend, encode. Between the gateway and the stages; holds no weights."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from ray import serve
from ray.serve.handle import DeploymentHandle

from idgbr import IGNORE
from idgbr.config.models import SamplerConfig
from idgbr.models.description import load_sample
from idgbr.raster.decoding import Picture, check_values, decode_coarse, decode_image, image_size
from idgbr.raster.encoding import preview_png
from idgbr.raster.image_limits import ImageLimits
from serve_apps.admission import Job, Workload
from serve_apps.assembly import Assembly, Maps, StageHandles
from serve_apps.calls import every_replica
from serve_apps.costs import Estimate, ModelCosts
from serve_apps.encoders import check_polygons, encoded
from serve_apps.geography import check_degrees
from serve_apps.messages import GEOJSON, MapReply, MapRequest
from serve_apps.metrics import StageMetrics
from serve_apps.model_folder import Served, find, refuse_other_task
from serve_apps.model_shelf import ModelShelf, ShelfStatus
from serve_apps.problems import Problem, ProblemError, problem_from
from serve_apps.settings import Args
from serve_apps.steps import step_lines

if TYPE_CHECKING:
    from idgbr.inference.predictor import Part

T = TypeVar("T")
LOG = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class _Admitted:
    """A request whose work fits, decoded.

    Attributes:
        served: the version of the model it is pinned to.
        sampler: the sampler's settings.
        assembly: what makes its maps.
        own: planes of the coarse map that it brought.
        decoded_ms: milliseconds from its arrival until it was decoded.
    """

    served: Served
    sampler: SamplerConfig
    assembly: Assembly
    own: NDArray[np.uint8] | None
    decoded_ms: float


@serve.deployment
class SceneWorker:
    """Makes maps out of bodies by calling the stages.

    Each request is pinned here to a version of the model. `user_config` is as in `stages._Stage`; a new version becomes
    the active one when a replica of each stage has it and it passed its smoke test there.
    """

    def __init__(self, args: Args, coarse: DeploymentHandle, refiner: DeploymentHandle) -> None:
        self._args = args
        self._handles = StageHandles(coarse, refiner, args.coarse.batch, args.refiner.batch, args.scenes.calls)
        self._limits = ImageLimits(args.limits.pixels, args.limits.bands)
        self._pool = ThreadPoolExecutor(args.scenes.threads, "scenes")
        self._headers = ThreadPoolExecutor(1, "headers")  # an overloaded pool must not delay the refusal
        speed = max(1, args.refiner.min_replicas) / max(1, args.scenes.min_replicas)
        self._workload = Workload(args.limits.request_s, speed)
        self._metrics = StageMetrics()
        self._shelf: ModelShelf[Served] = ModelShelf(self._load, args.limits.request_s, self._metrics.show_model)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls this with the `user_config`: which model to serve."""
        await self._shelf.follow(user_config)

    async def status(self) -> ShelfStatus:
        """Versions desired, active and held here, and why the desired one is not active."""
        return self._shelf.status

    async def describe(self) -> dict[str, Any]:
        """The content of /v1/model: the model, its versions in every replica that knows one, and the limits."""
        context = serve.get_replica_context()
        handles = {
            "scenes": serve.get_deployment_handle(context.deployment, context.app_name),
            "coarse": self._handles.coarse,
            "refiner": self._handles.refiner,
        }
        states: list[list[ShelfStatus]] = await asyncio.gather(*(every_replica(h, "status") for h in handles.values()))
        replicas = dict(zip(handles, states, strict=True))
        faults = {name: dict.fromkeys(one.error for one in several if one.error) for name, several in replicas.items()}
        versions: dict[str, Any] = {
            "desired": self._shelf.status.desired,
            "active": self._shelf.status.active,
            "replicas": {
                name: [{"desired": one.desired, "active": one.active, "held": one.held} for one in several]
                for name, several in replicas.items()
            },
            "errors": {name: "; ".join(several) for name, several in faults.items() if several},
        }
        if not self._shelf.status.active:
            return versions
        async with self._shelf.lease() as (_, served):
            spec = served.spec
            return versions | {
                "name": spec.name,
                "version": served.label,
                "classes": [{"id": i, "name": c.name, "colour": c.colour} for i, c in enumerate(spec.classes)],
                "bands": spec.bands,
                "gsd": spec.gsd,
                "sampler": spec.sampler.model_dump(),
                "stages": {"coarse": spec.coarse is not None, "refine": spec.refiner is not None},
                "limits": self._measured_limits(served),
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
        try:
            async with self._admitted(request) as one:
                maps = await one.assembly.maps(one.sampler, one.own, request.stage == "refine")
                return await self._reply(request, one, maps)
        except Exception as error:
            return self._problem(error)

    async def make_stream(self, request: MapRequest) -> AsyncIterator[bytes | Problem]:
        """Lines of NDJSON: the coarse map, every denoising step, the result."""
        try:
            async with self._admitted(request) as one:
                if "image" in request.outputs:
                    yield _line(await self._threaded(_image_line, one.assembly.picture))
                maps = await one.assembly.coarse_maps() if one.own is None else Maps(one.own)
                async for line in step_lines(one.assembly, maps, one.sampler, self._args.scenes.calls, self._threaded):
                    yield _line(line)
                yield _line(_result(await self._reply(request, one, maps)))
        except Exception as error:
            yield self._problem(error)

    @asynccontextmanager
    async def _admitted(self, request: MapRequest) -> AsyncIterator[_Admitted]:
        """A request that is admitted and decoded; in the body its version of the model stays."""
        started = time.perf_counter()
        async with self._shelf.lease() as (address, served):
            sampler = self._sampler(request, served)
            estimate = await self._estimated(request, served, sampler)
            with self._workload.admitted(estimate.seconds) as job:
                assembly, own = await self._decoded(request, address, served, self._counter(estimate, job))
                yield _Admitted(served, sampler, assembly, own, (time.perf_counter() - started) * 1e3)

    async def _load(self, address: str) -> Served:
        served = await self._threaded(find, address, self._args.tracking_uri)
        if self._shelf.status.active:
            async with self._shelf.lease() as (_, before):
                refuse_other_task(before.spec, served.spec)
        stages = self._handles.coarse, self._handles.refiner
        costs = ModelCosts(*await asyncio.gather(*(stage.prepare.remote(address) for stage in stages)))
        served = replace(served, costs=costs)
        LOG.info("model %s: limits on this machine %s", address, self._measured_limits(served))
        return served

    def _measured_limits(self, served: Served) -> dict[str, float]:
        """Limits of a request: the largest image that is refined in time here with the model's own sampler, and the
        seconds it takes.
        """
        limits, budget_s = self._args.limits, self._workload.budget_s
        side = served.costs.largest_side(served.spec, budget_s, limits.pixels)
        fits = served.costs.both_s(served.spec, math.isqrt(limits.pixels)) <= budget_s
        return {
            "pixels": limits.pixels if fits else side * side,
            "seconds": round(self._workload.clock_s(served.costs.both_s(served.spec, side)), 1) if side else 0.0,
            **limits.model_dump(include={"request_s", "body_mb", "bands", "steps", "samples"}),
        }

    async def _estimated(self, request: MapRequest, served: Served, sampler: SamplerConfig) -> Estimate:
        """The work of a request, from the header of its image.

        Raises:
            ProblemError: 413, more than fits into the time limit; 422, the model lacks a stage.
            BadImage: not an image, or larger than the limits.
        """
        spec, limits = served.spec, self._args.limits
        check_polygons(request, served)
        if request.coarse is None and spec.coarse is None:
            raise ProblemError.of(422, "No stage 1", f"{served.label} has no stage 1: send a coarse map with the image")
        if request.stage == "refine" and spec.refiner is None:
            raise ProblemError.of(422, "No stage 2", f"{served.label} has no stage 2: use /v1/coarse")
        loop = asyncio.get_running_loop()
        height, width = await loop.run_in_executor(self._headers, image_size, request.image, self._limits)
        parts: list[Part] = ["coarse"] if request.coarse is None else []
        parts += ["refiner"] if request.stage == "refine" else []
        estimate = served.costs.estimate(spec, height, width, sampler, parts)
        if estimate.seconds > self._workload.budget_s:
            largest = self._measured_limits(served)["pixels"]
            raise ProblemError.of(
                413,
                "Too much work",
                f"{height} x {width} px with {sampler.steps} steps and {sampler.samples} samples take about "
                f"{self._workload.clock_s(estimate.seconds):.0f} s on this machine, and a map may take "
                f"{limits.request_s:g} s, of which a quarter is reserve; send at most {largest:,} px with the "
                f"model's own {spec.sampler.steps} steps and {spec.sampler.samples} samples, or use jobs/refine.py: "
                "it takes any size",
            )
        return estimate

    def _counter(self, estimate: Estimate, job: Job) -> Callable[[Part, int], None]:
        """Counts predicted windows as progress of a request."""
        return lambda part, windows: self._workload.progress(job, windows * estimate.window_s.get(part, 0.0))

    async def _decoded(
        self, request: MapRequest, address: str, served: Served, finished: Callable[[Part, int], None]
    ) -> tuple[Assembly, NDArray[np.uint8] | None]:
        spec = served.spec
        picture: Picture = await self._threaded(decode_image, request.image, spec.bands, self._limits, spec.gsd)
        await self._threaded(check_values, picture, spec.values)
        if GEOJSON in request.media:
            await self._threaded(check_degrees, picture.grid)
        own = None
        if request.coarse is not None:
            own = await self._threaded(decode_coarse, request.coarse, picture.grid, len(spec.classes), self._limits)
            own[0][~picture.valid] = IGNORE
            if (own[0] == IGNORE).all():
                raise ProblemError.of(
                    422, "Unprocessable image", "coarse map: no pixel has a class where the image has data"
                )
        return Assembly(self._handles, self._pool, address, spec, picture, finished), own

    def _sampler(self, request: MapRequest, served: Served) -> SamplerConfig:
        return SamplerConfig.model_validate(served.spec.sampler.model_dump() | request.sampler)

    async def _reply(self, request: MapRequest, one: _Admitted, maps: Maps) -> MapReply:
        started, served, picture = time.perf_counter(), one.served, one.assembly.picture
        parts = await self._threaded(encoded, request, served, picture, maps)
        encode_ms = (time.perf_counter() - started) * 1e3
        maps.milliseconds = {"decode": one.decoded_ms, **maps.milliseconds, "encode": encode_ms}
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
        return MapReply(tuple(parts), served.label, maps.windows, milliseconds, shares, picture.note)

    async def _threaded(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, functools.partial(work, *arguments))

    def _problem(self, error: Exception) -> Problem:
        return problem_from(error, self._args.limits.request_s)


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
        "bands": reply.bands,
        "windows": reply.windows,
        "milliseconds": reply.milliseconds,
        "shares": reply.shares,
        "outputs": outputs,
    }


def _sample_npy(folder: str) -> bytes:
    sample = load_sample(folder)
    if sample is None:
        raise ProblemError.of(404, "No sample", "this model has no sample image")
    stream = io.BytesIO()
    np.save(stream, sample.image)
    return stream.getvalue()
