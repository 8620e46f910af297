"""The two stages as deployments: each holds one part of a model and predicts windows in batches."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve

from idgbr import IGNORE
from idgbr.inference.planes import coarse_input, cut_windows, predict_valid, to_planes
from idgbr.inference.predictor import Part, Predictor
from serve_apps.costs import StageCost
from serve_apps.messages import Predicted, Windows
from serve_apps.metrics import StageMetrics
from serve_apps.model_folder import Loaded, load, refuse_other_task
from serve_apps.model_shelf import ModelShelf, ShelfStatus
from serve_apps.settings import StageArgs


@dataclass(eq=False)
class _Job:
    predictor: Predictor
    windows: Windows
    image: NDArray
    valid: NDArray[np.bool_] | None
    coarse: NDArray[np.uint8] | None
    gone: threading.Event = field(default_factory=threading.Event)
    """Set when the request was cancelled."""
    since: float = field(default_factory=time.perf_counter)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Jobs of equal kind may share a batch."""
        bands = self.image.shape[0]
        planes = 0 if self.coarse is None else len(self.coarse)
        sampler = self.windows.sampler
        options = "" if sampler is None else sampler.model_dump_json()
        return self.windows.model, self.windows.size, self.image.dtype.str, bands, planes, options

    def cut(self) -> tuple[NDArray, NDArray[np.bool_]]:
        corners, size = self.windows.corners, self.windows.size
        valid = np.ones((1, *self.image.shape[1:]), bool) if self.valid is None else self.valid[None]
        return cut_windows(self.image, corners, size), cut_windows(valid, corners, size)[:, 0]

    def cut_coarse(self) -> NDArray[np.uint8]:
        assert self.coarse is not None
        # Outside of the image ids alone are unknown; probabilities are zeros, as in the batch job.
        fill = IGNORE if len(self.coarse) == 1 else 0
        return cut_windows(self.coarse, self.windows.corners, self.windows.size, fill)


class _AllCancelledError(Exception):
    """Every request of a batch was cancelled."""


def _count(jobs: list[_Job]) -> int:
    return sum(len(job.windows.corners) for job in jobs)


