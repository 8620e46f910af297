"""The typed configuration of one experiment: every key that a YAML file or a flag may set, with its meaning.

Pure data: nothing here reads a file. Every section refuses unknown keys.
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
    """Name of the registered model; default idgbr-DATA, where DATA is data.name."""


class ResourcesConfig(Node):
    storage: str = "runs"
    """Folder for checkpoints, coarse maps, model folders and reports; on a cluster, one that all nodes can reach."""
    checkpoints: str = ""
    """Separate location for training checkpoints, which survives the loss of `storage`: a folder, or a URI of any file
    system that pyarrow knows, such as s3://BUCKET/PREFIX. Driver and workers read its credentials from their
    environment."""
    keep_checkpoints: int = Field(2, ge=1)
    """Number of newest checkpoints kept per run; an older one is used if the newest is damaged."""
    ray_address: str = ""
    """Address of a running cluster; if empty, uses the cluster that runs the job, or starts a local one."""
    logical_cpus: int = Field(4, ge=1)
    """Number of CPUs that a local Ray declares."""
    train_workers: int = Field(2, ge=1)
    min_train_workers: int = Field(0, ge=0)
    """Smallest number of workers with which training starts, or continues after a lost worker, if the cluster has no
    room for more; 0: waits for all of them."""
    infer_workers: int = Field(2, ge=1)
    in_process_windows: int = Field(64, ge=0)
    """A pass over scenes with at most so many windows runs in the job's own process instead of in workers, unless it
    uses GPUs or an existing cluster: starting workers would take longer. 0: always workers."""
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    threads_per_worker: int = Field(1, ge=1)
    """OpenMP and torch threads of each worker."""
    max_failures: int = Field(3, ge=-1)
    """Worker failures that a training run survives; a machine that is lost before its announced end counts, too."""
    preemption_every: int = Field(10, ge=0)
    """Training steps between checks for an announced preemption of a machine; if there is one, training writes a
    checkpoint immediately. 0: no checks."""

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
