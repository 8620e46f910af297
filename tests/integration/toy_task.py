"""A segmentation task that trains in seconds, and does to its worker what a test has asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import ray
import torch
from torch import Tensor, nn
from toys import CLASSES

from idgbr import IGNORE


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
