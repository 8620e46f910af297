"""Machines that go away, with and without a notice, from under training and refinement on a cluster of three."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from ray._private.node import Node
from ray.cluster_utils import Cluster
from test_resume import start
from toys import PLANNED, SHAPE, STEPS, trajectory

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.checkpoints import Checkpoints
from idgbr.distributed.refine import RefineRequest, refine

pytestmark = pytest.mark.slow
NODE = {"num_cpus": 2, "object_store_memory": 200 * 2**20}


@pytest.fixture(scope="module")
def nodes(worker_path: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose head may work, too."""
    with pytest.MonkeyPatch.context() as patch:
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # Ray reads it once a process: kept as it is where it is set
            token = tmp_path_factory.mktemp("token") / "token"
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32))
            os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_worker_niceness", "0")
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        try:
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture
def three(nodes: Cluster) -> Cluster:
    """The cluster with three machines, whatever went before."""
    while len(nodes.list_all_nodes()) < 3:
        nodes.add_node(**NODE)
    nodes.wait_for_nodes()
    return nodes


def drive(cluster: Cluster, folder: Path, **request: Any) -> subprocess.Popen[str]:
    """A job on the cluster; `request` is what drive_nodes.py takes."""
    return start(
        "drive_nodes.py", folder, cluster.address, json.dumps(request), token=Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    )


def until(what: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    while not what():
        assert driver.poll() is None, "the driver ended before"
        time.sleep(0.05)


def held(folder: Path, step: int, ranks: int) -> Callable[[], bool]:
    return lambda: all((folder / f"at-{step}-{rank}").exists() for rank in range(ranks))


def working(cluster: Cluster, folder: Path, step: int, ranks: int) -> Node:
    """A machine that trains, not the one of the driver."""
    busy = {(folder / f"at-{step}-{rank}").read_text() for rank in range(ranks)}
    return next(node for node in cluster.worker_nodes if node.node_id in busy)


def done(driver: subprocess.Popen[str]) -> list[dict[str, float]]:
    out, _ = driver.communicate()
    assert driver.returncode == 0
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize(("workers", "fewest", "cpus"), [(2, 0, 1.0), (3, 2, 1.5)], ids=["replaced", "elastic"])
def test_node_lost_in_training(
    three: Cluster, undisturbed: list[dict[str, float]], tmp_path: Path, workers: int, fewest: int, cpus: float
) -> None:
    """Its worker starts on another machine; or, where none has room for it, the others go on without."""
    (tmp_path / "wait-9").touch()
    resources = {"train_workers": workers, "min_train_workers": fewest, "cpus_per_worker": cpus}
    driver = drive(three, tmp_path, training=SHAPE, resources=resources)
    until(held(tmp_path, 9, workers), driver)
    three.remove_node(working(three, tmp_path, 9, workers), allow_graceful=False)
    (tmp_path / "wait-9").unlink()
    history = done(driver)
    assert f"resumes at step 8 of {STEPS}" in (tmp_path / "runs" / "lost" / "progress.log").read_text()
    assert trajectory(tmp_path) == PLANNED
    worlds = [json.loads(line)[2] for line in (tmp_path / "draws").read_text().splitlines()]
    assert (worlds[0], worlds[-1]) == (workers, fewest or workers)
    for one, other in zip(history, undisturbed, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_preemption_leads_to_a_checkpoint(three: Cluster, undisturbed: list[dict[str, float]], tmp_path: Path) -> None:
    """Announced, the end of a machine costs no step before the announcement, and is no failure."""
    for name in ("notice-9", "wait-12"):
        (tmp_path / name).touch()
    resources = {"train_workers": 2, "preemption_every": 1, "max_failures": 0}
    driver = drive(three, tmp_path, training=SHAPE, resources=resources)
    until(held(tmp_path, 9, 2), driver)
    node = working(three, tmp_path, 9, 2)
    drain = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", three.address]
    drain += ["--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    subprocess.run([*drain, "--deadline-remaining-seconds", "600"], check=True)
    until(held(tmp_path, 12, 2), driver)
    assert (Checkpoints(tmp_path / "runs" / "lost" / "checkpoints").folder / "step-00000010").is_dir()
    three.remove_node(node, allow_graceful=False)
    for name in ("notice-9", "wait-12"):
        (tmp_path / name).unlink()
    history = done(driver)
    told = (tmp_path / "runs" / "lost" / "progress.log").read_text()
    assert "1 machine(s) about to be taken away, keeps step 10" in told
    assert f"resumes at step 12 of {STEPS}" in told
    assert trajectory(tmp_path) == PLANNED
    for one, other in zip(history, undisturbed, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_node_lost_in_refinement(three: Cluster, ray_session: None, tmp_path: Path, toy_model: Path) -> None:
    """The map is the one of a run without losses, pixel by pixel."""
    resources = {"infer_workers": 3, "cpus_per_worker": 1.5}
    driver = drive(three, tmp_path, model=str(toy_model), resources=resources)
    rows = 64 * 640 * 2
    until(lambda: any(p.stat().st_size >= rows for p in (tmp_path / "maps").glob(".refining/*/maps/*/rows")), driver)
    gone = next(iter(three.worker_nodes))
    left = three.global_state.available_resources_per_node()[gone.node_id]
    assert left.get("CPU", 0.0) < 2, "nothing runs on the machine that is lost"
    three.remove_node(gone, allow_graceful=False)
    assert not list((tmp_path / "maps").glob("*.tif")), "the map was ready before the machine was lost"
    driver.communicate()
    assert driver.returncode == 0
    request = RefineRequest(str(toy_model), (str(tmp_path / "scene_image.tif"),), str(tmp_path / "plain"),
                            bands=("probability",))  # fmt: skip
    refine(request, ResourcesConfig(infer_workers=2, cpus_per_worker=0.5))
    maps = [rasterio.open(tmp_path / name / "scene_image.tif").read() for name in ("maps", "plain")]
    np.testing.assert_array_equal(*maps)
