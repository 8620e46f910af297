"""Every figure of the reference masks, within 1e-4."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from idgbr.evaluation.blocks import Blocks
from idgbr.evaluation.boundary import KERNELS, boundary_iou_counts, edge_map, wfm
from idgbr.evaluation.region import RegionScores, confusion, mean, ratio


@pytest.mark.parametrize("case", ["shift3", "coarse8", "median", "binary_dilated", "perfect", "no_true_edge", "ignore"])
def test_reference_figures(golden_dir: Path, case: str) -> None:
    expected = json.loads((golden_dir / "metrics" / "expected.json").read_text())["cases"][case]
    with np.load(golden_dir / "metrics" / "masks.npz") as masks:
        pred, truth = masks[f"{case}_pred"], masks[f"{case}_truth"]
    classes = len(expected["iou"])
    whole = Blocks.of(truth.shape, 512)
    scores = RegionScores.from_confusion(confusion(pred, truth, classes))
    bands = boundary_iou_counts(pred, truth, classes, whole).sum(0)
    band_iou = ratio(bands[:, 0], bands[:, 1])
    edges = wfm(pred, truth, whole)
    ours = {
        "iou": scores.iou,
        "miou": scores.miou,
        "accuracy": scores.accuracy,
        "boundary_iou_d3": band_iou,
        "boundary_iou_d3_mean": mean(band_iou),
    }
    for i, k in enumerate(KERNELS):
        ours[f"wfm{k}_edge"], ours[f"wfm{k}_nonedge"] = edges[0, i]
        ours[f"edge_pixels_truth_{k}"] = edge_map(truth, k).sum()
    for key, value in expected.items():
        figure = np.nan if value is None else value
        np.testing.assert_allclose(ours[key], figure, atol=1e-4, err_msg=key)
