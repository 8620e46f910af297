"""Running a training stage on Ray Train, once: a finished stage is not trained again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.fitting.stage import WEIGHTS_FILE, StageResult, StageSpec
from idgbr.distributed.fitting.worker import train_worker
from idgbr.distributed.progress import following
from idgbr.errors import UserError
from idgbr.files import atomic_path
from idgbr.training.checkpoint_storage import open_checkpoints
from idgbr.training.checkpoints import metrics_of

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
    place, kept = (str(run), CHECKPOINTS), resources.keep_checkpoints
    if apart := resources.checkpoints:
        place = (apart if "://" in apart else str(Path(apart).resolve()), spec.name)
    checkpoints = open_checkpoints(*place, kept)
    if fresh:
        checkpoints.clear()
        if run.exists():
            shutil.rmtree(run)
    finished = StageResult.read(run)
    if finished is not None:
        print(f"{spec.stage}: finished before, mIoU on select {finished.miou:.4f} ({run})", flush=True)
        return finished
    gpu = resources.gpus_per_worker > 0
    if spec.training.precision == "fp16" and not gpu:
        raise UserError(
            f"training.{spec.stage}.precision: found fp16 with resources.gpus_per_worker 0; fp16 needs a GPU, "
            "use bf16 or fp32 on CPUs"
        )
    workers = min(resources.train_workers, spec.windows.batch)
    fewest = min(resources.min_train_workers or workers, workers)
    refusal = run / REFUSAL_FILE
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / PROGRESS_FILE).touch()
        refusal.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{run}: cannot be written ({error.strerror}); resources.storage has to be a folder that this machine and "
            "the workers may write to"
        ) from error
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "stage": spec,
            "threads": resources.threads_per_worker,
            "progress": str(run / PROGRESS_FILE),
            "checkpoints": (*place, kept),
            "preemption_every": resources.preemption_every,
            "refusal": str(refusal),
        },
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(fewest, workers) if fewest < workers else workers,  # type: ignore[arg-type]
            use_gpu=gpu,
            resources_per_worker={
                "CPU": resources.cpus_per_worker,
                **({"GPU": resources.gpus_per_worker} if gpu else {}),
            },
            placement_strategy="SPREAD",
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=str(run.parent),
            failure_config=FailureConfig(max_failures=resources.max_failures),
        ),
    )
    started = time.monotonic()
    with following(run / PROGRESS_FILE):
        try:
            trainer.fit()
        except WorkerGroupError as error:
            failures = error.worker_failures.values()
            raise next((failure for failure in failures if isinstance(failure, UserError)), error) from None
        finally:
            if refusal.exists():
                raise UserError(refusal.read_text())
    last = checkpoints.newest()
    metrics = metrics_of(last) if last else {}
    if last is None or not metrics["done"]:
        raise RuntimeError(f"{spec.name}: training ended without a checkpoint of its last step")
    weights = run / WEIGHTS_FILE
    # The best weights travel inside each checkpoint.
    with atomic_path(weights) as temporary:
        shutil.copyfile(last / WEIGHTS_FILE, temporary)
    result = StageResult(
        name=spec.name,
        folder=str(run),
        weights=str(weights),
        steps=metrics["step"],
        best_step=metrics["best_step"],
        miou=metrics["miou"],
        seconds=time.monotonic() - started,
        history=tuple(metrics["history"]),
        rounds=metrics.get("rounds", []),  # a checkpoint of an earlier version has none
    )
    result.write()
    return result
