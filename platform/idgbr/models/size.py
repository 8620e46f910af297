"""Size of a refiner: parameters and buffers by part."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from idgbr.models.refiner import Refiner


@dataclass(frozen=True)
class PartSize:
    """Number of parameters of one part, and how many of them are trained."""

    name: str
    total: int
    trained: int


def parameters_by_part(refiner: Refiner) -> list[PartSize]:
    """Denoiser, guidance net, condition encoder, latent codec and label embedding; works on the meta device."""
    modules: dict[str, object] = {
        "denoiser": refiner.denoiser,
        "guidance net": refiner.guidance,
        "condition encoder": refiner.encoder,
        "latent codec": refiner.codec,
        "label embedding": refiner.embedding,
    }
    return [_size(name, module) for name, module in modules.items() if isinstance(module, nn.Module)]


def _size(name: str, module: nn.Module) -> PartSize:
    counts = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return PartSize(name, sum(n for n, _ in counts), sum(n for n, trained in counts if trained))
