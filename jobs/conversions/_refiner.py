"""A converted refiner as a model folder, beside what an experiment says about classes, bands and windows."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from idgbr.config.tree import Experiment
from idgbr.datasets.normalisation import IMAGENET
from idgbr.errors import UserError
from idgbr.models.description import ModelSpec
from idgbr.models.package import save_model
from idgbr.models.refiner import Refiner
from idgbr.models.size import parameters_by_part


def check_classes(experiment: Experiment) -> int:
    """The number of classes; the images have to have three bands, since the autoencoder's have."""
    if len(experiment.data.bands) != 3:
        raise UserError(
            f"data.bands: found {len(experiment.data.bands)} bands; Stable Diffusion's autoencoder takes three"
        )
    return len(experiment.data.classes)


def write(refiner: Refiner, experiment: Experiment, output: str, source: str) -> dict[str, object]:
    """Writes the model folder and says what was found."""
    table = Table("part", "parameters", "trained", title=source)
    parts = parameters_by_part(refiner)
    for part in parts:
        table.add_row(part.name, f"{part.total:,}", f"{part.trained:,}")
    Console().print(table)
    spec = ModelSpec(
        name=experiment.tracking.model_name or f"idgbr-{experiment.data.name}",
        classes=experiment.data.classes,
        bands=experiment.data.bands,
        gsd=experiment.data.gsd,
        normalisation=IMAGENET,
        inference=experiment.inference,
        sampler=experiment.sampler,
        coarse=None,
        refiner=refiner.settings,
        provenance={"converted from": source},
    )
    folder = save_model(Path(output), spec, None, refiner)
    return {
        "model": str(folder),
        "classes": refiner.classes,
        "window": refiner.settings.window,
        "prediction": refiner.settings.prediction,
        "parameters": sum(part.total for part in parts),
    }