class _Stage(ABC):
    """Base of both stages: versions of the model, a queue, one thread that computes.

    `user_config` is `{"model": "models:/NAME/VERSION"}` (or a model folder), the same for all deployments of the
    application. A changed one takes effect without a restart: the version is loaded and smoke-tested beside the
    running one, which is released once its last request has ended. Calls name a version and get that one, also before
    or after it is the active one. A version that does not load leaves the old one active; `status` says why.
    """

    part: Part

    def __init__(self, args: StageArgs, tracking_uri: str, drain_s: float) -> None:
        self._args = args
        self._metrics = StageMetrics()
        self._compute = ThreadPoolExecutor(1, "compute")
        self._loader = ThreadPoolExecutor(1, "load")
        self._waiting = 0

        async def load_model(address: str) -> Loaded:
            work = functools.partial(load, address, tracking_uri, self.part, args.device, args.threads, args.batch)
            loaded = await asyncio.get_running_loop().run_in_executor(self._loader, work)
            if self._shelf.status.active:
                async with self._shelf.lease() as (_, before):
                    refuse_other_task(before.predictor.spec, loaded.predictor.spec)
            return loaded

        self._shelf: ModelShelf[Loaded] = ModelShelf(load_model, drain_s, self._metrics.show_model)
        self._batched.set_max_batch_size(args.batch)  # type: ignore[attr-defined]
        self._batched.set_batch_wait_timeout_s(args.batch_wait_s)  # type: ignore[attr-defined]

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls this with the `user_config`: which model to serve."""
        await self._shelf.follow(user_config)

    async def status(self) -> ShelfStatus:
        """Versions desired, active and held, and why the desired one is not active."""
        return self._shelf.status

    async def prepare(self, model: str) -> StageCost | None:
        """Loads a version if need be; its cost here, None where it lacks this stage.

        Raises:
            ModelUnavailable: it does not load.
        """
        async with self._shelf.lease(model) as (_, loaded):
            return loaded.cost

    async def _predict(
        self, windows: Windows, image: NDArray, valid: NDArray[np.bool_] | None, coarse: NDArray[np.uint8] | None
    ) -> Predicted:
        async with self._shelf.lease(windows.model) as (_, loaded):
            job = _Job(loaded.predictor, windows, image, valid, coarse)
            self._queue(len(windows.corners))
            try:
                done: Predicted | Exception = await self._batched(job)
            except asyncio.CancelledError:
                job.gone.set()
                raise
            finally:
                self._queue(-len(windows.corners))
        if isinstance(done, Exception):
            raise done
        self._metrics.latency.observe(done.waited_ms + done.ms, {"stage": self.part})
        return done

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0, batch_size_fn=_count)
    async def _batched(self, jobs: list[_Job]) -> list[Predicted | Exception]:
        kinds: dict[tuple[Any, ...], list[_Job]] = {}
        for job in jobs:
            kinds.setdefault(job.kind, []).append(job)
        results: dict[int, Predicted | Exception] = {}
        for same in kinds.values():
            try:
                done = await asyncio.get_running_loop().run_in_executor(self._compute, self._run, same)
            except Exception as error:  # raised by these calls alone; the others of the batch are fine
                done = [error] * len(same)
            results |= {id(job): result for job, result in zip(same, done, strict=True)}
        return [results[id(job)] for job in jobs]

    def _run(self, jobs: list[_Job]) -> list[Predicted | Exception]:
        """Windows of one kind through the model, in the computing thread."""
        began = time.perf_counter()
        count = _count(jobs)
        pairs = [job.cut() for job in jobs]
        images, valid = (np.concatenate(parts) for parts in zip(*pairs, strict=True))

        def check_cancelled(*_: object) -> None:
            if all(job.gone.is_set() for job in jobs):
                raise _AllCancelledError

        check_cancelled()
        values = self._values(jobs, images, valid, check_cancelled)
        elapsed_ms = (time.perf_counter() - began) * 1e3
        self._metrics.batch.observe(count, {"stage": self.part})
        self._metrics.windows.inc(count, {"stage": self.part, "model": jobs[0].windows.model})
        parts = np.split(values, np.cumsum([len(job.windows.corners) for job in jobs])[:-1])
        return [Predicted(part, (began - job.since) * 1e3, elapsed_ms) for job, part in zip(jobs, parts, strict=True)]

    @abstractmethod
    def _values(
        self, jobs: list[_Job], images: NDArray, valid: NDArray[np.bool_], on_step: Callable[..., None]
    ) -> NDArray[np.float16]:
        """(N, C, S, S) of the windows of jobs of one kind; 0 where a window holds no valid pixel."""

    def _queue(self, windows: int) -> None:
        self._waiting += windows
        self._metrics.show_queue(self._waiting, self.part)


@serve.deployment
class CoarseSegmenter(_Stage):
    """Stage 1: windows of an image to class probabilities. See `_Stage` for `user_config`."""

    part: Part = "coarse"

    async def predict(self, image: NDArray, valid: NDArray[np.bool_] | None, windows: Windows) -> Predicted:
        """Class probabilities of windows.

        Args:
            image: (B, H, W) in its own dtype.
            valid: (H, W) bool; None where all is valid.
            windows: The windows.
        """
        return await self._predict(windows, image, valid, None)

    def _values(
        self, jobs: list[_Job], images: NDArray, valid: NDArray[np.bool_], on_step: Callable[..., None]
    ) -> NDArray[np.float16]:
        predictor = jobs[0].predictor
        classes = len(predictor.spec.classes)
        return predict_valid(valid, classes, lambda numbers: predictor.coarse(images[numbers], valid[numbers]))


@serve.deployment
class DiffusionRefiner(_Stage):
    """Stage 2: windows of an image and a coarse map to refined probabilities. See `_Stage` for `user_config`."""

    part: Part = "refiner"

    async def refine(
        self, image: NDArray, valid: NDArray[np.bool_] | None, coarse: NDArray[np.uint8] | Predicted, windows: Windows
    ) -> Predicted:
        """Refined probabilities and uncertainty of windows.

        Args:
            image: (B, H, W) in its own dtype.
            valid: (H, W) bool; None where all is valid.
            coarse: Planes (1 + K, H, W), ids (1, H, W), or stage 1's answer for the one window that holds the image.
            windows: The windows.
        """
        return await self._predict(windows, image, valid, _planes(coarse, image, valid))

    async def steps(
        self, image: NDArray, valid: NDArray[np.bool_] | None, coarse: NDArray[np.uint8], windows: Windows
    ) -> AsyncIterator[tuple[int, int, NDArray[np.uint8]] | Predicted]:
        """As `refine`, preceded by the maps of every denoising step: sample, step, class ids (N, S, S).

        Stops computing when the stream is cancelled.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        async with self._shelf.lease(windows.model) as (_, loaded):
            job = _Job(loaded.predictor, windows, image, valid, coarse)

            def put_step(sample: int, step: int, probabilities: Any) -> None:
                if job.gone.is_set():
                    raise _AllCancelledError
                ids = probabilities[..., : windows.size, : windows.size].argmax(1).to("cpu").numpy().astype(np.uint8)
                loop.call_soon_threadsafe(queue.put_nowait, (sample, step, ids))

            def run() -> None:
                began = time.perf_counter()
                try:
                    values = self._values([job], *job.cut(), put_step)
                    now = time.perf_counter()
                    last: Any = Predicted(values, (began - job.since) * 1e3, (now - began) * 1e3)
                except Exception as error:
                    last = error
                loop.call_soon_threadsafe(queue.put_nowait, last)

            self._queue(len(windows.corners))
            working = loop.run_in_executor(self._compute, run)
            try:
                while True:
                    event = await queue.get()
                    if isinstance(event, Exception):
                        raise event
                    yield event
                    if isinstance(event, Predicted):
                        break
            finally:
                job.gone.set()
                working.cancel()
                self._queue(-len(windows.corners))
        self._metrics.windows.inc(len(windows.corners), {"stage": self.part, "model": windows.model})

    def _values(
        self, jobs: list[_Job], images: NDArray, valid: NDArray[np.bool_], on_step: Callable[..., None]
    ) -> NDArray[np.float16]:
        predictor, sampler = jobs[0].predictor, jobs[0].windows.sampler
        assert predictor.spec.refiner is not None
        planes = np.concatenate([job.cut_coarse() for job in jobs])
        coarse = coarse_input(planes, predictor.spec.refiner.coarse_input)
        origins = np.concatenate([job.windows.corners for job in jobs])

        def refine(numbers: NDArray[np.intp]) -> NDArray:
            batch = images[numbers], valid[numbers], coarse[numbers], origins[numbers]
            refined = predictor.refine(*batch, sampler, on_step)
            return np.concatenate([refined.probabilities, refined.uncertainty[:, None]], axis=1)

        return predict_valid(valid, len(predictor.spec.classes) + 1, refine)


def _planes(
    coarse: NDArray[np.uint8] | Predicted, image: NDArray, valid: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    if not isinstance(coarse, Predicted):
        return coarse
    height, width = image.shape[1:]
    known = np.ones((height, width), bool) if valid is None else valid
    return to_planes(coarse.values[0, :, :height, :width].astype(np.float32), known)
