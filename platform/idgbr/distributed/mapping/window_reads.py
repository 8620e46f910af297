"""Windows of a scene as columns: image, validity, coarse map, and why a window could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from idgbr import IGNORE
from idgbr.distributed.mapping.tasks import SceneTask
from idgbr.distributed.source import Columns
from idgbr.errors import UserError
from idgbr.raster.grid import Window
from idgbr.raster.windows import rows_of

_Pixels = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Image (B, H, W), validity (H, W) bool, and for refinement the coarse map's planes (C, H, W)."""


def read_windows(scene: SceneTask, task: int, numbers: range) -> Columns:
    """Windows of a scene, one read for neighbours in a row.

    Args:
        scene: the scene, with its plan.
        task: its number.
        numbers: which of its windows.

    Returns:
        Columns task, window, row, col, setting, image (N, B, S, S), valid (N, S, S), error (why a window could not be
        read, or ""), and for refinement coarse (N, C, S, S).

    Raises:
        UserError: a window cannot be read, and the scene's unreadable windows end the job.
    """
    chosen = [scene.windows[number] for number in numbers]
    read = [part for whole, windows in rows_of(chosen) for part in _read_row(scene, whole, windows)]
    rows: list[dict[str, Any]] = []
    for number, window, (image, valid, coarse, error) in zip(numbers, chosen, read, strict=True):
        row = {
            "task": np.int64(task),
            "window": np.int64(number),
            "row": np.int64(scene.origin[0] + window.row),
            "col": np.int64(scene.origin[1] + window.col),
            "setting": np.int64(scene.setting),
            "image": image,
            "valid": valid.astype(np.uint8),
            "error": np.str_(error),
        }
        if coarse is not None:
            row["coarse"] = coarse
        rows.append(row)
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _read_row(scene: SceneTask, whole: Window, windows: Sequence[Window]) -> list[tuple[*_Pixels, str]]:
    """What `_read` returns for windows that make up `whole`, each with why it could not be read, or ""."""
    try:
        read = _read(scene, whole)
    except UserError as failure:
        if len(windows) > 1:  # what is sound of a damaged row is kept
            return [part for window in windows for part in _read_row(scene, window, [window])]
        if scene.unreadable is None:
            raise
        return [(*_nothing(scene, whole), str(failure))]
    corner = (whole.row, whole.col)
    image, valid, coarse = read
    places = [(window.slices(corner), scene.image.unread(window)) for window in windows]
    return [(image[:, *at], valid[at], None if coarse is None else coarse[:, *at], lack) for at, lack in places]


def _read(scene: SceneTask, window: Window) -> _Pixels:
    image, valid = scene.image.read(window)
    if scene.coarse is None:
        return image, valid, None
    planes, known = scene.coarse.read(window)
    if len(planes) > 1:  # one of ours, with nodata where the image has none or could not be read
        return image, valid & (planes[0] != IGNORE), planes
    # Another model's map may have any nodata value.
    return image, valid, np.where(known, planes, IGNORE).astype(np.uint8)


def _nothing(scene: SceneTask, window: Window) -> _Pixels:
    """What `_read` returns where there is no valid pixel."""
    profile, shape = scene.image.profile(), (window.height, window.width)
    image = np.zeros((len(profile.selected), *shape), profile.dtype)
    if scene.coarse is None:
        return image, np.zeros(shape, bool), None
    planes = len(scene.coarse.profile().selected)
    return image, np.zeros(shape, bool), np.full((planes, *shape), IGNORE, np.uint8)
