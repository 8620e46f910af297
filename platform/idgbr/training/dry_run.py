"""Cost of a training, computed before anything is loaded: parameters, FLOP, memory, data."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from idgbr.config.data import DataConfig
from idgbr.config.tree import Experiment
from idgbr.datasets.catalogue import catalogue
from idgbr.datasets.splits import split_regions
from idgbr.errors import UserError
from idgbr.models.cost import RefinerCost, refiner_cost
from idgbr.training.feasible import refuse_infeasible

_BATCHES = (1, 2, 4, 8, 16)


def dry_run(config: Experiment) -> dict[str, Any]:
    """Prints the tables; needs neither weights nor a GPU, and writes nothing.

    Returns:
        The figures, and a description of the data that was found.

    Raises:
        UserError: The data exists but does not match the configuration, or the networks cannot be trained with it.
    """
    refuse_infeasible(config)
    cost = refiner_cost(config.refiner, len(config.data.classes), len(config.data.bands), config.sampler)
    training = config.training.refiner
    console = Console()
    console.print(_parameters(cost, config.data.name))
    step = training.batch * (cost.step_flop + (cost.recomputed_flop if training.gradient_checkpointing else 0))
    console.print(
        f"training step of {training.batch} windows of {config.refiner.window} px: {step / 1e12:.3f} TFLOP, "
        f"{training.steps} steps: {step * training.steps / 1e18:.3f} EFLOP"
    )
    sampler = config.sampler
    console.print(
        f"refined window, {sampler.steps} steps x {sampler.samples} samples, guidance {sampler.guidance:g}: "
        f"{cost.tile_flop / 1e12:.3f} TFLOP"
    )
    console.print(_memory(cost, config))
    data = _data(config.data)
    console.print(f"data: {data}", highlight=False)
    total = sum(part.total for part in cost.parts)
    half = training.precision in ("bf16", "fp16")
    return {
        "parameters": {part.name: part.total for part in cost.parts} | {"all": total},
        "trained": {part.name: part.trained for part in cost.parts if part.trained},
        "tflop_step": step / 1e12,
        "tflop_tile": cost.tile_flop / 1e12,
        "gigabytes": _gigabytes(cost, config, training.batch // training.accumulate or 1, half),
        "data": data,
    }


def _parameters(cost: RefinerCost, name: str) -> Table:
    table = Table(title=f"refiner, {name}")
    for heading in ("part", "parameters (M)", "trained (M)"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part in cost.parts:
        table.add_row(part.name, f"{part.total / 1e6:.2f}", f"{part.trained / 1e6:.2f}")
    total, trained = (sum(getattr(part, which) for part in cost.parts) for which in ("total", "trained"))
    table.add_row("all", f"{total / 1e6:.2f}", f"{trained / 1e6:.2f}", style="bold")
    return table


def _memory(cost: RefinerCost, config: Experiment) -> Table:
    training = config.training.refiner
    checkpointed = "with" if training.gradient_checkpointing else "without"
    table = Table(
        title=f"GB to train on so many windows at once, {training.optimiser}, {checkpointed} gradient checkpointing"
    )
    table.add_column("precision")
    for batch in _BATCHES:
        table.add_column(str(batch), justify="right")
    for label, half in (("fp32", False), ("bf16, fp16", True)):
        table.add_row(label, *(f"{_gigabytes(cost, config, batch, half):.1f}" for batch in _BATCHES))
    return table


def _gigabytes(cost: RefinerCost, config: Experiment, batch: int, half: bool) -> float:
    training = config.training.refiner
    return cost.training_bytes(batch, training, half, training.gradient_checkpointing) / 1e9


def _data(config: DataConfig) -> str:
    """Description of the data that exists; missing data is not an error of the configuration."""
    try:
        scenes = catalogue(config)
    except UserError as error:
        return f"not there: {error}"
    regions = split_regions(scenes, config.split)
    counts = {split: sum(region.split == split for region in regions) for split in ("train", "select", "test")}
    return f"{len(scenes)} images; " + ", ".join(f"{split} {count}" for split, count in counts.items())
