"""Refining scenes on Ray Data against a bare loop: megapixels a second, and where the time goes.

    python jobs/benchmark.py scene --config configs/demo.yaml
    python jobs/benchmark.py scene --config configs/demo.yaml --model models:/idgbr-demo@champion --input ortho.tif

The platform refines as jobs/refine.py does, with one actor a stage and with two, one thread each: it reads, predicts,
blends and writes. The bare loop is one process of one thread that has the windows of both stages in memory and
predicts them in the same batches, and nothing else; beside two actors, two of them at a time. Both take turns, and the
fastest of each counts. Steady state is the difference between a job of several scenes and a job of one: what a job
costs once (actors that load their model) cancels out, and is reported by itself. CPU seconds are what a process itself
used, whatever else the machine did; the wall time that they allow at best is shown beside the measured one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from benchmarks._processes import Watch
from idgbr.cli import ExperimentFlags
from idgbr.config.tree import Experiment, ResourcesConfig
from idgbr.errors import IdgbrError

WORKERS = (1, 2)


class Flags(ExperimentFlags):
    """Flags of the benchmark of scenes."""

    model: str = ""
    """Model to refine with; default: the configuration's networks with random weights, which take as long."""
    input: str = ""
    """Raster of three bands to copy pixels from; empty: noise that compresses like imagery."""
    size: int = Field(512, ge=64)
    """Side of a scene in pixels."""
    scenes: int = Field(4, ge=2)
    """Scenes of the longer job."""
    repeats: int = Field(2, ge=1)
    """Runs of each, in turn; the fastest counts."""


@dataclass
class Cost:
    """What refining a scene costs, seconds.

    Attributes:
        wall: Of the wall clock.
        processor: Of the processor, by who used it up.
    """

    wall: float
    processor: dict[str, float]


def main(flags: Flags, experiment: Experiment) -> dict[str, object]:
    """Refines and compares."""
    from benchmarks._directly import untrained
    from benchmarks._scenes import bare_loops
    from benchmarks._tiny import write_raster
    from idgbr.distributed.session import start_ray, worker_environment
    from idgbr.registry.versions import resolve

    with tempfile.TemporaryDirectory() as scratch:
        folder, output = Path(scratch), Path(scratch) / "maps"
        model = Path(resolve(flags.model, experiment.tracking.uri)[0]) if flags.model else folder / "model"
        if not flags.model:
            untrained(model, experiment)
        scenes = [folder / "scenes" / f"scene-{i}.tif" for i in range(flags.scenes)]
        scenes[0].parent.mkdir()
        write_raster(str(scenes[0]), flags.size, flags.input)
        for other in scenes[1:]:
            shutil.copyfile(scenes[0], other)
        ones, severals, alones = ({n: list[Cost]() for n in WORKERS} for _ in range(3))
        equal = 1.0
        os.environ.update(worker_environment(1))
        with start_ray(ResourcesConfig()), bare_loops(model, scenes[0], max(WORKERS)) as bare:
            for _ in range(flags.repeats):
                for workers in WORKERS:
                    spent, ids = bare(workers)
                    alones[workers].append(_bare_cost(spent))
                    ones[workers].append(_refined(model, scenes[:1], output, workers))
                    severals[workers].append(_refined(model, scenes, output, workers))
                    equal = min(equal, _equal(output / scenes[-1].name, ids))
    if equal < 0.98:
        raise IdgbrError(f"platform and bare loop disagree: {equal:.2%} of the pixels are equal; nothing to compare")
    one, several, alone = ({n: _least(costs) for n, costs in found.items()} for found in (ones, severals, alones))
    further = {n: _further(one[n], several[n], flags.scenes - 1) for n in WORKERS}
    startup = {n: one[n].wall - further[n].wall for n in WORKERS}
    return {"pixels_equal": round(equal, 4), **_told(flags.size**2 / 1e6, further, alone, startup)}


def _bare_cost(spent: list[tuple[dict[str, float], dict[str, float]]]) -> Cost:
    """A scene's, where several processes map one each."""
    walls = [wall["coarse"] + wall["refiner"] for wall, _ in spent]
    processors = [seconds for _, seconds in spent]
    model = min(seconds["coarse"] + seconds["refiner"] for seconds in processors)
    return Cost(max(walls) / len(walls), {"model": model, "blend": min(seconds["blend"] for seconds in processors)})


