"""MLflow pyfunc model that wraps a model folder, for programs that do not import this package; logged as code.

    model = mlflow.pyfunc.load_model("models:/NAME@challenger")
    model.predict(array)                               # (N, H, W, B) or (H, W, B), the imagery's own dtype
    model.predict("scene.tif")                         # or a list of paths, or a DataFrame with a column `path`
    model.predict("scene.tif", params={"samples": 1})

Arrays and rasters may be of any size: they are refined in overlapping windows, blended. For scenes that do not fit in
memory there is `jobs/refine.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from idgbr.config.load import validate
from idgbr.config.models import SamplerConfig
from idgbr.errors import UserError


class RefinedMapModel(PythonModel):
    """Refined class ids, (H, W) uint8 with 255 where there is no imagery, of arrays and rasters."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the model folder that was logged as the artifact `model`."""
        from idgbr.inference.predictor import Predictor

        self.predictor = Predictor(context.artifacts["model"])

    # MLflow would derive an input schema from a type hint; no single type covers all inputs: see `versions.signature`.
    def predict(self, context: PythonModelContext, model_input, params: dict[str, Any] | None = None) -> Any:  # type: ignore[no-untyped-def]
        """Refines arrays or rasters.

        Args:
            context: Unused; `load_context` has loaded the artifacts.
            model_input: Array (N, H, W, B) or (H, W, B); a path; a list of paths; a DataFrame with a column `path`.
            params: Keys of the sampler to change: steps, samples, seed.

        Returns:
            (N, H, W) or (H, W) uint8 for an array or one path; a list of (H, W) arrays for several paths.

        Raises:
            UserError: The input is empty, has another type, another number of bands or values on another scale than the
                model, or a key of `params` is wrong.
        """
        from idgbr.inference.arrays import mask_of, refuse_other_scale, with_gaps
        from idgbr.inference.whole import ArrayScene, predict_whole
        from idgbr.models.imagery import fitting_scene

        settings = self.predictor.spec.sampler.model_dump() | (params or {})
        sampler = validate(SamplerConfig, settings, "predict(..., params)")
        paths = _paths(model_input)
        if paths is not None:
            if not paths:
                raise UserError("input: found no paths; expected one at least")
            maps = []
            for path in paths:
                scene = fitting_scene(path, self.predictor.spec)
                grid = scene.grid()
                maps.append(predict_whole(self.predictor, scene, grid.height, grid.width, sampler).refined)
            return maps[0] if isinstance(model_input, str | os.PathLike) else maps
        try:
            images = np.asarray(model_input)
        except ValueError as error:
            raise UserError("input: found arrays of several shapes; expected one call for each") from error
        bands = len(self.predictor.spec.bands)
        if images.ndim not in (3, 4) or images.shape[-1] != bands or images.dtype.kind not in "uif" or not images.size:
            raise UserError(
                f"input: found an array of shape {images.shape} and type {images.dtype}; expected numbers of shape "
                f"(N, H, W, {bands}) or (H, W, {bands}), or paths of rasters"
            )
        batch = images if images.ndim == 4 else images[None]
        masks = mask_of(model_input, images.shape).reshape(batch.shape)
        refined = []
        for image, mask in zip(batch, masks, strict=True):
            pixels = with_gaps(np.moveaxis(image, -1, 0), np.moveaxis(mask, -1, 0))
            refuse_other_scale(pixels, self.predictor.spec.learnt_values)
            _, height, width = pixels.shape
            refined.append(predict_whole(self.predictor, ArrayScene(pixels), height, width, sampler).refined)
        return np.stack(refined) if images.ndim == 4 else refined[0]


def _paths(model_input: Any) -> list[str] | None:
    """The paths in an input, or None if it is an array of pixels."""
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
