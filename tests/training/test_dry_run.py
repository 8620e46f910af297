"""Dry runs of the paper's recipes: sizes and arithmetic as published, without weights, data or a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from idgbr.config.load import load_experiment
from idgbr.training.dry_run import dry_run

PAPER = sorted((Path(__file__).parents[2] / "configs" / "paper").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_paper_s_recipes(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDGBR_DATA", str(tmp_path))
    found = dry_run(load_experiment(path))
    assert found["trained"]["denoiser"] / 1e6 == pytest.approx(859.5, abs=0.1)
    assert found["trained"]["guidance net"] / 1e6 == pytest.approx(106, abs=0.5)
    assert set(found["trained"]) == {"denoiser", "guidance net"}
    # 25 guided steps, conditions once, three passes of the autoencoder's encoder and one of its decoder.
    assert 39 + 2.5 < found["tflop_tile"] < 41 + 2.5 + 3 * 1.12
    assert 10 < found["gigabytes"] < 80
    assert found["data"].startswith("not there") and str(tmp_path) in found["data"]


def test_there_are_five() -> None:
    assert [path.stem for path in PAPER] == ["chn6_cug", "fgfd", "potsdam", "vaihingen", "whu_building"]
