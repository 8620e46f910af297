"""Sharding of a model among the training workers (FSDP): weights, gradients, optimiser moments and weight average.

The blocks that have nearly all parameters at the paper's scale are gathered one at a time, while they compute; the rest
of the model stays gathered during a whole step. Checkpoints contain unsharded tensors, so that any number of workers
can resume from them, with or without sharding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

BLOCKS = (ResnetBlock2D, Transformer2DModel)


def shard(module: nn.Module, world: int, device: torch.device) -> None:
    """Shard a module's parameters among all workers, in place; gradients become the sum over the workers.

    Args:
        module: The module that training calls; it has equal parameters on every worker.
        world: Number of workers.
        device: Device of this worker.
    """
    mesh = init_device_mesh(device.type, (world,))
    for block in [child for child in module.modules() if isinstance(child, BLOCKS)]:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for part in _parts(module):
        # gloo can sum but not average; use the sum with every backend.
        part.set_force_sum_reduction_for_comms(True)
        part.set_gradient_divide_factor(1.0)


@contextlib.contextmanager
def together(module: nn.Module) -> Iterator[None]:
    """Context in which every worker has the complete model and can use it independently of the others."""
    parts = list(_parts(module))  # the outermost first
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not parts[0], recurse=False)
            part.reshard()


def whole(state: Any) -> Any:
    """Gather the sharded tensors of a state on the CPU; the rest is unchanged. Collective: all workers must call it."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole(value) for value in state)
    return state


def split_weights(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shard complete tensors, which every worker has, like the tensors of the same names in `like`."""
    return {name: _split(value, like[name]) if name in like else value for name, value in state.items()}


def split_moments(state: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> dict[str, Any]:
    """Shard the moments in a complete optimiser state like their parameters."""
    moments = {
        index: {
            name: _split(value, parameters[index])
            if isinstance(value, Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": moments}


def _split(value: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _parts(module: nn.Module) -> Iterator[FSDPModule]:
    return (child for child in module.modules() if isinstance(child, FSDPModule))
