"""Runs and model versions in a real MLflow store on SQLite."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from mlflow import MlflowClient
from mlflow.entities import Run
from rasterio.transform import from_origin

import idgbr
from idgbr.config.training import RefinerTraining, TrainingConfig
from idgbr.config.tree import TrackingConfig
from idgbr.errors import UserError
from idgbr.registry.store import connect
from idgbr.registry.tracking import Tracker, log_metrics
from idgbr.registry.versions import register, resolve

SOURCE_ROOT = str(Path(idgbr.__file__).parents[1])

OUTSIDER = """
import sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/toy@challenger")
image = np.load(sys.argv[2])
from_array = model.predict(image[None])
from_path = model.predict(sys.argv[3])
again = model.predict([sys.argv[3]])[0]
one_sample = model.predict(sys.argv[3], params={"samples": 1})
import idgbr
np.savez("out.npz", array=from_array, path=from_path, again=again, one=one_sample, code=idgbr.__file__)
"""

DRIVER = """
import os, sys, time
from idgbr.config.training import TrainingConfig
from idgbr.config.tree import TrackingConfig
from idgbr.registry.tracking import Tracker
with Tracker(TrackingConfig(uri=sys.argv[1]), "toy-1", TrainingConfig()) as tracker:
    with tracker.stage("refiner") as stage:
        stage.log_metrics({"loss": 1.0}, 1)
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path) -> str:
    (tmp_path / "store").mkdir()
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'store')}"


