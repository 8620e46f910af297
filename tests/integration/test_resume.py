"""A training run whose driver is killed, and one on two nodes: each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from toys import toy_stage, trajectory

from idgbr.distributed.fitting.stage import StageResult

HERE = Path(__file__).parent


def start(script: str, folder: Path, *words: str, token: Path | None = None) -> subprocess.Popen[str]:
    """A driver as a process of its own, under a token of its own or the one of the cluster it joins."""
    command = [sys.executable, str(HERE / script), str(folder), *words]
    env = environment(token or folder / "token")
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def environment(token: Path) -> dict[str, str]:
    """What a process needs to start or join a Ray under `token`, which is written if it is not there."""
    if not token.exists():
        token.touch(mode=0o600)
        token.write_text("0123456789abcdef" * 4)
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    # Ahead of the first driver Ray starts a worker for each CPU, here of machines that get one or two tasks.
    env |= {"RAY_prestart_worker_first_driver": "0"}
    # Ray starts workers at nice 15, where beside any other busy process they hardly run.
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    # Where a machine is gone, elastic training asks for what it had and waits; ten seconds show as much as Ray's sixty.
    return env | {"RAY_worker_niceness": "0", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}


@pytest.mark.parametrize(
    "workers", [pytest.param("1", marks=pytest.mark.soak), pytest.param("2", marks=pytest.mark.slow)]
)
def test_killed_run_resumes_with_the_same_curve(twelve_steps: StageResult, tmp_path: Path, workers: str) -> None:
    """The driver is killed in step 8; the same command goes on, also with another number of workers."""
    chaos = tmp_path / "chaos"
    chaos.mkdir()
    (chaos / "wait-8").touch()
    driver = start("drive_resume.py", tmp_path, "1")
    while not (chaos / "at-8-0").exists():
        assert driver.poll() is None, "the driver ended before it reached the step"
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    (chaos / "wait-8").unlink()
    again = start("drive_resume.py", tmp_path, workers)
    out, _ = again.communicate()
    assert again.returncode == 0
    found = json.loads(out.splitlines()[-1])
    assert found["steps"] == 12
    for resumed, plain in zip(found["resumed"], twelve_steps.history, strict=True):
        assert resumed == (plain if workers == "1" else pytest.approx(plain, abs=1e-4))
    planned = toy_stage(tmp_path, "held").windows
    assert trajectory(chaos) == {s: list(range(s * planned.batch, (s + 1) * planned.batch)) for s in range(12)}
    assert "resumes at step 8 of 12" in (tmp_path / "runs" / "held" / "progress.log").read_text()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("resume")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.slow
def test_two_nodes_read_and_train(worker_path: None, tmp_path: Path) -> None:
    driver = start("drive_cluster.py", tmp_path)
    driver.communicate()
    assert driver.returncode == 0
    names = [path.name for path in (tmp_path / "nodes").iterdir()]
    assert sum(name.startswith("read-") for name in names) == 2
    assert sum(name.startswith("train-") for name in names) == 2
