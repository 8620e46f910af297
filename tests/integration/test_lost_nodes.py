"""Machines that go away, with and without a notice, from under training and refinement on a cluster of three."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from test_resume import environment, start
from toys import PLANNED, SHAPE, STEPS, trajectory

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.mapping.refine import RefineRequest, refine

pytestmark = pytest.mark.slow


class Machines:
    """The cluster that keep_nodes.py keeps; every job on it is a process under the same token."""

    def __init__(self, folder: Path) -> None:
        self.token = folder / "token"
        self._keeper = start("keep_nodes.py", folder, token=self.token)

    def ask(self, *words: str) -> Any:
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        print(*words, file=self._keeper.stdin, flush=True)
        return json.loads(self._keeper.stdout.readline())

    def drive(self, folder: Path, **request: Any) -> subprocess.Popen[str]:
        """A job on three machines; `request` is what drive_nodes.py takes."""
        return start("drive_nodes.py", folder, self.ask("fill"), json.dumps(request), token=self.token)

    def drain(self, node: str) -> None:
        """Announce that the machine will be taken away."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self.ask("fill")]
        command += ["--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        command += ["--deadline-remaining-seconds", "600"]
        subprocess.run(command, env=environment(self.token), check=True)

    def end(self) -> None:
        self._keeper.communicate()


@pytest.fixture(scope="module")
def machines(worker_path: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    kept = Machines(tmp_path_factory.mktemp("machines"))
    yield kept
    kept.end()


def until(what: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    while not what():
        assert driver.poll() is None, "the driver ended before"
        time.sleep(0.05)


def trains(folder: Path, step: int, ranks: int, driver: subprocess.Popen[str]) -> list[str]:
    """The machines that train, once every rank is held at `step`."""
    notes = [folder / f"at-{step}-{rank}" for rank in range(ranks)]
    until(lambda: all(note.exists() for note in notes), driver)
    return [note.read_text() for note in notes]


def lose(machines: Machines, node: str, folder: Path, step: int, driver: subprocess.Popen[str]) -> None:
    """Takes a machine away, and waits until training resumed at a step for it: what holds the workers stays until then.

    Elastic training may have resumed before, when a machine joined late.
    """
    log, said = folder / "runs" / "lost" / "progress.log", f"resumes at step {step} of {STEPS}"
    before = log.read_text().count(said)
    assert machines.ask("lose", node) == 2
    until(lambda: log.read_text().count(said) > before, driver)


def check(driver: subprocess.Popen[str], folder: Path, undisturbed: list[dict[str, float]]) -> None:
    """The training ended as if nothing had been."""
    out, _ = driver.communicate()
    assert driver.returncode == 0
    assert trajectory(folder) == PLANNED
    for one, other in zip(json.loads(out.splitlines()[-1]), undisturbed, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize(
    ("workers", "fewest", "cpus"),
    [pytest.param(2, 0, 1.0, id="replaced", marks=pytest.mark.soak), pytest.param(3, 2, 1.5, id="elastic")],
)
def test_node_lost_in_training(
    machines: Machines, undisturbed: list[dict[str, float]], tmp_path: Path, workers: int, fewest: int, cpus: float
) -> None:
    """Its worker starts on another machine; or, where none has room for it, the others go on without.

    `make test-slow` replaces a worker in test_preemption_leads_to_a_checkpoint.
    """
    (tmp_path / "wait-9").touch()
    resources = {"train_workers": workers, "min_train_workers": fewest, "cpus_per_worker": cpus}
    driver = machines.drive(tmp_path, training=SHAPE, resources=resources)
    at_work = trains(tmp_path, 9, workers, driver)
    lose(machines, next(node for node in machines.ask("free") if node in at_work), tmp_path, 8, driver)
    (tmp_path / "wait-9").unlink()
    check(driver, tmp_path, undisturbed)
    worlds = [json.loads(line)[2] for line in (tmp_path / "draws").read_text().splitlines()]
    # Elastic training may begin before the last machine has joined.
    assert (max(worlds) if fewest else worlds[0], worlds[-1]) == (workers, fewest or workers)


def test_preemption_leads_to_a_checkpoint(
    machines: Machines, undisturbed: list[dict[str, float]], tmp_path: Path
) -> None:
    """Announced, the end of a machine costs no step that was taken before the announcement."""
    for name in ("notice-9", "wait-11"):
        (tmp_path / name).touch()
    resources = {"train_workers": 2, "preemption_every": 1}
    driver = machines.drive(tmp_path, training=SHAPE, resources=resources)
    at_work = trains(tmp_path, 9, 2, driver)
    node = next(node for node in machines.ask("free") if node in at_work)
    machines.drain(node)
    trains(tmp_path, 11, 2, driver)
    assert (tmp_path / "runs" / "lost" / "checkpoints" / "step-00000010").is_dir()
    lose(machines, node, tmp_path, 10, driver)
    for name in ("notice-9", "wait-11"):
        (tmp_path / name).unlink()
    check(driver, tmp_path, undisturbed)
    progress = (tmp_path / "runs" / "lost" / "progress.log").read_text()
    assert "preemption of 1 machine(s) announced, keeps step 10" in progress


def test_node_lost_in_refinement(machines: Machines, tmp_path: Path, toy_model: Path) -> None:
    """The map is the one of a run without losses, pixel by pixel."""
    resources = {"infer_workers": 3, "cpus_per_worker": 1.5}  # one on each machine
    driver = machines.drive(tmp_path, model=str(toy_model), resources=resources)
    rows = 64 * 560 * 2  # the first row of windows: class ids and their probability
    until(lambda: any(p.stat().st_size >= rows for p in (tmp_path / "maps").glob(".refining/*/maps/*/rows")), driver)
    assert machines.ask("lose", next(node for node, free in machines.ask("free").items() if free < 1)) == 2
    assert not list((tmp_path / "maps").glob("*.tif")), "the map was ready before the machine was lost"
    driver.communicate()
    assert driver.returncode == 0
    scene, plain = tmp_path / "scene_image.tif", tmp_path / "plain"
    refine(
        RefineRequest(str(toy_model), (str(scene),), str(plain), bands=("probability",)),
        ResourcesConfig(in_process_windows=1000),
    )
    maps = [rasterio.open(tmp_path / name / "scene_image.tif").read() for name in ("maps", "plain")]
    np.testing.assert_array_equal(*maps)
