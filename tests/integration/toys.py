"""Small things that behave like the real ones: a data set and a stage. Workers that read windows import this module."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import rasterio
import ray
from rasterio.transform import from_origin

from idgbr import IGNORE
from idgbr.config.data import AugmentationConfig, SamplingConfig
from idgbr.config.training import StageTraining
from idgbr.datasets.draws import Draw, DrawPlan
from idgbr.datasets.normalisation import BandStats, Normalisation
from idgbr.datasets.prepare import PreparedRegion
from idgbr.distributed.fitting.stage import StageSpec
from idgbr.distributed.source import PlannedWindows
from idgbr.raster.scene import Scene

CLASSES = 3
WINDOW = 32
STEPS, BATCH = 24, 6
SHAPE = {"steps": STEPS, "batch": BATCH, "validate_every": 4}
"""A training that is disturbed, to be compared with the one that was not."""
PLANNED = {step: list(range(step * BATCH, (step + 1) * BATCH)) for step in range(STEPS)}
"""Its draws, each of which counts once."""


def toy_region(folder: Path, name: str, size: int = 128, split: str = "train", seed: int = 0) -> PreparedRegion:
    """A region whose classes are stripes that the image shows, noisily; its first columns are nodata."""
    rng = np.random.default_rng(seed)
    label = np.broadcast_to(np.arange(size)[:, None] // 16 % CLASSES, (size, size)).astype(np.uint8).copy()
    image = np.stack([60 + 40 * label + rng.integers(-20, 20, label.shape) for _ in range(3)]).astype(np.uint8)
    image[:, :, :4], label[:, :4] = 0, IGNORE
    paths = folder / f"{name}_image.tif", folder / f"{name}_label.tif"
    for path, pixels, nodata in ((paths[0], image, 0), (paths[1], label[None], IGNORE)):
        profile = {
            "driver": "GTiff", "height": size, "width": size, "count": len(pixels), "dtype": "uint8",
            "nodata": nodata, "crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 0.5, 0.5),
            "tiled": True, "blockxsize": 64, "blockysize": 64,
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as out:
            out.write(pixels)
    scene = Scene(str(paths[0]))
    values, valid = scene.read(scene.grid().window)
    return PreparedRegion(
        id=name, split=split, image=scene, label=str(paths[1]), grid=scene.grid(), origin=(0, 0),
        histogram=tuple(int((label == k).sum()) for k in range(CLASSES)), boundary_pixels=size,
        valid_pixels=int(valid.sum()),
        stats=BandStats.of(values, valid),
    )  # fmt: skip


def trajectory(chaos: Path) -> dict[int, list[int]]:
    """The draws of every step, sorted; of a step that was done again, those of the last time."""
    last: dict[int, dict[int, list[int]]] = {}
    worlds: dict[int, int] = {}
    for line in (chaos / "draws").read_text().splitlines():
        step, rank, world, draws = json.loads(line)
        last.setdefault(step, {})[rank] = draws
        worlds[step] = world
    return {step: sorted(d for r, ds in ranks.items() if r < worlds[step] for d in ds) for step, ranks in last.items()}


class RecordingPlan(DrawPlan):
    """A plan that notes on which nodes it is asked for draws, which is where windows are read."""

    nodes = ""

    def draws(self, start: int, count: int) -> list[Draw]:
        if self.nodes:
            Path(self.nodes, f"read-{ray.get_runtime_context().get_node_id()}").touch()
        return super().draws(start, count)


def toy_stage(folder: Path, name: str, chaos: str = "", nodes: str = "", **training: object) -> StageSpec:
    """A stage of twelve small steps."""
    from toy_task import ToyTask  # and torch, which workers that read have no use for

    regions = [toy_region(folder, f"train{i}", seed=i) for i in range(2)]
    settings = {"steps": 12, "batch": 6, "warmup": 2, "lr": 1e-2, "ema": 0.5, "precision": "fp32"}
    settings |= {"validate_every": 6, "validate_windows": 5}
    config = StageTraining.model_validate(settings | training)
    plan = RecordingPlan(regions, SamplingConfig(), AugmentationConfig(), WINDOW, seed=1)
    plan.nodes = nodes
    return StageSpec(
        name=name, stage="toy", task=functools.partial(ToyTask, chaos, nodes), training=config,
        windows=PlannedWindows(plan, config.batch), select=(toy_region(folder, "select", seed=9),),
        normalisation=Normalisation.from_stats(r.stats for r in regions), augmentation=AugmentationConfig(),
        seed=3, classes=CLASSES,
    )  # fmt: skip
