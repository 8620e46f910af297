"""One Ray for all integration tests; starting it takes longer than most of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
ROOT = str(Path(__file__).parents[2])
sys.path.insert(0, HERE)


@pytest.fixture(scope="session")
def worker_path() -> Iterator[None]:
    """Workers, and processes a test starts, import this folder's helpers and the deployments as the tests do."""
    from serve_apps.proxy import ENVIRONMENT

    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), HERE, ROOT) if part)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PYTHONPATH": path, **ENVIRONMENT}.items():
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
def undisturbed(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The curve of the training of `toys.SHAPE` on two workers that nothing happened to."""
    from toys import SHAPE, toy_stage

    from idgbr.config.tree import ResourcesConfig
    from idgbr.distributed.fitting.training import run_stage

    folder = tmp_path_factory.mktemp("undisturbed")
    done = run_stage(toy_stage(folder, "plain", **SHAPE), ResourcesConfig(train_workers=2), str(folder / "runs"))
    return list(done.history)
