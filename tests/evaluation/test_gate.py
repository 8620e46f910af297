"""The rules of the gate on counted maps: what passes, what is refused, and what is only luck."""

from __future__ import annotations

import numpy as np
import pytest

from idgbr import IGNORE
from idgbr.config.evaluation import GainConfig, GateConfig
from idgbr.evaluation.evaluate import merge_methods
from idgbr.evaluation.gate import compare_rules, differences
from idgbr.evaluation.pieces import pieces_of
from idgbr.evaluation.scores import Scores
from idgbr.evaluation.tally import Tally, tally_region
from idgbr.evaluation.verdict import Cost, Rule

CLASSES = ["ground", "road", "roof"]
GATE = GateConfig()


def truth(seed: int) -> np.ndarray:
    """Three classes in blocks of odd sizes, a corner without label."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 3, (8, 8), dtype=np.uint8)
    ids = np.kron(small, np.ones((16, 16), np.uint8))
    ids[:9, :9] = IGNORE
    return ids


def perturbed(ids: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A map in which a share of small patches has a wrong class."""
    rng = np.random.default_rng(seed)
    out = np.where(ids == IGNORE, 0, ids)
    patches = rng.random((ids.shape[0] // 4, ids.shape[1] // 4)) < share
    return np.where(np.kron(patches, np.ones((4, 4), bool)), (out + 1) % 3, out).astype(np.uint8)


def tally(share: float, seed: int, scenes: int = 6) -> Tally:
    parts = []
    for scene in range(scenes):
        ids = truth(scene)
        coarse = perturbed(ids, 0.2, 1000 + scene)
        parts.append(
            {"refined": tally_region(ids, perturbed(ids, share, seed + scene), coarse, 3, 32, f"scene {scene}")}
        )
    return merge_methods(parts)["refined"]


def rules(champion: Tally, challenger: Tally, gate: GateConfig = GATE) -> dict[str, Rule]:
    changes = differences(champion, challenger, gate, CLASSES, repeats=300)
    return {f"{rule.kind} {rule.figure}": rule for rule in compare_rules(changes, gate)}


def test_a_better_model_passes_every_rule() -> None:
    found = rules(tally(0.15, 1), tally(0.05, 50))
    assert all(rule.passed for rule in found.values()), found
    assert "gain boundary_iou" in found


def test_a_worse_model_fails_by_name() -> None:
    found = rules(tally(0.05, 1), tally(0.15, 50))
    failed = {name for name, rule in found.items() if not rule.passed}
    assert {"gain boundary_iou", "regression miou", "regression iou of road"} <= failed
    assert "may fall by 1.00" in found["regression miou"].message


def test_a_gain_inside_the_noise_is_no_gain() -> None:
    found = rules(tally(0.1, 1), tally(0.1, 50))
    assert not found["gain boundary_iou"].passed


def test_the_same_model_is_no_gain() -> None:
    same = tally(0.1, 1)
    assert not rules(same, same)["gain boundary_iou"].passed


def test_a_gain_has_to_be_as_large_as_asked() -> None:
    found = rules(tally(0.15, 1), tally(0.12, 50), GateConfig(gain=GainConfig(least=0.5)))
    assert not found["gain boundary_iou"].passed
    assert "expected at least +50.00" in found["gain boundary_iou"].message


def test_one_class_that_suffers_is_enough() -> None:
    champion, challenger = tally(0.15, 1), tally(0.02, 50)
    # Half of the roofs' right pixels become roads.
    counts = challenger.confusion.copy()
    counts[:, 2, 1] += counts[:, 2, 2] // 2
    counts[:, 2, 2] -= counts[:, 2, 2] // 2
    worse = Tally(**{**vars(challenger), "confusion": counts})
    assert not rules(champion, worse)["regression iou of roof"].passed
    assert rules(champion, worse)["regression iou of ground"].passed


def test_more_blocks_made_worse_than_allowed() -> None:
    champion, challenger = tally(0.02, 1), tally(0.35, 50)
    assert not rules(champion, challenger)["regression repair_worse"].passed
    assert rules(challenger, champion)["regression repair_worse"].passed


def speckled(ids: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A map with single pixels of a wrong class."""
    specks = np.random.default_rng(seed).random(ids.shape) < share
    return np.where(specks & (ids != IGNORE), (ids + 1) % 3, np.where(ids == IGNORE, 0, ids)).astype(np.uint8)


def test_more_fragments_than_the_margin_are_refused_however_good_the_map() -> None:
    """The challenger gains everywhere and is full of specks."""

    def of_scenes(share_wrong: float, share_specks: float) -> Tally:
        parts = []
        for scene in range(6):
            ids = truth(scene)
            pred = speckled(perturbed(ids, share_wrong, scene), share_specks, 70 + scene)
            coarse = perturbed(ids, 0.3, 1000 + scene)
            parts.append({"refined": tally_region(ids, pred, coarse, 3, 32, f"scene {scene}")})
        return merge_methods(parts)["refined"]

    champion, challenger = of_scenes(0.2, 0.0), of_scenes(0.0, 0.002)
    strict = GateConfig(margins={"fragments": 100})
    found = rules(champion, challenger, strict)
    rise = Scores.of(challenger).fragments - Scores.of(champion).fragments  # type: ignore[operator]
    assert found["gain boundary_iou"].passed
    assert rise > 100
    refused = found["regression fragments"]
    assert not refused.passed
    assert f"found +{rise:,.0f} (" in refused.message
    assert "per million px; it may rise by 100 per million px" in refused.message
    roomy = rules(champion, challenger, GateConfig(margins={"fragments": rise + 1}))
    assert roomy["regression fragments"].passed
    assert "fragments" in GATE.margins  # by default, too


@pytest.mark.parametrize(("before", "after", "passed"), [(1.0, 1.3, False), (1.0, 0.7, False), (1.3, 1.0, True),
                                                         (0.7, 1.3, True), (1.0, 1.04, True)])  # fmt: skip
def test_boundary_length_may_not_move_away_from_the_truths(before: float, after: float, passed: bool) -> None:
    def with_length(ratio: float) -> Tally:
        lengths = np.rint(plain.boundary_length[..., 1:] * np.array([ratio, 1.0])).astype(np.int64)
        return Tally(**{**vars(plain), "boundary_length": lengths})

    plain = tally(0.1, 1)
    found = rules(with_length(before), with_length(after), GateConfig(margins={"boundary_length_error": 0.05}))
    assert found["regression boundary_length_error"].passed is passed


def test_margins_of_shares_are_fractions() -> None:
    with pytest.raises(ValueError, match=r"miou: found 2; expected a share in 0\.\.1"):
        GateConfig(margins={"miou": 2})


@pytest.mark.parametrize(("seconds", "passed"), [(3.9, True), (4.1, False)])
def test_a_model_may_not_become_much_slower(seconds: float, passed: bool) -> None:
    same = tally(0.1, 1)
    costs = Cost(seconds_per_megapixel=2.0, megabytes=1.0), Cost(seconds_per_megapixel=seconds, megabytes=1.0)
    cost = [
        rule for rule in compare_rules(differences(same, same, GATE, CLASSES, 10), GATE, costs) if rule.kind == "cost"
    ]
    assert [rule.passed for rule in cost] == [passed]


def test_pooled_pieces_are_the_reported_figures() -> None:
    counted = tally(0.1, 1)
    scores = Scores.of(counted)
    for figure in (
        "miou",
        "accuracy",
        "mean_f1",
        "boundary_iou",
        "boundary_f1",
        "wfm3_edge",
        "wfm7_edge",
        "repair_worse",
        "regions",
        "fragments",
        "boundary_length",
    ):
        pieces = pieces_of(counted, figure)
        assert pieces.statistic(pieces.counts.sum(0)[None])[0] == pytest.approx(getattr(scores, figure)), figure
    for figure in ("iou", "f1", "boundary_iou", "boundary_f1"):
        for number in range(3):
            pieces = pieces_of(counted, figure, number)
            expected = getattr(scores, f"class_{figure}")[number]
            assert pieces.statistic(pieces.counts.sum(0)[None])[0] == pytest.approx(expected), figure
    with pytest.raises(ValueError, match="no figure"):
        pieces_of(counted, "beauty")
