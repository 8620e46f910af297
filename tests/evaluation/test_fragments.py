"""Regions, fragments and boundary length on maps small enough to count by eye."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from idgbr import IGNORE
from idgbr.evaluation.blocks import Blocks
from idgbr.evaluation.fragments import boundary_length_counts, fragment_mask, region_counts
from idgbr.evaluation.scores import Scores
from idgbr.evaluation.tally import merge, tally_region

ONE = Blocks.of((12, 12), 64)


def plain() -> np.ndarray:
    """Class 0 above, class 1 below, 12 px of boundary."""
    ids = np.zeros((12, 12), np.uint8)
    ids[6:] = 1
    return ids


def noisy() -> np.ndarray:
    """The same with a speck of 1 px, one of 2 px, and two that touch at a corner only."""
    ids = plain()
    ids[1, 1] = 1
    ids[3, 3:5] = 1
    ids[9, 9] = ids[10, 10] = 0
    return ids


def test_regions_and_fragments_by_hand() -> None:
    counts = region_counts(noisy(), plain(), 3, ONE, fragment=2)[0]
    # Class 0: the upper half and two specks (4-connected); class 1: the lower half, 1 px and 2 px.
    assert counts.tolist() == [[3, 2, 1, 0], [3, 1, 1, 0], [0, 0, 0, 0]]
    counts = region_counts(noisy(), plain(), 3, ONE, fragment=3)[0]
    assert counts[:, 1].tolist() == [2, 2, 0]


def test_fragments_of_a_window_to_draw() -> None:
    ids = noisy()
    ids[11, 3] = 0  # at the frame: it may go on beyond the window
    mask = fragment_mask(ids, np.ones((12, 12), bool), 2)
    assert np.argwhere(mask).tolist() == [[1, 1], [9, 9], [10, 10]]


def test_boundary_length_by_hand() -> None:
    lengths = boundary_length_counts(noisy(), plain(), 3, ONE)[0]
    # 12 px of boundary, and the specks' outlines of 4, 6, 4 and 4 px; every edge counts for both of its classes.
    assert lengths.tolist() == [[30, 12], [30, 12], [0, 0]]


def test_only_labelled_ground_counts() -> None:
    truth = plain()
    truth[:, 5] = IGNORE  # cuts both halves in two, in the map as in the truth
    assert region_counts(plain(), truth, 2, ONE)[0, :, [0, 2]].tolist() == [[2, 2], [2, 2]]
    assert boundary_length_counts(plain(), truth, 2, ONE)[0].tolist() == [[11, 11], [11, 11]]
    pred = noisy()
    pred[1, 0] = IGNORE  # ground without an answer is no region, and its rim no boundary
    assert region_counts(pred, plain(), 2, ONE)[0, 0, 0] == 3
    assert boundary_length_counts(pred, plain(), 2, ONE)[0, 0, 0] == 29


@pytest.mark.parametrize("block", [16, 24, 100])
def test_a_region_counts_once_however_blocks_cut_it(block: int) -> None:
    rng = np.random.default_rng(5)
    smooth = ndimage.gaussian_filter(rng.standard_normal((3, 90, 70)), (0, 1.5, 1.5))
    truth, pred = np.argmax(smooth, 0).astype(np.uint8), np.argmax(np.roll(smooth, 3, 2) * 1.1, 0).astype(np.uint8)
    truth[20:30, 40:] = IGNORE
    blocks = Blocks.of(truth.shape, block)
    areas, lengths = region_counts(pred, truth, 3, blocks).sum(0), boundary_length_counts(pred, truth, 3, blocks).sum(0)
    for c in range(3):
        for side, ids in ((0, pred), (2, truth)):
            labels, number = ndimage.label((ids == c) & (truth != IGNORE))
            assert areas[c, side] == number
            assert areas[c, side + 1] == (np.bincount(labels.ravel())[1:] < 16).sum()
    known = truth != IGNORE
    across = (pred[:, 1:] != pred[:, :-1]) & known[:, 1:] & known[:, :-1]
    down = (pred[1:] != pred[:-1]) & known[1:] & known[:-1]
    assert lengths[:, 0].sum() == 2 * (across.sum() + down.sum())


def test_scores_pool_the_scenes() -> None:
    tallies = [
        tally_region(plain(), ids, plain(), 3, 8, name, fragment=2) for name, ids in (("a", noisy()), ("b", plain()))
    ]
    scores = Scores.of(merge(tallies))
    assert scores.truth_regions == 4
    assert scores.regions == pytest.approx(8 / 4)
    assert scores.class_regions == [2.0, 2.0, None]
    assert scores.fragments == pytest.approx(3 / 288 * 1e6)
    assert scores.class_fragments == pytest.approx([2 / 288 * 1e6, 1 / 288 * 1e6, 0])
    assert scores.truth_fragments == 0
    assert scores.boundary_length == pytest.approx(42 / 24)
    assert scores.class_boundary_length == [1.75, 1.75, None]
    assert Scores.of(merge(tallies).only(["b"])).regions == 1.0


def test_nothing_labelled_is_nothing_to_measure() -> None:
    nothing = np.full((12, 12), IGNORE, np.uint8)
    scores = Scores.of(tally_region(nothing, plain(), plain(), 2, 8))
    assert scores.regions is scores.fragments is scores.boundary_length is scores.iou_imp_per_class is None
    assert scores.truth_regions == 0
