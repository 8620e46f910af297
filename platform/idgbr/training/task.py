"""The interface between a training stage and its task, the same for both stages."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

Batch = dict[str, Tensor]
"""image (N, B, S, S) float, normalised and augmented; valid (N, S, S) bool; label (N, S, S) int64, IGNORE where there
is none; coarse (N, 1 + K, S, S) float: class ids, then probabilities; seed, row, col (N,) int64."""


class Task(Protocol):
    """A model and its loss.

    Attributes:
        model: What is trained.
        step: Index of the current optimiser step, from 0; set before `forward`.
    """

    step: int

    @property
    def model(self) -> nn.Module: ...

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss summed over the valid pixels, and their total weight."""

    def measure(self, batch: Batch) -> Tensor:
        """Confusion counts (K, K), truth by prediction, over the pixels that the task chooses for validation."""

    def state_dict(self) -> dict[str, Any]:
        """The model's weights, including parts that only training needs."""

    def weights(self) -> dict[str, Tensor]:
        """The weights to keep when training is done, by name."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the model's weights."""


def confusion_counts(predicted: Tensor, label: Tensor, classes: int) -> Tensor:
    """Counts (K, K), truth by prediction, over the pixels whose label is a class."""
    keep = label < classes
    return (label[keep] * classes + predicted[keep]).bincount(minlength=classes**2).reshape(classes, classes)


def load_matching(model: nn.Module, state: dict[str, Tensor], source: str) -> list[str]:
    """Initialise a model with the weights of another: tensors of equal name and shape are copied, others unchanged.

    Returns:
        Names of the tensors that were not copied.

    Raises:
        UserError: no tensor fits.
    """
    from idgbr.errors import UserError

    own = model.state_dict()
    fitting = {n: v for n, v in state.items() if n in own and own[n].shape == v.shape}
    if not fitting:
        raise UserError(f"{source}: none of its tensors fits the model to be trained. Is it a model of the same kind?")
    model.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))
