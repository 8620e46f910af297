"""Trains the label embedding on random label maps, before stage 2; takes seconds on a CPU.

Method: arXiv 2507.01573. Gaussian noise of standard deviation 0.15 on the planes, together with cross-entropy,
separates the embeddings of the classes and trains the decoder to choose the nearest one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from idgbr.errors import UserError
from idgbr.models.label_embedding import LearnedEmbedding

TRAINING_NOISE = 0.15
"""Standard deviation of the noise in the training of the decoder."""
MEASURED_NOISE = (0.0, 0.05, 0.15, 0.3)
"""Standard deviations of the noise for which accuracies are reported; planes have values in -1..1."""
_RATE = 1e-2


@dataclass(frozen=True)
class DecodeAccuracy:
    """Accuracy of decoding planes with noise.

    Attributes:
        noise: Standard deviations of the noise.
        overall: Share of pixels decoded to their class, per standard deviation, in 0..1.
        worst: The class with the lowest accuracy without noise, and its accuracy.
    """

    noise: tuple[float, ...]
    overall: tuple[float, ...]
    worst: tuple[int, float]

    def outputs(self) -> dict[str, float]:
        """Accuracies by standard deviation of the noise."""
        return {f"accuracy at noise {n:g}": round(a, 4) for n, a in zip(self.noise, self.overall, strict=True)}


def train_label_embedding(classes: int, seed: int = 0) -> LearnedEmbedding:
    """Train a label embedding.

    Args:
        classes: Number of classes K.
        seed: Seed of the initial weights, the label maps and the noise.

    Raises:
        UserError: The trained embedding cannot be decoded: there are too many classes for three planes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embedding = LearnedEmbedding(classes)
    # Initial embeddings are far apart: the points of a three-dimensional Sobol sequence fill the cube evenly.
    points = torch.quasirandom.SobolEngine(3, scramble=True, seed=seed).draw(classes).clamp(0.02, 0.98)
    with torch.no_grad():
        embedding.table.weight.copy_(torch.logit(points))
    steps, side = 300 + 4 * classes, math.isqrt(1024 + 8 * classes)  # more classes lie closer and need more steps
    optimiser = torch.optim.Adam(embedding.parameters(), lr=_RATE)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.enable_grad():
        for _ in range(steps):
            ids = torch.randint(0, classes, (1, side, side), generator=generator)
            planes = embedding.encode(ids)
            noisy = planes + TRAINING_NOISE * torch.randn(planes.shape, generator=generator)
            loss = functional.cross_entropy(embedding.decode(noisy), ids)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
    embedding.requires_grad_(False).eval()
    check_decodable(embedding, "the label embedding just trained")
    return embedding


@torch.no_grad()
def decode_accuracy(embedding: LearnedEmbedding, noise: tuple[float, ...] = MEASURED_NOISE) -> DecodeAccuracy:
    """Accuracies over 4096 pixels of every class, with noise of a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(embedding.classes).repeat_interleave(64).view(1, -1, 1).expand(-1, -1, 64)
    planes = embedding.encode(ids)
    shares: list[float] = []
    worst: tuple[int, float] | None = None
    for deviation in noise:
        hit = _decoded(embedding, planes + deviation * torch.randn(planes.shape, generator=generator)) == ids
        shares.append(float(hit.float().mean()))
        if worst is None:
            of_class = hit.reshape(embedding.classes, -1).float().mean(1)
            worst = int(of_class.argmin()), float(of_class.min())
    assert worst is not None
    return DecodeAccuracy(noise, tuple(shares), worst)


def check_decodable(embedding: LearnedEmbedding, source: str) -> DecodeAccuracy:
    """Measure the accuracies of an embedding, and refuse an embedding that cannot be used.

    Raises:
        UserError: A class is not decoded to itself even without noise, or noise of 0.05 changes 1 in 20 pixels.
    """
    accuracy = decode_accuracy(embedding)
    if accuracy.worst[1] < 1:
        raise UserError(
            f"{source}: class {accuracy.worst[0]} is decoded to another class even without noise, so that maps could "
            f"never hold it. Train another one: jobs/embedding.py --classes {embedding.classes}"
        )
    low = accuracy.overall[accuracy.noise.index(0.05)]
    if low < 0.95:
        raise UserError(
            f"{source}: only {low:.0%} of pixels survive noise of 0.05; expected 95 %. {embedding.classes} classes lie "
            "too close in three planes: train it again with another --seed, or merge classes"
        )
    return accuracy


def _decoded(embedding: LearnedEmbedding, planes: Tensor) -> Tensor:
    return embedding.decode(planes).argmax(1)
