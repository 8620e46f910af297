"""What the endpoint makes of stage 2's windows, without a service around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idgbr import IGNORE
from idgbr.inference.min_region import min_pixels
from idgbr.inference.planes import cut_windows
from idgbr.inference.predictor import Predictor
from idgbr.inference.whole import ArrayScene, refine_whole
from serve_apps import assembly
from serve_apps.assembly import Maps, Refinement, blend


@pytest.mark.parametrize("tile", [1024, 37])
def test_a_request_s_map_is_that_of_a_notebook_call(
    toy_model: Path, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "_TILE", tile)
    predictor, (height, width) = Predictor(toy_model, parts=("refiner",)), (90, 110)
    spec, rng = predictor.spec, np.random.default_rng(2)
    sampler = spec.sampler.model_copy(update={"min_region": {"class 0": 2.0, "class 2": 4.0}})
    image = rng.integers(0, 255, (3, height, width)).astype(np.float32)
    image[:, 20:26, 30:60] = np.nan
    valid = np.isfinite(image).all(0)
    pixels, ids = np.nan_to_num(image), rng.integers(0, 3, (1, height, width)).astype(np.uint8)

    maps = Maps(ids)
    minimum = min_pixels(sampler, spec.classes, spec.gsd)
    refinement = Refinement(spec, valid, minimum, maps, batch=2)
    for corners in refinement.chunks:
        size = spec.inference.refiner.window
        known = cut_windows(valid[None], corners, size)[:, 0]
        windows = predictor.refine(
            cut_windows(pixels, corners, size), known, cut_windows(ids, corners, size, IGNORE)[:, 0], corners, sampler
        )
        values = np.concatenate([windows.probabilities, windows.uncertainty[:, None]], axis=1)
        blend(refinement.windows, values.astype(np.float16))
    refinement.windows.finish()
    refinement.finish()

    whole = refine_whole(predictor, ArrayScene(image), ArrayScene(ids), height, width, sampler)
    expected = np.where(valid, whole[:-2].argmax(0), IGNORE)
    plain = refine_whole(predictor, ArrayScene(image), ArrayScene(ids), height, width)
    assert maps.refined is not None and maps.uncertainty is not None
    assert (expected != np.where(valid, plain[:-2].argmax(0), IGNORE)).mean() > 0.01
    assert (maps.refined == expected).mean() >= 0.999
    assert ((maps.refined == IGNORE) == ~valid).all() and (maps.uncertainty[valid] <= 254).all()
    assert (np.abs(maps.uncertainty[valid] / 254 - whole[-2][valid]) < 0.02).mean() >= 0.999
