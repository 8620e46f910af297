"""Quality of trained refiners against their sampler's settings, the classical refiners and the one-shot control."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from rich.console import Console

from idgbr.config.evaluation import EvaluationConfig
from idgbr.config.models import SamplerConfig
from idgbr.config.tree import Experiment
from idgbr.datasets.prepare import PreparedRegion
from idgbr.distributed.data import prepare_data, spread
from idgbr.distributed.fitting.two_stages import TwoStageTraining
from idgbr.distributed.flows.evaluation import maps_by_setting, tally_methods
from idgbr.distributed.folders import Folders
from idgbr.distributed.session import start_ray
from idgbr.errors import UserError
from idgbr.evaluation.baselines import available, refine_classically
from idgbr.evaluation.evaluate import merge_methods
from idgbr.evaluation.scores import Scores
from idgbr.evaluation.tally import Tally
from idgbr.evaluation.tradeoff import FIGURES, Point, tradeoff_figure, tradeoff_table, verdict
from idgbr.files import hash_text
from idgbr.inference.min_region import min_pixels
from idgbr.inference.planes import as_probabilities
from idgbr.inference.predictor import Predictor
from idgbr.models.description import load_spec
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene
from idgbr.registry.tracking import Tracker
from idgbr.training.feasible import refuse_infeasible

DEFAULT = "default"
"""Name of the configured sampler."""


@dataclass(frozen=True)
class Setting:
    """One way to use one of the two networks."""

    name: str
    kind: str
    """diffusion or control."""
    sampler: SamplerConfig


def run_quality(config: Experiment, settings: Sequence[Setting], split: str, seeds: Sequence[int]) -> dict[str, object]:
    """Train missing models, map a split with every setting, measure, write table, figure and JSON.

    Diffusion and control are the same network on the same draws for the same number of steps; only the noise, and the
    timestep that goes with it, differ.

    Args:
        config: The experiment.
        settings: Settings to measure; a setting named `default` is compared with the others.
        split: select or test.
        seeds: Seeds of stage 2's training.
    """
    folders = Folders(Path(config.resources.storage).resolve())
    console = Console(width=160)
    refuse_infeasible(config)
    with start_ray(config.resources, trains=True):
        data = prepare_data(config.data, folders.data)
        results = folders.root / "benchmarks" / f"quality-{config.data.name}-{split}"
        results.mkdir(parents=True, exist_ok=True)
        scores: dict[str, list[Scores]] = {}
        seconds: dict[str, float] = {}
        trained: dict[str, list[float]] = {}
        with Tracker(config.tracking, results.name, config, data.fingerprint) as tracker:
            for seed in seeds:
                models: dict[str, Path] = {}
                for kind in dict.fromkeys(setting.kind for setting in settings):
                    stages = TwoStageTraining(_variant(config, kind, seed), data, tracker)
                    coarse, mapped = stages.coarse()
                    refiner = stages.refiner(coarse, mapped)
                    models[kind] = stages.model_folder(coarse, refiner)
                    trained.setdefault(kind, []).append(refiner.seconds)
                regions = mapped.split(split)
                found = _measure(config, settings, models, regions, results, with_baselines=seed == seeds[0])
                for name, values in found.items():
                    scores.setdefault(name, []).append(values)
                if seed == seeds[0]:
                    seconds = _seconds(config, settings, models, regions[0])
            tracker.log_text(_dump(points := _points(config, settings, scores, seconds)), "quality.json")
            title = f"{config.data.name}, {split} split, {len(seeds)} seed(s)"
            (results / "quality.json").write_text(_dump(points))
            figure = tradeoff_figure(points, title, results / "quality.png")
            tracker.log_artifact(figure)
    console.print(tradeoff_table(points, title))
    comparison = dict(verdict(points, DEFAULT))
    console.print({kind: f"{np.mean(values):.0f} s of training" for kind, values in trained.items()})
    console.print(comparison)
    return {
        "figure": str(figure),
        "table": str(results / "quality.json"),
        "default": comparison,
        "training_seconds": trained,
    }


def _variant(config: Experiment, kind: str, seed: int) -> Experiment:
    refiner = config.refiner
    if kind == "control":
        if refiner.prediction != "label":
            raise UserError(
                f"refiner.prediction: found {refiner.prediction}; the one-shot control is trained with cross-entropy, "
                "and so is the refiner it is a control of: set refiner.prediction to label"
            )
        refiner = refiner.model_copy(update={"objective": "one_shot", "self_conditioning": False})
    training = config.training.model_copy(update={"refiner": config.training.refiner.model_copy(update={"seed": seed})})
    return config.model_copy(update={"refiner": refiner, "training": training})


def _measure(
    config: Experiment,
    settings: Sequence[Setting],
    models: dict[str, Path],
    regions: Sequence[PreparedRegion],
    results: Path,
    with_baselines: bool,
) -> dict[str, Scores]:
    maps: list[dict[str, str]] = [{"coarse": str(region.coarse)} for region in regions]
    for kind, model in models.items():
        own = [setting for setting in settings if setting.kind == kind]
        folders = [results / "maps" / _key(config, setting, model) for setting in own]
        samplers = {folder: setting.sampler for folder, setting in zip(folders, own, strict=True)}
        made = maps_by_setting(regions, model, samplers, config)
        for setting, folder in zip(own, folders, strict=True):
            for of_region, path in zip(maps, made[folder], strict=True):
                of_region[setting.name] = str(path)
    baselines = tuple(config.evaluation.baselines) if with_baselines else ()
    evaluation = config.evaluation.model_copy(update={"baselines": list(baselines)})
    minimum = min_pixels(config.sampler, config.data.classes, load_spec(next(iter(models.values()))).gsd)
    tally = functools.partial(_tally, settings=evaluation, classes=len(config.data.classes), minimum=minimum)
    tallies = spread(tally, list(zip(regions, maps, strict=True)), cpus=1.0)
    return {method: Scores.of(counts) for method, counts in merge_methods(tallies).items()}


def _key(config: Experiment, setting: Setting, model: Path) -> str:
    """Name of the folder of a setting's maps; equal settings share it."""
    return hash_text(setting.sampler.model_dump_json() + config.inference.model_dump_json() + str(model), 12)


