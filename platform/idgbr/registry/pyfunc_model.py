"""The MLflow model for outsiders: a thin shell around the model folder, logged as code.

    model = mlflow.pyfunc.load_model("models:/NAME@challenger")
    model.predict(array)                               # (N, H, W, B) or (H, W, B), the imagery's own dtype
    model.predict("scene.tif")                         # or a list of paths, or a DataFrame with a column `path`
    model.predict("scene.tif", params={"samples": 1})

Arrays and rasters may be of any size: they are refined in overlapping windows, blended. For scenes that do not fit in
memory there is `jobs/refine.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

import idgbr
from idgbr.config.tree import SamplerConfig
from idgbr.errors import UserError
from idgbr.raster.grid import Window


@dataclass(frozen=True)
class _ArrayScene:
    """An array read by windows as a scene is: outside of it pixels are 0 and not valid."""

    image: np.ndarray
    """(B, H, W)."""

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        bands, height, width = self.image.shape
        pixels = np.zeros((bands, window.height, window.width), self.image.dtype)
        valid = np.zeros((window.height, window.width), bool)
        inside = window.intersect(Window(0, 0, height, width))
        if inside is not None:
            here = inside.slices((window.row, window.col))
            part = self.image[(slice(None), *inside.slices())]
            finite = np.isfinite(part).all(axis=0)
            pixels[(slice(None), *here)] = np.where(finite, part, 0)
            valid[here] = finite
        return pixels, valid


class RefinedMapModel(PythonModel):
    """Refined class ids, (H, W) uint8 with 255 where there is no imagery, of arrays and rasters."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the model folder that was logged as the artifact `model`."""
        from idgbr.inference.predictor import Predictor

        self.predictor = Predictor(context.artifacts["model"])

    # A type hint on the input would be taken for a schema, which no one type is: see `versions.signature`.
    def predict(self, context: PythonModelContext, model_input, params: dict[str, Any] | None = None) -> Any:  # type: ignore[no-untyped-def]
        """Refines arrays or rasters.

        Args:
            context: Unused; the artifacts are loaded.
            model_input: Array (N, H, W, B) or (H, W, B); a path; a list of paths; a DataFrame with a column `path`.
            params: Keys of the sampler to change: steps, samples, seed.

        Returns:
            (N, H, W) or (H, W) uint8 for an array or one path; a list of (H, W) arrays for several paths.

        Raises:
            UserError: The input is none of these, or has another number of bands than the model.
        """
        from idgbr.raster.scene import Scene

        known = SamplerConfig.model_fields
        changes = {key: value for key, value in (params or {}).items() if key in known}
        sampler = SamplerConfig.model_validate(self.predictor.spec.sampler.model_dump() | changes)
        paths = _paths(model_input)
        if paths is not None:
            maps = []
            for path in paths:
                scene = Scene(path, bands=tuple(self.predictor.spec.bands))
                scene.check()
                grid = scene.grid()
                maps.append(self._map(scene, grid.height, grid.width, sampler))
            return maps[0] if isinstance(model_input, str | os.PathLike) else maps
        images = np.asarray(model_input)
        bands = len(self.predictor.spec.bands)
        if images.ndim not in (3, 4) or images.shape[-1] != bands or images.dtype.kind not in "uif":
            raise UserError(
                f"input: found an array of shape {images.shape} and type {images.dtype}; expected numbers of shape "
                f"(N, H, W, {bands}) or (H, W, {bands}), or paths of rasters"
            )
        batch = images if images.ndim == 4 else images[None]
        refined = [
            self._map(_ArrayScene(np.moveaxis(image, -1, 0)), image.shape[0], image.shape[1], sampler)
            for image in batch
        ]
        return np.stack(refined) if images.ndim == 4 else refined[0]

    def _map(self, scene: Any, height: int, width: int, sampler: SamplerConfig) -> np.ndarray:
        from idgbr.raster.blending import StripBlender
        from idgbr.raster.windows import plan_windows

        spec = self.predictor.spec
        size, overlap = spec.inference.window, spec.inference.overlap
        windows = plan_windows(height, width, size, overlap)
        blender = StripBlender(height, width, len(spec.classes), windows, size, overlap)
        out = np.full((height, width), idgbr.IGNORE, np.uint8)
        valid_map = np.zeros((height, width), bool)

        def keep(strips: Iterable[tuple[int, np.ndarray]]) -> None:
            for row, strip in strips:
                out[row : row + strip.shape[1]] = strip.argmax(axis=0)

        whole = Window(0, 0, height, width)
        for window in windows:
            image, valid = scene.read(window)
            image, mask = image[None], valid[None]
            probabilities = self.predictor.coarse(image, mask)
            if self.predictor.refiner is not None:
                origin = np.array([[window.row, window.col]])
                probabilities = self.predictor.refine(image, mask, probabilities, origin, sampler).probabilities
            keep(blender.add(window, probabilities[0]))
            inside = window.intersect(whole)
            if inside is not None:
                valid_map[inside.slices()] = valid[inside.slices((window.row, window.col))]
        keep(blender.finish())
        out[~valid_map] = idgbr.IGNORE
        return out


def _paths(model_input: Any) -> list[str] | None:
    """The paths an input names, or None where it is pixels."""
    if isinstance(model_input, str | os.PathLike):
        return [os.fspath(model_input)]
    if isinstance(model_input, pd.DataFrame):
        column = model_input["path"] if "path" in model_input.columns else model_input.iloc[:, 0]
        return [str(item) for item in column]
    items = model_input.tolist() if isinstance(model_input, np.ndarray) and model_input.dtype.kind in "UO" else None
    items = model_input if isinstance(model_input, list | tuple) else items
    if items and all(isinstance(item, str | Path) for item in items):
        return [str(item) for item in items]
    return None


set_model(RefinedMapModel())
