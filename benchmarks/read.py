"""Windows read per second: ours, a plain rasterio loop, and torchgeo's sampler where it is installed.

    python jobs/benchmark.py read
    python jobs/benchmark.py read --input ortho.tif --window 512

The same pixels lie in a tiled and in a striped file, compressed. Windows come row by row, as refining reads them: ours
reads those of one row that overlap as one and cuts them. And they come from anywhere, as training reads them: ours
sorts those of a task. A task's windows are kept until all of them are read, by every loop. Ours also says which pixels
are valid; of the other two loops over rasterio one asks for masked windows, which do so too, and the plain one knows
nothing of validity. All run in one process with the environment of Ray's workers. Seconds are the processor's own, the
page cache is warm.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from idgbr.cli import JobFlags

if TYPE_CHECKING:
    from idgbr.raster.grid import Window

DEFAULT_CACHE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 20
"""GDAL's own, in bytes."""


class Flags(JobFlags):
    """Flags of the benchmark of reading."""

    input: str = ""
    """Raster to copy pixels from; empty: noise that compresses like imagery."""
    size: int = Field(4096, ge=256)
    """Side of the files in pixels."""
    window: int = Field(256, ge=32)
    """Side of a window."""
    windows: int = Field(512, ge=1)
    """Windows read."""
    repeats: int = Field(3, ge=1)
    """Runs of each, in turn; the fastest counts."""


def refining(path: str, tasks: Sequence[Sequence[Window]]) -> None:
    from idgbr.raster.gdal import gdal_env
    from idgbr.raster.scene import Scene
    from idgbr.raster.windows import rows_of

    scene = Scene(path)
    with gdal_env(path):
        for task in tasks:
            rows = list(rows_of(task))
            read = scene.read_each([whole for whole, _ in rows])
            [
                (pixels[:, *part], valid[part])
                for (whole, windows), (pixels, valid) in zip(rows, read, strict=True)
                for part in (window.slices((whole.row, whole.col)) for window in windows)
            ]


def training(path: str, tasks: Sequence[Sequence[Window]]) -> None:
    from idgbr.raster.gdal import gdal_env
    from idgbr.raster.scene import Scene

    scene = Scene(path)
    with gdal_env(path):
        for task in tasks:
            scene.read_each(sorted(task, key=attrgetter("row", "col")))


def plain(path: str, tasks: Sequence[Sequence[Window]], **options: bool) -> None:
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=DEFAULT_CACHE), rasterio.open(path) as file:
        for task in tasks:
            [file.read(window=window.to_rasterio(), **options) for window in task]


def masked(path: str, tasks: Sequence[Sequence[Window]]) -> None:
    plain(path, tasks, masked=True)


def torchgeo(path: str, tasks: Sequence[Sequence[Window]]) -> None:
    import rasterio
    from torchgeo.datasets import RasterDataset

    with rasterio.Env(GDAL_CACHEMAX=DEFAULT_CACHE), rasterio.open(path) as file:
        dataset = RasterDataset(paths=[path], cache=True)
        for task in tasks:
            corners = [(*(file.transform @ (w.col, w.row)), *(file.transform @ (w.stop_col, w.stop_row))) for w in task]
            [dataset[left:right, bottom:top] for left, top, right, bottom in corners]


Reader = Callable[[str, Sequence[Sequence["Window"]]], None]
OURS: dict[str, Reader] = {"row by row": refining, "anywhere": training}
OTHERS: dict[str, Reader] = {"plain rasterio": plain, "masked rasterio": masked, "torchgeo": torchgeo}


def seconds_of(reader: Reader, path: str, tasks: Sequence[Sequence[Window]]) -> float:
    """Processor seconds of one run, in a thread that takes its handles, and their blocks, with it."""
    began = time.process_time()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(reader, path, tasks).result()
    return time.process_time() - began


def main(flags: Flags) -> dict[str, object]:
    """Reads and compares."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from benchmarks._tiny import write_raster
    from idgbr.distributed.mapping.scenes import WINDOWS_PER_TASK
    from idgbr.distributed.session import worker_environment
    from idgbr.distributed.source import PIXELS_PER_TASK, ROWS_PER_TASK
    from idgbr.raster.grid import Window
    from idgbr.raster.windows import plan_windows

    others = {name: it for name, it in OTHERS.items() if name != "torchgeo" or importlib.util.find_spec("torchgeo")}
    plan = plan_windows(flags.size, flags.size, flags.window, flags.window // 4)
    inside = [w for w in plan if w.stop_row <= flags.size and w.stop_col <= flags.size]
    rows, cols = np.random.default_rng(0).integers(0, flags.size - flags.window + 1, (2, flags.windows)).tolist()
    orders = {
        "row by row": (inside * -(-flags.windows // len(inside)))[: flags.windows],
        "anywhere": [Window(row, col, flags.window, flags.window) for row, col in zip(rows, cols, strict=True)],
    }
    at_once = {"row by row": WINDOWS_PER_TASK, "anywhere": min(ROWS_PER_TASK, PIXELS_PER_TASK // flags.window**2)}
    table = Table(title=f"{flags.windows} windows of {flags.window} px from {flags.size} x {flags.size} px, 3 bands")
    for heading in ("file", "windows", *(f"{name} (1/s)" for name in ("ours", *others)), "ratio"):
        table.add_column(heading, justify="left" if heading in ("file", "windows") else "right")
    ratios = {}
    os.environ.update(worker_environment(1))
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process,
    ):
        for kind in ("tiled", "striped"):
            path = str(Path(folder, f"{kind}.tif"))
            write_raster(path, flags.size, flags.input, tiled=kind == "tiled")
            for order, places in orders.items():
                tasks = [places[first : first + at_once[order]] for first in range(0, len(places), at_once[order])]
                readers = {"ours": OURS[order], **others}
                seconds = dict.fromkeys(readers, float("inf"))
                for _ in range(flags.repeats):
                    for name, reader in readers.items():
                        elapsed = process.submit(seconds_of, reader, path, tasks).result()
                        seconds[name] = min(seconds[name], elapsed)
                ratio = min(value for name, value in seconds.items() if name != "ours") / seconds["ours"]
                ratios[f"{kind}, {order}"] = round(ratio, 3)
                speeds = (f"{len(places) / value:.0f}" for value in seconds.values())
                table.add_row(kind, order, *speeds, f"{ratio:.2f}")
    Console().print(table)
    return {"ratios": ratios, "compared_with": list(others)}
