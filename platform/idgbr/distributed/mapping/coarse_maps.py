"""Coarse maps of regions: by the final backbone, and for training ground by backbones that never saw it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idgbr.config.inference import InferenceConfig
from idgbr.config.models import CoarseConfig
from idgbr.config.tree import Experiment, ResourcesConfig
from idgbr.datasets.prepare import PreparedRegion, with_coarse
from idgbr.datasets.splits import Region
from idgbr.distributed.mapping.scenes import PredictorSpec, predict_scenes
from idgbr.distributed.mapping.sinks import CoarseSink, coarse_bands
from idgbr.distributed.mapping.tasks import SceneTask
from idgbr.raster.cog import CogWriter
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene

_ROWS = 256


def predictor_for(
    folder: str | Path, part: str, inference: InferenceConfig, resources: ResourcesConfig, **options: object
) -> PredictorSpec:
    """The predictor of a model folder as the resources ask for it."""
    return PredictorSpec(
        folder=str(folder),
        part=part,  # type: ignore[arg-type]
        precision=inference.precision,
        device="cuda" if resources.gpus_per_worker > 0 else "cpu",
        threads=resources.threads_per_worker,
        **options,  # type: ignore[arg-type]
    )


def coarse_maps(
    regions: Sequence[PreparedRegion], model: str | Path, folder: str | Path, config: Experiment, title: str
) -> list[PreparedRegion]:
    """The regions with coarse maps by the backbone of `model` in `folder`; maps that are there already stay."""
    paths = [Path(folder).resolve() / f"{region.id}.tif" for region in regions]
    images = [(region.id, region.image, path) for region, path in zip(regions, paths, strict=True)]
    _predict(images, model, config, title)
    return [with_coarse(region, str(path)) for region, path in zip(regions, paths, strict=True)]


def _predict(images: Sequence[tuple[str, Scene, Path]], model: str | Path, config: Experiment, title: str) -> None:
    tasks = [
        SceneTask(name, image, functools.partial(CoarseSink, path, image.grid(), config.data.classes))
        for name, image, path in images
        if not path.exists()
    ]
    predictor = predictor_for(model, "coarse", config.inference, config.resources)
    predict_scenes(tasks, predictor, len(config.data.classes), config.inference.coarse, config.resources, title=title)


@dataclass(frozen=True)
class Piece:
    """A rectangle of a training region, dealt to a fold."""

    parent: int
    """Position of the region it was cut from."""
    region: Region
    extent: Window
    """Where it lies in that region."""
    fold: int


def deal_folds(regions: Sequence[Region], config: CoarseConfig) -> list[Piece]:
    """Cut training regions into strips across their longer side, and deal these to the folds in turn.

    A strip is at least `fold_block` and a training window long, so that no window sees another fold's ground; a
    region shorter than two of these is one piece, unless there are fewer pieces than folds.
    """
    min_length = max(config.fold_block, config.window)
    counts = [max(1, max(r.window.height, r.window.width) // min_length) for r in regions]
    if sum(counts) < config.folds:
        counts = [config.folds] * len(regions)
    pieces: list[Piece] = []
    for number, (region, count) in enumerate(zip(regions, counts, strict=True)):
        height, width = region.window.height, region.window.width
        for i in range(count):
            if height >= width:
                a, b = height * i // count, height * (i + 1) // count
                extent = Window(a, 0, b - a, width)
            else:
                a, b = width * i // count, width * (i + 1) // count
                extent = Window(0, a, height, b - a)
            cut = Region(
                f"{region.id}-piece{i}", region.split, region.scene, extent.shift(region.window.row, region.window.col)
            )
            pieces.append(Piece(number, cut, extent, len(pieces) % config.folds))
    return pieces


def held_out_maps(
    regions: Sequence[PreparedRegion],
    pieces: Sequence[Piece],
    models: Sequence[str | Path],
    folder: str | Path,
    config: Experiment,
) -> list[PreparedRegion]:
    """Training regions with coarse maps in which every piece comes from the backbone that was trained without it.

    Args:
        regions: the training regions that `pieces` count.
        pieces: see `deal_folds`.
        models: model folder of each fold's backbone.
        folder: where the maps go.
        config: the experiment.
    """
    target = Path(folder).resolve()
    paths = [target / f"{region.id}.tif" for region in regions]
    missing = {i for i, path in enumerate(paths) if not path.exists()}
    margin = config.inference.coarse.window // 2
    parts: dict[int, list[tuple[Path, Window, Window]]] = {i: [] for i in missing}
    images: list[list[tuple[str, Scene, Path]]] = [[] for _ in models]
    for piece in pieces:
        if piece.parent not in missing:
            continue
        region, extent = regions[piece.parent], piece.extent
        around = Window(
            extent.row - margin, extent.col - margin, extent.height + 2 * margin, extent.width + 2 * margin
        ).intersect(region.grid.window)
        assert around is not None
        path = target / "pieces" / f"{piece.region.id}.tif"
        images[piece.fold].append((piece.region.id, region.image.crop(around), path))
        parts[piece.parent].append((path, extent, around))
    for fold, (model, own) in enumerate(zip(models, images, strict=True)):
        _predict(own, model, config, f"coarse maps, fold {fold}")
    for i in sorted(missing):
        _compose(paths[i], regions[i], parts[i], config)
    for i in sorted(missing):
        for path, _, _ in parts[i]:
            path.unlink(missing_ok=True)
    return [with_coarse(region, str(path)) for region, path in zip(regions, paths, strict=True)]


def _compose(
    path: Path, region: PreparedRegion, parts: Sequence[tuple[Path, Window, Window]], config: Experiment
) -> None:
    """One raster out of the pieces' own extents in theirs."""
    bands = coarse_bands(config.data.classes)
    with CogWriter(str(path), region.grid, bands) as writer:
        for row in range(0, region.grid.height, _ROWS):
            strip = Window(row, 0, min(_ROWS, region.grid.height - row), region.grid.width)
            values = np.zeros((len(bands), strip.height, strip.width), np.uint8)
            for piece, extent, around in parts:
                shared = strip.intersect(extent)
                if shared is not None:
                    pixels, _ = Scene(str(piece)).read(shared.shift(-around.row, -around.col))
                    values[:, *shared.slices((row, 0))] = pixels
            writer.write(row, values)
