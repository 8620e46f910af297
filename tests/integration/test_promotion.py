"""Promotion on a real MLflow store and a real Ray: who becomes champion, who does not, and what is kept of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient
from promotion_toys import NAME, gate_experiment

from idgbr.config.tree import Experiment
from idgbr.distributed.flows.promotion import promote, recorded_experiment
from idgbr.errors import Refused, UserError
from idgbr.registry.aliases import install, roll_back, status
from idgbr.registry.store import connect
from idgbr.registry.tracking import Tracker
from idgbr.registry.versions import register
from serve_apps.model_folder import pinned

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def gate(tmp_path: Path, gate_ground: Path, empty_store: Path) -> tuple[Path, Experiment, MlflowClient]:
    """An experiment with an empty store of its own."""
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    path, experiment = gate_experiment(tmp_path, uri, gate_ground)
    return path, experiment, connect(uri)


def roles(client: MlflowClient) -> dict[str, str]:
    return {role: str(version) for role, version in client.get_registered_model(NAME).aliases.items()}


@pytest.mark.slow
def test_the_story_through_the_job(
    models: dict[str, Path], gate: tuple[Path, Experiment, MlflowClient], run_job: Callable[..., dict[str, Any]]
) -> None:
    path, config, client = gate
    uri = config.tracking.uri
    words = ("promote", "--model", NAME, "--config", path)
    # The first one needs the floors only.
    assert register(models["fair"], NAME, uri=uri) == "1"
    said = run_job(*words)
    assert said["exit_code"] == 0, said["text"]
    assert said["outputs"]["champion"] == f"models:/{NAME}/1"
    assert roles(client) == {"champion": "1"}
    # A worse one is refused, and keeps its report and a tag that says why.
    assert register(models["poor"], NAME, uri=uri) == "2"
    said = run_job(*words)
    assert said["exit_code"] == 1, said["text"]
    assert "regression: mIoU" in said["message"]
    assert "gain: boundary IoU" in said["message"]
    assert roles(client) == {"champion": "1", "challenger": "2"}
    tags = client.get_model_version(NAME, "2").tags
    assert tags["gate.verdict"] == "refused"
    assert "regression: mIoU" in tags["gate.why"]
    assert tags["gate.against"] == f"{NAME}/1"
    assert "points" in tags["gate.boundary_iou"]
    assert {"gate.seconds_per_megapixel", "gate.megabytes", "gate.repair_worse", "gate.iou.of.stripe.1"} <= set(tags)
    artifacts = {item.path for item in client.list_artifacts(tags["gate.run"])}
    assert {"verdict.md", "verdict.json", "challenger", "champion"} <= artifacts
    reports = {item.path for item in client.list_artifacts(tags["gate.run"], "challenger")}
    assert "challenger/report.html" in reports
    assert "Refused on" in client.get_model_version(NAME, "2").description
    # A better one takes over.
    assert register(models["good"], NAME, uri=uri) == "3"
    said = run_job(*words)
    assert said["exit_code"] == 0, said["text"]
    assert roles(client) == {"champion": "3", "previous": "1"}
    assert client.get_model_version(NAME, "3").tags["gate.verdict"] == "promoted"
    said = run_job(*words)
    assert said["exit_code"] == 2
    assert "no version waits as challenger (version 3 is champion)" in said["message"]
    said = run_job("promote", "--model", NAME, "--tracking-uri", uri, "--status")
    assert said["outputs"]["champion"]["version"] == "3"
    assert said["outputs"]["champion"]["why"].startswith("boundary IoU: found +")
    assert said["outputs"]["previous"]["why"] == "version 3 took over"
    # And back, once.
    said = run_job("promote", "--model", NAME, "--tracking-uri", uri, "--rollback")
    assert said["exit_code"] == 0, said["text"]
    assert roles(client) == {"champion": "1"}
    assert status(uri, NAME)[0].why == "rolled back from version 3"
    said = run_job("promote", "--model", NAME, "--tracking-uri", uri, "--rollback")
    assert said["exit_code"] == 2
    assert "no previous champion" in said["message"]


@pytest.mark.slow
def test_floors_hold_for_the_first_one_too(
    models: dict[str, Path], gate: tuple[Path, Experiment, MlflowClient]
) -> None:
    _, config, client = gate
    register(models["poor"], NAME, uri=config.tracking.uri)
    strict = config.model_copy(update={"gate": config.gate.model_copy(update={"floors": {"miou": 0.99}})})
    with pytest.raises(Refused, match=r"floor: mIoU: found .* %; expected at least 99.00 %"):
        promote(strict, NAME)
    assert roles(client) == {"challenger": "1"}
    with pytest.raises(UserError, match="expected at least 5000"):
        promote(config.model_copy(update={"gate": config.gate.model_copy(update={"blocks": 5000})}), NAME)


def test_scenes_that_a_model_has_seen_are_refused(
    models: dict[str, Path], gate: tuple[Path, Experiment, MlflowClient]
) -> None:
    _, config, client = gate
    register(models["fair"], NAME, uri=config.tracking.uri)
    learnt = models["fair"].parent
    source = {"kind": "folder", "images": [f"{learnt}/*_image.tif"], "labels": [f"{learnt}/*_label.tif"],
              "pair": "(learnt)"}  # fmt: skip
    tree = config.model_dump(mode="json")
    tree["gate"]["source"] = source
    with pytest.raises(UserError, match=r"toy/1: was trained or tuned on 1 of the 1 tiles of the gate's scenes"):
        promote(Experiment.model_validate(tree), NAME)
    assert roles(client) == {"challenger": "1"}


def test_a_model_of_another_task_and_a_model_that_is_not_there(
    models: dict[str, Path], gate: tuple[Path, Experiment, MlflowClient]
) -> None:
    _, config, _ = gate
    with pytest.raises(UserError, match="no registered model is named toy"):
        promote(config, NAME)
    register(models["fair"], NAME, uri=config.tracking.uri)
    other = config.model_dump(mode="json")
    other["data"]["classes"][0]["name"] = "moss"
    with pytest.raises(UserError, match="has the classes stripe 0"):
        promote(Experiment.model_validate(other), NAME)


def test_without_a_configuration_the_gate_is_the_champions(
    models: dict[str, Path], gate: tuple[Path, Experiment, MlflowClient]
) -> None:
    _, config, client = gate
    uri = config.tracking.uri
    with Tracker(config.tracking, "made-it", config) as tracker:
        register(models["fair"], NAME, uri=uri, run_id=tracker.run_id)
    assert recorded_experiment(NAME, uri) == config
    install(client, NAME, "1", "by hand")
    lenient = config.model_copy(update={"gate": config.gate.model_copy(update={"margins": {"miou": 1.0}})})
    with Tracker(config.tracking, "next", lenient) as tracker:
        register(models["good"], NAME, uri=uri, run_id=tracker.run_id)
    assert recorded_experiment(NAME, uri) == config


@pytest.mark.slow
def test_a_rollback_while_a_challenger_is_measured_begins_it_again(
    models: dict[str, Path], gate: tuple[Path, Experiment, MlflowClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the gate compared with is no longer champion: the verdict is one against the new one."""
    _, config, client = gate
    uri = config.tracking.uri
    for name in ("poor", "fair"):
        register(models[name], NAME, uri=uri)
        promote(config, NAME)
    register(models["good"], NAME, uri=uri)
    from idgbr.distributed.flows import promotion

    judged = []

    def rolled_back_meanwhile(*given: Any) -> Any:
        verdict = plain(*given)
        judged.append(verdict.champion.model)
        if len(judged) == 1:
            roll_back(uri, NAME)
        return verdict

    plain = promotion._measure
    monkeypatch.setattr(promotion, "_measure", rolled_back_meanwhile)
    promote(config, NAME)
    assert judged == [f"{NAME}/2", f"{NAME}/1"]
    assert client.get_model_version(NAME, "3").tags["gate.against"] == f"{NAME}/1"
    assert roles(client) == {"champion": "3", "previous": "1"}


