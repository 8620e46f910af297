from __future__ import annotations

import numpy as np
import pytest

from idgbr.datasets.normalisation import BandStats, Normalisation
from idgbr.errors import UserError


def test_merged_pieces_equal_the_whole() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal([[[900.0]], [[3.0]]], [[[50.0]], [[0.5]]], (2, 40, 30)).astype(np.float32)
    valid = rng.random((40, 30)) > 0.3
    pieces = [BandStats.of(image[:, r : r + 7], valid[r : r + 7]) for r in range(0, 40, 7)]
    norm = Normalisation.from_stats([BandStats.empty(2), *pieces])
    np.testing.assert_allclose(norm.mean, image[:, valid].astype(float).mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(norm.std, image[:, valid].astype(float).std(axis=1), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_applied_to_its_own_imagery_it_gives_zero_mean_unit_deviation(dtype: type) -> None:
    image = np.random.default_rng(1).integers(1, 120, (3, 32, 32)).astype(dtype)
    valid = np.ones((32, 32), bool)
    valid[:4] = False
    out = Normalisation.from_stats([BandStats.of(image, valid)]).apply(image[None], valid[None])
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[0][:, valid].mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(out[0][:, valid].std(axis=1), 1, atol=1e-5)
    assert (out[0][:, ~valid] == 0).all()


def test_a_constant_band_becomes_zero() -> None:
    image = np.full((1, 8, 8), 7, np.uint8)
    out = Normalisation.from_stats([BandStats.of(image, np.ones((8, 8), bool))]).apply(image[None], np.ones((1, 8, 8)))
    assert (out == 0).all()


def test_refusals() -> None:
    with pytest.raises(UserError, match="no valid pixel"):
        Normalisation.from_stats([BandStats.empty(3)])
    with pytest.raises(UserError, match="3 and with 4 bands"):
        BandStats.empty(3) + BandStats.empty(4)
    with pytest.raises(UserError, match="4 bands; the model was trained on 3"):
        Normalisation((0.0,) * 3, (1.0,) * 3).apply(np.zeros((1, 4, 2, 2)), np.ones((1, 2, 2)))
