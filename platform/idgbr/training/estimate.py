"""Estimates the duration of training on this machine from a few timed steps of both networks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch

from idgbr.config.tree import Experiment
from idgbr.datasets.experiment_file import Machine
from idgbr.models.coarse import build_coarse, padded_logits
from idgbr.models.refiner import Refiner

_OVERHEAD = 1.2
"""Factor on the time of the steps, for reading, augmentation and measurements on the select split."""
_STARTS = 2.0
"""Smallest number of minutes that Ray, its workers and the coarse maps of all regions take in addition to the steps."""


def this_machine() -> Machine:
    """The processors that this process may use, and the GPUs that torch finds."""
    return Machine(len(os.sched_getaffinity(0)), torch.cuda.device_count())


def estimated_minutes(config: Experiment) -> float:
    """Minutes to train both stages including folds, estimated from one forward and backward pass of both networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.resources.threads_per_worker)
    device = torch.device("cuda" if config.resources.gpus_per_worker else "cpu")
    bands, classes = len(config.data.bands), len(config.data.classes)
    try:
        coarse = build_coarse(config.coarse, classes, bands, pretrained=False).to(device).train()
        refiner = Refiner(classes, bands, config.refiner.model_dump(), pretrained=False).to(device).train()
        image = torch.randn(2, bands, config.coarse.window, config.coarse.window, device=device)
        first = _seconds(lambda: padded_logits(coarse, image).square().mean().backward()) / 2
        second = _seconds(lambda: _refiner_step(refiner, config, device))
    finally:
        torch.set_num_threads(threads)
    workers = config.resources.train_workers
    folds = config.coarse.folds
    fold_steps = config.coarse.fold_steps or config.training.coarse.steps * (folds - 1) / max(1, folds)
    one, two = config.training.coarse, config.training.refiner
    seconds = (one.steps + folds * fold_steps) * one.batch * first + two.steps * two.batch * second
    return _STARTS + _OVERHEAD * seconds / workers / 60


def _refiner_step(refiner: Refiner, config: Experiment, device: torch.device) -> None:
    window, classes = config.refiner.window, len(config.data.classes)
    labels = torch.zeros(1, window, window, dtype=torch.long, device=device)
    planes = torch.full((1, classes, window, window), 1 / classes, device=device)
    image = torch.randn(1, len(config.data.bands), window, window, device=device)
    guide = refiner.prepare(image, labels if config.refiner.coarse_input == "ids" else planes)
    timestep = torch.zeros((), dtype=torch.long, device=device)
    refiner(refiner.encode_labels(labels), timestep, guide).square().mean().backward()


def _seconds(step: Callable[[], object]) -> float:
    """The shorter of two runs, after a first run that allocates memory.

    On CPUs this is CPU time, not wall-clock time, since other programs may be running.
    """
    step()
    times = []
    for _ in range(2):
        wall, busy = time.perf_counter(), time.process_time()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            times.append(time.perf_counter() - wall)
        else:
            times.append((time.process_time() - busy) / torch.get_num_threads())
    return min(times)
