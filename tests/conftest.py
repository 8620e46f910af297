"""Fixtures every test may use; those that need Ray are listed in tests/integration/conftest.py."""

from __future__ import annotations

import json
import os
import runpy
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import huggingface_hub
import numpy as np
import pytest
import requests
import torch
from moto.server import ThreadedMotoServer

from idgbr.config.data import ClassSpec
from idgbr.config.inference import CoarseWindows, InferenceConfig, RefinerWindows
from idgbr.config.models import CoarseConfig, RefinerConfig, SamplerConfig
from idgbr.datasets.normalisation import Normalisation
from idgbr.inference.predictor import Predictor
from idgbr.models.coarse import build_coarse
from idgbr.models.description import ModelSpec, Sample
from idgbr.models.package import save_model
from idgbr.models.refiner import Refiner

OPEN_SERVICE_FILES = ("test_serve.py", "test_bad_requests.py")
"""Files that ask the `open_service` of tests/integration: where several processes run tests, one runs all of these."""


LONG_FILES = ("test_submitted_jobs.py", "test_follow.py")
"""Files that take longest: begun last, one would keep one process busy while the other has nothing left to do."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Runs what takes longest first, and tests marked `soak` only where -m names them."""
    soak = "soak" in config.option.markexpr
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("soak") and not soak])
    items[:] = [item for item in items if soak or not item.get_closest_marker("soak")]
    # Stable: files stay together, in order.
    items.sort(key=lambda item: (item.path.name not in LONG_FILES, item.path.parent.name != "integration"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process runs all tests of a file, and all files of `OPEN_SERVICE_FILES`."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "service" if file.endswith(OPEN_SERVICE_FILES) else file

    return ByFile(config, log)


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    path = Path(value)
    assert path.is_dir(), f"{variable}={value} is not a folder"
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real labelled imagery; the test is skipped where IDGBR_TEST_DATA is unset."""
    return _folder("IDGBR_TEST_DATA")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of reference vectors; the test is skipped where IDGBR_TEST_GOLDEN is unset."""
    return _folder("IDGBR_TEST_GOLDEN")


ROOT = Path(__file__).parents[1]


@pytest.fixture
def run_job(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs jobs/NAME.py in this process, as the command line does: `run_job("refine", "--input", path)`.

    A process of its own takes 5 to 10 s to import torch, diffusers and Ray: only signals, exit codes of the
    interpreter and what two processes do to each other are worth one. Returns the job's last line, with all that it
    printed as `text`. What the job puts into the environment is taken out again.
    """
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)

    def run(name: str, *words: object) -> dict[str, Any]:
        monkeypatch.setattr("sys.argv", [name, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "jobs" / f"{name}.py"), run_name="__main__")
        printed = capsys.readouterr()
        last: dict[str, Any] = json.loads(printed.out.splitlines()[-1])
        assert last["exit_code"] == ended.value.code
        return {**last, "text": printed.out + printed.err}

    yield run
    signal.signal(signal.SIGTERM, handler)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes], None]]:
    """A server of S3 on this machine with the bucket `maps`; puts objects into it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    requests.post(f"http://{host}:{port}/moto-api/reset", timeout=30)  # objects outlive servers of this process
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket="maps")
    yield lambda key, body: client.put_object(Bucket="maps", Key=key, Body=body) and None
    server.stop()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hugging Face's client offline, with nothing kept from before."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of both stages with tiny random weights: three classes, three bands at 0.5 m."""
    torch.manual_seed(0)
    coarse = CoarseConfig(decoder="Unet", encoder="tu-mobilenetv3_small_050", weights="none")
    refiner = RefinerConfig(
        window=32,
        channels=[16, 32],
        attention_head_dim=8,
        guidance_width=8,
        guidance_heads=1,
        condition_depth=1,
        image_encoder="",
        coarse_input="probabilities",
    )
    spec = ModelSpec(
        name="toy",
        classes=[ClassSpec(name=f"class {i}", colour=f"#{i}{i}4080") for i in range(3)],
        bands=[1, 2, 3],
        gsd=0.5,
        normalisation=Normalisation((100.0,) * 3, (40.0,) * 3),
        inference=InferenceConfig(
            coarse=CoarseWindows(window=64, overlap=16), refiner=RefinerWindows(window=64, overlap=16)
        ),
        sampler=SamplerConfig(steps=1, samples=2),
        coarse=coarse,
        refiner=refiner,
        metrics={"wfm3": 0.25},
    )
    parts = build_coarse(coarse, 3, 3, pretrained=False), Refiner(3, 3, refiner.model_dump(), pretrained=False)
    folder = save_model(tmp_path_factory.mktemp("model") / "toy", spec, *parts)
    image = np.random.default_rng(0).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    valid, predictor = np.ones((1, 64, 64), bool), Predictor(folder)
    refined = predictor.refine(image[None], valid, predictor.coarse(image[None], valid), np.zeros((1, 2), np.int64))
    sample = Sample(image, refined.probabilities[0].argmax(0).astype(np.uint8))
    return save_model(folder, spec, *parts, sample)
