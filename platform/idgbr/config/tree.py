"""The typed tree of one experiment: every key a YAML or an override may set, with its meaning.

Pure data: nothing here reads a file. Unknown keys are refused by every node.
"""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from idgbr.config.data import DataConfig
from idgbr.config.evaluation import EvaluationConfig, GateConfig
from idgbr.config.inference import InferenceConfig
from idgbr.config.models import CoarseConfig, RefinerConfig, SamplerConfig
from idgbr.config.node import Node
from idgbr.config.training import TrainingConfig


class TrackingConfig(Node):
    uri: str = "sqlite:///mlflow.db"
    """MLflow store: SQLite on one machine, a server's URI on a cluster."""
    experiment: str = "idgbr"
    model_name: str = ""
    """Registered model; default idgbr-DATA."""


class ResourcesConfig(Node):
    storage: str = "runs"
    """Folder for checkpoints, coarse maps, model folders and reports; on a cluster one that every node reaches."""
    checkpoints: str = ""
    """Another place for the checkpoints of training, which outlives that folder: a folder, or a URI of any file system
    that pyarrow knows, such as s3://BUCKET/PREFIX. Its keys come from the environment of driver and workers."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many of a run's checkpoints stay, the newest; the one before is for when the newest is found damaged."""
    ray_address: str = ""
    """Address of a running cluster; empty joins the one of the job, or starts a local one."""
    logical_cpus: int = Field(4, ge=1)
    """CPUs a local Ray declares."""
    train_workers: int = Field(2, ge=1)
    min_train_workers: int = Field(0, ge=0)
    """Training begins, and goes on after a loss, with as few workers where no more fit; 0: waits for all of them."""
    infer_workers: int = Field(2, ge=1)
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    threads_per_worker: int = Field(1, ge=1)
    """OMP and torch threads of each worker."""
    max_failures: int = Field(3, ge=-1)
    """Worker failures a training run survives; a machine lost before its announced end counts, too."""
    preemption_every: int = Field(10, ge=0)
    """Training steps between questions whether a machine is about to be taken away, which makes a checkpoint at once;
    0: never."""

    @field_validator("storage")
    @classmethod
    def _is_folder(cls, value: str) -> str:
        if "://" in value:
            raise ValueError(
                f"found {value!r}; expected a folder, since rasters are written in place there. Only checkpoints of "
                "training may lie in a bucket: resources.checkpoints"
            )
        return value


class Experiment(Node):
    """One experiment, from imagery to a registered model."""

    data: DataConfig
    coarse: CoarseConfig = CoarseConfig()
    refiner: RefinerConfig = RefinerConfig()
    sampler: SamplerConfig = SamplerConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: GateConfig = GateConfig()
    tracking: TrackingConfig = TrackingConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @model_validator(mode="after")
    def _odds_by_class(self) -> Experiment:
        odds, classes = self.refiner.coarse_odds, self.data.classes
        if odds and len(odds) != len(classes):
            names = ", ".join(spec.name for spec in classes)
            raise ValueError(f"refiner.coarse_odds: found {len(odds)} values; expected one for each class: {names}")
        return self

    @model_validator(mode="after")
    def _min_region_by_class(self) -> Experiment:
        minimum, names = self.sampler.min_region, [spec.name for spec in self.data.classes]
        unknown = [name for name in minimum if name not in names] if isinstance(minimum, dict) else []
        if unknown:
            raise ValueError(f"sampler.min_region: no class {unknown[0]!r}; expected some of: {', '.join(names)}")
        return self
