"""Evaluating a model folder on prepared regions: maps by the pool, figures as tasks, one report."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from idgbr.config.models import SamplerConfig
from idgbr.config.tree import Experiment
from idgbr.datasets.prepare import PreparedRegion
from idgbr.distributed.data import spread
from idgbr.distributed.mapping.coarse_maps import predictor_for
from idgbr.distributed.mapping.scenes import SceneTask, predict_scenes
from idgbr.distributed.mapping.sinks import map_sink
from idgbr.evaluation.curves import sample_predictions
from idgbr.evaluation.evaluate import evaluate_region, merge_methods, summarise
from idgbr.evaluation.report import write_report
from idgbr.evaluation.result import EvaluationResult
from idgbr.evaluation.tally import Tally
from idgbr.evaluation.windows import choose_windows, read_picture
from idgbr.inference.min_region import min_pixels
from idgbr.inference.planes import as_probabilities
from idgbr.models.description import load_spec
from idgbr.raster.scene import Scene
from idgbr.registry.provenance import commit


def refined_maps(
    regions: Sequence[PreparedRegion], model: str | Path, folder: str | Path, config: Experiment
) -> list[Path]:
    """Refined maps of regions that have coarse maps, with a band of uncertainty; those there already stay."""
    (paths,) = maps_by_setting(regions, model, {Path(folder): config.sampler}, config).values()
    return paths


def maps_by_setting(
    regions: Sequence[PreparedRegion], model: str | Path, settings: Mapping[Path, SamplerConfig], config: Experiment
) -> dict[Path, list[Path]]:
    """As `refined_maps`, in several settings: by folder, what its maps are sampled with. One pool makes them all."""
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


def tally_maps(regions: Sequence[PreparedRegion], maps: Sequence[Path], config: Experiment) -> list[dict[str, Tally]]:
    """What is counted of every region's maps, by method, as tasks all over the cluster."""
    settings, classes = config.evaluation, len(config.data.classes)
    tally = functools.partial(_tally, classes=classes, block=settings.block, baselines=tuple(settings.baselines))
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
    """The figures of what was counted; writes report.html, samples.png and evaluation.json.

    Args:
        regions: labelled regions with coarse maps.
        maps: the refined map of each.
        tallies: what was counted of each.
        folder: where report and figures go.
        config: the experiment.
        model: how the report names the model.
        split: which split the regions are.
    """
    settings, classes = config.evaluation, config.data.classes
    result = summarise(
        tallies,
        classes,
        data=config.data.name,
        model=model,
        split=split,
        block=settings.block,
        bootstrap=settings.bootstrap,
        commit=commit(),
    )
    by_id = {region.id: (region, path) for region, path in zip(regions, maps, strict=True)}
    pictures = []
    for chosen in choose_windows(merge_methods(tallies)["refined"], settings.report_windows):
        region, path = by_id[chosen.region]
        pictures.append(read_picture(region, {"coarse": str(region.coarse), "refined": path}, chosen))
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_report(target / "report.html", result, pictures)
    sample_predictions(pictures, [spec.colour for spec in classes]).savefig(target / "samples.png", dpi=110)
    result.save(target / "evaluation.json")
    return result


def _tally(item: tuple[PreparedRegion, Path], classes: int, block: int, baselines: tuple[str, ...]) -> dict[str, Tally]:
    region, path = item
    coarse = Scene(str(region.coarse))
    probabilities = None
    if "densecrf" in baselines and len(coarse.profile().bands) == classes + 1:
        probabilities = as_probabilities(coarse.read(region.grid.window)[0][1:])
    maps = {"coarse": str(region.coarse), "refined": str(path)}
    return evaluate_region(region, maps, classes, block, baselines, probabilities)


def headline(result: EvaluationResult) -> dict[str, float]:
    """The figures that travel with a model version: refined, coarse and their difference."""
    figures: dict[str, float] = {}
    for name in ("miou", "accuracy", "boundary_iou", "boundary_f1", "wfm3_edge", "repair_worse"):
        refined, coarse = getattr(result.methods["refined"], name), getattr(result.methods["coarse"], name)
        if refined is not None:
            figures[name] = refined
        if coarse is not None:
            figures[f"coarse_{name}"] = coarse
    return figures
