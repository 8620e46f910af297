"""The gate: challenger and champion measured on the same blocks of scenes that neither was trained on, on Ray."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
from rich.console import Console

from idgbr.config.tree import Experiment, ResourcesConfig
from idgbr.datasets.catalogue import catalogue
from idgbr.datasets.fingerprint import fingerprint
from idgbr.datasets.ground import shared, tile_hashes
from idgbr.datasets.prepare import PreparedRegion
from idgbr.datasets.splits import Region, split_regions
from idgbr.distributed.data import prepare_all, report_labels, spread
from idgbr.distributed.fitting.stage import run_name
from idgbr.distributed.flows.evaluation import refined_maps, tally_maps, write_evaluation
from idgbr.distributed.folders import Folders
from idgbr.distributed.mapping.coarse_maps import coarse_maps
from idgbr.distributed.value_range import fit_values
from idgbr.errors import UserError
from idgbr.evaluation.evaluate import merge_methods
from idgbr.evaluation.gate import compare_rules, differences
from idgbr.evaluation.scores import Scores
from idgbr.evaluation.tally import Tally
from idgbr.evaluation.verdict import Candidate, Cost, Verdict
from idgbr.models.description import load_seen, load_spec
from idgbr.raster.grid import Window
from idgbr.registry.aliases import now
from idgbr.registry.thresholds import absolute_rules

_ROUNDS = 3
"""Number of timings of each model; their median is the result."""


@dataclass(frozen=True)
class GateScenes:
    """The scenes of a gate."""

    regions: tuple[PreparedRegion, ...]
    fingerprint: str
    tiles: frozenset[str]
    """Hashes of their tiles."""


@dataclass(frozen=True)
class Measured:
    """One model on the gate's scenes.

    Attributes:
        label: NAME/VERSION.
        folder: its model folder.
        refined: tally of its refined maps.
    """

    label: str
    folder: Path
    refined: Tally


def gate_scenes(config: Experiment, folder: Path) -> GateScenes:
    """The gate's scenes, prepared: those of `gate.source`, or else the test split of `data`.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    if config.gate.source is None:
        regions = [
            region for region in split_regions(catalogue(config.data), config.data.split) if region.split == "test"
        ]
    else:
        scenes = catalogue(config.data.model_copy(update={"source": config.gate.source}))
        chosen = [scene for scene in scenes if scene.split in (None, "test")]
        if not chosen:
            raise UserError("gate.source: none of its scenes is in the test split; a gate needs test scenes")
        regions = [Region(s.id, "test", s, s.image.grid().window) for s in chosen]
    prepared = tuple(prepare_all(regions, config.data, folder))
    report_labels(regions, prepared, config.data, Console())
    tiles = frozenset(tile for some in spread(tile_hashes, prepared) for tile in some)
    return GateScenes(prepared, fingerprint(prepared), tiles)


def refuse_seen(scenes: GateScenes, models: dict[str, Path]) -> None:
    """Refuse scenes that a model was trained or tuned on.

    Args:
        scenes: the gate's.
        models: model folder by label.

    Raises:
        UserError: a model was trained or tuned on some of the ground, or does not record its ground.
    """
    for label, folder in models.items():
        seen = load_seen(folder)
        if seen is None:
            raise UserError(
                f"{label}: does not record the ground it was trained on, so that the gate's scenes cannot be checked "
                "against it; register it again with jobs/pipeline.py or jobs/train.py"
            )
        if count := shared(scenes.tiles, seen):
            raise UserError(
                f"{label}: was trained or tuned on {count} of the {len(scenes.tiles)} tiles of the gate's scenes "
                f"(fingerprint {scenes.fingerprint}); name scenes that are new to every model in gate.source"
            )


def measure(config: Experiment, scenes: GateScenes, folder: Path, label: str, content: str, reports: Path) -> Measured:
    """Maps and figures of one model on the gate's scenes, with its own windows and sampler.

    Existing maps are used again: the champion's are made once for all challengers.

    Args:
        config: data, evaluation and resources.
        scenes: the gate's.
        folder: the model folder.
        label: NAME/VERSION.
        content: identity of the folder's content.
        reports: folder for report and figures.

    Raises:
        UserError: its classes or bands are not those of the data.
    """
    spec = load_spec(folder)
    evaluation = config.evaluation.model_copy(update={"baselines": []})
    own = config.model_copy(update={"inference": spec.inference, "sampler": spec.sampler, "evaluation": evaluation})
    identity = {
        "values": config.data.value_range,
        "content": content,
        "data": scenes.fingerprint,
        "block": evaluation.block,
    }
    results = Folders(Path(config.resources.storage).resolve()).result(run_name(config.data.name, "gate", identity))
    regions = fit_values(scenes.regions, spec, config.data.value_range)
    mapped = coarse_maps(regions, folder, results / "coarse", own, f"coarse maps, {label}")
    maps = refined_maps(mapped, folder, results / "maps", own)
    tallies = tally_maps(mapped, maps, folder, own)
    write_evaluation(mapped, maps, tallies, reports, own, label, "gate")
    return Measured(label, folder, merge_methods(tallies)["refined"])


