"""Jobs from imagery to a registered model with its report and maps: the whole pipeline, training or evaluation."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from idgbr.config.tree import Experiment
from idgbr.datasets.ground import tile_hashes
from idgbr.datasets.labelled import GSD_FACTOR
from idgbr.datasets.prepare import PreparedRegion
from idgbr.distributed.data import PreparedData, prepare_data, spread
from idgbr.distributed.fitting.stage import run_name
from idgbr.distributed.fitting.two_stages import Trained, TwoStageTraining
from idgbr.distributed.flows.evaluation import headline, refined_maps, tally_maps, write_evaluation
from idgbr.distributed.flows.promotion import promote
from idgbr.distributed.folders import Folders
from idgbr.distributed.mapping.coarse_maps import coarse_maps
from idgbr.distributed.session import start_ray
from idgbr.distributed.value_range import fit_values
from idgbr.errors import UserError
from idgbr.evaluation.result import EvaluationResult
from idgbr.inference.predictor import Predictor
from idgbr.models.description import SEEN_FILE, ModelSpec, Sample, load_seen, load_spec
from idgbr.models.package import save_model
from idgbr.raster.grid import Window
from idgbr.registry.tracking import Tracker
from idgbr.registry.versions import register, resolve
from idgbr.training.feasible import refuse_infeasible


@dataclass(frozen=True)
class Outcome:
    """Addresses of a job's results."""

    model: str
    """models:/NAME/VERSION."""
    folder: str
    """The model folder."""
    report: str = ""
    maps: str = ""

    def outputs(self) -> dict[str, str]:
        """The non-empty fields, which a job prints as the JSON of its last line."""
        return {key: value for key, value in vars(self).items() if value}


def run_pipeline(config: Experiment, fresh: bool = False, start: str = "") -> Outcome:
    """Prepare the data, train both stages, map and evaluate the test split, and register the model.

    Steps whose results exist are skipped. If `gate.promote` is set, the quality gate is run on the new version.

    Args:
        config: the experiment.
        fresh: repeat every step except the preparation of the data.
        start: model whose weights training starts from, models:/NAME@ALIAS or a folder.

    Raises:
        Refused: the version is registered, but did not pass the gate.
    """
    return _run(config, fresh, start, evaluate=True)


def run_training(config: Experiment, fresh: bool = False, start: str = "") -> Outcome:
    """Prepare, train both stages and register; the test split is not read."""
    return _run(config, fresh, start, evaluate=False)


def _run(config: Experiment, fresh: bool, start: str, evaluate: bool) -> Outcome:
    began = time.monotonic()
    folders = Folders(Path(config.resources.storage).resolve())
    start_folder = str(resolve(start, config.tracking.uri)[0]) if start else ""
    if start_folder:
        _check_bands(config, load_spec(start_folder), start)
    refuse_infeasible(config)
    with start_ray(config.resources, trains=True):
        data = prepare_data(config.data, folders.data)
        with Tracker(config.tracking, _name(config, data, start), config, data.fingerprint, fresh=fresh) as tracker:
            stages = TwoStageTraining(config, data, tracker, fresh, start_folder)
            trained = stages.train()
            result: EvaluationResult | None = None
            if evaluate:
                result = _evaluate(stages, trained, fresh)
                tracker.log_metrics(headline(result))
                for file in ("report.html", "samples.png"):
                    tracker.log_artifact(folders.result(trained.refiner.name) / file)
                tracker.log_text(result.model_dump_json(indent=1), "evaluation.json")
            figures = headline(result) if result else {}
            folder = _write_model(stages, trained, figures)
            name = stages.spec(True).name
            tags = {"run": trained.refiner.name, "data": config.data.name, "fingerprint": data.fingerprint}
            version = register(
                folder, name, figures or None, tags, uri=tracker.uri, run_id=tracker.run_id,
                experiment=config.tracking.experiment, intervals=result.intervals if result else (),
            )  # fmt: skip
            tracker.set_tags({"model": f"{name}/{version}"})
    results = folders.result(trained.refiner.name)
    outcome = Outcome(
        f"models:/{name}/{version}",
        str(folder),
        str(results / "report.html") if result else "",
        str(results / "maps") if result else "",
    )
    _report(outcome, result, time.monotonic() - began)
    if evaluate and config.gate.promote:
        promote(config, name)
    return outcome


def run_evaluation(
    config: Experiment,
    model: str,
    split: str = "test",
    fresh: bool = False,
    backbone: str = "",
    configured: bool = False,
) -> Outcome:
    """Measure any model on a split of a data set.

    Args:
        config: the data and the evaluation settings.
        model: models:/NAME@ALIAS, models:/NAME/VERSION or a folder.
        split: test or select.
        fresh: make the maps again.
        backbone: another model, whose stage 1 makes the coarse maps; if empty, stage 1 of `model` makes them.
        configured: use the sampler and inference settings of `config` instead of the model's.

    Raises:
        UserError: the classes of the model, its number of bands or its scale differ from those of the data.
    """
    began = time.monotonic()
    folder, label = resolve(model, config.tracking.uri)
    spec = load_spec(folder)
    _check_classes_and_bands(config, spec, model)
    other, _ = resolve(backbone, config.tracking.uri) if backbone else (folder, label)
    _check_classes_and_bands(config, load_spec(other), backbone or model)
    if not configured:
        config = config.model_copy(update={"inference": spec.inference, "sampler": spec.sampler})
    folders = Folders(Path(config.resources.storage).resolve())
    with start_ray(config.resources):
        data = prepare_data(config.data, folders.data)
        _check_scale(data, spec, model)
        identity: dict[str, Any] = {"model": str(folder), "backbone": str(other), "data": data.fingerprint}
        identity |= {
            "values": config.data.value_range,
            "sampler": config.sampler.model_dump(),
            "inference": config.inference.model_dump(),
        }
        name = run_name(config.data.name, f"evaluate-{split}", identity)
        results = folders.result(name)
        if fresh:
            shutil.rmtree(results, ignore_errors=True)
        regions = fit_values(data.split(split), spec, config.data.value_range)
        mapped = coarse_maps(regions, other, results / "coarse", config, f"coarse maps, {split}")
        with Tracker(config.tracking, name, config, data.fingerprint, fresh=fresh) as tracker:
            maps = refined_maps(mapped, folder, results / "maps", config)
            tallies = tally_maps(mapped, maps, folder, config)
            result = write_evaluation(mapped, maps, tallies, results, config, label, split)
            tracker.log_metrics(headline(result))
            for file in ("report.html", "samples.png"):
                tracker.log_artifact(results / file)
    outcome = Outcome(model, str(folder), str(results / "report.html"), str(results / "maps"))
    _report(outcome, result, time.monotonic() - began)
    return outcome


