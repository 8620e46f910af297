"""Scenes without the platform: the windows of both stages predicted by processes of one thread, from memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._directly import two_stages
from idgbr.inference.predictor import Predictor
from idgbr.raster.scene import Scene
from idgbr.training.pace import Pace

Spent = tuple[dict[str, float], dict[str, float]]
"""Seconds by part (`coarse`, `refiner` and, beside the loop, `cut` and `blend`): wall clock, processor."""

_loaded: dict[str, Predictor] = {}


@contextmanager
def bare_loops(model: Path, scene: Path, most: int) -> Iterator[Callable[[int], tuple[list[Spent], NDArray[np.uint8]]]]:
    """Processes, and a function that has some of them map a scene at the same time, each the whole of it.

    Args:
        model: Model folder.
        scene: What is mapped.
        most: How many processes.

    Yields:
        From a number of processes to what each spent, and the map's class ids (H, W).
    """
    with ProcessPoolExecutor(most, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_mapped, [str(model)] * most, [str(scene)] * most))  # loads, and grows the heap

        def run(processes: int) -> tuple[list[Spent], NDArray[np.uint8]]:
            found = list(pool.map(_mapped, [str(model)] * processes, [str(scene)] * processes))
            return [spent for spent, _ in found], found[0][1]

        yield run


def _mapped(model: str, path: str) -> tuple[Spent, NDArray[np.uint8]]:
    if model not in _loaded:
        _loaded[model] = Predictor(model, threads=1)
    predictor = _loaded[model]
    scene = Scene(path, bands=tuple(predictor.spec.bands))
    image, valid = scene.read(scene.grid().window)
    inference, pace = predictor.spec.inference, Pace()
    batches = (inference.coarse.batch, inference.refiner.batch)
    probabilities = two_stages(predictor, image[None], valid[None], *batches, pace)[0]
    return (pace.wall, pace.processor), probabilities.argmax(0).astype(np.uint8)
