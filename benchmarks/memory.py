"""Peak memory of refining against the size of the scene, and whether it goes on after its driver was killed.

    python jobs/benchmark.py memory
    python jobs/benchmark.py memory --sizes 10000,20000 --input ortho.tif --map labels.tif

Scenes are VRTs that repeat the same pixels; the model is a tiny one of random weights. Each is refined by
jobs/refine.py in a process of its own, and memory is looked at from outside, once a second: the PSS of the driver
and of every worker that it started, which is what is private to them and their part of what they share, and of that
what no file backs (libraries are counted to a process by how many others map them just then). The driver of
the largest scene is killed halfway through its refined map, and the same command given again. Polygons are made of maps
of the same sizes, one that repeats a real one's areas: those of random weights are specks.
"""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from benchmarks._processes import Process, Watch
from idgbr.cli import JobFlags, Switch
from idgbr.errors import IdgbrError

MIB = 2**20
TILE = 2048
"""Side of the raster that scenes repeat."""


class Flags(JobFlags):
    """Flags of the benchmark of memory."""

    input: str = ""
    """Raster of three bands to take pixels from; empty: noise that compresses like imagery."""
    map: str = ""
    """Raster of class ids whose polygons are made; empty: patches of some hundred pixels."""
    sizes: list[int] = Field([2000, 4000], min_length=2)
    """Sides of the scenes in pixels, ascending."""
    window: int = Field(384, ge=64)
    """Window of both stages in pixels."""
    workers: int = Field(2, ge=1)
    """Predictors."""
    kill: Switch = True
    """Kill the driver of the largest scene, and resume."""
    folder: str = ""
    """Where scenes and maps are written, and stay; empty: a temporary folder."""


@dataclass
class Run:
    """A refinement as it was seen.

    Attributes:
        seconds: Wall clock, start-up included.
        driver: The driver as it was seen.
        worker: Of its workers the largest.
        together: Likewise of driver and workers at one time.
        windows: Windows it refined; 0 when it was killed.
    """

    seconds: float
    driver: Process
    worker: Process
    together: int
    windows: int


