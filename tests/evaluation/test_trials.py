"""The gate's error rates, on windows of made-up and of real labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from idgbr import IGNORE
from idgbr.datasets.synthetic_paint import paint_scene
from idgbr.evaluation.trials import Trials, cut_labels, simulated_map

VAIHINGEN = ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0))


@pytest.fixture(scope="module")
def painted() -> Trials:
    """Windows of a painted scene."""
    _, ids = paint_scene(768, np.random.default_rng(3))
    return Trials(cut_labels(ids, 96)[:50], 5, models=3)


def test_a_simulated_map_is_wrong_at_boundaries_and_worse_with_larger_moves() -> None:
    _, ids = paint_scene(256, np.random.default_rng(3))
    wrong = [
        (simulated_map(ids, off, np.random.default_rng(0)) != ids)[ids != IGNORE].mean() for off in (0.5, 2.0, 4.0)
    ]
    assert 0 < wrong[0] < wrong[1] < wrong[2] < 0.5


def test_equal_models_are_rarely_promoted_and_a_gain_is_mostly_found(painted: Trials) -> None:
    equal = painted.run(0.0, repeats=60, resamples=400)
    assert equal.promoted <= 0.05
    assert abs(equal.gain) < equal.spread
    better = painted.run(0.02, repeats=60, resamples=400)
    assert better.promoted >= 0.9
    assert better.gain == pytest.approx(0.02, abs=2 * better.spread)
    # The interval is as wide as the gates differ among themselves.
    assert better.half_width == pytest.approx(1.96 * better.spread, rel=0.4)


def test_a_gain_nobody_pretends_is_refused(painted: Trials) -> None:
    with pytest.raises(ValueError, match=r"less than 0\.9"):
        painted.run(0.9, repeats=1)


@pytest.mark.slow
def test_on_real_windows(data_dir: Path) -> None:
    """Vaihingen, six classes, 200 repeats of gates of 400 windows."""
    windows = []
    for path in sorted((data_dir / "vaihingen").rglob("*mask*.png")):
        with rasterio.open(path) as mask:
            colours = mask.read()
        ids = np.full(colours.shape[1:], IGNORE, np.uint8)
        for number, colour in enumerate(VAIHINGEN):
            ids[(colours == np.array(colour)[:, None, None]).all(0)] = number
        windows += cut_labels(ids, 128)
    chosen = np.random.default_rng(0).permutation(len(windows))[:200]
    trials = Trials([windows[i] for i in chosen], 6)
    equal, better = trials.run(0.0), trials.run(0.02)
    assert equal.promoted <= 0.05, equal
    assert better.promoted >= 0.9, better