def _tally(
    item: tuple[PreparedRegion, dict[str, str]], settings: EvaluationConfig, classes: int, minimum: Sequence[float]
) -> dict[str, Tally]:
    region, maps = item
    return tally_methods(region, maps, settings, classes, minimum)


def _coarse(region: PreparedRegion, window: Window, classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Class ids (H, W) and, where the map has them, probabilities (K, H, W)."""
    planes, _ = Scene(str(region.coarse)).read(window)
    return planes[0], as_probabilities(planes[1:]) if len(planes) == classes + 1 else None


def _seconds(
    config: Experiment, settings: Sequence[Setting], models: dict[str, Path], region: PreparedRegion
) -> dict[str, float]:
    """Seconds per megapixel of every setting and classical refiner, in this process, on one core."""
    cut, classes = config.inference.refiner, len(config.data.classes)
    window = Window(0, 0, cut.window, cut.window)
    image, valid = region.image.read(window)
    ids, probabilities = _coarse(region, window, classes)
    coarse_input = ids if config.refiner.coarse_input == "ids" or probabilities is None else probabilities
    images, valids, maps = (np.repeat(x[None], cut.batch, 0) for x in (image, valid, coarse_input))
    origins = np.stack([np.arange(cut.batch) * cut.window] * 2, 1)
    area = cut.batch * (cut.window - cut.overlap) ** 2 / 1e6
    seconds: dict[str, float] = {}
    for kind in dict.fromkeys(setting.kind for setting in settings):
        predictor = Predictor(models[kind], precision=config.inference.precision, parts=("refiner",))
        for setting in settings:
            if setting.kind == kind:
                run = functools.partial(predictor.refine, images, valids, maps, origins, setting.sampler)
                seconds[setting.name] = _fastest(run) / area
    around = Window(0, 0, min(512, region.grid.height), min(512, region.grid.width))
    image, valid = region.image.read(around)
    ids, probabilities = _coarse(region, around, classes)
    for method in available(config.evaluation.baselines):
        classical = functools.partial(refine_classically, method, image, ids, classes, valid, probabilities)
        seconds[method] = _fastest(classical) / (around.height * around.width / 1e6)
    return seconds


def _fastest(run: Callable[[], Any], repeats: int = 2) -> float:
    """Processor seconds of this process alone."""
    run()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return min(times)


def _points(
    config: Experiment, settings: Sequence[Setting], scores: dict[str, list[Scores]], seconds: dict[str, float]
) -> list[Point]:
    kinds = {setting.name: setting.kind for setting in settings} | {"coarse": "coarse"}
    return [
        Point(
            name=name,
            kind=kinds.get(name, "classical"),
            seconds=seconds.get(name),
            scores={f: [v for s in values if (v := getattr(s, f)) is not None] for f in FIGURES},
        )
        for name, values in scores.items()
    ]


def _dump(points: Sequence[Point]) -> str:
    return TypeAdapter(list[Point]).dump_json(list(points), indent=1).decode()
