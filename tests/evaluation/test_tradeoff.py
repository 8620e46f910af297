"""Table, figure and verdict of quality against time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from idgbr.evaluation.tradeoff import Point, _grouped, tradeoff_figure, tradeoff_table, verdict


def point(name: str, kind: str, seconds: float | None, *edge: float) -> Point:
    scores = {"wfm3_edge": list(edge), "boundary_iou": [v / 2 for v in edge], "miou": list(edge)}
    rough = {
        "regions": [1.5 for _ in edge],
        "fragments": [1234.0 for _ in edge],
        "boundary_length": [1.06 for _ in edge],
    }
    return Point(name=name, kind=kind, seconds=seconds, scores={**scores, **rough, "repair_worse": []})


POINTS = [
    point("coarse", "coarse", None, 0.2, 0.2),
    point("default", "diffusion", 1.0, 0.3, 0.32),
    point("steps=25", "diffusion", 9.0, 0.32, 0.32),
    point("one-shot x 4", "control", 0.8, 0.29, 0.30),
    point("grabcut", "classical", 0.5, 0.25),
]


def test_verdict_has_gap_gain_and_spread_in_points() -> None:
    comparison = verdict(POINTS, "default")
    assert comparison["wfm3_edge below the best"] == pytest.approx(1.0)
    assert comparison["wfm3_edge above the control"] == pytest.approx(1.5)
    assert comparison["wfm3_edge spread"] == pytest.approx(1.0)
    assert comparison["boundary_iou above the control"] == pytest.approx(0.75)
    assert not any("control" in key for key in verdict(POINTS[:3], "default"))


def test_table_and_figure_show_every_setting(tmp_path: Path) -> None:
    console = Console(width=200, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    console.print(tradeoff_table(POINTS, "toy"))
    text = console.export_text()
    assert all(p.name in text for p in POINTS) and "31.00 ± 1.00" in text
    with Image.open(tradeoff_figure(POINTS, "toy", tmp_path / "figure.png")) as drawn:
        assert drawn.size[0] > 1000 and len(drawn.convert("RGB").getcolors(1 << 20) or []) > 20


def test_overlapping_points_share_a_label() -> None:
    pixels = np.array([[100.0, 50.0], [300.0, 50.0], [103.0, 55.0], [300.0, 90.0]])
    groups = _grouped(["a", "b", "c", "d"], pixels)
    assert groups == [("a", [0, 2]), ("b", [1]), ("d", [3])]
