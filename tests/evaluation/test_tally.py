"""Tallies add up, scores come from them, and intervals pool like the scores."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from idgbr import IGNORE
from idgbr.evaluation.bootstrap import intervals, paired_interval
from idgbr.evaluation.scores import Scores
from idgbr.evaluation.tally import Tally, merge, tally_region


def maps(seed: int, shape: tuple[int, int] = (96, 80)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, a coarse map shifted by three pixels and a refined one shifted by one."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 3, (shape[0] // 16, shape[1] // 16), dtype=np.uint8)
    truth = np.kron(cells, np.ones((16, 16), np.uint8))
    coarse, refined = np.roll(truth, 3, axis=1), np.roll(truth, 1, axis=1)
    truth = truth.copy()
    truth[:5] = IGNORE
    return truth, coarse, refined


def pair(seed: int) -> tuple[Tally, Tally]:
    truth, coarse, refined = maps(seed)
    return (
        tally_region(truth, coarse, None, 3, 32, f"r{seed}"),
        tally_region(truth, refined, coarse, 3, 32, f"r{seed}"),
    )


def test_merging_does_not_depend_on_order() -> None:
    parts = [pair(seed)[1] for seed in range(4)]
    forward, backward = merge(parts), pickle.loads(pickle.dumps(parts[3])) + parts[1] + (parts[2] + parts[0])
    assert forward.regions == backward.regions == ("r0", "r1", "r2", "r3")
    for name in (
        "block_region",
        "windows",
        "confusion",
        "boundary_iou",
        "boundary_f1",
        "repair",
        "class_repair",
        "region_counts",
        "boundary_length",
        "image_region",
        "wfm",
    ):
        np.testing.assert_array_equal(getattr(forward, name), getattr(backward, name), err_msg=name)
    assert Scores.of(forward.only(["r2"])) == Scores.of(parts[2])
    labelled = sum((maps(seed)[0] != IGNORE).sum() for seed in range(4))
    assert forward.confusion.sum() == labelled == Scores.of(forward).pixels


def test_a_region_is_never_counted_twice() -> None:
    one = pair(0)[0]
    with pytest.raises(ValueError, match="counted twice"):
        merge([one, one])
    with pytest.raises(ValueError, match="classes"):
        merge([one, tally_region(*maps(1)[:2], None, 4, 32, "other")])


def test_pooled_scores_equal_those_of_one_big_region() -> None:
    truth, coarse, refined = maps(5)
    whole = Scores.of(tally_region(truth, refined, coarse, 3, 1024))
    cut = Scores.of(tally_region(truth, refined, coarse, 3, 16))
    for name in ("pixels", "miou", "accuracy", "kappa", "boundary_iou", "boundary_f1", "iou_imp", "class_iou",
                 "regions", "fragments", "boundary_length", "class_regions", "iou_imp_per_class"):  # fmt: skip
        assert getattr(whole, name) == pytest.approx(getattr(cut, name)), name


def test_scores_survive_json_and_show_absence_as_none() -> None:
    truth = np.full((40, 40), IGNORE, np.uint8)
    nothing = Scores.of(tally_region(truth, np.zeros_like(truth), np.zeros_like(truth), 2, 16))
    assert nothing.pixels == 0
    assert nothing.miou is nothing.wfm3_edge is nothing.boundary_iou is nothing.repair_worse is None
    assert Scores.model_validate_json(nothing.model_dump_json()) == nothing
    coarse, refined = pair(3)
    assert Scores.of(coarse).repair_worse is None
    assert Scores.of(refined).repair_worse == 0.0
    assert Scores.model_validate_json(Scores.of(refined).model_dump_json()) == Scores.of(refined)


def test_intervals_agree_with_the_reported_figures() -> None:
    coarse, refined = (merge(ts) for ts in zip(*(pair(seed) for seed in range(6)), strict=True))
    before, after = Scores.of(coarse), Scores.of(refined)
    for interval in intervals(coarse, refined, repeats=300):
        reported = getattr(after, interval.metric) - getattr(before, interval.metric)
        assert interval.difference == pytest.approx(reported), interval.metric
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < reported < interval.high
        assert interval.above_zero
    same = intervals(coarse, coarse, repeats=50)
    assert all(i.low == i.high == i.difference == 0 and not i.above_zero for i in same)
    assert intervals(coarse, refined, repeats=300) == intervals(coarse, refined, repeats=300)


def test_interval_covers_a_known_difference() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(40):
        a, b = rng.normal(0.0, 1.0, (200, 1)), rng.normal(0.5, 1.0, (200, 1))
        found = paired_interval(a, b, lambda s: s[:, 0] / 200, 400, seed)
        assert found.low is not None
        assert found.high is not None
        hits += found.low < 0.5 < found.high
    assert hits >= 34


def test_intervals_of_nothing() -> None:
    truth = np.full((40, 40), IGNORE, np.uint8)
    nothing = tally_region(truth, np.zeros_like(truth), None, 2, 16)
    assert all(i.difference is None and i.low is None for i in intervals(nothing, nothing, 10))
