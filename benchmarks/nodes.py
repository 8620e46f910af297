"""What the control plane costs as nodes multiply: one refinement on clusters of more and more logical nodes.

    python jobs/benchmark.py nodes
    python jobs/benchmark.py nodes --nodes 2,16,48 --size 2048

Every node is a raylet of its own with two logical CPUs, all on this machine, beside a head without CPUs; the scene, the
model (a tiny one of random weights) and the predictors stay the same, so that what grows is what nodes cost: memory
and processor seconds of the GCS, processor seconds of a raylet and of the driver. The wall clock says nothing here,
since the nodes share this machine's processors.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from benchmarks._processes import Watch
from idgbr.cli import JobFlags
from idgbr.errors import IdgbrError, UserError

MIB = 2**20
STORE = 80 * MIB
"""Bytes of a node's object store; Ray's least is 75 MiB."""


class Flags(JobFlags):
    """Flags of the benchmark of nodes."""

    nodes: list[int] = Field([2, 8, 24], min_length=2)
    """Logical nodes beside the head, ascending."""
    size: int = Field(2048, ge=256)
    """Side of the scene in pixels."""
    window: int = Field(128, ge=64)
    """Window of both stages in pixels."""
    workers: int = Field(2, ge=1)
    """Predictors of a stage."""


@dataclass
class Run:
    """A refinement on a cluster, as its processes were seen.

    Attributes:
        gcs_mib: Most memory (PSS) of the GCS.
        gcs_seconds: Processor seconds of the GCS.
        raylet_seconds: Of a raylet, the mean over the nodes.
        driver_mib: Most memory of the driver.
        driver_seconds: Processor seconds of the driver.
        processes: Ray's workers, idle ones included.
        wall: Seconds from the driver's start to its end.
    """

    gcs_mib: float
    gcs_seconds: float
    raylet_seconds: float
    driver_mib: float
    driver_seconds: float
    processes: int
    wall: float


def main(flags: Flags) -> dict[str, object]:
    """Refines and measures."""
    from benchmarks._tiny import tiny_model, write_raster
    from idgbr.raster.windows import plan_windows

    if flags.workers > min(flags.nodes):
        raise UserError(
            f"--workers {flags.workers}: more than {min(flags.nodes)} nodes hold beside what reads for them"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, scene = tiny_model(folder / "model", flags.window), folder / "scene.tif"
        write_raster(str(scene), flags.size)
        words = ["--model", str(model), "--input", str(scene), "--workers", str(flags.workers)]
        found = {count: _refine([*words, "--output", str(folder / f"maps-{count}")], count) for count in flags.nodes}
    windows = 2 * len(plan_windows(flags.size, flags.size, flags.window, flags.window // 8))
    return _told(found, windows)


def _refine(words: list[str], nodes: int) -> Run:
    """Runs the job on a cluster that another process keeps: one changes what Ray holds for its whole process."""
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    keeping = [sys.executable, "-m", "benchmarks._cluster", str(nodes), str(STORE)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(keeping, env=environment, cwd=root, **pipes) as keeper,
    ):
        assert keeper.stdin is not None and keeper.stdout is not None
        try:
            address = json.loads(keeper.stdout.readline() or "null")
            if address is None:
                raise IdgbrError(f"the cluster of {nodes} nodes did not start")
            with Watch(os.getpid()) as watch:
                began = time.monotonic()
                driver = subprocess.Popen(
                    [sys.executable, str(root / "jobs" / "refine.py"), *words],
                    env=environment | {"RAY_ADDRESS": address}, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
                try:
                    driver.wait()
                finally:
                    driver.kill()
                wall = time.monotonic() - began
        finally:
            keeper.stdin.close()  # which ends it
            keeper.wait()
        if driver.returncode:
            log.seek(0)
            raise IdgbrError(f"jobs/refine.py ended with {driver.returncode}: {log.read()[-2000:]}")
    own, gcs = watch.found[driver.pid], watch.called("gcs_server")
    raylets = watch.called("raylet")
    if len(gcs) != 1 or len(raylets) != nodes + 1:
        raise IdgbrError(f"found {len(gcs)} GCS and {len(raylets)} raylets instead of 1 and {nodes + 1}")
    return Run(
        gcs[0].peak / MIB,
        gcs[0].seconds,
        sum(raylet.seconds for raylet in raylets) / len(raylets),
        own.peak / MIB,
        own.seconds,
        len(watch.of("worker")),
        wall,
    )


def _told(found: dict[int, Run], windows: int) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"one scene, {windows} windows, on more and more nodes", caption="s: processor seconds")
    for heading in ("nodes", "GCS MiB", "GCS s", "a raylet s", "driver MiB", "driver s", "workers", "wall s"):
        table.add_column(heading, justify="right")
    for nodes, run in found.items():
        table.add_row(
            str(nodes), f"{run.gcs_mib:.0f}", f"{run.gcs_seconds:.1f}", f"{run.raylet_seconds:.2f}",
            f"{run.driver_mib:.0f}", f"{run.driver_seconds:.1f}", str(run.processes), f"{run.wall:.0f}",
        )  # fmt: skip
    Console(width=110).print(table)
    few, many = min(found), max(found)
    span = many - few
    return {
        "windows": windows,
        "runs": {
            str(nodes): {key: round(value, 2) for key, value in asdict(run).items()} for nodes, run in found.items()
        },
        "gcs_mib_a_node": round((found[many].gcs_mib - found[few].gcs_mib) / span, 3),
        "gcs_cores": {str(nodes): round(run.gcs_seconds / run.wall, 4) for nodes, run in found.items()},
        "driver_growth": round(found[many].driver_seconds / found[few].driver_seconds, 3),
    }
