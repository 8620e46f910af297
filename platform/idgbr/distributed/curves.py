"""The learning curve of a stage as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure


def learning_curve(stage: str, history: Sequence[dict[str, Any]]) -> Figure:
    """Loss and mIoU on the select split over steps.

    Args:
        stage: title.
        history: measurements as `StageResult.history` holds them.
    """
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    steps = [point["step"] for point in history]
    axes.plot(steps, [point["loss"] for point in history], "o-", color="tab:blue", label="loss")
    axes.set(title=stage, xlabel="step", ylabel="training loss")
    right = axes.twinx()
    right.plot(steps, [point["miou"] for point in history], "s-", color="tab:orange", label="mIoU")
    right.set_ylabel("mIoU on select")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
