"""What a training stage is: its task, its windows, its name, and what comes out of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from idgbr.config.data import AugmentationConfig
from idgbr.config.training import StageTraining
from idgbr.config.tree import Experiment
from idgbr.datasets.normalisation import Normalisation
from idgbr.datasets.prepare import PreparedRegion
from idgbr.distributed.source import PlannedWindows
from idgbr.files import hash_text, write_atomically

if TYPE_CHECKING:
    from idgbr.training.checkpoints import Checkpoints
    from idgbr.training.task import Task

RESULT_FILE = "result.json"
WEIGHTS_FILE = "weights.pt"
"""In a run's folder: the best weights on the select split, as the task's `state_dict()` in a torch file."""


@dataclass(frozen=True)
class TaskSpec:
    """A task by description, built on the worker: picklable, and free of torch until called."""

    kind: Literal["coarse", "refiner"]
    config: Experiment
    bands: int
    normalisation: Normalisation
    backbone: str = ""
    """Model folder whose stage 1 may teach the refiner."""
    init: str | None = None
    """Weights to start from: a torch file of a task's `state_dict()`, or a model folder."""

    def __call__(self) -> Task:
        """The task, on the CPU, in float32."""
        if self.kind == "coarse":
            from idgbr.training.coarse import CoarseTask

            return CoarseTask(self.config, self.bands, self.normalisation, self.init)
        from idgbr.training.refiner import RefinerTask

        return RefinerTask(self.config, self.bands, self.normalisation, self.init, self.backbone)


@dataclass(frozen=True)
class TrackedRun:
    """A run in MLflow, opened and ended by the driver."""

    uri: str
    run_id: str


@dataclass(frozen=True)
class CheckpointLocation:
    """Where a run's checkpoints are."""

    storage: str
    """A folder, or a URI."""
    run: str
    """The run's name below `storage`."""
    kept: int
    """How many checkpoints stay, the newest ones."""

    def open(self) -> Checkpoints:
        """The checkpoints there.

        Raises:
            UserError: no file system for the URI.
        """
        from idgbr.training.checkpoint_storage import open_checkpoints

        return open_checkpoints(self.storage, self.run, self.kept)


@dataclass(frozen=True)
class StageSpec:
    """One training run, complete: workers need nothing else."""

    name: str
    """Run name: from `run_name`, so that it says what is learned, not where."""
    stage: str
    """Short name shown in progress lines, such as coarse or refiner."""
    task: Callable[[], Task]
    """Builds the task on the worker."""
    training: StageTraining
    windows: PlannedWindows
    select: tuple[PreparedRegion, ...]
    """Regions of the select split, for the measurements that choose."""
    normalisation: Normalisation
    augmentation: AugmentationConfig
    seed: int
    classes: int
    tracking: TrackedRun | None = None


@dataclass(frozen=True)
class TrainLoop:
    """What Ray Train hands to every worker of a stage."""

    stage: StageSpec
    threads: int
    """torch threads of a worker."""
    progress_file: str
    """Rank 0 appends its progress lines here."""
    refusal_file: str
    """A worker that finds a user's error writes its message here."""
    checkpoints: CheckpointLocation
    preemption_every: int
    """Steps between checks for an announced preemption; 0: no checks."""


@dataclass(frozen=True)
class StageResult:
    """A finished stage, as kept in its run folder."""

    name: str
    folder: str
    weights: str
    """Path of the best weights: a torch file of the task's `state_dict()`."""
    steps: int
    """Optimiser steps taken, fewer than planned after an early stop."""
    best_step: int
    miou: float
    """mIoU on the select split of the weights kept."""
    seconds: float
    history: tuple[dict[str, float], ...]
    """Measurements in order: step, loss (mean since the last one), miou."""
    rounds: list[dict[str, float]] = field(default_factory=list)
    """Where the time of rank 0 went between the measurements of the last attempt: `steps`, seconds that it waited for
    `windows`, spent `augmenting`, on the optimiser's `step` and on the `rest`; `processor` seconds, all threads."""

    @classmethod
    def read(cls, folder: str | Path) -> StageResult | None:
        """The result in a run's folder, or None while there is none."""
        path = Path(folder) / RESULT_FILE
        if not path.exists():
            return None
        fields = json.loads(path.read_text())
        return cls(**{**fields, "history": tuple(fields["history"])})

    def write(self) -> None:
        """Write the result to its folder, atomically."""
        write_atomically(Path(self.folder) / RESULT_FILE, json.dumps(asdict(self), indent=1))


def run_name(data: str, stage: str, identity: dict[str, Any]) -> str:
    """Name of a run out of what it learns: the same data, model and optimisation give the same name anywhere.

    Args:
        data: name of the data set.
        stage: such as coarse, coarse-fold0, refiner.
        identity: JSON-able description of everything that changes the result (fingerprint of the data, model,
            optimisation, seed), and of nothing that does not (workers, addresses, paths).
    """
    text = json.dumps(identity, sort_keys=True, default=str)
    return f"{data}-{stage}-{hash_text(text, 10)}"
