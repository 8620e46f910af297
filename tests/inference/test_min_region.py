"""The sampler's minimum mapping unit: in which unit, for which class, and what follows the map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idgbr import IGNORE
from idgbr.config.data import ClassSpec
from idgbr.config.models import SamplerConfig
from idgbr.errors import UserError
from idgbr.inference.min_region import apply_min_region, min_pixels
from idgbr.inference.predictor import Predictor
from idgbr.inference.refine import refine
from idgbr.inference.whole import ArrayScene, predict_whole

CLASSES = [ClassSpec(name=name, colour="#000000") for name in ("ground", "car", "tree")]


def minimum(value: object, gsd: float | None = 0.5) -> tuple[float, ...]:
    return min_pixels(SamplerConfig.model_validate({"min_region": value}), CLASSES, gsd)


def test_square_metres_become_pixels_of_the_model() -> None:
    assert minimum(4.0) == (16.0,) * 3
    assert minimum(4.0, gsd=None) == (4.0,) * 3
    assert minimum({"tree": 2.0, "ground": 0.25}) == (1.0, 0.0, 8.0)
    assert minimum(0.0) == minimum(None) == minimum({}) == minimum({"car": 0}) == ()
    with pytest.raises(UserError, match=r"sampler.min_region: no class 'house'; expected some of: ground, car, tree"):
        minimum({"house": 1.0})


def test_probabilities_and_uncertainty_follow_the_map() -> None:
    rng = np.random.default_rng(4)
    probabilities = rng.dirichlet([0.6] * 3, (40, 50)).transpose(2, 0, 1).astype(np.float32)
    probabilities[:, 5, 5] = 1 / 3  # a tie
    valid = rng.random((40, 50)) > 0.1
    before = np.where(valid, probabilities.argmax(0), IGNORE)
    uncertainty = rng.random((40, 50)).astype(np.float32) / 4
    after, doubt = apply_min_region(probabilities, uncertainty, valid, (8.0, 0.0, 30.0))
    ids = np.where(valid, after.argmax(0), IGNORE)
    changed = ids != before
    assert changed.sum() > 100
    np.testing.assert_allclose(after.sum(0), 1, atol=1e-4)
    np.testing.assert_array_equal(after[:, ~changed], probabilities[:, ~changed])
    np.testing.assert_array_equal(doubt[~changed], uncertainty[~changed])
    assert (doubt[changed] >= 1 - after.max(0)[changed] - 1e-6).all() and (doubt >= uncertainty).all()
    assert apply_min_region(probabilities, uncertainty, valid, ())[0] is probabilities


def test_notebook_call_and_whole_scene_are_one_map(toy_model: Path) -> None:
    predictor = Predictor(toy_model)
    image = np.random.default_rng(1).integers(0, 255, (3, 90, 70), dtype=np.uint8)
    sampler = predictor.spec.sampler.model_copy(update={"min_region": 5.0})
    plain = predict_whole(predictor, ArrayScene(image), 90, 70)
    whole = predict_whole(predictor, ArrayScene(image), 90, 70, sampler)
    assert (whole.refined != plain.refined).any()
    call = refine(image, whole.coarse, model=predictor, min_region=5.0, progress=False)
    np.testing.assert_array_equal(call.ids, call.probabilities.argmax(0))
    with pytest.raises(UserError, match="no class 'house'"):
        refine(image, whole.coarse, model=predictor, min_region={"house": 5.0}, progress=False)
