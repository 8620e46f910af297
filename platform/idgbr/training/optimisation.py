"""One optimiser step whose result does not depend on how many workers share the batch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from idgbr.config.training import StageTraining
from idgbr.errors import UserError
from idgbr.models.precision import autocast
from idgbr.training.task import Task


def learning_rate(step: int, training: StageTraining) -> float:
    """Rate of step `step` (from 0): linear warm-up, then constant or a half cosine down to zero at the last step."""
    if step < training.warmup:
        return training.lr * (step + 1) / training.warmup
    if training.schedule == "constant":
        return training.lr
    progress = (step - training.warmup) / max(1, training.steps - training.warmup)
    return training.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


class Average:
    """Exponential moving average of a model's trained parameters; buffers follow the model.

    The decay is lower in the first steps, min(decay, (1 + t) / (10 + t)), to remove the influence of the random initial
    weights. torch's AveragedModel is not used because it keeps a second complete model; diffusers' EMAModel is not used
    because its decay starts at another value.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad} if decay else {}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the model's current parameters."""
        if not self.values:
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        present = dict(model.named_parameters())
        names = list(self.values)
        torch._foreach_lerp_([self.values[n] for n in names], [present[n].detach() for n in names], 1.0 - decay)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Context in which the model has the averaged parameters; its own are restored afterwards."""
        present = dict(model.named_parameters())
        own = {name: present[name].detach().clone() for name in self.values}
        try:
            with torch.no_grad():
                for name, value in self.values.items():
                    present[name].copy_(value)
            yield
        finally:
            with torch.no_grad():
                for name, value in own.items():
                    present[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(state["values"][name])
        self.updates = state["updates"]


class TaskModule(nn.Module):
    """A task as a module for DDP or FSDP; its parameters are those of the task's model."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._task = [task]  # in a list, so that it is not registered as a submodule

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self._task[0].forward(batch)


def build_optimiser(
    parameters: Sequence[nn.Parameter], training: StageTraining, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW with moments in single precision or in 8 bits.

    Raises:
        UserError: 8-bit AdamW is configured without a GPU, or bitsandbytes is not installed.
    """
    if training.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=training.lr, weight_decay=training.weight_decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise UserError(
            "optimiser: found adamw8bit, but the package bitsandbytes is not installed; install it on the workers, or "
            "use adamw"
        ) from None
    if device.type != "cuda":
        raise UserError("optimiser: found adamw8bit with resources.gpus_per_worker 0; it needs a GPU, use adamw")
    optimiser: torch.optim.Optimizer = AdamW8bit(parameters, lr=training.lr, weight_decay=training.weight_decay)
    return optimiser


class Optimisation:
    """AdamW with warm-up, clipping, mixed precision, accumulation and averaging, over one or many workers.

    The loss of a step is the weighted mean over all valid pixels of the *global* batch: each rank computes sums, the
    sums are added over the ranks, and the reduced gradients are divided by the global weight. A rank without valid
    pixels therefore contributes nothing, and a step does not depend on the number of workers or micro-batches.
    """

    def __init__(self, task: Task, training: StageTraining, device: torch.device) -> None:
        self.task, self.training, self.device = task, training, device
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        if training.channels_last:
            task.model.to(memory_format=torch.channels_last)
        if training.compile:
            task.model.compile()
        module: nn.Module = TaskModule(task)
        self.sharded = self.world > 1 and training.parallel == "fsdp"
        if self.sharded:
            from idgbr.training import sharding  # imported only if used, here and below: the import takes seconds

            sharding.shard(module, self.world, device)
        elif self.world > 1:
            module = DistributedDataParallel(
                module,
                device_ids=[device.index] if device.type == "cuda" else None,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,  # avoids a second copy of the gradients
            )
        self.module = module
        self.parameters = [p for p in task.model.parameters() if p.requires_grad]
        self.optimiser = build_optimiser(self.parameters, training, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "fp16")
        self.average = Average(task.model, training.ema)

    def step(self, pieces: Sequence[dict[str, Tensor]], step: int) -> tuple[float, float]:
        """One step on this rank's micro-batches.

        Returns:
            The global mean loss (0 if the global batch has no valid pixel) and the learning rate.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        rate = learning_rate(step, self.training)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.task.step = step
        self.task.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        # A constant known to all ranks scales the gradients to the range of half precision; it is divided out below.
        nominal = float(self.training.batch * pieces[0]["label"][0].numel())
        for i, piece in enumerate(pieces):
            with self._reducing(last=i == len(pieces) - 1):
                with self.autocast():
                    loss_sum, weight = self.module(piece)
                self.scaler.scale(loss_sum.float() / nominal).backward()
            totals += torch.stack([loss_sum.detach().double(), weight.detach().double()]).to(totals)
        if self.world > 1:
            dist.all_reduce(totals)
        loss_total, weight_total = (float(v) for v in totals)
        if weight_total <= 0:
            return 0.0, rate
        if not math.isfinite(loss_total):
            raise FloatingPointError(f"the loss is {loss_total} at step {step}: lower the rate, or use bf16 or fp32")
        # DDP reduces gradients to the mean over the ranks, FSDP to their sum.
        self._apply(nominal * (1 if self.sharded else self.world) / weight_total)
        return loss_total / weight_total, rate

    def _apply(self, factor: float) -> None:
        self.scaler.unscale_(self.optimiser)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, factor)
        nn.utils.clip_grad_norm_(self.parameters, self.training.clip, foreach=True)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update(self.task.model)

    def autocast(self) -> torch.autocast:
        """The autocast context of the stage's precision."""
        return autocast(self.training.precision, self.device)

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Context for measurements: the stage's precision, and a complete model on every rank, used independently."""
        with contextlib.ExitStack() as stack:
            if self.sharded:
                from idgbr.training import sharding

                stack.enter_context(sharding.together(self.module))
            stack.enter_context(self.autocast())
            yield

    def weights(self) -> dict[str, Tensor]:
        """The weights to save. A collective operation: all ranks must call it."""
        return self._whole(self.task.weights())

    def state_dict(self) -> dict[str, Any]:
        """Complete training state including the task's weights. A collective operation: all ranks must call it."""
        return self._whole(
            {
                "task": self.task.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "average": self.average.state_dict(),
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.sharded:
            from idgbr.training import sharding

            state = {
                "task": sharding.split_weights(state["task"], self.task.model.state_dict()),
                "optimiser": sharding.split_moments(state["optimiser"], self.parameters),
                "scaler": state["scaler"],
                "average": {
                    **state["average"],
                    "values": sharding.split_weights(state["average"]["values"], self.average.values),
                },
            }
        self.task.load_state_dict(state["task"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.average.load_state_dict(state["average"])

    def _whole(self, state: dict[str, Any]) -> dict[str, Any]:
        if not self.sharded:
            return state
        from idgbr.training import sharding

        return cast(dict[str, Any], sharding.whole(state))

    def _reducing(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        if isinstance(self.module, DistributedDataParallel) and not last:
            return self.module.no_sync()
        if self.sharded:
            cast(Any, self.module).set_requires_gradient_sync(last)
        return contextlib.nullcontext()
