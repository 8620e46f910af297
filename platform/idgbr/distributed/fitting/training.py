"""Running a training stage on Ray Train, once: a finished stage is not trained again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.fitting.stage import WEIGHTS_FILE, CheckpointLocation, StageResult, StageSpec, TrainLoop
from idgbr.distributed.fitting.worker import train_worker
from idgbr.distributed.progress import following
from idgbr.errors import UserError
from idgbr.files import atomic_path
from idgbr.training.checkpoints import Checkpoints, metrics_of

PROGRESS_FILE = "progress.log"
"""In a run's folder: the lines of progress that rank 0 writes and the driver shows."""

CHECKPOINTS = "checkpoints"
"""In a run's folder: what it resumes from, unless `resources.checkpoints` names another place."""

REFUSAL_FILE = "refused.txt"
"""In a run's folder: what was wrong with the input, where a worker found that it is a user's error."""


def run_stage(spec: StageSpec, resources: ResourcesConfig, folder: str, fresh: bool = False) -> StageResult:
    """Train a stage; resume it where an earlier run of the same name ended; return at once if that one had finished.

    Args:
        spec: the stage.
        resources: workers and what each of them gets.
        folder: folder of all training runs, visible from every node; the run lives in `folder/spec.name`.
        fresh: forget an earlier run of the same name.

    Raises:
        UserError: fp16 without a GPU; a place that cannot be written, or has no room for a checkpoint.
    """
    run = Path(folder).resolve() / spec.name
    location = _checkpoint_location(run, resources)
    checkpoints = location.open()
    if fresh:
        checkpoints.clear()
        if run.exists():
            shutil.rmtree(run)
    finished = StageResult.read(run)
    if finished is not None:
        print(f"{spec.stage}: finished before, mIoU on select {finished.miou:.4f} ({run})", flush=True)
        return finished
    _prepare(run, spec, resources)
    started = time.monotonic()
    _fit(run, spec, resources, location)
    result = _collect(run, spec, checkpoints, time.monotonic() - started)
    result.write()
    return result


def _checkpoint_location(run: Path, resources: ResourcesConfig) -> CheckpointLocation:
    """Beside the run, or where `resources.checkpoints` says."""
    storage = resources.checkpoints
    if not storage:
        return CheckpointLocation(str(run), CHECKPOINTS, resources.keep_checkpoints)
    absolute = storage if "://" in storage else str(Path(storage).resolve())
    return CheckpointLocation(absolute, run.name, resources.keep_checkpoints)


def _prepare(run: Path, spec: StageSpec, resources: ResourcesConfig) -> None:
    """Makes the run's folder.

    Raises:
        UserError: it cannot be written, or the precision needs a GPU.
    """
    if spec.training.precision == "fp16" and resources.gpus_per_worker == 0:
        raise UserError(
            f"training.{spec.stage}.precision: found fp16 with resources.gpus_per_worker 0; fp16 needs a GPU, "
            "use bf16 or fp32 on CPUs"
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / PROGRESS_FILE).touch()
        (run / REFUSAL_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{run}: cannot be written ({error.strerror}); resources.storage has to be a folder that this machine and "
            "the workers may write to"
        ) from error


def _fit(run: Path, spec: StageSpec, resources: ResourcesConfig, location: CheckpointLocation) -> None:
    """Runs the workers to the stage's last step.

    Raises:
        UserError: a worker found that the input is at fault.
    """
    refusal = run / REFUSAL_FILE
    loop = TrainLoop(
        stage=spec,
        threads=resources.threads_per_worker,
        progress_file=str(run / PROGRESS_FILE),
        refusal_file=str(refusal),
        checkpoints=location,
        preemption_every=resources.preemption_every,
    )
    gpu = resources.gpus_per_worker > 0
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"loop": loop},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=_scaling(spec.windows.batch, resources),
        run_config=RunConfig(
            name=run.name,
            storage_path=str(run.parent),
            failure_config=FailureConfig(max_failures=resources.max_failures),
        ),
    )
    with following(run / PROGRESS_FILE):
        try:
            trainer.fit()
        except WorkerGroupError as error:
            failures = error.worker_failures.values()
            raise next((failure for failure in failures if isinstance(failure, UserError)), error) from None
        finally:
            if refusal.exists():
                raise UserError(refusal.read_text())


def _scaling(batch: int, resources: ResourcesConfig) -> ScalingConfig:
    """No more workers than a batch has windows; a range where fewer will do."""
    workers = min(resources.train_workers, batch)
    min_workers = min(resources.min_train_workers or workers, workers)
    gpus = {"GPU": resources.gpus_per_worker} if resources.gpus_per_worker > 0 else {}
    return ScalingConfig(
        num_workers=(min_workers, workers) if min_workers < workers else workers,  # type: ignore[arg-type]
        use_gpu=bool(gpus),
        resources_per_worker={"CPU": resources.cpus_per_worker, **gpus},
        placement_strategy="SPREAD",
    )


def _collect(run: Path, spec: StageSpec, checkpoints: Checkpoints, seconds: float) -> StageResult:
    """The result out of the last checkpoint; the best weights, which travel inside each, are copied beside it."""
    last = checkpoints.newest()
    metrics = metrics_of(last) if last else {}
    if last is None or not metrics["done"]:
        raise RuntimeError(f"{spec.name}: training ended without a checkpoint of its last step")
    weights = run / WEIGHTS_FILE
    with atomic_path(weights) as temporary:
        shutil.copyfile(last / WEIGHTS_FILE, temporary)
    return StageResult(
        name=spec.name,
        folder=str(run),
        weights=str(weights),
        steps=metrics["step"],
        best_step=metrics["best_step"],
        miou=metrics["miou"],
        seconds=seconds,
        history=tuple(metrics["history"]),
        rounds=metrics.get("rounds", []),  # a checkpoint of an earlier version has none
    )
