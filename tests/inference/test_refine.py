"""The one call for people: whatever an image comes as, the map is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from idgbr import IGNORE
from idgbr.errors import UserError
from idgbr.inference.predictor import Predictor
from idgbr.inference.refine import refine
from idgbr.registry.pyfunc_model import RefinedMapModel


@pytest.fixture(scope="module")
def model(toy_model: Path) -> Predictor:
    return Predictor(toy_model, parts=("refiner",))


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (80, 100, 3), np.uint8), rng.integers(0, 3, (80, 100)).astype(np.uint8)


def test_arrays_tensors_and_pictures_are_the_same(model: Predictor, pair: tuple) -> None:
    image, coarse = pair
    first = refine(image, coarse, model=model, progress=False)
    assert first.ids.shape == (80, 100) and first.probabilities.shape == (3, 80, 100)
    np.testing.assert_allclose(first.probabilities.sum(0), 1, atol=1e-4)
    others = [
        (torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(coarse.astype(np.int64))),
        (Image.fromarray(image), Image.fromarray(coarse)),
    ]
    for given in others:
        np.testing.assert_array_equal(refine(*given, model=model, progress=False).ids, first.ids)


def test_what_is_given_counts_and_what_is_not_is_the_model_s(model: Predictor, pair: tuple) -> None:
    once = refine(*pair, model=model, samples=1, progress=False)
    assert once.disagreement.max() < 1e-5
    default = refine(*pair, model=model, progress=False)
    assert default.disagreement.max() > 1e-4
    kept = refine(*pair, model=model, coarse_vote=1.01, progress=False)
    np.testing.assert_array_equal(kept.ids, pair[1])


def test_probabilities_and_nodata(model: Predictor, pair: tuple) -> None:
    image, coarse = pair
    planes = np.eye(3, dtype=np.float32)[coarse].transpose(2, 0, 1)
    holes = image.astype(np.float32)
    holes[:10] = np.nan
    refined = refine(holes, planes, model=model, progress=False)
    assert (refined.ids[:10] == IGNORE).all() and (refined.ids[10:] != IGNORE).all()


@pytest.mark.parametrize(
    ("image", "coarse", "message"),
    [
        (np.zeros((80, 90, 3)), np.zeros((80, 100), np.uint8), r"expected \(80, 100, 3\)"),
        (np.zeros((80, 100, 3)), np.zeros((80, 100)), "whole numbers"),
        (np.full((80, 100, 3), 100), np.full((80, 100), 7, np.uint8), "class id 7"),
        (np.zeros((80, 100, 3), object), np.zeros((80, 100), np.uint8), "image: found object"),
        (np.zeros((80, 100, 3), complex), np.zeros((80, 100), np.uint8), "image: found complex"),
        (np.zeros((0, 100, 3)), np.zeros((0, 100), np.uint8), "one pixel at least"),
        (np.zeros((80, 100, 3)), np.full((3, 80, 100), -2.5), "values from -2.5.*softmax"),
        (np.zeros((80, 100, 3)), np.full((3, 80, 100), np.nan), "NaN: True"),
    ],
)
def test_what_does_not_fit_is_named(model: Predictor, image: np.ndarray, coarse: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        refine(image, coarse, model=model, progress=False)


def test_an_unknown_key_is_named(model: Predictor, pair: tuple) -> None:
    with pytest.raises(UserError, match="step_count"):
        refine(*pair, model=model, step_count=3, progress=False)


def test_what_a_masked_array_masks_is_nodata(model: Predictor, pair: tuple) -> None:
    image, coarse = pair
    mask = np.zeros(image.shape, bool)
    mask[:10], mask[10:20, :, 0] = True, True  # a value of nodata in one band alone is imagery
    ids = refine(np.ma.masked_array(image, mask), coarse, model=model, progress=False).ids
    assert (ids[:10] == IGNORE).all() and (ids[10:] != IGNORE).all()
    half = torch.from_numpy(image).to(torch.bfloat16)
    assert refine(half, coarse, model=model, progress=False).ids.shape == coarse.shape


def test_values_on_another_scale_are_refused_as_by_jobs(model: Predictor, pair: tuple) -> None:
    image, coarse = pair
    with pytest.raises(UserError, match=r"--value-range match"):
        refine((image / 255).astype(np.float32), coarse, model=model, progress=False)


@pytest.mark.parametrize(
    ("model_input", "params", "message"),
    [
        (np.zeros((0, 8, 8, 3)), {}, "input: found an array of shape"),
        ([np.zeros((8, 8, 3)), np.zeros((9, 8, 3))], {}, "several shapes"),
        (pd.DataFrame({"path": []}), {}, "no paths"),
        (np.zeros((8, 8, 3)), {"steps": 0}, "steps: found 0; expected at least 1"),
    ],
)
def test_what_the_registered_model_cannot_map_is_named(
    toy_model: Path, model_input: object, params: dict, message: str
) -> None:
    registered = RefinedMapModel()
    registered.predictor = Predictor(toy_model)
    with pytest.raises(UserError, match=message):
        registered.predict(None, model_input, params)
