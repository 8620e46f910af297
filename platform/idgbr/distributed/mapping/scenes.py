"""Scenes through a predictor: windows read on any node, predicted by a pool of actors, blended and written in order."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import ray
from ray.data import ActorPoolStrategy

from idgbr.config.inference import WindowsConfig
from idgbr.config.models import SamplerConfig
from idgbr.config.node import Precision
from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.mapping.tasks import OpenSink, SceneTask
from idgbr.distributed.mapping.window_reads import read_windows
from idgbr.distributed.progress import Progress
from idgbr.distributed.source import Columns, TaskSource, ordered_dataset
from idgbr.inference.planes import coarse_input, predict_valid
from idgbr.raster.blending import WindowPass
from idgbr.raster.gdal import gdal_env

WINDOWS_PER_TASK = 16
"""Windows one read task reads, at most."""
_UNREAD = 1e-6
"""Trust in a window that could not be read: where another one covers its pixels, that one counts."""


@dataclass(frozen=True)
class PredictorSpec:
    """A predictor by description, loaded on each actor."""

    folder: str
    part: Literal["coarse", "refiner"]
    precision: Precision
    device: str = "cpu"
    threads: int = 1
    samplers: tuple[SamplerConfig, ...] = ()
    """Of stage 2, one per setting."""

    def __call__(self) -> Callable[[Columns], np.ndarray]:
        """Loads the part; the result turns columns into (N, C, S, S) float32.

        Columns: image, valid; for the refiner row, col, setting and coarse. Channels: K probabilities, and for the
        refiner the uncertainty.
        """
        from idgbr.inference.predictor import Predictor

        predictor = Predictor(
            self.folder, device=self.device, precision=self.precision, threads=self.threads, parts=(self.part,)
        )
        return functools.partial(_predict, predictor, self.part, self.samplers)


def _predict(predictor: Any, part: str, samplers: Sequence[SamplerConfig], columns: Columns) -> np.ndarray:
    images, valid = columns["image"], columns["valid"].astype(bool)
    if part == "coarse":
        return np.asarray(predictor.coarse(images, valid))
    coarse = coarse_input(columns["coarse"], predictor.spec.refiner.coarse_input)
    origins = np.stack([columns["row"], columns["col"]], axis=1)
    values = np.empty((len(images), predictor.refiner.classes + 1, *images.shape[2:]), np.float32)
    for setting in np.unique(columns["setting"]):
        own = np.flatnonzero(columns["setting"] == setting)
        refined = predictor.refine(images[own], valid[own], coarse[own], origins[own], samplers[setting])
        values[own, :-1], values[own, -1] = refined.probabilities, refined.uncertainty
    return values


class _Actor:
    """Predicts batches of windows; one without a valid pixel costs nothing."""

    def __init__(self, predictor: Callable[[], Callable[[Columns], np.ndarray]], channels: int) -> None:
        self._predict = predictor()
        self._channels = channels

    def __call__(self, columns: Columns) -> Columns:
        def predict(numbers: np.ndarray) -> np.ndarray:
            return self._predict({key: value[numbers] for key, value in columns.items()})

        values = predict_valid(columns["valid"].astype(bool), self._channels, predict)
        return {key: columns[key] for key in ("task", "window", "valid", "error")} | {"values": values}


def _read_windows(tasks: ray.ObjectRef, task: int, numbers: range) -> list[Columns]:
    with gdal_env():
        return [read_windows(_fetched(tasks)[task], task, numbers)]


@functools.lru_cache(maxsize=2)
def _fetched(tasks: ray.ObjectRef) -> list[SceneTask]:
    return ray.get(tasks)


def predict_scenes(
    tasks: Sequence[SceneTask],
    predictor: Callable[[], Callable[[Columns], np.ndarray]],
    channels: int,
    inference: WindowsConfig,
    resources: ResourcesConfig,
    *,
    offset: tuple[int, int] = (0, 0),
    title: str = "windows",
) -> float:
    """Run every scene through the predictor, and its strips into its sink, scene after scene.

    Windows of the following scenes are read and predicted while a scene is written, so the pool never waits. What is
    held at a time is one strip of the scene being written and a bounded number of windows. A pass of a few windows runs
    in this process, by the same code, and needs no Ray (see `fits_here`).

    Args:
        tasks: the scenes.
        predictor: builds, on each actor, the function from columns to (N, channels, S, S); see `PredictorSpec`.
        channels: how many planes it returns.
        inference: window, overlap and batch.
        resources: how many actors, and what each of them gets.
        offset: moves the windows' lattice.
        title: what the progress line calls them.

    Returns:
        Seconds it took.
    """
    started = time.monotonic()
    if not tasks:
        return 0.0
    kinds = {task.image.profile().dtype for task in tasks}
    if len(kinds) > 1:  # a batch has one dtype, the files' own
        groups = [[task for task in tasks if task.image.profile().dtype == kind] for kind in sorted(kinds)]
        return sum(
            predict_scenes(group, predictor, channels, inference, resources, offset=offset, title=title)
            for group in groups
        )
    passes = [_window_pass(task, inference, offset) for task in tasks]
    planned = [_planned(task, windows) for task, windows in zip(tasks, passes, strict=True)]
    pieces = [
        (number, range(first, min(first + WINDOWS_PER_TASK, len(task.windows))))
        for number, task in enumerate(planned)
        for first in range(0, len(task.windows), WINDOWS_PER_TASK)
    ]
    total = sum(len(task.windows) for task in planned)
    if fits_here(total, resources):
        rows = _rows_here(planned, pieces, predictor, channels, inference.batch)
    else:
        rows = _rows_of_workers(planned, pieces, predictor, channels, inference.batch, resources)
    # Closed while Ray runs: an error's traceback keeps it, and ended later it would start a Ray to tell what it did.
    # A scene interrupted after its last window has no rows left, only its sink has something to do.
    with closing(rows), Progress(title, total) if total else nullcontext() as progress:
        for number, (task, windows) in enumerate(zip(planned, passes, strict=True)):
            _write_scene(number, task, windows, rows, channels, progress)
    return time.monotonic() - started


def fits_here(windows: int, resources: ResourcesConfig) -> bool:
    """Whether a pass is so short that it runs in this process: starting workers would take longer."""
    elsewhere = resources.gpus_per_worker or resources.ray_address or os.environ.get("RAY_ADDRESS")
    return windows <= resources.in_process_windows and not elsewhere


def _rows_here(
    planned: Sequence[SceneTask],
    pieces: Sequence[tuple[int, range]],
    predictor: Callable[[], Callable[[Columns], np.ndarray]],
    channels: int,
    batch: int,
) -> Generator[Columns, None, None]:
    """Predicted windows in order, by this process alone."""
    import torch  # whoever predicts elsewhere needs none here

    threads = torch.get_num_threads()
    try:
        actor = _Actor(predictor, channels)
        for number, numbers in pieces:
            with gdal_env():
                columns = read_windows(planned[number], number, numbers)
            for first in range(0, len(numbers), batch):
                done = actor({key: value[first : first + batch] for key, value in columns.items()})
                yield from _each(done)
    finally:
        torch.set_num_threads(threads)


def _rows_of_workers(
    planned: Sequence[SceneTask],
    pieces: Sequence[tuple[int, range]],
    predictor: Callable[[], Callable[[Columns], np.ndarray]],
    channels: int,
    batch: int,
    resources: ResourcesConfig,
) -> Generator[Columns, None, None]:
    """Predicted windows in order, read and predicted by Ray's workers."""
    # Sinks stay on the driver; only addresses travel.
    reference = ray.put([replace(task, sink=_no_sink) for task in planned])
    source = TaskSource(
        [functools.partial(_read_windows, reference, *piece) for piece in pieces],
        [len(piece[1]) for piece in pieces],
        "SceneWindows",
    )
    total = sum(len(piece[1]) for piece in pieces)
    workers = max(1, min(resources.infer_workers, -(-total // batch)))
    predicted = ordered_dataset(source, len(pieces), cpus=0.25).map_batches(
        _Actor,
        batch_size=batch,
        compute=ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
        num_cpus=resources.cpus_per_worker,
        num_gpus=resources.gpus_per_worker or None,
        fn_constructor_kwargs={"predictor": predictor, "channels": channels},
    )
    for columns in predicted.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
        yield from _each(cast(Columns, columns))


def _each(columns: Columns) -> Iterator[Columns]:
    for i in range(len(columns["window"])):
        yield {key: column[i] for key, column in columns.items()}


def _window_pass(task: SceneTask, inference: WindowsConfig, offset: tuple[int, int]) -> WindowPass:
    grid = task.image.grid()
    return WindowPass(grid.height, grid.width, inference.window, inference.overlap, offset, task.sink().done)


def _planned(task: SceneTask, windows: WindowPass) -> SceneTask:
    unreadable = task.unreadable and replace(task.unreadable, total=windows.planned)
    return replace(task, windows=windows.windows, unreadable=unreadable)


def _no_sink() -> OpenSink:
    raise RuntimeError("sinks are opened on the driver only")


def _write_scene(
    number: int, task: SceneTask, windows: WindowPass, rows: Iterator[Columns], channels: int, progress: Progress | None
) -> None:
    with ExitStack() as stack:
        sink = stack.enter_context(task.sink())
        windows.begin(channels + 1, sink.write)
        for expected in range(len(windows.windows)):
            row = next(rows)
            if (int(row["task"]), int(row["window"])) != (number, expected):
                raise RuntimeError(f"{task.id}: window {row['window']} of scene {row['task']} came out of order")
            error = str(row["error"])
            if error and task.unreadable is not None:
                task.unreadable.add(task.id, windows.windows[expected], error)
            values = np.concatenate([row["values"], row["valid"][None]], dtype=np.float32)
            windows.add(values, _UNREAD if error else 1.0)
            if progress is not None:
                progress.advance(1)
        windows.finish()
