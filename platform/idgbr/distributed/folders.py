"""Where an experiment's files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """Where an experiment keeps things, all under `resources.storage`."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def training(self) -> Path:
        return self.root / "training"

    def maps(self, name: str) -> Path:
        return self.root / "coarse" / name

    def result(self, name: str) -> Path:
        return self.root / "results" / name
