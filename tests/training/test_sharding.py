"""A model split between two processes learns what one process learns, and each resumes the other's checkpoint."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from pydantic import ValidationError
from torch import Tensor
from torch.distributed.tensor import DTensor

from idgbr.config.data import ClassSpec, DataConfig, SyntheticSource
from idgbr.config.models import RefinerConfig, SamplerConfig
from idgbr.config.training import RefinerTraining
from idgbr.config.tree import Experiment
from idgbr.datasets.normalisation import IMAGENET
from idgbr.training.optimisation import Optimisation
from idgbr.training.refiner import RefinerTask
from idgbr.training.sharding import BLOCKS

SIDE, BATCH, CPU = 32, 4, torch.device("cpu")
# fp32, since bf16, which `auto` is on processors that have it, rounds more than the tolerance here.
TRAINING = RefinerTraining(steps=8, lr=1e-3, warmup=2, ema=0.9, parallel="fsdp", accumulate=2, precision="fp32")


def optimisation() -> Optimisation:
    torch.manual_seed(0)
    config = Experiment(
        data=DataConfig(
            name="toy", source=SyntheticSource(folder="unused"),
            classes=[ClassSpec(name=f"class {i}", colour=f"#{i}{i}4080") for i in range(3)],
        ),
        refiner=RefinerConfig(
            channels=[16, 32], attention_head_dim=8, guidance_width=8, guidance_heads=1, image_encoder="", window=SIDE,
            correction=True,
        ),
        sampler=SamplerConfig(steps=1, samples=1, dihedral=False),
    )  # fmt: skip
    return Optimisation(RefinerTask(config, 3, IMAGENET), TRAINING, CPU)


def batch(step: int, ranks: slice) -> dict[str, Tensor]:
    """Some of the windows of a step; the first of each step has no label."""
    random = torch.Generator().manual_seed(step)
    label = torch.randint(0, 3, (BATCH, 4, 4), generator=random).repeat_interleave(8, 1).repeat_interleave(8, 2)
    image = torch.nn.functional.one_hot(label, 3).permute(0, 3, 1, 2).float()
    coarse = torch.cat([label[:, None].float(), image.roll(2, -1)], 1)
    label[0] = 255
    place = torch.arange(BATCH)
    whole = {"image": image, "valid": label != 255, "label": label, "coarse": coarse}
    whole |= {"seed": place + 100 * step, "row": place, "col": place}
    return {key: value[ranks] for key, value in whole.items()}


def train(optimisation: Optimisation, steps: range, rank: int, world: int) -> list[float]:
    share = BATCH // world
    pieces = [slice(at, at + share // 2) for at in (rank * share, rank * share + share // 2)]
    return [optimisation.step([batch(step, piece) for piece in pieces], step)[0] for step in steps]


def one_of_two(rank: int, folder: str) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    split = optimisation()
    weights = [
        p for block in split.task.model.denoiser.modules() if isinstance(block, BLOCKS) for p in block.parameters()
    ]
    assert weights and all(isinstance(p, DTensor) for p in weights)
    assert sum(p.to_local().numel() for p in weights) <= 0.6 * sum(p.numel() for p in weights)  # type: ignore[attr-defined]
    losses = train(split, range(4), rank, 2)
    state = split.state_dict()
    split.task.model.eval()
    with split.average.applied(split.task.model), split.measuring():
        if rank == 0:  # alone: the other one does not take part
            counts = split.task.measure(batch(0, slice(0, BATCH)))
    found = split.weights()
    if rank == 0:
        torch.save({"losses": losses, "state": state, "counts": counts, "weights": found}, f"{folder}/split")
    split.load_state_dict(torch.load(f"{folder}/plain", weights_only=True))
    later = train(split, range(4, 6), rank, 2)
    if rank == 0:
        torch.save(later, f"{folder}/later")
    dist.destroy_process_group()


def test_split_and_whole_learn_alike_and_resume_each_other(tmp_path: Path) -> None:
    plain = optimisation()
    losses = train(plain, range(4), 0, 1)
    torch.save(plain.state_dict(), tmp_path / "plain")
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    split = torch.load(tmp_path / "split", weights_only=True)
    np.testing.assert_allclose(split["losses"], losses, rtol=1e-4)
    own = plain.task.model.state_dict()
    assert set(split["weights"]) == set(own)
    for name, value in own.items():
        torch.testing.assert_close(split["weights"][name], value, atol=1e-4, rtol=1e-3)
    assert int(split["counts"].sum()) > 0
    # A checkpoint is whole: one process goes on where two were, and the other way round.
    after = train(plain, range(4, 6), 0, 1)
    alone = optimisation()
    alone.load_state_dict(split["state"])
    assert train(alone, range(4, 6), 0, 1) == pytest.approx(after, rel=1e-4)
    assert torch.load(tmp_path / "later", weights_only=True) == pytest.approx(after, rel=1e-4)


def test_what_cannot_be_split_is_refused() -> None:
    for other in ({"channels_last": True}, {"optimiser": "adamw8bit"}):
        with pytest.raises(ValidationError, match="parallel: found fsdp with"):
            RefinerTraining.model_validate({"parallel": "fsdp", **other})
