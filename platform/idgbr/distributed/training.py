"""Running a training stage on Ray Train, once: a finished stage is not trained again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.progress import following
from idgbr.distributed.stage import WEIGHTS_FILE, StageResult, StageSpec
from idgbr.distributed.worker import train_worker
from idgbr.errors import UserError

PROGRESS_FILE = "progress.log"
"""In a run's folder: the lines of progress that rank 0 writes and the driver shows."""

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
        UserError: fp16 without a GPU.
    """
    run = Path(folder).resolve() / spec.name
    if fresh and run.exists():
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
    refusal = run / REFUSAL_FILE
    refusal.unlink(missing_ok=True)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "stage": spec,
            "threads": resources.threads_per_worker,
            "progress": str(run / PROGRESS_FILE),
            "refusal": str(refusal),
        },
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers,
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
            # The best weights travel inside each checkpoint, so the last one is all there is to keep.
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    run.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with following(run / PROGRESS_FILE):
        try:
            outcome = trainer.fit()
        finally:
            if refusal.exists():
                raise UserError(refusal.read_text())
    if outcome.checkpoint is None or outcome.metrics is None:
        raise RuntimeError(f"{spec.name}: training ended without a checkpoint")
    weights = run / WEIGHTS_FILE
    with outcome.checkpoint.as_directory() as last:
        shutil.copyfile(Path(last) / WEIGHTS_FILE, weights.with_suffix(".part"))
    weights.with_suffix(".part").replace(weights)
    metrics = outcome.metrics
    result = StageResult(
        name=spec.name,
        folder=str(run),
        weights=str(weights),
        steps=metrics["step"],
        best_step=metrics["best_step"],
        miou=metrics["miou"],
        seconds=time.monotonic() - started,
        history=tuple(metrics["history"]),
    )
    result.write()
    return result
