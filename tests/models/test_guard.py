"""Never worse: the guard keeps the coarse label exactly where it says, and does less harm by it."""

from __future__ import annotations

import numpy as np
import torch

from idgbr import IGNORE
from idgbr.config.models import SamplerConfig
from idgbr.evaluation.blocks import Blocks
from idgbr.evaluation.repair import repair_counts, repair_shares
from idgbr.models.guard import guarded, one_hot


def square(at: int, size: int, shape: int = 48) -> torch.Tensor:
    label = torch.zeros(1, shape, shape, dtype=torch.long)
    label[:, at : at + size, at : at + size] = 1
    return label


def test_all_off_changes_nothing() -> None:
    probabilities = torch.rand(2, 3, 16, 16).softmax(1)
    coarse = torch.randint(0, 3, (2, 16, 16))
    assert torch.equal(guarded(probabilities, torch.ones(2, 16, 16), coarse, SamplerConfig()), probabilities)


def test_where_samples_disagree_the_coarse_label_stays() -> None:
    coarse, refined = square(8, 16), one_hot(square(12, 16), 2)
    disagreement = torch.zeros(1, 48, 48)
    disagreement[:, :20] = 0.5
    kept = guarded(refined, disagreement, coarse, SamplerConfig(keep_disagreement=0.3)).argmax(1)
    assert torch.equal(kept[:, :20], coarse[:, :20])
    assert torch.equal(kept[:, 20:], square(12, 16)[:, 20:])


def test_what_is_rewritten_far_from_coarse_boundaries_is_not_believed() -> None:
    """A hallucinated block goes, a moved edge stays; measured as the repair figures do, harm is gone."""
    truth, coarse = square(8, 14), square(8, 12)
    drawn = truth.clone()
    drawn[:, 38:46, 38:46] = 1
    kept = guarded(one_hot(drawn, 2), torch.zeros(1, 48, 48), coarse, SamplerConfig(keep_beyond=4)).argmax(1)
    assert torch.equal(kept, truth)
    blocks = Blocks.of((48, 48), 24)
    before, after = (
        repair_shares(repair_counts(m[0].numpy(), coarse[0].numpy(), truth[0].numpy().astype(np.uint8), blocks))
        for m in (drawn, kept)
    )
    assert before["worse"] > after["worse"] == 0 and after["iou_imp"] > before["iou_imp"]


def test_where_there_is_no_coarse_label_refinement_stands() -> None:
    coarse = torch.full((1, 16, 16), IGNORE)
    probabilities = torch.rand(1, 2, 16, 16).softmax(1)
    settings = SamplerConfig(keep_beyond=2, keep_disagreement=0.0)
    assert torch.equal(guarded(probabilities, torch.ones(1, 16, 16), coarse, settings), probabilities)


def test_a_coarse_map_of_probabilities_is_kept_as_such() -> None:
    coarse = torch.rand(1, 3, 16, 16).softmax(1)
    probabilities = torch.rand(1, 3, 16, 16).softmax(1)
    kept = guarded(probabilities, torch.ones(1, 16, 16), coarse, SamplerConfig(keep_disagreement=0.5))
    torch.testing.assert_close(kept, coarse)
