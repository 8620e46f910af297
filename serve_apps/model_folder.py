"""Loads the model at the address in a `user_config`, tests it on its own sample and measures what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from idgbr.errors import UserError
from idgbr.models.description import ModelSpec, load_spec
from serve_apps.costs import ModelCosts, StageCost, measure_coarse, measure_refiner

if TYPE_CHECKING:
    from idgbr.config.models import SamplerConfig
    from idgbr.inference.predictor import Part, Predictor


@dataclass(frozen=True)
class Served:
    """A model as the scene workers know it: all but its weights."""

    label: str
    spec: ModelSpec
    folder: str
    costs: ModelCosts = field(default_factory=ModelCosts)


@dataclass(frozen=True)
class Loaded:
    """One stage of a model in memory, and its cost on this machine."""

    predictor: Predictor
    cost: StageCost | None


def pinned(model: str, tracking_uri: str, stand_in: str = "") -> str:
    """The address with an alias resolved to its version; a folder made absolute.

    Args:
        model: see `settings.Args`.
        tracking_uri: the MLflow store.
        stand_in: see `settings.Args`.

    Raises:
        UserError: there is no such model, version or folder.
    """
    if not model.startswith("models:"):
        load_spec(model)
        return str(Path(model).resolve())
    from idgbr.registry.versions import UnknownVersion, resolve  # seconds to import, and not needed for a folder

    try:
        return f"models:/{resolve(model, tracking_uri)[1]}"
    except UnknownVersion:
        if not stand_in:
            raise
        return pinned(stand_in, tracking_uri)


def find(address: str, tracking_uri: str) -> Served:
    """The model's folder on this machine, fetched if it is not here yet.

    Raises:
        UserError: there is no such model, or an alias is named, which would not pin a version.
    """
    if not address.startswith("models:"):
        return Served(Path(address).name, load_spec(address), address)
    if "@" in address:
        raise UserError(f"{address}: an alias does not pin a version; expected models:/NAME/VERSION")
    from idgbr.registry.store import fail_soon
    from idgbr.registry.versions import resolve

    fail_soon()
    folder, label = resolve(address, tracking_uri)
    return Served(label, load_spec(folder), str(folder))


def refuse_other_task(before: ModelSpec, after: ModelSpec) -> None:
    """Refuses to follow a model with one that callers of the first could not use.

    Raises:
        UserError: another number of bands, or other classes.
    """
    for what, old, new in (
        ("bands", len(before.bands), len(after.bands)),
        ("classes", [c.name for c in before.classes], [c.name for c in after.classes]),
    ):
        if old != new:
            raise UserError(
                f"the model takes over from one with other {what}: found {new}, expected {old}. Serve it as an "
                "application of its own"
            )


def load(
    address: str, tracking_uri: str, part: Part, device: Literal["auto", "cpu", "cuda"], threads: int, batch: int
) -> Loaded:
    """One stage of a model, after both stages mapped the model's own sample correctly, and its measured cost.

    Raises:
        UserError: no such model, damaged, or it fails its smoke test.
    """
    import torch  # seconds to import and 700 MB, which scene workers and gateways do without

    from idgbr.inference.predictor import Predictor
    from idgbr.inference.smoke import smoke_test

    folder = find(address, tracking_uri).folder
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    predictor = Predictor(folder, device=where, threads=threads)
    smoke_test(folder, predictor)
    if part == "coarse":
        predictor.refiner = None
        return Loaded(predictor, None if predictor.coarse_model is None else _coarse_cost(predictor, batch))
    predictor.coarse_model = None
    return Loaded(predictor, None if predictor.refiner is None else _refiner_cost(predictor, batch))


def _coarse_cost(predictor: Predictor, batch: int) -> StageCost:
    spec = predictor.spec
    images, valid = _blank(spec, spec.inference.coarse.window, batch)
    return measure_coarse(lambda count: predictor.coarse(images[:count], valid[:count]), batch)


def _refiner_cost(predictor: Predictor, batch: int) -> StageCost:
    spec = predictor.spec
    images, valid = _blank(spec, spec.inference.refiner.window, batch)
    coarse = np.full((batch, len(spec.classes), *valid.shape[1:]), 1 / len(spec.classes), np.float32)
    origins = np.zeros((batch, 2), np.int64)

    def run(count: int, sampler: SamplerConfig) -> object:
        return predictor.refine(images[:count], valid[:count], coarse[:count], origins[:count], sampler)

    return measure_refiner(run, batch, spec.sampler)


def _blank(spec: ModelSpec, side: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of the right shape and dtype; what they show does not change what they cost."""
    return np.zeros((batch, len(spec.bands), side, side), np.uint8), np.ones((batch, side, side), bool)
