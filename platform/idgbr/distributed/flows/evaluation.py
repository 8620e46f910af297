"""Evaluating a model folder on prepared regions: maps by the pool, figures as tasks, one report."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from idgbr.config.evaluation import EvaluationConfig
from idgbr.config.models import SamplerConfig
from idgbr.config.tree import Experiment
from idgbr.datasets.prepare import PreparedRegion
from idgbr.distributed.data import spread
from idgbr.distributed.mapping.coarse_maps import predictor_for
from idgbr.distributed.mapping.scenes import predict_scenes
from idgbr.distributed.mapping.sinks import map_sink
from idgbr.distributed.mapping.tasks import SceneTask
from idgbr.evaluation.curves import sample_predictions
from idgbr.evaluation.evaluate import evaluate_region, merge_methods, summarise
from idgbr.evaluation.report import write_report
from idgbr.evaluation.result import EvaluationResult
from idgbr.evaluation.tally import Tally
from idgbr.evaluation.windows import choose_fragmented, choose_windows, read_sample
from idgbr.inference.min_region import min_pixels
from idgbr.inference.planes import as_probabilities
from idgbr.models.description import load_spec
from idgbr.raster.scene import Scene
from idgbr.registry.provenance import commit


def refined_maps(
    regions: Sequence[PreparedRegion], model: str | Path, folder: str | Path, config: Experiment
) -> list[Path]:
    """Refined maps of regions that have coarse maps, with a band of uncertainty; existing ones stay."""
    (paths,) = maps_by_setting(regions, model, {Path(folder): config.sampler}, config).values()
    return paths


def maps_by_setting(
    regions: Sequence[PreparedRegion], model: str | Path, settings: Mapping[Path, SamplerConfig], config: Experiment
) -> dict[Path, list[Path]]:
    """As `refined_maps`, with a sampler setting per folder; one pool of workers makes all maps."""
    paths = {folder: [folder.resolve() / f"{region.id}.tif" for region in regions] for folder in settings}
    classes, gsd = config.data.classes, load_spec(model).gsd
    minima = [min_pixels(sampler, classes, gsd) for sampler in settings.values()]
    tasks = [
        SceneTask(
            region.id,
            region.image,
            functools.partial(
                map_sink,
                [(str(path), region.grid.window)],
                region.grid,
                classes,
                ("uncertainty",),
                minimum=minima[setting],
            ),
            Scene(str(region.coarse)),
            region.origin,
            setting,
        )
        for setting, of_regions in enumerate(paths.values())
        for region, path in zip(regions, of_regions, strict=True)
        if not path.exists()
    ]
    samplers = tuple(settings.values())
    predictor = predictor_for(model, "refiner", config.inference, config.resources, samplers=samplers)
    predict_scenes(tasks, predictor, len(classes) + 1, config.inference.refiner, config.resources, title="refined maps")
    return paths


def tally_maps(
    regions: Sequence[PreparedRegion], maps: Sequence[Path], model: str | Path, config: Experiment
) -> list[dict[str, Tally]]:
    """Tallies of every region's maps by method, computed by tasks over the cluster.

    Args:
        regions: labelled regions with coarse maps.
        maps: the refined map of each.
        model: the model folder, whose minimum mapping unit the coarse map and the classical refiners get, too.
        config: the experiment.
    """
    minimum = min_pixels(config.sampler, config.data.classes, load_spec(model).gsd)
    tally = functools.partial(_tally, settings=config.evaluation, classes=len(config.data.classes), minimum=minimum)
    return spread(tally, list(zip(regions, maps, strict=True)), cpus=1.0)


def write_evaluation(
    regions: Sequence[PreparedRegion],
    maps: Sequence[Path],
    tallies: Sequence[Mapping[str, Tally]],
    folder: str | Path,
    config: Experiment,
    model: str,
    split: str = "test",
) -> EvaluationResult:
    """Compute the figures from tallies; writes report.html, samples.png and evaluation.json.

    Args:
        regions: labelled regions with coarse maps.
        maps: the refined map of each.
        tallies: the tallies of each.
        folder: folder for report and figures.
        config: the experiment.
        model: name of the model in the report.
        split: name of their split.
    """
    settings, classes = config.evaluation, config.data.classes
    result = summarise(
        tallies,
        classes,
        data=config.data.name,
        model=model,
        split=split,
        block=settings.block,
        fragment=settings.fragment,
        bootstrap=settings.bootstrap,
        commit=commit(),
    )
    by_id = {region.id: (region, path) for region, path in zip(regions, maps, strict=True)}
    merged = merge_methods(tallies)
    windows = choose_windows(merged["refined"], settings.report_windows)
    samples = []
    for chosen in [*windows, *choose_fragmented(merged["coarse"], merged["refined"])]:
        region, path = by_id[chosen.region]
        samples.append(read_sample(region, {"coarse": str(region.coarse), "refined": path}, chosen))
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_report(target / "report.html", result, samples)
    sample_predictions(samples[: len(windows)], [spec.colour for spec in classes]).savefig(
        target / "samples.png", dpi=110
    )
    result.save(target / "evaluation.json")
    return result


def _tally(
    item: tuple[PreparedRegion, Path], settings: EvaluationConfig, classes: int, minimum: Sequence[float]
) -> dict[str, Tally]:
    region, path = item
    return tally_methods(region, {"coarse": str(region.coarse), "refined": str(path)}, settings, classes, minimum)


def tally_methods(
    region: PreparedRegion, maps: Mapping[str, str], settings: EvaluationConfig, classes: int, minimum: Sequence[float]
) -> dict[str, Tally]:
    """Tallies of a region's maps and of the classical refiners; see `evaluate_region`."""
    probabilities = _coarse_probabilities(region, classes) if settings.baselines or any(minimum) else None
    return evaluate_region(
        region,
        maps,
        classes,
        settings.block,
        tuple(settings.baselines),
        probabilities,
        settings.fragment,
        minimum,
    )


def _coarse_probabilities(region: PreparedRegion, classes: int) -> np.ndarray | None:
    """Class probabilities (K, H, W) in 0..1 of a region's coarse map; None where it holds class ids alone."""
    coarse = Scene(str(region.coarse))
    if len(coarse.profile().bands) != classes + 1:
        return None
    return as_probabilities(coarse.read(region.grid.window)[0][1:])


HEADLINE = ("miou", "accuracy", "boundary_iou", "boundary_f1", "wfm3_edge", "repair_worse", "regions", "fragments",
            "boundary_length")  # fmt: skip
"""Figures of the model card and of a run's metrics."""


def headline(result: EvaluationResult) -> dict[str, float]:
    """The figures that are logged with a run and kept with a model version: FIGURE, and coarse_FIGURE."""
    figures: dict[str, float] = {}
    for name in HEADLINE:
        refined, coarse = getattr(result.methods["refined"], name), getattr(result.methods["coarse"], name)
        if refined is not None:
            figures[name] = refined
        if coarse is not None:
            figures[f"coarse_{name}"] = coarse
    return figures
