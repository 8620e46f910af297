"""On a GPU: the map is the processor's, savings stay exact, and every arithmetic trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from idgbr.config.data import ClassSpec, DataConfig, SyntheticSource
from idgbr.config.models import RefinerConfig, SamplerConfig
from idgbr.config.training import RefinerTraining
from idgbr.config.tree import Experiment
from idgbr.datasets.normalisation import IMAGENET
from idgbr.inference.predictor import Predictor
from idgbr.models.noise import ground_noise
from idgbr.training.optimisation import Optimisation
from idgbr.training.refiner import RefinerTask

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
SIDE, CLASSES, BATCH = 32, 3, 4


def test_noise_is_that_of_a_processor() -> None:
    origins = torch.tensor([[0, 0], [123_456, 7]])
    here, there = (ground_noise(2**40 + 3, 5, origins.to(device), 3, 64, 64).cpu() for device in ("cpu", "cuda"))
    torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("precision", "close", "same"), [("fp32", 1e-3, 0.999), ("bf16", 0.06, 0.95), ("fp16", 0.02, 0.98)]
)
def test_a_map_is_that_of_a_processor(toy_model: Path, precision: str, close: float, same: float) -> None:
    random = np.random.default_rng(0)
    images, valid = random.integers(0, 255, (2, 3, 64, 64), dtype=np.uint8), np.ones((2, 64, 64), bool)
    origins = np.array([[0, 0], [7, 1000]])
    processor = Predictor(toy_model, precision="fp32")
    coarse = processor.coarse(images, valid)
    expected = processor.refine(images, valid, coarse, origins).probabilities
    gpu = Predictor(toy_model, device="cuda", precision=precision)  # type: ignore[arg-type]
    np.testing.assert_allclose(gpu.coarse(images, valid), coarse, atol=close)
    found = gpu.refine(images, valid, coarse, origins).probabilities
    np.testing.assert_allclose(found, expected, atol=close)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= same


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "fp32"},
        {"precision": "bf16", "channels_last": True},
        {"precision": "fp16"},
        {"precision": "bf16", "compile": True},
        {"precision": "bf16", "gradient_checkpointing": True, "accumulate": 2},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
def test_every_arithmetic_learns(settings: dict[str, object]) -> None:
    training = RefinerTraining(steps=30, lr=3e-3, warmup=2, ema=0.9, **settings)  # type: ignore[arg-type]
    config = Experiment(
        data=DataConfig(
            name="toy", source=SyntheticSource(folder="unused"),
            classes=[ClassSpec(name=f"class {i}", colour=f"#{i}{i}4080") for i in range(CLASSES)],
        ),
        refiner=RefinerConfig(
            channels=[16, 32], attention_head_dim=8, guidance_width=8, guidance_heads=1, image_encoder="", window=SIDE
        ),
        training={"refiner": training},
        sampler=SamplerConfig(steps=1, samples=1, dihedral=False),
    )  # fmt: skip
    torch.manual_seed(0)
    device = torch.device("cuda")
    task = RefinerTask(config, 3, IMAGENET)
    task.model.to(device)
    optimisation = Optimisation(task, training, device)
    random = torch.Generator().manual_seed(0)
    label = torch.randint(0, CLASSES, (BATCH, 4, 4), generator=random).repeat_interleave(8, 1).repeat_interleave(8, 2)
    image = torch.nn.functional.one_hot(label, CLASSES).permute(0, 3, 1, 2).float()
    place = torch.arange(BATCH)
    batch = {"image": image, "label": label, "coarse": torch.cat([label[:, None].float(), image.roll(2, -1)], 1)}
    batch |= {"valid": torch.ones_like(label, dtype=torch.bool), "seed": place, "row": place, "col": place}
    batch = {key: value.to(device) for key, value in batch.items()}
    halves = [{key: value[half] for key, value in batch.items()} for half in (slice(0, 2), slice(2, 4))]
    losses = [optimisation.step(halves if training.accumulate == 2 else [batch], step)[0] for step in range(30)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    with torch.no_grad(), optimisation.average.applied(task.model), optimisation.measuring():
        confusion = task.measure(batch)
    assert int(confusion.sum()) > 0
