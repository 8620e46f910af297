"""Stage training on a real Ray: every planned draw once, at any world size, with the same result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from toys import CLASSES, WINDOW, toy_stage

from idgbr.config.data import AugmentationConfig, ClassSpec, DataConfig, SamplingConfig, SyntheticSource
from idgbr.config.models import RefinerConfig, SamplerConfig
from idgbr.config.tree import Experiment, ResourcesConfig
from idgbr.datasets.draws import DrawPlan
from idgbr.distributed.fitting.stage import StageResult, TaskSpec
from idgbr.distributed.fitting.training import run_stage
from idgbr.distributed.source import PlannedWindows, planned_batches, rank_slice


@pytest.mark.parametrize("world", [1, 2])
def test_every_draw_once_from_any_step(ray_session: None, tmp_path: Path, world: int) -> None:
    windows = toy_stage(tmp_path, "cover").windows
    for start, stop in ((0, 30), (7, 30)):
        ranks = [planned_batches(windows, start, stop, rank, world) for rank in range(world)]
        seen = [columns["index"] for batches in ranks for columns in batches]
        assert sorted(np.concatenate(seen)) == list(range(start * windows.batch, stop * windows.batch))
        assert {len(part) for part in seen} == {windows.batch // world}


def test_batches_come_in_the_plan_s_order_and_own_dtype(ray_session: None, tmp_path: Path) -> None:
    windows = toy_stage(tmp_path, "order").windows
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


def test_workers_and_micro_batches_change_no_step(twelve_steps: StageResult, tmp_path: Path) -> None:
    one, runs = twelve_steps, str(tmp_path / "runs")
    stage = toy_stage(tmp_path, "two", validate_every=4, accumulate=2)
    two = run_stage(stage, ResourcesConfig(train_workers=2), runs)
    assert [point["step"] for point in one.history] == [4, 8, 12]
    for a, b in zip(one.history, two.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
        assert a["miou"] == pytest.approx(b["miou"], abs=1e-3)
    assert Path(two.weights).exists()
    kept = [sorted(path.name for path in Path(run.folder, "checkpoints").iterdir()) for run in (one, two)]
    assert kept == [["step-00000012"], ["step-00000008", "step-00000012"]]
    # Asked for again, a finished stage is only read.
    assert run_stage(stage, ResourcesConfig(train_workers=2), runs) == two


@pytest.mark.usefixtures("twelve_steps")
def test_the_end_of_a_training_waits_for_no_dashboard() -> None:
    """A local Ray has none; Ray Train's watcher stops at once, instead of looking for one until Ray Train gives up."""
    logs = list(Path(ray._private.worker.global_worker.node.get_logs_dir_path()).glob("train/*sys-controller*"))
    assert logs and not [log for log in logs if "Failed to stop PlacementGroupCleaner" in log.read_text()]


@pytest.mark.parametrize("steps", [6, pytest.param(20, marks=pytest.mark.soak)])
def test_two_workers_and_one_train_the_refiner_alike(ray_session: None, tmp_path: Path, steps: int) -> None:
    """Stage 2 in float32, given the same global batches: the first losses agree, step by step."""
    base = toy_stage(tmp_path, "refiner", steps=steps, batch=4, lr=5e-4, clip=1.0, validate_every=1, validate_windows=1)
    with_maps = [replace(region, coarse=region.label) for region in base.windows.plan.regions]
    plan = DrawPlan(with_maps, SamplingConfig(), AugmentationConfig(), WINDOW, seed=1)
    config = Experiment(
        data=DataConfig(
            name="toy", source=SyntheticSource(folder=str(tmp_path)),
            classes=[ClassSpec(name=f"class {i}", colour=f"#{i}{i}4080") for i in range(CLASSES)],
        ),
        refiner=RefinerConfig(
            channels=[16, 32], attention_head_dim=8, guidance_width=8, guidance_heads=1, image_encoder="", window=WINDOW
        ),
        sampler=SamplerConfig(steps=1, samples=1, dihedral=False),
    )  # fmt: skip
    curves = []
    for world in (1, 2):
        spec = replace(
            base, name=f"refiner{world}", task=TaskSpec("refiner", config, 3, base.normalisation),
            windows=PlannedWindows(plan, 4), select=tuple(replace(r, coarse=r.label) for r in base.select),
        )  # fmt: skip
        resources = ResourcesConfig(train_workers=world)
        curves.append([p["loss"] for p in run_stage(spec, resources, str(tmp_path / "runs")).history])
    assert len(curves[0]) == steps
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-4)
