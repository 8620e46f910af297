"""Figures logged with a run: learning curves and sample predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from idgbr.evaluation.figures import paint
from idgbr.evaluation.windows import WindowSample


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


def sample_predictions(samples: Sequence[WindowSample], colours: Sequence[str]) -> Figure:
    """Image, truth, coarse and refined map of each window, a row each.

    Args:
        samples: at least one window.
        colours: colour of each class as #rrggbb.
    """
    figure = Figure(figsize=(10, 2.6 * len(samples)), layout="constrained")
    grid = figure.subplots(len(samples), 4, squeeze=False)
    for axes, sample in zip(grid, samples, strict=True):
        maps = {"truth": sample.truth, "coarse": sample.coarse, "refined": sample.refined}
        panels = {"image": sample.image} | {name: paint(ids, list(colours)) for name, ids in maps.items()}
        for axis, (name, pixels) in zip(axes, panels.items(), strict=True):
            axis.imshow(pixels, interpolation="nearest")
            axis.set_title(f"{name} ({sample.chosen.group})" if name == "image" else name, fontsize=8)
            axis.set_axis_off()
    return figure
