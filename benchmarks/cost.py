"""What --dry-run predicts of stage 2, measured: memory and seconds of a training step, seconds of a refined window.

python jobs/benchmark.py cost --config configs/demo.yaml
python jobs/benchmark.py cost --config configs/paper/whu_building.yaml --device cuda --batches 1,4 --precision bf16

The refiner has the configuration's architecture and random weights; nothing is downloaded and no data is read. Memory
is what the allocator of a GPU handed out at most; on a CPU it is not measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pydantic import Field

from idgbr.cli import ExperimentFlags
from idgbr.config.node import Precision
from idgbr.config.tree import Experiment


class Flags(ExperimentFlags):
    """Flags of the benchmark of cost."""

    device: str = "cpu"
    """torch device."""
    batches: list[int] = Field([1, 4], min_length=1)
    """Windows at once."""
    precision: Precision = "auto"
    """Arithmetic of both."""
    steps: int = Field(5, ge=1)
    """Training steps, and refined batches, to take the mean over, after two that do not count."""
    threads: int = Field(1, ge=1)
    """torch threads."""


def main(flags: Flags, experiment: Experiment) -> dict[str, object]:
    """Measures."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from idgbr.models.cost import refiner_cost
    from idgbr.models.precision import autocast

    torch.set_num_threads(flags.threads)
    settings, sampler = experiment.refiner, experiment.sampler
    training = experiment.training.refiner.model_copy(update={"precision": flags.precision})
    device = torch.device(flags.device)
    cost = refiner_cost(settings, len(experiment.data.classes), len(experiment.data.bands), sampler)
    half = autocast(flags.precision, device).fast_dtype is not torch.float32
    rows = []
    for batch in flags.batches:
        step, peak = _train(experiment, training, device, batch, flags.steps)
        window = _refine(experiment, flags.precision, device, batch, flags.steps)
        predicted = cost.training_bytes(batch, training, half, training.gradient_checkpointing)
        flop = batch * (cost.step_flop + (cost.recomputed_flop if training.gradient_checkpointing else 0))
        rows.append(
            {
                "batch": batch,
                "step_seconds": step,
                "step_tflops": flop / step / 1e12,
                "window_seconds": window / batch,
                "window_tflops": batch * cost.tile_flop / window / 1e12,
                "gigabytes": peak,
                "predicted_gigabytes": predicted / 1e9,
            }
        )
    table = Table(title=f"stage 2 of {experiment.data.name} on {_name(device)}, {flags.precision}")
    headings = {
        "batch": "windows", "step_seconds": "s a step", "step_tflops": "TFLOP/s", "gigabytes": "GB at most",
        "predicted_gigabytes": "GB predicted", "window_seconds": "s a refined window", "window_tflops": "TFLOP/s",
    }  # fmt: skip
    for heading in headings.values():
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*("" if row[key] is None else f"{row[key]:.3g}" for key in headings))
    Console().print(table)
    return {"device": _name(device), "rows": rows}


def _name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "a processor"


def _refiner(experiment: Experiment, device: Any) -> Any:
    import torch

    from idgbr.models.refiner import Refiner

    torch.manual_seed(0)
    classes, bands = len(experiment.data.classes), len(experiment.data.bands)
    with device:
        return Refiner(classes, bands, experiment.refiner.model_dump(), pretrained=False)


def _batch(experiment: Experiment, device: Any, count: int) -> dict[str, Any]:
    import torch

    side, classes = experiment.refiner.window, len(experiment.data.classes)
    label = torch.randint(0, classes, (count, side, side), device=device)
    probabilities = torch.rand(count, classes, side, side, device=device).softmax(1)
    index = torch.arange(count, device=device)
    return {
        "image": torch.randn(count, len(experiment.data.bands), side, side, device=device),
        "valid": torch.ones_like(label, dtype=torch.bool),
        "label": label,
        "coarse": torch.cat([probabilities.argmax(1, keepdim=True).float(), probabilities], 1),
        "seed": index,
        "row": index * side,
        "col": index * side,
    }


def _train(experiment: Experiment, training: Any, device: Any, count: int, steps: int) -> tuple[float, float | None]:
    """Seconds of a step, as a worker takes it, and the gigabytes a GPU handed out at most."""
    import torch

    from idgbr.config.training import AlignmentConfig
    from idgbr.datasets.normalisation import IMAGENET
    from idgbr.training.optimisation import Optimisation
    from idgbr.training.refiner import RefinerTask

    whole = {"batch": count, "accumulate": 1, "alignment": AlignmentConfig()}  # a teacher guides the first steps alone
    training = training.model_copy(update=whole)
    settings = experiment.training.model_copy(update={"refiner": training})
    config = experiment.model_copy(update={"training": settings})
    bands = len(experiment.data.bands)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    task = RefinerTask(config, bands, IMAGENET, model=_refiner(experiment, device))
    optimisation = Optimisation(task, training, device)
    batch = _batch(experiment, device, count)
    seconds = _timed(lambda: optimisation.step([batch], 0), device, steps)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return seconds, peak


def _refine(experiment: Experiment, precision: Precision, device: Any, count: int, steps: int) -> float:
    """Seconds of a batch of refined windows, from tensors on the device to tensors on the device."""
    import torch

    from idgbr.models.precision import autocast
    from idgbr.models.sampler import sample
    from idgbr.training.refiner import coarse_input

    refiner, batch = _refiner(experiment, device).eval(), _batch(experiment, device, count)
    coarse, origins = coarse_input(batch["coarse"], experiment.refiner), torch.stack([batch["row"], batch["col"]], 1)
    with torch.inference_mode(), autocast(precision, device):
        return _timed(lambda: sample(refiner, batch["image"], coarse, origins, experiment.sampler), device, steps)


def _timed(run: Callable[[], object], device: Any, times: int) -> float:
    """Mean seconds of a run, after two that choose kernels and fill the allocator."""
    import torch

    for _ in range(2):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(times):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / times
