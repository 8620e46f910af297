"""Windows of one image to replicas and back into one map: planned, fanned out, blended as the batch job does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from ray.serve.handle import DeploymentHandle

from idgbr import IGNORE
from idgbr.config.inference import WindowsConfig
from idgbr.config.models import SamplerConfig
from idgbr.inference.planes import to_planes
from idgbr.inference.predictor import Part
from idgbr.models.description import ModelSpec
from idgbr.raster.blending import StripBlender
from idgbr.raster.decoding import Picture
from idgbr.raster.grid import Window
from idgbr.raster.windows import plan_windows
from serve_apps.calls import TRIES, cancelling, in_order, retried
from serve_apps.messages import Predicted, Windows

T = TypeVar("T")

FULL_SCALE = 254
"""uint8 value of uncertainty 1, 255 being nodata."""


@dataclass
class Maps:
    """Maps of one image.

    Attributes:
        planes: coarse class ids and probabilities, (1 + K, H, W) uint8; ids alone where they came with the request.
        refined: (H, W) uint8 class ids, IGNORE where there is no imagery; None for stage 1 alone.
        uncertainty: (H, W) uint8, 0 to 254 for 0 to 1.
        windows: predicted, by stage.
        milliseconds: by stage; of these STAGE-model in the replicas' models and STAGE-blend in the blender.
    """

    planes: NDArray[np.uint8]
    refined: NDArray[np.uint8] | None = None
    uncertainty: NDArray[np.uint8] | None = None
    windows: dict[str, int] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StageHandles:
    """Handles of both stages, and the largest number of windows a call and of calls a request may have in flight."""

    coarse: DeploymentHandle
    refiner: DeploymentHandle
    coarse_batch: int
    refiner_batch: int
    calls: int


class Assembly:
    """One image on its way through both stages, all windows by one version of the model.

    The pixels are put into the object store once; replicas cut their windows out of it. An image that fits one window
    of stage 1 goes from there to stage 2 without coming back in between.

    Args:
        handles: The deployments.
        pool: Threads for what must not run on the event loop.
        address: Version of the model.
        spec: Its description.
        picture: The image.
        finished: Called with the stage and the number of its windows that were predicted.
    """

    def __init__(
        self,
        handles: StageHandles,
        pool: Executor,
        address: str,
        spec: ModelSpec,
        picture: Picture,
        finished: Callable[[Part, int], None] = lambda part, windows: None,
    ) -> None:
        self.finished = finished
        self._handles, self._pool, self._address, self.spec, self.picture = handles, pool, address, spec, picture
        self._image = ray.put(picture.pixels)
        self._valid = None if picture.valid.all() else ray.put(picture.valid)

    async def maps(self, sampler: SamplerConfig, own: NDArray[np.uint8] | None, refine: bool) -> Maps:
        """Both stages; or the second one on the caller's coarse map, or the first one alone."""
        cut = self.spec.inference.coarse
        if refine and own is None and max(self.picture.valid.shape) <= cut.window:
            return await retried(lambda: self._chained(sampler))
        maps = await self.coarse_maps() if own is None else Maps(own)
        return await self.refined_maps(maps, sampler) if refine else maps

    async def coarse_maps(self) -> Maps:
        """Stage 1, blended."""
        started = time.perf_counter()
        classes = len(self.spec.classes)
        plan = _Plan(self.picture, self.spec.inference.coarse, classes, self._handles.coarse_batch)
        planes = np.empty((1 + classes, *self.picture.valid.shape), np.uint8)

        def write(rows: slice, values: NDArray[np.float32]) -> None:
            planes[:, rows] = to_planes(values, self.picture.valid[rows])

        calls = [self._call_coarse(corners) for corners in plan.chunks]
        maps = Maps(planes, None, None, {"coarse": len(plan.windows)})
        spent = await self._blend(plan, calls, write)
        self.finished("coarse", len(plan.windows))
        maps.milliseconds = {"coarse": _since(started)} | _named("coarse", spent)
        return maps

    async def refined_maps(self, maps: Maps, sampler: SamplerConfig) -> Maps:
        """Stage 2 on a coarse map, blended."""
        started = time.perf_counter()
        planes = ray.put(maps.planes)
        plan = self.refiner_plan()
        calls = [self._call_refiner(corners, planes, sampler) for corners in plan.chunks]
        spent = await self._blend(plan, calls, self.refined_writer(maps))
        maps.windows["refiner"] = len(plan.windows)
        maps.milliseconds |= {"refine": _since(started)} | _named("refine", spent)
        return maps

    def refiner_plan(self) -> _Plan:
        """Windows of stage 2, in calls."""
        cut = self.spec.inference.refiner
        return _Plan(self.picture, cut, len(self.spec.classes) + 1, self._handles.refiner_batch)

    def refined_writer(self, maps: Maps) -> Callable[[slice, NDArray[np.float32]], None]:
        """Takes blended strips of probabilities and uncertainty; fills the maps."""
        valid = self.picture.valid
        refined, uncertainty = np.empty(valid.shape, np.uint8), np.empty(valid.shape, np.uint8)
        maps.refined, maps.uncertainty = refined, uncertainty

        def write(rows: slice, values: NDArray[np.float32]) -> None:
            refined[rows] = np.where(valid[rows], values[:-1].argmax(0), IGNORE)
            uncertainty[rows] = np.where(valid[rows], np.rint(values[-1].clip(0, 1) * FULL_SCALE), IGNORE)

        return write

    def refine_steps(self, corners: NDArray, planes: ray.ObjectRef, sampler: SamplerConfig) -> Any:
        """The stream of one call's denoising steps, see `DiffusionRefiner.steps`."""
        windows = Windows(self._address, corners, self.spec.inference.refiner.window, sampler)
        return self._handles.refiner.options(stream=True).steps.remote(self._image, self._valid, planes, windows)

    async def blend_in(self, blender: StripBlender, windows: Sequence[Window], values: NDArray, write: Any) -> None:
        """Adds windows to a blender, in a thread."""
        await self._threaded(_add, blender, windows, values, write)

    async def finish(self, blender: StripBlender, write: Any) -> None:
        """Writes what is left in a blender, in a thread."""
        await self._threaded(_finish, blender, write)

    async def _chained(self, sampler: SamplerConfig) -> Maps:
        """One window of stage 1, whose result travels from replica to replica."""
        started = time.perf_counter()
        corner = np.zeros((1, 2), np.int64)
        first = self._call_coarse(corner)()
        plan = self.refiner_plan()
        calls = [self._call_refiner(corners, first, sampler, tries=1) for corners in plan.chunks]
        maps = Maps(np.empty((0, 0, 0), np.uint8))
        blending = asyncio.ensure_future(self._blend(plan, calls, self.refined_writer(maps)))
        try:
            stage1: Predicted = await first
            self.finished("coarse", 1)
            height, width = self.picture.valid.shape
            probabilities = stage1.values[0, :, :height, :width].astype(np.float32)
            maps.planes = to_planes(probabilities, self.picture.valid)
            coarse_ms = _since(started)
            spent = await blending
        except BaseException:
            first.cancel()
            blending.cancel()
            raise
        maps.windows = {"coarse": 1, "refiner": len(plan.windows)}
        maps.milliseconds = {"coarse": coarse_ms, "refine": _since(started) - coarse_ms}
        maps.milliseconds |= {"coarse-model": stage1.ms} | _named("refine", spent)
        return maps

    def _call_coarse(self, corners: NDArray) -> Callable[[], Any]:
        windows = Windows(self._address, corners, self.spec.inference.coarse.window)
        return lambda: self._handles.coarse.predict.remote(self._image, self._valid, windows)

    def _call_refiner(
        self, corners: NDArray, coarse: Any, sampler: SamplerConfig, tries: int = TRIES
    ) -> Callable[[], Awaitable[Predicted]]:
        windows = Windows(self._address, corners, self.spec.inference.refiner.window, sampler)

        def call() -> Any:
            return self._handles.refiner.refine.remote(self._image, self._valid, coarse, windows)

        async def counted() -> Predicted:
            predicted = await retried(lambda: cancelling(call()), tries)
            self.finished("refiner", len(corners))
            return predicted

        return counted

    async def _blend(
        self,
        plan: _Plan,
        calls: Sequence[Callable[[], Awaitable[Predicted]]],
        write: Callable[[slice, NDArray[np.float32]], None],
    ) -> dict[str, float]:
        """Fills the maps; milliseconds in the model and in the blender."""
        blender = plan.blender()
        number, spent = 0, {"model": 0.0, "blend": 0.0}
        async for done in in_order(calls, self._handles.calls):
            windows = plan.windows[number : number + len(done.values)]
            number += len(done.values)
            spent["model"] += done.ms
            spent["blend"] += await self._threaded(_add, blender, windows, done.values, write)
        spent["blend"] += await self._threaded(_finish, blender, write)
        return spent

    async def _threaded(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


class _Plan:
    """Windows over an image, in chunks of one call each."""

    def __init__(self, picture: Picture, cut: WindowsConfig, channels: int, max_windows: int) -> None:
        self._picture, self._cut, self._channels = picture, cut, channels
        height, width = picture.valid.shape
        self.windows = plan_windows(height, width, cut.window, cut.overlap)
        corners = np.array([(w.row, w.col) for w in self.windows], np.int64)
        self.chunks: list[NDArray[np.int64]] = np.array_split(corners, -(-len(corners) // max_windows))

    def blender(self) -> StripBlender:
        height, width = self._picture.valid.shape
        return StripBlender(height, width, self._channels, self.windows, self._cut.window, self._cut.overlap)


def _add(blender: StripBlender, windows: Sequence[Window], values: NDArray, write: Callable[..., None]) -> float:
    started = time.perf_counter()
    for window, one in zip(windows, values, strict=True):
        for row, strip in blender.add(window, one.astype(np.float32)):
            write(slice(row, row + strip.shape[1]), strip)
    return _since(started)


def _finish(blender: StripBlender, write: Callable[..., None]) -> float:
    started = time.perf_counter()
    for row, strip in blender.finish():
        write(slice(row, row + strip.shape[1]), strip)
    return _since(started)


def _named(stage: str, spent: dict[str, float]) -> dict[str, float]:
    return {f"{stage}-{what}": value for what, value in spent.items()}


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
