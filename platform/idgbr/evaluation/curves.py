"""Pictures that runs keep: learning curves, and samples of what the model predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from idgbr.evaluation.figures import paint
from idgbr.evaluation.windows import WindowPicture


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


def sample_predictions(pictures: Sequence[WindowPicture], colours: Sequence[str]) -> Figure:
    """Image, truth, coarse and refined map of each window, a row each.

    Args:
        pictures: at least one window.
        colours: colour of each class as #rrggbb.
    """
    figure = Figure(figsize=(10, 2.6 * len(pictures)), layout="constrained")
    grid = figure.subplots(len(pictures), 4, squeeze=False)
    for axes, picture in zip(grid, pictures, strict=True):
        maps = {"truth": picture.truth, "coarse": picture.coarse, "refined": picture.refined}
        panels = {"image": picture.image} | {name: paint(ids, list(colours)) for name, ids in maps.items()}
        for place, (name, pixels) in zip(axes, panels.items(), strict=True):
            place.imshow(pixels, interpolation="nearest")
            place.set_title(f"{name} ({picture.chosen.group})" if name == "image" else name, fontsize=8)
            place.set_axis_off()
    return figure