@pytest.fixture(scope="module")
def store_of_one(toy_model: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one version of one model."""
    path = Path(shutil.copy(empty_store, tmp_path_factory.mktemp("one")))
    register(toy_model, "toy", uri=f"sqlite:///{path}")
    return path


def hear_interrupts() -> None:
    """A shell starts its background jobs deaf to SIGINT, and their children inherit it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def runs(uri: str) -> dict[str, Run]:
    client = connect(uri)
    experiment = client.get_experiment_by_name("idgbr")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    by_name = {run.info.run_name: run for run in found}
    assert len(by_name) == len(found)
    return by_name


def test_a_run_remembers_what_it_was_made_with(uri: str) -> None:
    with Tracker(
        TrackingConfig(uri=uri), "toy-1", TrainingConfig(), fingerprint="abc", tags={"device": "cpu"}
    ) as tracker:
        with tracker.stage("refiner", {"lr": 0.1}) as stage:
            log_metrics(stage.run_id, stage.uri, 7, {"loss": 0.5, "iou/roof (test)": 0.25})
        tracker.log_text("<html></html>", "report.html")
    found = runs(uri)
    parent, child = found["toy-1"], found["refiner"]
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params["refiner.ema"] == "0.99"
    assert parent.data.tags["version.torch"].startswith("2.")
    assert parent.data.tags["data.fingerprint"] == "abc"
    assert parent.data.tags["device"] == "cpu"
    assert parent.data.tags["mlflow.source.git.commit"]
    history = connect(uri).get_metric_history(child.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(7, 0.5)]
    names = {artifact.path for artifact in connect(uri).list_artifacts(parent.info.run_id)}
    assert names == {"config.json", "report.html"}


def test_the_same_name_continues_the_same_run_and_fresh_does_not(uri: str) -> None:
    tracking = TrackingConfig(uri=uri)
    ids = []
    for fresh, config in (
        (False, TrainingConfig()),
        (False, TrainingConfig(refiner=RefinerTraining(seed=1))),
        (True, TrainingConfig()),
    ):
        with Tracker(tracking, "toy-1", config, fresh=fresh) as tracker, tracker.stage("coarse") as stage:
            ids.append((tracker.run_id, stage.run_id))
    assert ids[0] == ids[1]
    assert not set(ids[1]) & set(ids[2])


def test_an_exception_fails_the_run_and_its_stage(uri: str) -> None:
    with pytest.raises(ZeroDivisionError), Tracker(TrackingConfig(uri=uri), "toy-1") as tracker, tracker.stage("a"):
        raise ZeroDivisionError
    assert {run.info.status for run in runs(uri).values()} == {"FAILED"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_never_stays_running_and_is_resumed(uri: str, tmp_path: Path, number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": SOURCE_ROOT}
    command = [sys.executable, "-c", DRIVER, uri]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        assert {run.info.status for run in runs(uri).values()} == {"RUNNING"}
        driver.send_signal(number)
    deadline = time.monotonic() + 120
    while {run.info.status for run in runs(uri).values()} != {"KILLED"}:
        assert time.monotonic() < deadline, "runs of a dead process stay open"
        time.sleep(0.2)
    before = {name: run.info.run_id for name, run in runs(uri).items()}
    with Tracker(TrackingConfig(uri=uri), "toy-1", TrainingConfig()) as tracker, tracker.stage("refiner") as stage:
        stage.log_metrics({"loss": 1.0}, 1)
    after = runs(uri)
    assert {name: run.info.run_id for name, run in after.items()} == before
    assert {run.info.status for run in after.values()} == {"FINISHED"}


def test_a_folder_as_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tracking\.uri: found .* a folder; expected a database"):
        Tracker(TrackingConfig(uri=str(tmp_path)), "toy")


def test_register_and_resolve(toy_model: Path, uri: str) -> None:
    with Tracker(TrackingConfig(uri=uri), "toy-1") as tracker:
        version = register(toy_model, "toy", tags={"data": "toy"}, uri=uri, run_id=tracker.run_id)
        # The run is still the tracker's to end.
        assert runs(uri)["toy-1"].info.status == "RUNNING"
        assert register(toy_model, "toy", uri=uri, run_id=tracker.run_id) == version == "1"
    assert runs(uri)["toy-1"].info.status == "FINISHED"
    found = MlflowClient(uri, uri).get_model_version("toy", version)
    assert found.tags["metric.wfm3"] == "0.25"
    assert found.tags["data"] == "toy"
    assert found.run_id == runs(uri)["toy-1"].info.run_id
    for address in ("models:/toy@challenger", "models:/toy/1"):
        path, label = resolve(address, uri)
        assert label == "toy/1"
        assert (path / "model.json").read_text() == (toy_model / "model.json").read_text()
    assert resolve(str(toy_model), uri) == (toy_model, "toy")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("models:/absent@champion", "no model of this name in .*; registered there: toy"),
        ("models:/toy@champion", "no such version; versions: 1; aliases: @challenger"),
        ("models:/toy/9", "no such version; versions: 1"),
        ("models:/toy", "expected models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("somewhere", "no such model"),
        (".", "not a model folder"),
    ],
)
def test_models_that_do_not_exist(store_of_one: Path, monkeypatch: pytest.MonkeyPatch, address: str, said: str) -> None:
    monkeypatch.chdir(store_of_one.parent)
    with pytest.raises(UserError, match=said):
        resolve(address, "sqlite:///mlflow.db")


def test_an_outsider_predicts_from_an_array_and_from_a_path(toy_model: Path, uri: str, tmp_path: Path) -> None:
    register(toy_model, "toy", uri=uri)
    rng = np.random.default_rng(0)
    image = rng.integers(1, 255, (80, 100, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    profile = {"driver": "GTiff", "width": 100, "height": 80, "count": 3, "dtype": "uint8", "crs": "EPSG:32636"}
    scene = tmp_path / "scene.tif"
    with rasterio.open(scene, "w", **profile, nodata=0, transform=from_origin(5e5, 2e4, 0.5, 0.5)) as target:
        written = image.copy()
        written[:10] = 0
        target.write(np.moveaxis(written, -1, 0))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDER, uri, str(tmp_path / "image.npy"), str(scene)],
        cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(elsewhere / "out.npz") as out:
        assert out["array"].shape == (1, 80, 100)
        assert out["array"].dtype == np.uint8
        assert set(np.unique(out["array"])) <= {0, 1, 2}
        assert (out["path"][:10] == idgbr.IGNORE).all()
        assert set(np.unique(out["path"][10:])) <= {0, 1, 2}
        assert (out["path"] == out["again"]).all()
        assert out["one"].shape == (80, 100)
