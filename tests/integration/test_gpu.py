"""Ray on a machine with a GPU: training, mapping and serving take it, and do there what they do on a processor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import ray
import torch
from serving import SMALL, geotiff, picture, read, service
from serving import refine as post
from toys import CLASSES, WINDOW, toy_region, toy_stage

from idgbr.config.data import AugmentationConfig, ClassSpec, DataConfig, SamplingConfig, SyntheticSource
from idgbr.config.models import RefinerConfig, SamplerConfig
from idgbr.config.tree import Experiment, ResourcesConfig
from idgbr.datasets.draws import DrawPlan
from idgbr.distributed.fitting.stage import StageSpec, TaskSpec
from idgbr.distributed.fitting.training import run_stage
from idgbr.distributed.mapping.refine import RefineRequest, refine
from idgbr.distributed.session import start_ray
from idgbr.distributed.source import PlannedWindows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
GPU = ResourcesConfig(train_workers=1, infer_workers=1, gpus_per_worker=1.0)


@pytest.fixture(scope="module")
def ray_with_gpu(worker_path: None) -> Iterator[None]:
    with start_ray(GPU):
        assert ray.cluster_resources()["GPU"] >= 1
        yield


def refiner_stage(folder: Path, name: str, precision: str, steps: int = 20) -> StageSpec:
    base = toy_stage(folder, name, steps=steps, batch=4, lr=5e-4, clip=1.0, validate_every=5, validate_windows=1,
                     precision=precision)  # fmt: skip
    regions = [replace(region, coarse=region.label) for region in base.windows.plan.regions]
    config = Experiment(
        data=DataConfig(
            name="toy", source=SyntheticSource(folder=str(folder)),
            classes=[ClassSpec(name=f"class {i}", colour=f"#{i}{i}4080") for i in range(CLASSES)],
        ),
        refiner=RefinerConfig(
            channels=[16, 32], attention_head_dim=8, guidance_width=8, guidance_heads=1, image_encoder="", window=WINDOW
        ),
        sampler=SamplerConfig(steps=1, samples=1, dihedral=False),
    )  # fmt: skip
    plan = DrawPlan(regions, SamplingConfig(), AugmentationConfig(), WINDOW, seed=1)
    select = tuple(replace(region, coarse=region.label) for region in base.select)
    task = TaskSpec("refiner", config, 3, base.normalisation)
    return replace(base, task=task, windows=PlannedWindows(plan, 4), select=select)


def test_training_learns_as_on_a_processor(ray_with_gpu: None, tmp_path: Path) -> None:
    """The first losses in float32, where a GPU multiplies in TF32; half precision is near."""
    runs = str(tmp_path / "runs")
    processor = run_stage(refiner_stage(tmp_path, "cpu", "fp32"), ResourcesConfig(train_workers=1), runs)
    for precision, close in (("fp32", 2e-2), ("fp16", 1e-1), ("bf16", 1e-1)):
        gpu = run_stage(refiner_stage(tmp_path, precision, precision), GPU, runs)
        assert [p["step"] for p in gpu.history] == [5, 10, 15, 20]
        np.testing.assert_allclose([p["loss"] for p in gpu.history], [p["loss"] for p in processor.history], rtol=close)
        # What it leaves behind is read where there is no GPU.
        assert all(value.device.type == "cpu" for value in torch.load(gpu.weights, weights_only=True).values())


def test_a_map_is_that_of_a_processor(ray_with_gpu: None, tmp_path: Path, toy_model: Path) -> None:
    scene = toy_region(tmp_path, "scene", 160).image
    maps = []
    for name, resources in (("cpu", ResourcesConfig(infer_workers=1, cpus_per_worker=0.5)), ("gpu", GPU)):
        done = refine(RefineRequest(str(toy_model), (scene.uri,), str(tmp_path / name)), resources)
        with rasterio.open(done["maps"][0]) as out:
            maps.append(out.read(1))
    assert (maps[0] == maps[1]).mean() > 0.95


def test_the_service_shares_a_gpu(ray_with_gpu: None, toy_model: Path) -> None:
    pixels = picture(96, 80)
    bodies = []
    for device, shares in (("cpu", (0.0, 0.0)), ("cuda", (0.25, 0.5))):
        stages = {
            stage: {**SMALL[stage], "num_gpus": share, "device": device}
            for stage, share in zip(("coarse", "refiner"), shares, strict=True)
        }
        with service(toy_model, **stages) as url:
            answer = post(url, geotiff(pixels))
            answer.raise_for_status()
            bodies.append(read(answer.content)[0])
    assert (bodies[0] == bodies[1]).mean() > 0.95
