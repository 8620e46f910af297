"""Small things that behave like the real ones: a segmentation task and a data set. Workers import this module."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import ray
import torch
from rasterio.transform import from_origin
from torch import Tensor, nn

from idgbr import IGNORE
from idgbr.config.data import AugmentationConfig, SamplingConfig
from idgbr.config.training import StageTraining
from idgbr.datasets.draws import Draw, DrawPlan
from idgbr.datasets.normalisation import BandStats, Normalisation
from idgbr.datasets.prepare import PreparedRegion
from idgbr.distributed.source import PlannedWindows
from idgbr.distributed.stage import StageSpec
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


class ToyTask:
    """Per-pixel classification by two convolutions; as a real task, each sample's noise comes from its own seed.

    In a folder `chaos` it notes the draws of each step, and does what a test has laid there for one: `wait-STEP` holds
    every rank until the file is gone, `notice-STEP` until a machine's end is announced, `kill-STEP-RANK` ends the
    worker, `fill-STEP` names a file to fill its disk with, `lock-STEP` a file system to make read-only.
    """

    def __init__(self, chaos: str = "", nodes: str = "") -> None:
        layers = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, CLASSES, 1)
        self.model = nn.Sequential(*layers)
        self.chaos, self.nodes, self.step = chaos, nodes, 0

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if self.chaos:
            self._chaos(Path(self.chaos), batch["index"].tolist())
        if self.nodes:
            Path(self.nodes, f"train-{ray.get_runtime_context().get_node_id()}").touch()
        noise = [
            torch.randn(x.shape, generator=torch.Generator().manual_seed(int(s) % 2**31))
            for x, s in zip(batch["image"], batch["seed"], strict=True)
        ]
        logits = self.model(batch["image"] + 0.1 * torch.stack(noise))
        loss = nn.functional.cross_entropy(logits, batch["label"], ignore_index=IGNORE, reduction="sum")
        return loss, (batch["label"] != IGNORE).sum()

    def _chaos(self, folder: Path, draws: list[int]) -> None:
        context = ray.train.get_context()
        rank, world = context.get_world_rank(), context.get_world_size()
        with (folder / "draws").open("a") as file:
            file.write(json.dumps([self.step, rank, world, draws]) + "\n")
        wait, notice, fill, lock = (folder / f"{what}-{self.step}" for what in ("wait", "notice", "fill", "lock"))
        kill = folder / f"kill-{self.step}-{rank}"
        if wait.exists() or notice.exists():
            note = folder / f"note-{rank}"
            note.write_text(ray.get_runtime_context().get_node_id())
            note.rename(folder / f"at-{self.step}-{rank}")
        while wait.exists():
            time.sleep(0.05)
        while notice.exists() and ray.train.get_preemption_info() is None:
            time.sleep(0.05)
        if kill.exists():
            kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if fill.exists() and rank == 0:
            try:
                with open(fill.read_text(), "wb", buffering=0) as file:
                    while file.write(bytes(4096)):
                        pass
            except OSError:
                fill.unlink()
        if lock.exists() and rank == 0:
            subprocess.run(["mount", "-o", "remount,ro", lock.read_text()], check=True)
            lock.unlink()

    def measure(self, batch: dict[str, Tensor]) -> Tensor:
        said, true = self.model(batch["image"]).argmax(1), batch["label"]
        keep = true != IGNORE
        flat = true[keep] * CLASSES + said[keep]
        return torch.bincount(flat, minlength=CLASSES**2).reshape(CLASSES, CLASSES)

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict()}

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])


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
