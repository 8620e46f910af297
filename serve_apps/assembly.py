"""Windows of one image to replicas and back into one map: planned, fanned out, blended as the batch job does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from ray.serve.handle import DeploymentHandle

from idgbr import IGNORE
from idgbr.config.models import SamplerConfig
from idgbr.inference.min_region import MinPixels, min_pixels, sieved_planes
from idgbr.inference.planes import to_band, to_planes, to_refined_planes
from idgbr.models.description import ModelSpec
from idgbr.raster.blending import WindowPass
from idgbr.raster.decoding import Picture
from idgbr.raster.grid import Window
from serve_apps.calls import TRIES, cancelling, in_order, retried
from serve_apps.messages import Predicted, Windows

if TYPE_CHECKING:
    from idgbr.inference.predictor import Part

T = TypeVar("T")

_TILE = 1024
"""Side of the tiles in which small regions are found."""


@dataclass
class Maps:
    """Maps of one image.

    Attributes:
        planes: coarse class ids and probabilities, (1 + K, H, W) uint8; ids alone where the request brought them.
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
        classes, cut = len(self.spec.classes), self.spec.inference.coarse
        height, width = self.picture.valid.shape
        windows = WindowPass(height, width, cut.window, cut.overlap)
        planes = np.empty((1 + classes, *self.picture.valid.shape), np.uint8)

        def write(row: int, values: NDArray[np.float32]) -> None:
            rows = slice(row, row + values.shape[1])
            planes[:, rows] = to_planes(values, self.picture.valid[rows])

        windows.begin(classes, write)
        calls = [self._call_coarse(corners) for corners in windows.chunks(self._handles.coarse_batch)]
        maps = Maps(planes, None, None, {"coarse": len(windows.windows)})
        spent = await self._blend(windows, calls)
        self.finished("coarse", len(windows.windows))
        maps.milliseconds = {"coarse": _since(started)} | _named("coarse", spent)
        return maps

    async def refined_maps(self, maps: Maps, sampler: SamplerConfig) -> Maps:
        """Stage 2 on a coarse map, blended."""
        started = time.perf_counter()
        planes = ray.put(maps.planes)
        refinement = self.refinement(maps, sampler)
        calls = [self._call_refiner(corners, planes, sampler) for corners in refinement.chunks]
        spent = await self._blend(refinement.windows, calls)
        await self.threaded(refinement.finish)
        maps.milliseconds |= {"refine": _since(started)} | _named("refine", spent)
        return maps

    def refinement(self, maps: Maps, sampler: SamplerConfig) -> Refinement:
        """What fills the refined maps."""
        minimum = min_pixels(sampler, self.spec.classes, self.spec.gsd)
        return Refinement(self.spec, self.picture.valid, minimum, maps, self._handles.refiner_batch)

    def refine_steps(self, corners: NDArray, planes: ray.ObjectRef, sampler: SamplerConfig) -> Any:
        """The stream of one call's denoising steps, see `DiffusionRefiner.steps`."""
        windows = Windows(self._address, corners, self.spec.inference.refiner.window, sampler)
        return self._handles.refiner.options(stream=True).steps.remote(self._image, self._valid, planes, windows)

    async def _chained(self, sampler: SamplerConfig) -> Maps:
        """One window of stage 1, whose result travels from replica to replica."""
        started = time.perf_counter()
        corner = np.zeros((1, 2), np.int64)
        first = self._call_coarse(corner)()
        maps = Maps(np.empty((0, 0, 0), np.uint8), windows={"coarse": 1})
        refinement = self.refinement(maps, sampler)
        calls = [self._call_refiner(corners, first, sampler, tries=1) for corners in refinement.chunks]
        blending = asyncio.ensure_future(self._blend(refinement.windows, calls))
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
        await self.threaded(refinement.finish)
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
        self, windows: WindowPass, calls: Sequence[Callable[[], Awaitable[Predicted]]]
    ) -> dict[str, float]:
        """Blends what the calls bring; milliseconds in the model and in the blender."""
        spent = {"model": 0.0, "blend": 0.0}
        async for done in in_order(calls, self._handles.calls):
            spent["model"] += done.ms
            spent["blend"] += await self.threaded(blend, windows, done.values)
        spent["blend"] += await self.threaded(_finish, windows)
        return spent

    async def threaded(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs what must not run on the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


class Refinement:
    """Fills a request's refined maps: the windows of stage 2, blended, then without regions that are too small.

    Args:
        spec: Description of the model.
        valid: (H, W), where there is imagery.
        minimum: Pixels of the smallest region, by class.
        maps: The maps to fill.
        batch: Windows of a call.
    """

    def __init__(self, spec: ModelSpec, valid: NDArray[np.bool_], minimum: MinPixels, maps: Maps, batch: int) -> None:
        self._valid, self._minimum, self._maps = valid, minimum, maps
        cut, classes = spec.inference.refiner, len(spec.classes)
        height, width = valid.shape
        self.windows = WindowPass(height, width, cut.window, cut.overlap)
        self.chunks = self.windows.chunks(batch)
        self._refined, self._uncertainty = np.empty(valid.shape, np.uint8), np.empty(valid.shape, np.uint8)
        self._planes = np.empty((2 + classes, *valid.shape) if minimum else (0, 0, 0), np.uint8)
        maps.windows["refiner"] = len(self.windows.windows)
        self.windows.begin(classes + 1, self._write)

    def finish(self) -> None:
        """Completes the maps, once all windows are blended."""
        if self._minimum:
            whole = Window(0, 0, *self._valid.shape)
            for tile in whole.tiles(_TILE):
                values = sieved_planes(lambda part: self._planes[:, *part.slices()], tile, whole, self._minimum)
                self._fill(tile, values[:-1])
        self._maps.refined, self._maps.uncertainty = self._refined, self._uncertainty

    def _write(self, row: int, values: NDArray[np.float32]) -> None:
        strip = Window(row, 0, *values.shape[1:])
        if self._minimum:
            part = strip.slices()
            self._planes[:, *part] = to_refined_planes(values[:-1], values[-1], self._valid[part])
        else:
            self._fill(strip, values)

    def _fill(self, window: Window, values: NDArray[np.float32]) -> None:
        part = window.slices()
        self._refined[part] = np.where(self._valid[part], values[:-1].argmax(0), IGNORE)
        self._uncertainty[part] = to_band(values[-1], self._valid[part])


def blend(windows: WindowPass, values: NDArray) -> float:
    """Adds the values (N, C, S, S) of the next windows; the milliseconds it took."""
    started = time.perf_counter()
    for one in values:
        windows.add(one)
    return _since(started)


def _finish(windows: WindowPass) -> float:
    started = time.perf_counter()
    windows.finish()
    return _since(started)


def _named(stage: str, spent: dict[str, float]) -> dict[str, float]:
    return {f"{stage}-{what}": value for what, value in spent.items()}


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
