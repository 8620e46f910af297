"""A training loop without the platform: plain PyTorch in one process, over batches that lie in memory, ready."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from idgbr.datasets.augmentation import augment
from idgbr.distributed.fitting.stage import StageSpec
from idgbr.distributed.fitting.worker import to_tensors
from idgbr.distributed.source import rank_slice
from idgbr.models.precision import autocast
from idgbr.training.optimisation import Average

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Bare:
    """Seconds of a step, the best round's.

    Attributes:
        wall: Of the wall clock.
        processor: Of the processor, all threads of the process.
        reading: Processor seconds of reading a step's windows, which the loop does not do.
        augmenting: Likewise of normalising and augmenting them.
    """

    wall: float
    processor: float
    reading: float
    augmenting: float


def bare_loop(spec: StageSpec, steps: int, rounds: int, part: tuple[int, int]) -> Bare:
    """Takes the first steps of a stage's plan, over and over.

    Args:
        spec: The stage.
        steps: Steps of a round.
        rounds: Rounds, of which the quickest counts; one more goes before them.
        part: Rank and world whose share of each batch is computed.
    """
    torch.set_num_threads(1)
    torch.manual_seed(spec.seed)
    first, stop = rank_slice(spec.windows.batch, *part)
    began = time.process_time()
    columns = [
        spec.windows.read(spec.windows.plan.draws(step * spec.windows.batch + first, stop - first))
        for step in range(steps)
    ]
    read = time.process_time()
    batches = [to_tensors(one, spec.normalisation, CPU) for one in columns]
    batches = [augment(batch, batch["transform"], batch["seed"], spec.augmentation) for batch in batches]
    augmented = time.process_time()
    loop = _Loop(spec)
    rounds_s = [loop.round(batches) for _ in range(rounds + 1)][1:]
    return Bare(
        min(wall for wall, _ in rounds_s) / steps,
        min(processor for _, processor in rounds_s) / steps,
        (read - began) / steps,
        (augmented - read) / steps,
    )


class _Loop:
    def __init__(self, spec: StageSpec) -> None:
        self.training = spec.training
        self.task = spec.task()
        self.parameters = [p for p in self.task.model.parameters() if p.requires_grad]
        learning_rate, decay = spec.training.lr, spec.training.weight_decay
        self.optimiser = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=decay)
        self.average = Average(self.task.model, spec.training.ema)
        self.task.model.train()

    def round(self, batches: list[dict[str, Tensor]]) -> tuple[float, float]:
        """Wall-clock and processor seconds."""
        began, processor = time.perf_counter(), time.process_time()
        for step, batch in enumerate(batches):
            self.task.step = step
            self.optimiser.zero_grad(set_to_none=True)
            with autocast(self.training.precision, CPU):
                loss, weight = self.task.forward(batch)
            (loss.float() / weight).backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, self.training.clip)
            self.optimiser.step()
            self.average.update(self.task.model)
        return time.perf_counter() - began, time.process_time() - processor
