"""Stage training on a real Ray: every planned draw once, at any world size, with the same result."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from toys import CLASSES, ToyTask, toy_region

from idgbr.config.tree import AugmentationConfig, ResourcesConfig, SamplingConfig, StageTraining
from idgbr.datasets.draws import DrawPlan
from idgbr.datasets.normalisation import Normalisation
from idgbr.distributed.source import PlannedWindows, planned_batches, rank_slice
from idgbr.distributed.stage import StageSpec
from idgbr.distributed.training import run_stage

WINDOW = 32


def spec(folder: Path, name: str, log: str = "", **training: object) -> StageSpec:
    regions = [toy_region(folder, f"{name}{i}", seed=i) for i in range(2)]
    config = StageTraining.model_validate({"steps": 12, "batch": 6, "warmup": 2, "lr": 1e-2, "ema": 0.5,
                                           "validate_every": 6, "validate_windows": 5} | training)  # fmt: skip
    plan = DrawPlan(regions, SamplingConfig(), AugmentationConfig(), WINDOW, seed=1)
    return StageSpec(
        name=name, stage="toy", task=functools.partial(ToyTask, log), training=config,
        windows=PlannedWindows(plan, config.batch), select=(toy_region(folder, f"{name}s", seed=9),),
        normalisation=Normalisation.from_stats(r.stats for r in regions), augmentation=AugmentationConfig(),
        seed=3, classes=CLASSES,
    )  # fmt: skip


@pytest.mark.parametrize("world", [1, 2])
def test_every_draw_once_from_any_step(ray_session: None, tmp_path: Path, world: int) -> None:
    windows = spec(tmp_path, "cover").windows
    for start, stop in ((0, 30), (7, 30)):
        ranks = [planned_batches(windows, start, stop, rank, world) for rank in range(world)]
        seen = [columns["index"] for batches in ranks for columns in batches]
        assert sorted(np.concatenate(seen)) == list(range(start * windows.batch, stop * windows.batch))
        assert {len(part) for part in seen} == {windows.batch // world}


def test_batches_come_in_the_plan_s_order_and_own_dtype(ray_session: None, tmp_path: Path) -> None:
    windows = spec(tmp_path, "order").windows
    columns = next(iter(planned_batches(windows, 5, 9, 1, 2)))
    assert columns["index"].tolist() == [33, 34, 35]
    assert columns["image"].dtype == np.uint8
    assert columns["image"].shape == (3, 3, WINDOW, WINDOW)
    draws = windows.plan.draws(33, 3)
    assert columns["row"].tolist() == [draw.row for draw in draws]
    assert columns["seed"].tolist() == [draw.seed for draw in draws]


def test_rank_slices_tile_the_batch() -> None:
    for batch, world in ((8, 2), (7, 3), (5, 5)):
        parts = [rank_slice(batch, rank, world) for rank in range(world)]
        assert [i for a, b in parts for i in range(a, b)] == list(range(batch))


def test_workers_and_micro_batches_change_no_step(ray_session: None, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    one = run_stage(spec(tmp_path, "one"), ResourcesConfig(train_workers=1), runs)
    two = run_stage(spec(tmp_path, "two", accumulate=2), ResourcesConfig(train_workers=2), runs)
    assert [point["step"] for point in one.history] == [6, 12]
    for a, b in zip(one.history, two.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
        assert a["miou"] == pytest.approx(b["miou"], abs=1e-3)
    assert Path(two.weights).exists()
    # Asked for again, a finished stage is only read.
    assert run_stage(spec(tmp_path, "two", accumulate=2), ResourcesConfig(train_workers=2), runs) == two
