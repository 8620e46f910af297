"""The control: a map without the platform, bytes to bytes by the predictor alone, in one process.

It plans, blends and writes by itself on purpose: what the platform's own executors share is what is measured.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from idgbr.config.inference import WindowsConfig
from idgbr.config.tree import Experiment
from idgbr.datasets.normalisation import Normalisation
from idgbr.inference.min_region import apply_min_region, min_pixels
from idgbr.inference.planes import coarse_input, cut_windows, to_planes
from idgbr.inference.predictor import Predictor
from idgbr.models.coarse import build_coarse
from idgbr.models.description import ModelSpec
from idgbr.models.package import build_refiner, save_model
from idgbr.raster.blending import StripBlender
from idgbr.raster.decoding import decode_image
from idgbr.raster.encoding import palette_png
from idgbr.raster.image_limits import ImageLimits
from idgbr.raster.windows import plan_windows
from idgbr.training.pace import Pace


def untrained(folder: Path, experiment: Experiment) -> Path:
    """A model folder of an experiment's networks with random weights: it takes as long as a trained one."""
    torch.manual_seed(0)
    classes, bands = len(experiment.data.classes), len(experiment.data.bands)
    spec = ModelSpec(
        name="untrained",
        classes=experiment.data.classes,
        bands=list(range(1, bands + 1)),
        gsd=None,
        normalisation=Normalisation((110.0,) * bands, (50.0,) * bands),
        inference=experiment.inference,
        sampler=experiment.sampler,
        coarse=experiment.coarse,
        refiner=experiment.refiner,
    )
    coarse = build_coarse(experiment.coarse, classes, bands, pretrained=False)
    return save_model(folder, spec, coarse, build_refiner(classes, bands, experiment.refiner, pretrained=False))


@contextmanager
def predictor_alone(
    folder: str, batches: tuple[int, int], environment: dict[str, str]
) -> Iterator[Callable[[list[bytes]], tuple[float, list[bytes]]]]:
    """A process with a predictor of one thread, and a function that has it map images: milliseconds and maps.

    Args:
        folder: The model.
        batches: Most windows of each stage at once.
        environment: What it has besides ours; a replica's, so that both compute alike.
    """
    os.environ.update(environment)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_answer, args=(there, folder, batches), daemon=True)
    child.start()

    def ask(bodies: list[bytes]) -> tuple[float, list[bytes]]:
        here.send(bodies)
        milliseconds, maps = here.recv()
        return milliseconds, maps

    yield ask
    child.terminate()
    child.join()


def _answer(line: Connection, folder: str, batches: tuple[int, int]) -> None:
    predictor = Predictor(folder, threads=1)
    while True:
        bodies = line.recv()
        began = time.perf_counter()
        maps = refined_pngs(predictor, bodies, *batches)
        line.send(((time.perf_counter() - began) * 1e3, maps))


def refined_pngs(predictor: Predictor, bodies: Sequence[bytes], coarse_batch: int, refiner_batch: int) -> list[bytes]:
    """Refined maps of images of one size, their windows in common batches.

    Args:
        predictor: Both stages.
        bodies: The images as files.
        coarse_batch: Most windows of stage 1 at once.
        refiner_batch: Likewise, of stage 2.
    """
    spec = predictor.spec
    pictures = [decode_image(body, spec.bands, ImageLimits()) for body in bodies]
    images, valid = np.stack([p.pixels for p in pictures]), np.stack([p.valid for p in pictures])
    blended = two_stages(predictor, images, valid, coarse_batch, refiner_batch, Pace())
    colours = [c.colour for c in spec.classes]
    return [palette_png(p.argmax(0).astype(np.uint8), colours) for p in blended]


def two_stages(
    predictor: Predictor, images: NDArray, valid: NDArray, coarse_batch: int, refiner_batch: int, pace: Pace
) -> NDArray[np.float32]:
    """Refined probabilities (N, K, H, W) of images of one size, their windows in common batches.

    Args:
        predictor: Both stages.
        images: (N, B, H, W) in their own dtype.
        valid: (N, H, W) bool.
        coarse_batch: Most windows of stage 1 at once.
        refiner_batch: Likewise, of stage 2.
        pace: Records the parts `cut`, `coarse`, `refiner` and `blend`.
    """
    spec = predictor.spec
    assert spec.refiner is not None
    first = spec.inference.coarse
    corners = _corners(images, first)
    cut, known = _cut(images, corners, first.window), _cut(valid[:, None], corners, first.window)[:, 0]
    pace.lap("cut")
    values = np.concatenate([predictor.coarse(cut[i], known[i]) for i in _batches(len(cut), coarse_batch)])
    pace.lap("coarse")
    probabilities = _blended(values, images, first)
    planes = np.stack([to_planes(p, v) for p, v in zip(probabilities, valid, strict=True)])
    pace.lap("blend")
    second = spec.inference.refiner
    corners = _corners(images, second)
    cut, known = _cut(images, corners, second.window), _cut(valid[:, None], corners, second.window)[:, 0]
    coarse = coarse_input(_cut(planes, corners, second.window), spec.refiner.coarse_input)
    origins = np.tile(corners, (len(images), 1))
    pace.lap("cut")
    refined = [
        predictor.refine(cut[i], known[i], coarse[i], origins[i]).probabilities
        for i in _batches(len(cut), refiner_batch)
    ]
    pace.lap("refiner")
    blended = _blended(np.concatenate(refined), images, second)
    minimum = min_pixels(spec.sampler, spec.classes, spec.gsd)
    maps = zip(blended, valid, strict=True)
    blended = np.stack([apply_min_region(p, np.zeros(v.shape, np.float32), v, minimum)[0] for p, v in maps])
    pace.lap("blend")
    return blended


def _batches(windows: int, most: int) -> list[slice]:
    return [slice(start, start + most) for start in range(0, windows, most)]


def _corners(images: NDArray, cut: WindowsConfig) -> NDArray[np.int64]:
    height, width = images.shape[2:]
    return np.array([(w.row, w.col) for w in plan_windows(height, width, cut.window, cut.overlap)], np.int64)


def _cut(images: NDArray, corners: NDArray[np.int64], size: int) -> NDArray:
    return np.concatenate([cut_windows(image, corners, size) for image in images])


def _blended(values: NDArray[np.float32], images: NDArray, cut: WindowsConfig) -> NDArray[np.float32]:
    height, width = images.shape[2:]
    windows = plan_windows(height, width, cut.window, cut.overlap)
    blended = np.empty((len(images), values.shape[1], height, width), np.float32)
    for whole, own in zip(blended, np.split(values, len(images)), strict=True):
        blender = StripBlender(height, width, values.shape[1], windows, cut.window, cut.overlap)
        for window, one in zip(windows, own, strict=True):
            for row, strip in blender.add(window, one):
                whole[:, row : row + strip.shape[1]] = strip
        for row, strip in blender.finish():
            whole[:, row : row + strip.shape[1]] = strip
    return blended
