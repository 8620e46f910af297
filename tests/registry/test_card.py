"""The model card's figures, each in its unit."""

from __future__ import annotations

from pathlib import Path

from idgbr.evaluation.bootstrap import Interval
from idgbr.models.description import load_spec
from idgbr.registry.card import model_card


def test_figures_are_printed_in_their_units(toy_model: Path) -> None:
    metrics = {"miou": 0.8573, "coarse_miou": 0.795, "regions": 5.664, "coarse_regions": 1.378, "fragments": 1898.3,
               "coarse_fragments": 95.0, "boundary_length": 1.22, "repair_worse": 0.25}  # fmt: skip
    intervals = [Interval(metric="miou", difference=0.0623, low=0.05, high=0.07, units=9)]
    lines = model_card("toy/1", load_spec(toy_model), {}, metrics, intervals).splitlines()
    assert "- mIoU: 85.73 (coarse map: 79.50)" in lines
    assert "- regions / truth: 5.66 (coarse map: 1.38)" in lines
    assert "- fragments per Mpx: 1,898 (coarse map: 95)" in lines
    assert "- boundary length / truth: 1.22" in lines
    assert "- mIoU: +6.23 (+5.00 to +7.00)" in lines
    assert "- Refinement left 25.00 % of the blocks with fewer right pixels than the coarse map." in lines
