"""Cost of a refiner, counted on the meta device: needs no weights, no memory and no GPU.

FLOP: a multiply-add counts as two. Memory: the size of the tensors that autograd saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from idgbr.config.models import RefinerConfig, SamplerConfig
from idgbr.config.training import RefinerTraining
from idgbr.models.refiner import Refiner
from idgbr.models.size import PartSize, parameters_by_part

_ATTENTION_SIDE = 256


@dataclass(frozen=True)
class RefinerCost:
    """Cost of training and of inference with a refiner.

    Attributes:
        parts: Number of parameters by part.
        step_flop: FLOP of one training step on one window, forward and backward, without recomputation.
        recomputed_flop: Additional FLOP with gradient checkpointing.
        tile_flop: FLOP to refine one window with all samples: codec, conditions, steps.
        activations: Bytes that autograd saves for one window in single precision.
        checkpointed: The same with gradient checkpointing.
    """

    parts: list[PartSize]
    step_flop: int
    recomputed_flop: int
    tile_flop: int
    activations: int
    checkpointed: int

    def training_bytes(self, batch: int, training: RefinerTraining, half: bool, checkpointing: bool) -> int:
        """Memory in bytes of a worker that trains on micro-batches of `batch` windows.

        Weights are stored in single precision; half precision adds a copy of them and halves activations. Gradients are
        as large as the weights; AdamW's moments are twice as large, or half as large with 8 bits. The memory of the
        device's libraries and of the allocator is not included.
        """
        total = sum(part.total for part in self.parts)
        trained = sum(part.trained for part in self.parts)
        moments = 2 * trained * (1 if training.optimiser == "adamw8bit" else 4)
        average = 4 * trained if training.ema else 0
        activations = batch * (self.checkpointed if checkpointing else self.activations)
        weights = 4 * total + (2 * total if half else 0)
        return weights + 4 * trained + moments + average + (activations // 2 if half else activations)


def refiner_cost(settings: RefinerConfig, classes: int, bands: int, sampler: SamplerConfig) -> RefinerCost:
    """Counts one window of the training size."""
    with torch.device("meta"):
        refiner = Refiner(classes, bands, settings.model_dump(), pretrained=False)
        image = torch.zeros(1, bands, settings.window, settings.window)
        labels = torch.zeros(1, settings.window, settings.window, dtype=torch.long)
        coarse = labels if settings.coarse_input == "ids" else torch.zeros(1, classes, *labels.shape[1:])
        timestep = torch.zeros((), dtype=torch.long)
        with torch.no_grad():
            clean = refiner.encode_labels(labels)
            encode = _flop(lambda: refiner.encode_labels(labels))
            prepare = _flop(lambda: refiner.prepare(image, coarse))
            decode = _flop(lambda: refiner.codec.decode(clean))
            guide = refiner.prepare(image, coarse)
            plain = _flop(lambda: refiner(clean, timestep, guide))
            guided = _flop(lambda: refiner(clean, timestep, guide, guidance=2.0))
            unet = _flop(lambda: refiner(clean, timestep, guide, guidance=0.0))
        saved = _Saved()

        def step() -> None:
            with saved.counting(refiner):
                output = refiner(clean, timestep, refiner.prepare(image, coarse))
            output.square().mean().backward()

        forward_backward = _flop(step)
    evaluations = sampler.steps if settings.objective == "diffusion" else 1
    first, last = sampler.guidance_interval
    shares = [index / evaluations for index in range(evaluations)]
    with_guidance = sum(first <= share and (share < last or last == 1) for share in shares)
    scaled = {1.0: plain, 0.0: unet}.get(sampler.guidance, guided)
    loop = with_guidance * scaled + (evaluations - with_guidance) * plain
    preparations = sampler.samples if sampler.dihedral else 1
    once_more = plain if settings.self_conditioning else 0  # self-conditioning runs a first pass
    return RefinerCost(
        parts=parameters_by_part(refiner),
        step_flop=encode + forward_backward + once_more,
        recomputed_flop=unet,
        tile_flop=preparations * prepare + sampler.samples * (loop + decode),
        activations=saved.total,
        checkpointed=saved.checkpointed(),
    )


def _flop(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


class _Saved:
    """Bytes that autograd saves: in total, and inside the modules that diffusers' gradient checkpointing recomputes."""

    def __init__(self) -> None:
        self.total = 0
        self.inside: list[int] = []
        self.inputs: list[int] = []
        self._seen: set[int] = set()
        self._kept: list[Tensor] = []  # an id is unique only while its tensor exists

    @contextmanager
    def counting(self, model: nn.Module) -> Iterator[None]:
        """Counts what is saved in the body."""
        weights = {id(p) for p in model.parameters()}
        began: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            # Fused attention kernels recompute the attention weights; only the kernel of the meta device saves them.
            attention = tensor.ndim >= 3 and tensor.shape[-1] == tensor.shape[-2] >= _ATTENTION_SIDE
            if id(tensor) not in weights and id(tensor) not in self._seen and not attention:
                self._seen.add(id(tensor))
                self._kept.append(tensor)
                self.total += tensor.numel() * tensor.element_size()
            return tensor

        def enter(module: nn.Module, args: Any) -> None:
            began.append(self.total)

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            self.inside.append(self.total - began.pop())
            self.inputs.append(args[0].numel() * args[0].element_size())

        handles = []
        for module in model.modules():
            if isinstance(module, ResnetBlock2D | BasicTransformerBlock) and any(
                p.requires_grad for p in module.parameters()
            ):
                handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
        for handle in handles:
            handle.remove()

    def checkpointed(self) -> int:
        """Bytes with checkpointing: the inputs of the modules, and the activations of one module at a time."""
        return self.total - sum(self.inside) + sum(self.inputs) + max(self.inside, default=0)
