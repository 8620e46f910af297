"""The train function: what every worker of a stage runs."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train.collective import broadcast_from_rank_zero
from torch import Tensor

from idgbr.datasets.augmentation import augment
from idgbr.distributed.fitting.stage import WEIGHTS_FILE, TrainLoop
from idgbr.distributed.fitting.validation import fixed_windows
from idgbr.distributed.session import quiet_ray_data
from idgbr.distributed.source import Columns, planned_batches
from idgbr.errors import UserError
from idgbr.evaluation.region import RegionScores
from idgbr.inference.planes import PROBABILITY_SCALE
from idgbr.training.optimisation import Optimisation
from idgbr.training.pace import Pace

STATE_FILE = "state.pt"
LOG_EVERY = 10
"""Steps between the points of the loss curve."""
PROGRESS_EVERY_S = 15.0
"""Seconds between progress lines."""


def train_worker(config: dict[str, TrainLoop]) -> None:
    """Train the stage of `config["loop"]` on this worker, from the newest sound checkpoint if any."""
    loop = config["loop"]
    torch.set_num_threads(loop.threads)
    quiet_ray_data()
    refusal = Path(loop.refusal_file)
    if refusal.exists():
        return  # this input is refused however often it is tried; the driver says why
    try:
        Worker(loop).run()
    except UserError as error:
        try:
            refusal.write_text(str(error))
        except OSError:  # the disk is full, or may not be written: it is tried again, and the error itself travels
            with contextlib.suppress(OSError):
                refusal.unlink()
        raise
    except Exception:
        # Retries are silent otherwise: a run that fails again and again must say at what.
        with contextlib.suppress(OSError), Path(loop.progress_file).open("a") as lines:
            lines.write(traceback.format_exc())
        raise


def to_tensors(columns: Columns, normalisation: Any, device: torch.device) -> dict[str, Tensor]:
    """Columns as read (own dtype) as the batch a task takes: image normalised, valid bool, label int64, coarse float.

    The coarse raster's planes stay in their order: class ids first (float, ids as they are), then probabilities 0..1.
    """
    valid = columns["valid"].astype(bool)
    batch = {
        "image": torch.from_numpy(normalisation.apply(columns["image"], valid)),
        "valid": torch.from_numpy(valid),
        "label": torch.from_numpy(columns["label"].astype(np.int64)),
    }
    if "coarse" in columns:
        coarse = columns["coarse"].astype(np.float32)
        coarse[:, 1:] /= PROBABILITY_SCALE
        batch["coarse"] = torch.from_numpy(coarse)
    for key in ("seed", "row", "col", "transform", "index"):
        if key in columns:
            batch[key] = torch.from_numpy(columns[key].astype(np.int64))
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


class Worker:
    """One rank of a stage's training."""

    def __init__(self, loop: TrainLoop) -> None:
        """Builds the task, and restores the newest sound checkpoint.

        Raises:
            UserError: the checkpoints cannot be opened or read.
        """
        self.spec = spec = loop.stage
        self.training, self.progress_file = spec.training, loop.progress_file
        self.checkpoints, self.preemption_every = loop.checkpoints.open(), loop.preemption_every
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        torch.manual_seed(spec.seed)
        self.task = spec.task()
        self.task.model.to(self.device)
        self.optimisation = Optimisation(self.task, self.training, self.device)
        self.step = 0
        self.done = False
        self.best: dict[str, Any] = {"miou": -1.0, "step": 0, "stale": 0}
        self.best_weights: dict[str, Any] | None = None
        self.history: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.points: list[tuple[int, dict[str, float]]] = []
        self.warned: frozenset[str] = frozenset()
        self.pace = Pace()
        self.rounds: list[dict[str, float]] = []
        self._restore()

    def run(self) -> None:
        """Train to the last step, or until patience ends."""
        started, reported, first = time.monotonic(), time.monotonic(), self.step
        if self.step and not self.done:
            self._report(f"resumes at step {self.step} of {self.training.steps}")
        steps = range(0) if self.done else range(self.step, self.training.steps)
        batches = self._batches(steps.start, steps.stop) if steps else iter(())
        self.pace.begin()
        for step, columns in zip(steps, batches, strict=True):
            self.pace.lap("windows")
            # Everything random follows from the plan's seeds and from this: a resumed run needs no generator state.
            torch.manual_seed((self.spec.seed * 1_000_003 + step) * 4096 + self.rank)
            pieces = self._pieces(columns)
            self.pace.lap("augmenting")
            loss, rate = self.optimisation.step(pieces, step)
            self.pace.lap("step")
            self.pace.steps += 1
            self.step = step + 1
            self.losses.append(loss)
            if self.step % LOG_EVERY == 0:
                self.points.append((self.step, {"loss": float(np.mean(self.losses[-LOG_EVERY:])), "lr": rate}))
            if time.monotonic() - reported > PROGRESS_EVERY_S:
                reported = time.monotonic()
                speed = (self.step - first) / (reported - started)
                left = (self.training.steps - self.step) / speed
                mean = float(np.mean(self.losses[-LOG_EVERY:]))
                self._report(
                    f"step {self.step}/{self.training.steps}  loss {mean:.4f}  rate {rate:.1e}  {speed:.2f} steps/s, "
                    f"{self.pace.share('windows'):.0%} of it waiting for windows  "
                    f"{int(left // 60)}:{int(left % 60):02d} left"
                )
            if self.step % self.training.validate_every == 0 or self.step == self.training.steps:
                self.rounds.append(self.pace.round())
                self._validate()
                self._save()
                if self.done:
                    break
                self.pace.begin()
            elif self._preempted():
                self._save()
            self.pace.lap("rest")

    def _batches(self, start: int, stop: int) -> Iterator[Columns]:
        return planned_batches(self.spec.windows, start, stop, self.rank, self.world)

    def _pieces(self, columns: Columns) -> list[dict[str, Tensor]]:
        batch = to_tensors(columns, self.spec.normalisation, self.device)
        batch = augment(batch, batch["transform"], batch["seed"], self.spec.augmentation)
        count = len(batch["label"])
        smallest = self.spec.windows.batch // self.world
        parts = min(self.training.accumulate, smallest)
        bounds = [count * i // parts for i in range(parts + 1)]
        return [{k: v[a:b] for k, v in batch.items()} for a, b in itertools.pairwise(bounds)]

    @torch.no_grad()
    def _validate(self) -> None:
        """Measure the averaged model on the fixed windows of the select split, shared among the ranks."""
        if self.world > 1:
            for buffer in self.task.model.buffers():
                dist.broadcast(buffer, 0)
        self.task.model.eval()
        with self.optimisation.average.applied(self.task.model):
            with self.optimisation.measuring():
                miou = self._measured()
            better = miou > self.best["miou"]
            if better:
                weights = self.optimisation.weights()
                if self.rank == 0:
                    # Off the GPU: it has better uses for its memory, and who reads them may have none.
                    self.best_weights = {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}
        stale = 0 if better else self.best["stale"] + 1
        self.best = {"miou": miou, "step": self.step, "stale": 0} if better else {**self.best, "stale": stale}
        recent = self.losses[-self.training.validate_every :]
        loss = float(np.mean(recent)) if recent else 0.0
        self.history.append({"step": float(self.step), "loss": loss, "miou": miou})
        self.points.append((self.step, {"select_miou": miou}))
        patience = self.training.patience
        self.done = self.step >= self.training.steps or (patience > 0 and stale >= patience)
        self._report(
            f"step {self.step}/{self.training.steps}  loss {loss:.4f}  mIoU on select {miou:.4f}"
            + (" (best)" if better else f" (best {self.best['miou']:.4f} at step {self.best['step']})")
        )

    def _measured(self) -> float:
        """mIoU over the windows of all ranks; 0 where no pixel of theirs counts."""
        confusion = torch.zeros(self.spec.classes, self.spec.classes, dtype=torch.int64, device=self.device)
        for columns in fixed_windows(
            self.spec.select, self.spec.windows.plan.window, self.training.validate_windows, self.rank, self.world
        ):
            batch = to_tensors(columns, self.spec.normalisation, self.device)
            confusion += self.task.measure(batch).to(confusion)
        if self.world > 1:
            dist.all_reduce(confusion)
        miou = float(RegionScores.from_confusion(confusion.cpu().numpy()).miou)
        return 0.0 if math.isnan(miou) else miou

    def _preempted(self) -> bool:
        """Whether a preemption of a machine of this run was newly announced; all ranks call it at the same steps."""
        if self.preemption_every == 0 or self.step % self.preemption_every:
            return False
        notice = ray.train.get_preemption_info()
        nodes = frozenset(notice.preempted_node_ids) if notice else frozenset()
        new = nodes - self.warned
        self.warned |= nodes
        if new:
            self._report(f"preemption of {len(new)} machine(s) announced, keeps step {self.step}")
        return bool(new)

    def _save(self) -> None:
        """Keep a checkpoint that holds everything; no rank goes on before it is on disk."""
        optimisation = self.optimisation.state_dict()  # of all ranks, which may hold a share each
        if self.rank == 0:
            self._log()
            self.losses = self.losses[-max(self.training.validate_every, LOG_EVERY) :]
            state = {
                "step": self.step,
                "done": self.done,
                "best": self.best,
                "history": self.history,
                "losses": self.losses,
                "optimisation": optimisation,
            }
            metrics = {"step": self.step, "miou": self.best["miou"], "best_step": self.best["step"], "done": self.done}
            metrics |= {"history": self.history, "rounds": self.rounds}
            self.checkpoints.save(self.step, {STATE_FILE: state, WEIGHTS_FILE: self.best_weights}, metrics)
        broadcast_from_rank_zero(self.step)

    def _restore(self) -> None:
        if self.rank == 0:
            for damage in self.checkpoints.drop_damaged():
                self._report(f"left out the damaged checkpoint {damage}")
        # One of them decides: each for itself, ranks might see a shared folder differently.
        newest = self.checkpoints.newest() if self.rank == 0 else None
        name = broadcast_from_rank_zero(newest.name if newest else None)
        if name is None:
            return
        found = self.checkpoints.at(name)
        state = torch.load(found / STATE_FILE, map_location=self.device, weights_only=True)
        if self.rank == 0:
            self.best_weights = torch.load(found / WEIGHTS_FILE, map_location="cpu", weights_only=True)
        self.step, self.done, self.best = state["step"], state["done"], state["best"]
        self.history, self.losses = state["history"], state["losses"]
        self.optimisation.load_state_dict(state["optimisation"])

    def _log(self) -> None:
        if self.spec.tracking is not None and self.points:
            from idgbr.registry.tracking import log_metrics  # seconds to import, and only one rank needs it

            run = self.spec.tracking
            for step, values in self.points:
                log_metrics(run.run_id, run.uri, step, values)
        self.points = []

    def _report(self, text: str) -> None:
        if self.rank == 0:  # on a full disk the checkpoint is what fails, not the line
            with contextlib.suppress(OSError), open(self.progress_file, "a", encoding="utf-8") as file:
                file.write(f"{self.spec.stage}: {text}\n")
