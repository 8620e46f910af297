"""What integration tests share. A process that imports torch and Ray takes 5 to 10 s of a core: start few.

Session fixtures, each made once per pytest process (`make test` has two):

- `toy_model` (tests/conftest.py): a model folder of both stages, tiny and random. For every test that maps or serves
  and does not ask how good the map is.
- `worker_path`: Ray's workers, and processes that a test starts, find this folder's helpers. Ask for it where a test
  starts a cluster or a driver of its own.
- `ray_session`: the Ray of this process. Ask for it in every test that trains, maps, serves or runs a job which calls
  `start_ray`: all of them join it. Start another cluster only where the cluster is what is tested (lost machines, GPU
  shares, submitted jobs, termination), and in a process of its own: a Ray is one per process.
- `undisturbed`: the curve of a training of `toys.SHAPE` by two workers that nothing happened to, to compare a disturbed
  one with. `twelve_steps`: a training of twelve steps by one worker; what trains alike has equal numbers.
- `models`, `gate_ground` and `empty_store` for the gate: models of three qualities, the scenes with their maps (each
  model maps them once), and a store of runs to copy.

Two more that each test asks for:

- `open_service`: the URL of a service with `toy_model` that stays, without keys, under bad_requests.LIMITS. For
  whatever asks over HTTP and changes nothing. Its tests are in the files of conftest.OPEN_SERVICE_FILES, which one
  process runs. `serving.service` is another one, for tests that need other settings: it starts four processes.
- `run_job` (tests/conftest.py): runs a job in this process, in the session's Ray if there is one.

Map with `ResourcesConfig(infer_workers=1, cpus_per_worker=0.5)` and train with `train_workers=1` unless the number is
the point: each worker is a process. Marks: `slow` for what takes over 20 s of a core (`make test-slow`), `soak` for
what repeats or enlarges what another test does already (`make soak`, by hand).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from idgbr.distributed.fitting.stage import StageResult

HERE = str(Path(__file__).parent)
ROOT = str(Path(__file__).parents[2])
sys.path.insert(0, HERE)


FOR_MANY_SMALL_JOBS = {
    "RAY_num_workers_soft_limit": "8",
    "RAY_idle_worker_killing_time_threshold_ms": "3600000",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
"""Ray ends workers that idle for a second, down to one a CPU: another test would start them again. Ray Train looks
every two seconds whether a training has ended."""


@pytest.fixture(scope="session")
def worker_path() -> Iterator[None]:
    """Workers, and processes a test starts, import this folder's helpers and the deployments as the tests do."""
    from serve_apps.proxy import ENVIRONMENT

    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), HERE, ROOT) if part)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PYTHONPATH": path, **ENVIRONMENT, **FOR_MANY_SMALL_JOBS}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def ray_session(worker_path: None) -> Iterator[None]:
    """A Ray of four logical CPUs on this machine, for every test that does not start a cluster of its own."""
    from idgbr.config.tree import ResourcesConfig
    from idgbr.distributed.session import start_ray

    with start_ray(ResourcesConfig(logical_cpus=4)):
        yield


@pytest.fixture(scope="session")
def twelve_steps(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> StageResult:
    """The training of a toy stage of twelve steps, validated every four, on one worker that keeps one checkpoint."""
    from toys import toy_stage

    from idgbr.config.tree import ResourcesConfig
    from idgbr.distributed.fitting.training import run_stage

    folder = tmp_path_factory.mktemp("twelve_steps")
    resources = ResourcesConfig(train_workers=1, keep_checkpoints=1)
    return run_stage(toy_stage(folder, "plain", validate_every=4), resources, str(folder / "runs"))


@pytest.fixture(scope="session")
def undisturbed(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The curve of the training of `toys.SHAPE` on two workers that nothing happened to."""
    from toys import SHAPE, toy_stage

    from idgbr.config.tree import ResourcesConfig
    from idgbr.distributed.fitting.training import run_stage

    folder = tmp_path_factory.mktemp("undisturbed")
    done = run_stage(toy_stage(folder, "plain", **SHAPE), ResourcesConfig(train_workers=2), str(folder / "runs"))
    return list(done.history)


@pytest.fixture(scope="session")
def named_model(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toy_model`, which asks for its bands by name."""
    folder = shutil.copytree(toy_model, tmp_path_factory.mktemp("named") / "toy")
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(description | {"bands": ["red", "green", "blue"]}))
    return folder


@pytest.fixture
def open_service(ray_session: None, named_model: Path) -> str:
    """The URL of the service with `named_model`, without keys, under the limits of bad_requests.LIMITS."""
    import serving
    from bad_requests import LIMITS

    return serving.open_service(named_model, LIMITS)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders by quality."""
    from promotion_toys import trained_model

    folder = tmp_path_factory.mktemp("models")
    return {name: trained_model(folder / name, steps) for name, steps in (("poor", 2), ("fair", 6), ("good", 20))}


@pytest.fixture(scope="session")
def gate_ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes of a gate, beside which promotions keep the maps that each model made of them."""
    from promotion_toys import gate_scenes

    return gate_scenes(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs. MLflow takes seconds to make one, a copy takes none."""
    from idgbr.registry.store import connect

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{path}").search_registered_models()
    return path