def main(flags: Flags) -> dict[str, object]:
    """Refines and measures."""
    import rasterio

    from benchmarks._tiny import tiny_model, write_map, write_raster, write_repeating
    from idgbr.raster.windows import plan_windows

    sizes = sorted(flags.sizes)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(flags.folder or scratch).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        model, tile = tiny_model(folder / "model", flags.window), folder / "tile.tif"
        write_raster(str(tile), min(TILE, sizes[-1]), flags.input)
        found: dict[str, Run] = {}
        for size in sizes:
            scene, output = folder / f"scene-{size}.vrt", folder / f"maps-{size}"
            write_repeating(str(scene), size, str(tile))
            words = ["--model", str(model), "--input", str(scene), "--output", str(output)]
            words += ["--workers", str(flags.workers), "--in-process-windows", "0", "--fresh"]
            if flags.kill and size == sizes[-1]:
                found[f"{size}, killed"] = _refine(words, folder, _half_written(output, size))
                found[f"{size}, resumed"] = _refine(words[:-1], folder)
            else:
                found[str(size)] = _refine(words, folder)
            with rasterio.open(output / f"{scene.stem}.tif") as refined:
                if refined.shape != (size, size):
                    raise IdgbrError(f"{refined.name}: {refined.shape} pixels instead of {size} x {size}")
        write_map(str(folder / "map.tif"), min(TILE, sizes[-1]), flags.map)
        outlines = {}
        for size in sizes:
            write_repeating(str(folder / f"map-{size}.vrt"), size, str(folder / "map.tif"))
            outlines[size] = _polygonise(folder / f"map-{size}.vrt")
        every = len(plan_windows(sizes[-1], sizes[-1], flags.window, flags.window // 8))
    return _told(found, outlines, sizes, every)


@dataclass
class Outlines:
    """The making of a map's polygons: seconds of the wall clock, and the process as it was seen."""

    seconds: float
    process: Process


def _polygonise(path: Path) -> Outlines:
    from idgbr.raster.polygons import PolygonOptions, polygonise

    began, out = time.monotonic(), path.with_suffix(".gpkg")
    classes = [(0, "ground", "#d9d9d9"), (1, "building", "#d7191c")]
    process = multiprocessing.get_context("spawn").Process(
        target=polygonise, args=(str(path), str(out), classes, PolygonOptions(4.0))
    )
    process.start()
    assert process.pid is not None
    with Watch(process.pid, every=0.2) as watch:
        process.join()
    if process.exitcode:
        raise IdgbrError(f"the polygons of {path} ended with {process.exitcode}")
    return Outlines(time.monotonic() - began, watch.found[process.pid])


def _half_written(output: Path, size: int) -> Callable[[], bool]:
    rows = f".refining/scene-{size}-*/maps/*/rows"  # one byte a pixel, as they are written
    return lambda: any(path.stat().st_size >= size * size // 2 for path in output.glob(rows))


def _refine(words: list[str], folder: Path, kill: Callable[[], bool] | None = None) -> Run:
    """Runs the job; where there is a `kill`, kills it once that says so."""
    began, killed = time.monotonic(), False
    with tempfile.TemporaryFile("w+", dir=folder) as log:
        job = Path(__file__).resolve().parents[1] / "jobs" / "refine.py"
        driver = subprocess.Popen([sys.executable, str(job), *words], stdout=log, stderr=subprocess.STDOUT)
        try:
            with Watch(driver.pid) as watch:
                while driver.poll() is None:
                    if kill is not None and kill():
                        driver.kill()
                        killed = True
                    time.sleep(0.1)
        finally:
            driver.kill()
            driver.wait()
        log.seek(0)
        output = log.read()
    if driver.returncode and not killed:
        raise IdgbrError(f"jobs/refine.py ended with {driver.returncode}: {output[-2000:]}")
    if kill is not None and not killed:
        raise IdgbrError("the map was done before its driver could be killed: take a larger scene")
    counts = re.findall(r"refined maps: (\d+) of \1", output)
    run = Run(
        time.monotonic() - began,
        watch.found[driver.pid],
        max(watch.of("worker"), key=lambda process: process.peak),
        watch.peak,
        int(counts[-1]) if counts else 0,
    )
    # Large scenes take long: each result is printed as soon as it is known.
    print(f"{words[3]}: {'killed' if killed else 'done'} after {run.seconds:.0f} s, driver {_mib(run.driver)} MiB, "
          f"largest worker {_mib(run.worker)} MiB", flush=True)  # fmt: skip
    return run


def _told(found: dict[str, Run], outlines: dict[int, Outlines], sizes: list[int], every: int) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="peak PSS, MiB (of it without mapped files)", caption="seconds: wall clock, start-up included")
    for heading in ("scene", "seconds", "windows", "driver", "largest worker", "of", "all together"):
        table.add_column(heading, justify="left" if heading == "of" else "right")
    for name, run in found.items():
        words = (f"{run.seconds:.0f}", f"{run.windows or ''}", _mib(run.driver), _mib(run.worker))
        table.add_row(name, *words, run.worker.titles[-1].partition("(")[0], f"{run.together / MIB:.0f}")
    for size, made in outlines.items():
        table.add_row(f"{size}, polygons", f"{made.seconds:.0f}", "", _mib(made.process), "", "", "")
    Console(width=120).print(table)
    peaks: dict[int, dict[str, float]] = {}
    for size in sizes:
        runs = [run for name, run in found.items() if name.split(",")[0] == str(size)]
        seen = {
            "driver": [run.driver for run in runs],
            "worker": [run.worker for run in runs],
            "polygons": [outlines[size].process],
        }
        peaks[size] = {who: max(process.peak for process in some) / MIB for who, some in seen.items()}
        peaks[size] |= {f"{who}, held": max(process.held for process in some) / MIB for who, some in seen.items()}
        peaks[size]["together"] = max(run.together for run in runs) / MIB
    # Against the one before, since below some thousand pixels not every buffer is full.
    before, last = peaks[sizes[-2]], peaks[sizes[-1]]
    return {
        "peak_mib": {str(size): {key: round(value) for key, value in peak.items()} for size, peak in peaks.items()},
        "growth": {key: round(last[key] / before[key], 3) for key in last},
        "seconds": {name: round(run.seconds, 1) for name, run in found.items()},
        "windows": every,
        "windows_after_kill": next((run.windows for name, run in found.items() if "resumed" in name), None),
    }


def _mib(process: Process) -> str:
    return f"{process.peak / MIB:.0f} ({process.held / MIB:.0f})"
