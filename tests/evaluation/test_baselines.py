"""The classical refiners sharpen boundaries along an easy image and leave the rest of the map unchanged."""

from __future__ import annotations

import numpy as np
import pytest

from idgbr import IGNORE
from idgbr.errors import UserError
from idgbr.evaluation.baselines import available, refine_classically, to_rgb

METHODS = ["guided_filter", "grabcut", "densecrf"]


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three flat fields under a little noise, their labels, and a coarse map with ragged boundaries."""
    rng = np.random.default_rng(0)
    truth = np.zeros((96, 120), dtype=np.uint8)
    truth[:, 40:80], truth[:, 80:] = 1, 2
    colours = np.array([[60, 90, 60], [150, 140, 130], [200, 60, 60]], dtype=np.float64)
    image = np.moveaxis(colours[truth], -1, 0) + rng.normal(0, 4, (3, 96, 120))
    coarse = truth.copy()
    for row in range(0, 96, 4):
        for edge in (40, 80):
            shift = int(rng.integers(-2, 3))
            coarse[row : row + 4, edge - 4 : edge + 4] = np.where(
                np.arange(-4, 4) < shift, truth[0, edge - 1], truth[0, edge]
            )
    return np.clip(image, 0, 255).astype(np.uint8), truth, coarse


@pytest.mark.parametrize("method", METHODS)
def test_baselines_repair_an_easy_rgb(method: str, scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, truth, coarse = scene
    if method not in available([method]):
        with pytest.raises(UserError, match="pydensecrf2"):
            refine_classically(method, image, coarse, 3)
        return
    refined = refine_classically(method, image, coarse, 3)
    assert refined.dtype == np.uint8
    assert (refined != truth).sum() < 0.6 * (coarse != truth).sum()
    assert set(np.unique(refined)) <= {0, 1, 2}


@pytest.mark.parametrize("method", available(METHODS))
def test_pixels_without_a_class_keep_none(method: str, scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, _, coarse = scene
    holed, valid = coarse.copy(), np.ones(coarse.shape, dtype=bool)
    holed[:20, :20] = IGNORE
    valid[:20, :20] = False
    refined = refine_classically(method, image, holed, 3, valid)
    assert ((refined == IGNORE) == (holed == IGNORE)).all()


@pytest.mark.parametrize("method", available(METHODS))
def test_a_map_of_one_class_stays(method: str) -> None:
    image = np.random.default_rng(0).integers(0, 4000, (1, 40, 40)).astype(np.uint16)
    coarse = np.ones((40, 40), dtype=np.uint8)
    np.testing.assert_array_equal(refine_classically(method, image, coarse, 3), coarse)


def test_probabilities_decide_where_ids_cannot(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, truth, coarse = scene
    probabilities = np.full((3, *truth.shape), 0.05, dtype=np.float32)
    np.put_along_axis(probabilities, truth[None].astype(np.int64), 0.9, axis=0)
    for method in set(available(METHODS)) - {"grabcut"}:
        refined = refine_classically(method, image, coarse, 3, probabilities=probabilities)
        assert (refined != truth).mean() < 0.005, method


def test_unknown_method_is_a_users_error() -> None:
    with pytest.raises(UserError, match="snakes"):
        available(["snakes"])


def test_rgb_of_any_image() -> None:
    ramp = np.linspace(0, 10_000, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    valid = np.ones((64, 64), dtype=bool)
    valid[0] = False
    rgb = to_rgb(ramp, valid)
    assert rgb.shape == (64, 64, 3)
    assert rgb.max() == 255
    assert not rgb[0].any()
    assert to_rgb(np.zeros((5, 8, 8), np.uint16), np.zeros((8, 8), bool)).shape == (8, 8, 3)