def _refined(model: Path, scenes: list[Path], output: Path, workers: int) -> Cost:
    """Refines scenes in one job, this process being its driver."""
    from idgbr.distributed.mapping.refine import RefineRequest, refine

    with Watch(os.getpid(), every=0.5, memory=False) as watch:
        began = time.perf_counter()
        request = RefineRequest(str(model), tuple(map(str, scenes)), str(output), fresh=True)
        refine(request, ResourcesConfig(infer_workers=workers, in_process_windows=0))
        wall = time.perf_counter() - began
    processor = dict.fromkeys(("driver", "actors", "readers", "Ray"), 0.0)
    for process in watch.found.values():
        actor = any("MapWorker" in title for title in process.titles)
        processor["actors" if actor else {"worker": "readers"}.get(process.role, process.role)] += process.seconds
    return Cost(wall, processor)


def _equal(path: Path, ids: NDArray[np.uint8]) -> float:
    import rasterio

    with rasterio.open(path) as refined:
        return float((refined.read(1) == ids).mean())


def _least(costs: list[Cost]) -> Cost:
    return Cost(
        min(cost.wall for cost in costs),
        {who: min(cost.processor[who] for cost in costs) for who in costs[0].processor},
    )


def _further(one: Cost, several: Cost, more: int) -> Cost:
    """Cost of a further scene, of which a job has `more`."""
    processor = {who: (several.processor[who] - one.processor[who]) / more for who in one.processor}
    return Cost((several.wall - one.wall) / more, processor)


def _at_best(processor: dict[str, float], actors: int) -> float:
    """The least wall-clock seconds that such work takes on a machine with nothing else to do."""
    busiest = max(processor["actors"] / actors, processor["driver"])
    return max(busiest, sum(processor.values()) / (os.cpu_count() or 1))


def _told(
    megapixels: float, further: dict[int, Cost], alone: dict[int, Cost], startup: dict[int, float]
) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=110)
    table = Table(
        title="refining, steady state",
        caption="at best: processor seconds of the process that used most, or of all of them over this machine's cores",
    )
    for heading in ("", "Mpx/s", "of bare", "of one", "at best, s/Mpx", "of bare"):
        table.add_column(heading, justify="left" if not heading else "right")
    bare, model = alone[1].wall, alone[1].processor["model"]
    at_best = {n: _at_best(cost.processor, n) for n, cost in further.items()}
    for n, cost in alone.items():
        share = cost.processor["model"] / n
        words = [f"{megapixels / cost.wall:.4f}", f"{bare / cost.wall:.2f}", f"{bare / cost.wall:.2f}"]
        table.add_row(f"bare, {n} at a time", *words, f"{share / megapixels:.2f}", f"{model / share:.2f}")
    for n, cost in further.items():
        words = [f"{megapixels / cost.wall:.4f}", f"{bare / cost.wall:.2f}", f"{further[1].wall / cost.wall:.2f}"]
        table.add_row(f"Ray Data, {n} a stage", *words, f"{at_best[n] / megapixels:.2f}", f"{model / at_best[n]:.2f}")
    console.print(table)
    parts = Table(title="where the processor's time goes, s/Mpx")
    for heading in ("", *(f"{n} a stage" for n in further)):
        parts.add_column(heading, justify="left" if not heading else "right")
    blend = alone[1].processor["blend"]
    rows = {
        "actors: model, as in the bare loop": [model for _ in further],
        "actors: around it": [cost.processor["actors"] - model for cost in further.values()],
        "readers": [cost.processor["readers"] for cost in further.values()],
        "driver: blending": [blend for _ in further],
        "driver: writing, Ray Data": [cost.processor["driver"] - blend for cost in further.values()],
        "Ray's own processes": [cost.processor["Ray"] for cost in further.values()],
    }
    for name, values in rows.items():
        parts.add_row(name, *(f"{value / megapixels:.3f}" for value in values))
    parts.add_row("start-up of a job, wall seconds", *(f"{seconds:.1f}" for seconds in startup.values()))
    console.print(parts)
    return {
        "mpx_per_s": {str(n): round(megapixels / cost.wall, 4) for n, cost in further.items()},
        "bare_mpx_per_s": {str(n): round(megapixels / cost.wall, 4) for n, cost in alone.items()},
        "ratio": round(bare / further[1].wall, 3),
        "ratio_at_best": round(model / at_best[1], 3),
        "speedup": round(further[1].wall / further[2].wall, 3),
        "speedup_at_best": round(at_best[1] / at_best[2], 3),
        "startup_s": {str(n): round(seconds, 1) for n, seconds in startup.items()},
        "where_s_per_mpx": {name: [round(v / megapixels, 4) for v in values] for name, values in rows.items()},
    }
