"""Converts label maps to continuous planes and back.

Method: the label embedding of IDGBR (arXiv 2507.01573); at the small scale a one-hot embedding takes its place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from idgbr import IGNORE
from idgbr.errors import UserError
from idgbr.files import atomic_path


class LabelEmbedding(nn.Module, ABC):
    """Class ids or class probabilities to planes in [-1, 1], and noisy planes back to class logits.

    Attributes:
        classes: Number of classes K.
        channels: Number of planes C.
    """

    classes: int
    channels: int

    @abstractmethod
    def rows(self) -> Tensor:
        """The embedding of every class, (K, C), in [-1, 1]."""

    @abstractmethod
    def decode(self, planes: Tensor) -> Tensor:
        """Planes (N, C, H, W) to class logits (N, K, H, W)."""

    def encode(self, ids: Tensor) -> Tensor:
        """Class ids (N, H, W) to planes (N, C, H, W); ignored pixels become the mean of all classes."""
        rows = self.rows()
        table = torch.cat([rows, rows.mean(0, keepdim=True)])
        ids = ids.long()
        ids = torch.where(ids == IGNORE, torch.full_like(ids, self.classes), ids)
        return table[ids].movedim(-1, -3)

    def encode_probabilities(self, probabilities: Tensor) -> Tensor:
        """Class probabilities (N, K, H, W) to the expected planes (N, C, H, W)."""
        return torch.einsum("nkhw,kc->nchw", probabilities, self.rows().to(probabilities.dtype))


class OneHotEmbedding(LabelEmbedding):
    """One plane per class, +1 in the class and -1 elsewhere. Nothing to train; decoding is the plane itself."""

    _sharpness = 4.0  # logits of a clean pixel differ by 8: the argmax is what matters, the scale only has to be finite

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = self.channels = classes
        self.register_buffer("identity", torch.eye(classes), persistent=False)

    identity: Tensor

    def rows(self) -> Tensor:
        return 2 * self.identity - 1

    def decode(self, planes: Tensor) -> Tensor:
        return self._sharpness * planes


class LearnedEmbedding(LabelEmbedding):
    """The released embedding: a table K x 3 through a sigmoid, decoded by two 1x1 convolutions.

    Args:
        classes: Number of classes K.
        channels: Number of planes C; 3 for an image autoencoder.
    """

    def __init__(self, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.classes, self.channels = classes, channels
        self.table = nn.Embedding(classes, channels)
        self.decoder = nn.Sequential(nn.Conv2d(channels, 128, 1), nn.ReLU(), nn.Conv2d(128, classes, 1))

    def rows(self) -> Tensor:
        return self.table.weight.sigmoid() * 2 - 1

    def decode(self, planes: Tensor) -> Tensor:
        return self.decoder(planes)


def save_label_embedding(embedding: LearnedEmbedding, file: str | Path) -> Path:
    """Write a label embedding as a safetensors file, atomically.

    Returns:
        The file.

    Raises:
        UserError: The name does not end in .safetensors.
    """
    path = Path(file)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: a label embedding is written as safetensors; name the file NAME.safetensors")
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous() for name, value in embedding.state_dict().items()}, temporary)
    return path
