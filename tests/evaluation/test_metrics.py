"""Metrics on maps small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from idgbr import IGNORE
from idgbr.evaluation.blocks import Blocks, cuts
from idgbr.evaluation.boundary import (
    boundary_f1_counts,
    boundary_iou_counts,
    edge_map,
    inner_band,
    weighted_f,
    wfm,
)
from idgbr.evaluation.region import RegionScores, block_confusion, confusion, iou_per_class, mean, ratio
from idgbr.evaluation.repair import (
    class_iou_imp,
    class_repair_counts,
    class_repair_shares,
    iou_imp,
    repair_counts,
    repair_shares,
)


def halves(size: int = 32, at: int = 16) -> np.ndarray:
    """Class 0 left of column `at`, class 1 from there on."""
    labels = np.zeros((size, size), dtype=np.uint8)
    labels[:, at:] = 1
    return labels


def test_blocks_cover_every_pixel_once_and_leave_no_sliver() -> None:
    assert cuts(512, 256) == [0, 256, 512]
    assert cuts(600, 256) == [0, 256, 600]
    assert cuts(640, 256) == [0, 256, 512, 640]
    assert cuts(40, 256) == [0, 40]
    blocks = Blocks.of((70, 50), 16)
    index = blocks.index()
    assert len(blocks) == index.max() + 1
    mask = np.random.default_rng(0).random((70, 50)) < 0.3
    by_index = np.bincount(index[mask], minlength=len(blocks))
    np.testing.assert_array_equal(blocks.sums(mask), by_index)
    np.testing.assert_array_equal(blocks.sums(mask), [mask[s].sum() for s in blocks.slices()])


def test_region_scores_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 0, IGNORE, 1]], dtype=np.uint8)
    pred = np.array([[0, 1, 1, 1], [0, 0, 1, 0]], dtype=np.uint8)
    counts = confusion(pred, truth, 3)
    assert counts.tolist() == [[3, 1, 0], [1, 2, 0], [0, 0, 0]]
    scores = RegionScores.from_confusion(counts)
    np.testing.assert_allclose(scores.iou, [3 / 5, 2 / 4, np.nan])
    assert scores.miou == pytest.approx(0.55)
    assert scores.accuracy == pytest.approx(5 / 7)
    assert scores.mean_f1 == pytest.approx((6 / 8 + 4 / 6) / 2)
    chance = (4 * 4 + 3 * 3) / 49
    assert scores.kappa == pytest.approx((5 / 7 - chance) / (1 - chance))
    assert scores.fwiou == pytest.approx(4 / 7 * 0.6 + 3 / 7 * 0.5)


def test_class_in_prediction_only_counts_as_zero() -> None:
    scores = RegionScores.from_confusion(confusion(halves(), np.zeros((32, 32), np.uint8), 3))
    np.testing.assert_allclose(scores.iou, [0.5, 0.0, np.nan])
    assert scores.miou == pytest.approx(0.25)


def test_unanswered_pixels_count_as_wrong() -> None:
    truth, pred = halves(), halves()
    pred[:, :4] = IGNORE
    counts = confusion(pred, truth, 2, unanswered=True)
    assert counts.tolist() == [[32 * 12, 0, 32 * 4], [0, 32 * 16, 0]]
    np.testing.assert_allclose(iou_per_class(counts), [12 / 16, 1.0])
    assert RegionScores.from_confusion(counts).accuracy == pytest.approx(28 / 32)
    with pytest.raises(ValueError, match="128 labelled pixels"):
        confusion(pred, truth, 2)


def test_foreign_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="prediction holds id 7"):
        confusion(np.full((4, 4), 7, np.uint8), np.zeros((4, 4), np.uint8), 2)
    with pytest.raises(ValueError, match="truth holds id 2"):
        confusion(np.zeros((4, 4), np.uint8), np.full((4, 4), 2, np.uint8), 2)


def test_each_pixel_counted_once_over_the_blocks() -> None:
    rng = np.random.default_rng(1)
    truth = rng.choice(np.array([0, 1, 2, IGNORE], np.uint8), (90, 75))
    pred = rng.integers(0, 3, (90, 75), dtype=np.uint8)
    blocks = Blocks.of(truth.shape, 32)
    counts = block_confusion(pred, truth, 3, blocks.index(), len(blocks))
    assert counts.sum() == (truth != IGNORE).sum()
    np.testing.assert_array_equal(counts.sum(0)[:, :3], confusion(pred, truth, 3))


def test_boundary_iou_by_hand() -> None:
    square = np.zeros((20, 20), dtype=bool)
    square[5:15, 5:15] = True
    assert inner_band(square).sum() == 100 - 16
    truth, pred = halves(), halves(at=17)
    counts = boundary_iou_counts(pred, truth, 2, Blocks.of((32, 32), 256))[0]
    # Class 1 is 16 columns wide in the truth, 15 in the prediction: they share 15 columns of the top and bottom three
    # rows, and in the 26 rows between them three columns at the frame and two at the edge.
    assert counts[1, 0] == 6 * 15 + 26 * 5
    assert counts[1, 1] == 6 * 16 + 26 * (3 + 4)


def test_block_cuts_make_no_boundary() -> None:
    rng = np.random.default_rng(2)
    truth = np.kron(rng.integers(0, 3, (8, 8), dtype=np.uint8), np.ones((12, 12), np.uint8))
    pred = np.roll(truth, 2, axis=1)
    one, many = Blocks.of(truth.shape, 1024), Blocks.of(truth.shape, 24)
    for counts in (boundary_iou_counts, boundary_f1_counts):
        np.testing.assert_array_equal(counts(pred, truth, 3, many).sum(0), counts(pred, truth, 3, one)[0])


@pytest.mark.parametrize(("shift", "hits"), [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.0)])
def test_boundary_f1_tolerates_two_pixels(shift: int, hits: float) -> None:
    truth, pred = halves(), halves(at=16 + shift)
    counts = boundary_f1_counts(pred, truth, 2, Blocks.of((32, 32), 256))[0]
    assert counts[:, 1].tolist() == counts[:, 3].tolist() == [32, 32]  # one column a class, no frame
    np.testing.assert_allclose(ratio(counts[:, 0], counts[:, 1]), hits)


def test_ignored_ground_has_no_boundary_pixels() -> None:
    truth = np.zeros((32, 32), dtype=np.uint8)
    truth[:, 16:] = IGNORE
    assert boundary_f1_counts(halves(), truth, 2, Blocks.of((32, 32), 256)).sum() == 0
    edges = wfm(halves(), truth, Blocks.of((32, 32), 256))[0]
    assert np.isnan(edges[:, 0]).all()
    np.testing.assert_allclose(edges[:, 1], 1.0)


def test_edge_map_of_a_straight_edge_is_four_pixels_wide() -> None:
    edges = edge_map(halves(), 3)
    assert edges.all(axis=0).nonzero()[0].tolist() == [14, 15, 16, 17]
    assert edges.sum() == 4 * 32


def test_weighted_f_by_hand() -> None:
    truth = np.zeros((9, 41), dtype=bool)
    truth[:, 20] = True
    assert weighted_f(truth, truth) == 1.0
    assert weighted_f(np.zeros_like(truth), truth) < 0.5
    assert np.isnan(weighted_f(truth, np.zeros_like(truth)))
    far = truth.copy()
    far[4, 10] = True  # one false alarm, 10 px off: weight 2 - 0.25, recall 1
    precision = 9 / (9 + 1.75)
    assert weighted_f(far, truth) == pytest.approx(2 * precision / (precision + 1))
    valid = np.ones_like(truth)
    valid[4, 10] = False
    assert weighted_f(far, truth, valid) == 1.0


def test_a_shift_hurts_boundary_iou_more_than_iou() -> None:
    truth = np.zeros((96, 96), dtype=np.uint8)
    truth[20:70, 20:70] = 1
    for shift in (1, 2, 3):
        pred = np.roll(truth, shift, axis=1)
        bands = boundary_iou_counts(pred, truth, 2, Blocks.of((96, 96), 256))[0]
        band_iou = ratio(bands[:, 0], bands[:, 1])
        assert 1 - mean(band_iou) > 2 * (1 - RegionScores.from_confusion(confusion(pred, truth, 2)).miou)


def test_repair_by_hand() -> None:
    truth = np.zeros((16, 64), dtype=np.uint8)
    coarse = truth.copy()
    coarse[:, ::4] = 1  # a quarter wrong in each of four blocks
    refined = coarse.copy()
    refined[:, :16] = 0  # first block: all repaired
    refined[:8, 16:32] = 0  # second: half repaired
    refined[:, 33:36] = 1  # third: broken; fourth: untouched
    blocks = Blocks.of(truth.shape, 16)
    counts = repair_counts(refined, coarse, truth, blocks)
    assert counts.tolist() == [[192, 192, 64, 64], [192, 192, 64, 32], [192, 144, 64, 0], [192, 192, 64, 0]]
    np.testing.assert_allclose(iou_imp(counts), [1.0, 32 / 96, -(1 - 144 / 240), 0.0])
    shares = repair_shares(counts)
    assert (shares["complete"], shares["partial"], shares["damage"], shares["worse"]) == (0.25, 0.5, 0.25, 0.25)
    np.testing.assert_allclose(
        iou_imp(np.array([[10, 10, 0, 0], [10, 5, 0, 0], [0, 0, 0, 0]])), [np.nan, -2 / 3, np.nan]
    )


def test_repair_per_class_of_the_release_by_hand() -> None:
    # Of 12 px class 1 has 5: coarse has three of them and adds two, refined has four and adds two.
    truth = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, IGNORE]], np.uint8)
    coarse = np.array([[1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1]], np.uint8)
    refined = np.array([[1, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 1]], np.uint8)
    counts = class_repair_counts(refined, coarse, truth, 2, Blocks.of(truth.shape, 64))
    # Class 1: M_RT is columns 0 to 2, M_RF columns 3 to 6; there truth has 3, 4 and refined 3, 5.
    assert counts[0, 1].tolist() == [3, 3, 4, 1, 3]
    assert class_iou_imp(counts)[0, 1] == pytest.approx(1 / 3)
    # Class 0: M_RT is columns 7 to 10, of which refined has 8 to 10; M_RF is the same, truth has 5, 6, refined 4, 6.
    assert counts[0, 0].tolist() == [4, 3, 4, 1, 3]
    assert class_iou_imp(counts)[0, 0] == pytest.approx(1 / 3 - (1 - 3 / 4))
    shares = class_repair_shares(counts)
    assert shares["iou_imp"] == pytest.approx((1 / 3 + 1 / 3 - 1 / 4) / 2)
    assert (shares["complete"], shares["partial"], shares["damage"]) == (0, 1, 0)


def test_repair_per_class_at_its_limits() -> None:
    counts = np.array([
        [9, 9, 0, 0, 0],  # coarse was right, nothing lost: nothing to say
        [9, 6, 0, 0, 0],  # coarse was right, a third lost
        [0, 0, 7, 0, 0],  # false positives alone, all gone
        [0, 0, 7, 0, 2],  # false positives alone, two left
        [0, 0, 8, 6, 8],  # the class was missed, three quarters found
    ])  # fmt: skip
    np.testing.assert_allclose(class_iou_imp(counts), [np.nan, -1 / 3, 1, 0, 0.75])
    shares = class_repair_shares(counts[:, None])
    assert (shares["complete"], shares["partial"], shares["damage"]) == (0.25, 0.5, 0.25)


def test_all_ignored_is_no_crash() -> None:
    truth = np.full((40, 40), IGNORE, np.uint8)
    pred = halves(40)
    blocks = Blocks.of(truth.shape, 16)
    scores = RegionScores.from_confusion(confusion(pred, truth, 2))
    assert all(np.isnan(v) for v in (scores.miou, scores.accuracy, scores.kappa, scores.fwiou, scores.mean_f1))
    assert np.isnan(wfm(pred, truth, blocks)).all()
    assert boundary_iou_counts(pred, truth, 2, blocks).sum() == 0
    assert np.isnan(list(repair_shares(repair_counts(pred, pred, truth, blocks)).values())).all()
