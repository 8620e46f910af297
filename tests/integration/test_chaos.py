"""Losing workers: training ends as if nothing had been."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from toys import toy_stage, trajectory

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.training import run_stage

pytestmark = pytest.mark.slow
STEPS, BATCH = 24, 6
PLANNED = {step: list(range(step * BATCH, (step + 1) * BATCH)) for step in range(STEPS)}


def test_workers_killed_three_times(ray_session: None, tmp_path: Path) -> None:
    """Every planned draw counts once, and the curve is the undisturbed one."""
    chaos, runs, resources = tmp_path / "chaos", str(tmp_path / "runs"), ResourcesConfig(train_workers=2)
    chaos.mkdir()
    for step in random.Random(6).sample(range(1, STEPS), 3):
        (chaos / f"kill-{step}-{step % 2}").touch()
    shape = {"steps": STEPS, "batch": BATCH, "validate_every": 4}
    disturbed = run_stage(toy_stage(tmp_path, "killed", chaos=str(chaos), **shape), resources, runs)
    assert not list(chaos.glob("kill-*"))
    assert trajectory(chaos) == PLANNED
    plain = run_stage(toy_stage(tmp_path, "plain", **shape), resources, runs)
    for one, other in zip(disturbed.history, plain.history, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