def test_the_service_takes_the_challenger_until_there_is_a_champion(
    models: dict[str, Path], gate: tuple[Path, Experiment, MlflowClient]
) -> None:
    _, config, client = gate
    uri = config.tracking.uri
    champion, challenger = (f"models:/{NAME}@{role}" for role in ("champion", "challenger"))
    register(models["fair"], NAME, uri=uri)
    assert pinned(champion, uri, challenger) == f"models:/{NAME}/1"
    with pytest.raises(UserError, match="no such version; versions: 1; aliases: @challenger"):
        pinned(champion, uri)
    install(client, NAME, "1", "by hand")
    register(models["good"], NAME, uri=uri)
    assert pinned(champion, uri, challenger) == f"models:/{NAME}/1"


def race(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Two promote processes started together on the cluster of this process; their last lines."""
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, str(ROOT / "jobs" / "promote.py"), "--model", NAME, "--config", str(path)]
    both = [
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    out = []
    for process in both:
        printed, errors = process.communicate(timeout=600)
        assert printed, errors
        out.append(json.loads(printed.splitlines()[-1]) | {"text": printed + errors})
    return out


@pytest.mark.parametrize("times", [pytest.param(2, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.soak)])
@pytest.mark.timeout(7200)
def test_two_promotions_at_once_give_one_verdict(
    models: dict[str, Path], gate: tuple[Path, Experiment, MlflowClient], tmp_path: Path, times: int
) -> None:
    """Better and worse challengers in turn: one verdict each time, both processes say it, and the aliases fit it."""
    path, config, client = gate
    uri = config.tracking.uri
    for name in ("fair", "good", "poor"):
        register(models[name], NAME, uri=uri)
    client.set_registered_model_alias(NAME, "champion", "1")
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    for turn in range(times):
        better = turn % 2 == 0
        challenger = "2" if better else "3"
        client.set_registered_model_alias(NAME, "champion", "1")
        client.set_registered_model_alias(NAME, "challenger", challenger)
        if "previous" in roles(client):
            client.delete_registered_model_alias(NAME, "previous")
        said = race(path, tmp_path)
        assert {line["exit_code"] for line in said} == {0 if better else 1}, said
        reports = {line["outputs"]["report"] for line in said}
        assert len(reports) == 1, said
        expected = {"champion": "2", "previous": "1"} if better else {"champion": "1", "challenger": "3"}
        assert roles(client) == expected
        tags = client.get_model_version(NAME, challenger).tags
        assert tags["gate.verdict"] == ("promoted" if better else "refused")
        assert f"runs:/{tags['gate.run']}" in reports
        runs = client.search_runs([experiment.experiment_id], f"attributes.run_name = 'gate-{NAME}-{challenger}'")
        assert len(runs) == turn // 2 + 1
        assert {run.info.status for run in runs} == {"FINISHED"}
