"""Ray Train against a bare PyTorch loop: steps a second of a stage of an experiment, and where the time goes.

    python jobs/benchmark.py train --config configs/demo.yaml
    python jobs/benchmark.py train --config configs/demo.yaml --stage refiner --steps 20

The platform trains as jobs/train.py does, with one worker and with two, one thread each; the bare loop is one process
of one thread, and beside two workers two of them at a time, each on half of a batch, without exchanging anything. It
has the same model and the same windows, in memory, normalised and augmented beforehand. Both stand idle while the other
runs. A run is rounds of steps: the first, in which workers start, caches fill and gradients are laid out, does not
count, nor do measurements and checkpoints between the rounds; of the others the quickest does. All of it is done
`--repeats` times, every other time backwards: a machine that others share runs at one speed now and at another later.
Processor seconds say what a process itself used up, whatever else the machine did; waiting is not in them.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from idgbr.cli import ExperimentFlags
from idgbr.config.tree import Experiment, ResourcesConfig

PARTS = ("windows", "augmenting", "step", "rest")


class Flags(ExperimentFlags):
    """Flags of the benchmark of training."""

    stage: Literal["coarse", "refiner"] = "coarse"
    """Which stage; the refiner learns from coarse maps of a backbone of random weights."""
    steps: int = Field(30, ge=1)
    """Steps of a round."""
    rounds: int = Field(3, ge=1)
    """Rounds that count."""
    repeats: int = Field(2, ge=1)
    """Times that everything is run, the quickest of which counts."""


def main(flags: Flags, experiment: Experiment) -> dict[str, object]:
    """Trains and compares."""
    from benchmarks._directly import untrained
    from benchmarks._training import Bare, bare_loop
    from idgbr.distributed.data import prepare_data
    from idgbr.distributed.fitting.training import run_stage
    from idgbr.distributed.fitting.two_stages import stage_spec
    from idgbr.distributed.mapping.coarse_maps import coarse_maps
    from idgbr.distributed.session import start_ray, worker_environment

    training = (experiment.training.coarse if flags.stage == "coarse" else experiment.training.refiner).model_copy(
        update={
            "steps": flags.steps * (flags.rounds + 1), "validate_every": flags.steps, "validate_windows": 1,
            "patience": 0,
        }
    )  # fmt: skip
    resources = ResourcesConfig(preemption_every=experiment.resources.preemption_every)
    with tempfile.TemporaryDirectory() as scratch, start_ray(resources):
        data = prepare_data(experiment.data, Path(scratch) / "data")
        if flags.stage == "refiner":
            model, regions = (
                untrained(Path(scratch) / "model", experiment),
                (*data.split("train"), *data.split("select")),
            )
            mapped = coarse_maps(regions, model, Path(scratch) / "coarse", experiment, "coarse maps")
            data = replace(data, prepared=tuple(mapped))
        train = data.split("train")
        spec = stage_spec("benchmark", flags.stage, flags.stage, experiment, train, data, training)
        os.environ.update(worker_environment(1))

        def bare(processes: int) -> Bare:
            with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
                work = [
                    pool.submit(bare_loop, spec, flags.steps, flags.rounds, (rank, processes))
                    for rank in range(processes)
                ]
                return max((one.result() for one in work), key=lambda one: one.wall)

        def trained(workers: int, repeat: int) -> list[dict[str, float]]:
            one = replace(spec, name=f"benchmark-{workers}-{repeat}")
            return run_stage(one, resources.model_copy(update={"train_workers": workers}), scratch, fresh=True).rounds

        directly: dict[int, Bare] = {}
        rounds: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for repeat in range(flags.repeats):
            for workers in (1, 2) if repeat % 2 == 0 else (2, 1):
                found = bare(workers)
                directly[workers] = min(directly.get(workers, found), found, key=lambda one: one.wall)
                rounds[workers] += trained(workers, repeat)[1:]
        platform = {workers: _best(rounds[workers]) for workers in directly}
    return _told(flags, platform, directly)


def _best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Seconds of a step by part, of the quickest round; `wall` is their sum, `processor` the least of all rounds."""
    a_step = [{key: value / one["steps"] for key, value in one.items()} for one in rounds]
    best = min(a_step, key=lambda one: sum(one[part] for part in PARTS))
    return {
        **{part: best[part] for part in PARTS},
        "wall": sum(best[part] for part in PARTS),
        "processor": min(one["processor"] for one in a_step),
    }


def _told(flags: Flags, platform: dict[int, dict[str, float]], directly: dict[int, Any]) -> dict[str, object]:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=110)
    table = Table(title=f"{flags.stage}: steps a second", caption="processor: of the loop's own process, rank 0's")
    for heading in ("", "steps/s", "of bare", "of one", "processor s/step", "of bare"):
        table.add_column(heading, justify="left" if not heading else "right")
    alone, single = directly[1], platform[1]
    for workers, one in directly.items():
        name = "bare loop" if workers == 1 else f"{workers} bare loops, a half each"
        speed, processor = alone.wall / one.wall, alone.processor / one.processor
        table.add_row(name, f"{1 / one.wall:.2f}", "", f"{speed:.2f}", f"{one.processor:.3f}", f"{processor:.2f}")
    for workers, found in platform.items():
        walls = (alone.wall / found["wall"], single["wall"] / found["wall"])
        processor = alone.processor / found["processor"]
        name = f"Ray Train, {workers} worker{'s' * (workers > 1)}"
        words = (f"{value:.2f}" for value in (1 / found["wall"], *walls))
        table.add_row(name, *words, f"{found['processor']:.3f}", f"{processor:.2f}")
    console.print(table)
    parts = Table(title="where a step's time goes, ms", caption="of the wall clock; reading: of the processor")
    for heading in ("", "1 worker", "2 workers"):
        parts.add_column(heading, justify="left" if not heading else "right")
    rows = {
        "reading, in other processes": [directly[n].reading for n in platform],
        "waiting for windows": [platform[n]["windows"] for n in platform],
        "normalising, augmenting": [platform[n]["augmenting"] for n in platform],
        "forward, backward, optimiser: bare": [directly[n].wall for n in platform],
        "beyond bare: all-reduce, waiting for each other": [platform[n]["step"] - directly[n].wall for n in platform],
        "the rest": [platform[n]["rest"] for n in platform],
    }
    for name, values in rows.items():
        parts.add_row(name, *(f"{1e3 * value:.1f}" for value in values))
    console.print(parts)
    return {
        "steps_per_s": {str(n): round(1 / found["wall"], 3) for n, found in platform.items()},
        "bare_steps_per_s": {str(n): round(1 / one.wall, 3) for n, one in directly.items()},
        "ratio": round(alone.wall / single["wall"], 3),
        "ratio_processor": round(alone.processor / single["processor"], 3),
        "speedup": round(single["wall"] / platform[2]["wall"], 3),
        "speedup_processor": round(single["processor"] / platform[2]["processor"], 3),
        "bare_speedup": round(alone.wall / directly[2].wall, 3),
        "where_ms": {name: [round(1e3 * value, 2) for value in values] for name, values in rows.items()},
    }