def judge(config: Experiment, scenes: GateScenes, challenger: Measured, champion: Measured | None) -> Verdict:
    """Apply every rule; without a champion only floors and ceilings.

    Raises:
        UserError: the scenes hold too few labelled blocks for meaningful intervals.
    """
    gate, classes = config.gate, [spec.name for spec in config.data.classes]
    blocks = int((challenger.refined.confusion.sum((1, 2)) > 0).sum())
    if blocks < gate.blocks:
        raise UserError(
            f"gate: its scenes hold {blocks} labelled blocks of {config.evaluation.block} px; expected at least "
            f"{gate.blocks} (gate.blocks). Name more scenes in gate.source, or lower evaluation.block"
        )
    sides = [side for side in (champion, challenger) if side is not None]
    costs = _costs(sides, scenes, config.resources)
    candidates = [
        Candidate(model=side.label, scores=Scores.of(side.refined), cost=cost)
        for side, cost in zip(sides, costs, strict=True)
    ]
    rules, changes = absolute_rules(candidates[-1].figures(), gate), []
    if champion is not None:
        changes = differences(champion.refined, challenger.refined, gate, classes, config.evaluation.bootstrap)
        rules += compare_rules(changes, gate, (costs[0], costs[1]))
    return Verdict(
        data=config.data.name,
        fingerprint=scenes.fingerprint,
        blocks=blocks,
        classes=classes,
        challenger=candidates[-1],
        champion=candidates[0] if champion is not None else None,
        differences=changes,
        rules=rules,
        created=now(),
    )


def _costs(sides: Sequence[Measured], scenes: GateScenes, resources: ResourcesConfig) -> list[Cost]:
    """Seconds per megapixel of models, timed in turns on one worker, so that other load affects all alike."""
    region = max(scenes.regions, key=lambda r: r.valid_pixels)
    task: Any = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(_seconds)
    device = "cuda" if resources.gpus_per_worker > 0 else "cpu"
    folders = [str(side.folder) for side in sides]
    seconds = ray.get(task.remote(folders, region, device, resources.threads_per_worker))
    return [
        Cost(seconds_per_megapixel=value, megabytes=_bytes(side.folder) / 1e6)
        for value, side in zip(seconds, sides, strict=True)
    ]


def _seconds(folders: Sequence[str], region: PreparedRegion, device: str, threads: int) -> list[float]:
    from idgbr.inference.predictor import Predictor

    predictors = [Predictor(folder, device=device, threads=threads) for folder in folders]
    runs = [_timed(predictor, region) for predictor in predictors]
    for run in runs:  # the first call is slower than the others
        run()
    timings = [[run() for run in runs] for _ in range(_ROUNDS)]
    return [median(column) for column in zip(*timings, strict=True)]


def _timed(predictor: Any, region: PreparedRegion) -> Callable[[], float]:
    """A function that runs one batch of each stage and returns seconds per megapixel."""
    cut, middle = predictor.spec.inference, (region.grid.height // 2, region.grid.width // 2)

    def batch(settings: Any) -> tuple[np.ndarray, np.ndarray]:
        size = settings.window
        image, valid = region.image.read(Window(middle[0] - size // 2, middle[1] - size // 2, size, size))
        return np.repeat(image[None], settings.batch, 0), np.repeat(valid[None], settings.batch, 0)

    first, second = batch(cut.coarse), batch(cut.refiner)
    coarse = predictor.coarse(*second)
    origins = np.zeros((len(second[0]), 2), np.int64)
    stages = [(functools.partial(predictor.coarse, *first), cut.coarse)]
    if predictor.refiner is not None:
        stages.append((functools.partial(predictor.refine, *second, coarse, origins), cut.refiner))

    def run() -> float:
        total = 0.0
        for stage, settings in stages:
            started = time.perf_counter()
            stage()
            # Windows overlap: each adds this many new pixels.
            new = settings.batch * (settings.window - settings.overlap) ** 2
            total += (time.perf_counter() - started) * 1e6 / new
        return total

    return run


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