def _evaluate(stages: TwoStageTraining, trained: Trained, fresh: bool) -> EvaluationResult:
    results = stages.folders.result(trained.refiner.name)
    if fresh:
        shutil.rmtree(results, ignore_errors=True)
    regions = trained.data.split("test")
    model = stages.model_folder(trained.coarse, trained.refiner)
    maps = refined_maps(regions, model, results / "maps", stages.config)
    tallies = tally_maps(regions, maps, model, stages.config)
    return write_evaluation(regions, maps, tallies, results, stages.config, trained.refiner.name)


def _write_model(stages: TwoStageTraining, trained: Trained, figures: Mapping[str, float]) -> Path:
    """Write the final model folder with its figures and a sample for smoke tests; keep it if it is complete."""
    target = stages.folders.result(trained.refiner.name) / "model"
    complete = (target / "model.json").exists() and (target / SEEN_FILE).exists()
    if complete and load_spec(target).metrics == dict(figures):
        return target
    parts = stages.modules(trained.coarse, trained.refiner)
    # The training area of the model from which training started counts as seen, too.
    before = (load_seen(stages.start) or []) if stages.start else []
    used = [region for region in trained.data.prepared if region.split != "test"]
    seen = [tile for tiles in spread(tile_hashes, used) for tile in tiles]
    plain = stages.model_folder(trained.coarse, trained.refiner)
    sample = _sample(plain, trained.data.split("select")[0])
    return save_model(target, stages.spec(True, metrics=dict(figures)), *parts, sample, [*before, *seen])


def _sample(model: Path, region: PreparedRegion) -> Sample:
    """The window at the centre of a region, and the map that the model makes of it."""
    predictor = Predictor(model)
    size = min(128, predictor.spec.inference.refiner.window)
    middle = Window((region.grid.height - size) // 2, (region.grid.width - size) // 2, size, size)
    image, valid = region.image.read(middle)
    coarse = predictor.coarse(image[None], valid[None])
    refined = predictor.refine(image[None], valid[None], coarse, np.zeros((1, 2), np.int64))
    return Sample(image, refined.probabilities[0].argmax(0).astype(np.uint8))


def _name(config: Experiment, data: PreparedData, start: str) -> str:
    """Name of the parent run, from all settings that change its results; excludes resources and tracking."""
    identity: dict[str, Any] = config.model_dump(mode="json", exclude={"resources", "tracking", "data", "gate"})
    identity |= {"fingerprint": data.fingerprint, "start": start, "sampling": config.data.sampling.model_dump()}
    identity |= {"augmentation": config.data.augmentation.model_dump(), "bands": config.data.bands}
    return run_name(config.data.name, "experiment", json.loads(json.dumps(identity)))


def _check_classes_and_bands(config: Experiment, spec: ModelSpec, model: str) -> None:
    own, theirs = [c.name for c in config.data.classes], [c.name for c in spec.classes]
    if own != theirs:
        raise UserError(
            f"{model}: its classes are {', '.join(theirs)}; data.classes are {', '.join(own)}. A model is measured on "
            "data with the same classes in the same order"
        )
    _check_bands(config, spec, model)


def _check_scale(data: PreparedData, spec: ModelSpec, model: str) -> None:
    if data.gsd is None or spec.gsd is None or 1 / GSD_FACTOR <= data.gsd / spec.gsd <= GSD_FACTOR:
        return
    raise UserError(
        f"{model}: was trained at {spec.gsd:.3g} m a pixel, the data has {data.gsd:.3g} m; expected at most a factor "
        f"{GSD_FACTOR} between them. To measure it at its own scale, set data.gsd: {spec.gsd:.3g} and "
        "data.gsd_mismatch: resample"
    )


def _check_bands(config: Experiment, spec: ModelSpec, model: str) -> None:
    if len(config.data.bands) != len(spec.normalisation.mean):
        raise UserError(
            f"{model}: has {len(spec.normalisation.mean)} bands; data.bands names {len(config.data.bands)}. Name as "
            "many bands, in the model's order"
        )


def _report(outcome: Outcome, result: EvaluationResult | None, seconds: float) -> None:
    console = Console(soft_wrap=True)
    if result is not None:
        Console(width=max(console.width, 140)).print(result.table())
    for name, location in outcome.outputs().items():
        console.print(f"{name}: {location}", highlight=False)
    console.print(f"done in {seconds / 60:.1f} minutes")
