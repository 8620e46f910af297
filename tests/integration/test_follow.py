"""The running endpoint follows the registry: under load, past broken versions, and whoever is killed on the way."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from clients import Load
from following import Picture, Place, free_port, same, until
from promotion_toys import NAME, trained_model
from toys import toy_region

from idgbr.inference.predictor import Predictor
from idgbr.inference.whole import predict_whole

SIZES = (64, 100, 150)
"""Pixels; stage 1 sees 64 at a time."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, worker_path: None, models: dict[str, Path]) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        # Versions fetched by an earlier run are none of this one's.
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        made = Place(folder)
        yield made
        made.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, place: Place, models: dict[str, Path]) -> list[Picture]:
    """Images of one window and of several, and the maps that the versions make of them in this process."""
    folder = tmp_path_factory.mktemp("pictures")
    predictors = {place.register(models[name]): Predictor(models[name]) for name in ("fair", "good")}
    out = []
    for size in SIZES:
        scene = toy_region(folder, f"picture{size}", size, seed=300 + size).image
        maps = {v: predict_whole(predictor, scene, size, size).refined for v, predictor in predictors.items()}
        fair, good = maps.values()
        assert (fair != good).mean() > 0.05
        out.append(Picture((folder / f"picture{size}_image.tif").read_bytes(), maps))
    return out


def test_the_story(place: Place, pictures: list[Picture], models: dict[str, Path]) -> None:
    """Promoted, served, a worse one refused, a better one promoted under load, rolled back; by MLflow's webhook."""
    fair = place.register(models["fair"])
    outcome = place.promote("--config", place.gate)
    assert outcome["exit_code"] == 0, outcome["text"]
    # It would poll after an hour: what moves, moves by the webhook.
    port = free_port()
    hook = ("--interval", 3600, "--webhook-url", f"http://127.0.0.1:{port}/mlflow", "--port", port)
    with place.follow(*hook, IDGBR_WEBHOOK_SECRET="of the test") as reconciler:
        until(lambda: reconciler.lives() and place.settled(fair), "the first champion")
        place.check(pictures, fair)
        poor = place.register(models["poor"])
        outcome = place.promote("--config", place.gate)
        assert outcome["exit_code"] == 1, outcome["text"]
        assert "regression: mIoU" in outcome["message"]
        assert place.tags(poor)["gate.verdict"] == "refused"
        assert (place.champion(), place.settled(fair)) == (fair, True)
        good = place.register(models["good"])
        with Load(place.url, pictures) as load:
            until(lambda: load.since(0), "the first answers")
            outcome = place.promote("--config", place.gate)
            assert outcome["exit_code"] == 0, outcome["text"]
            moved = time.monotonic()
            until(lambda: place.settled(good), "the second champion")
            switched = time.monotonic()
            until(lambda: load.since(switched), "answers of the second champion")
        answers = load.answers
        assert {(answer.status, answer.model) for answer in answers} == {(200, f"{NAME}/{v}") for v in (fair, good)}
        for answer in answers:
            version = answer.model.removeprefix(f"{NAME}/")
            assert same(answer.body, pictures[answer.picture].maps[version])
            assert version == good or answer.begun < switched
        until(lambda: place.tags(good).get("serving.state") == "serving", "the tag")
        print(
            f"\n{len(answers)} requests, none failed; {switched - moved:.1f} s from the end of promote to the last "
            f"replica, {place.tags(good)['serving.seconds']} s from the first look at the alias"
        )
        outcome = place.promote("--tracking-uri", place.store.uri, "--rollback")
        assert outcome["exit_code"] == 0, outcome["text"]
        until(lambda: reconciler.lives() and place.settled(fair), "the way back")
        place.check(pictures, fair)


def truncated(model: Path, folder: Path) -> Path:
    """The model with half of its weights' file."""
    weights = shutil.copytree(model, folder / "truncated") / "refiner" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return folder / "truncated"


@pytest.mark.parametrize("fault", ["truncated weights", "other bands"])
def test_a_broken_champion_changes_nothing_and_is_reported(
    place: Place, pictures: list[Picture], models: dict[str, Path], tmp_path: Path, fault: str
) -> None:
    fair = place.register(models["fair"])
    place.crown(fair)
    with place.follow("--interval", 1) as reconciler:
        until(lambda: reconciler.lives() and place.settled(fair), "the champion")
        bands = fault == "other bands"
        broken = trained_model(tmp_path, 1, bands=2) if bands else truncated(models["fair"], tmp_path)
        version = place.register(broken)
        place.crown(version)
        until(lambda: reconciler.lives() and place.tags(version).get("serving.state") == "failed", "the tag")
        why = "other bands: found 2, expected 3" if bands else "damaged weights"
        error = place.tags(version)["serving.error"]
        assert why in error
        assert "\n" not in error and "Traceback" not in error
        model = until(place.model, "/v1/model")
        assert (model["active"], model["desired"]) == tuple(f"models:/{NAME}/{v}" for v in (fair, version))
        assert all(why in one for one in model["errors"].values())
        ready = requests.get(f"{place.url}/readyz", timeout=60)
        assert ready.status_code == 200 and why in json.dumps(ready.json()["errors"])
        until(lambda: place.gauge("idgbr_model_load_failed") == 1, "the metric")
        place.check(pictures, fair)
        place.crown(fair)
        until(lambda: place.settled(fair) and not place.model()["errors"], "the way back")
        until(lambda: place.gauge("idgbr_model_load_failed") == 0, "the metric")


def test_a_killed_reconciler_is_not_missed_and_goes_on(
    place: Place, pictures: list[Picture], models: dict[str, Path]
) -> None:
    fair, good = (place.register(models[name]) for name in ("fair", "good"))
    place.crown(fair)
    with place.follow("--interval", 1) as reconciler:
        until(lambda: reconciler.lives() and place.settled(fair), "the champion")
        # Before it has seen the alias.
        reconciler.kill()
        place.crown(good)
        place.check(pictures, fair)
        reconciler.start()
        until(lambda: reconciler.lives() and place.settled(good), "the alias that moved meanwhile")
        # In the middle of a rollout.
        place.crown(fair)
        until(lambda: f"rolling out models:/{NAME}/{fair}" in reconciler.log(), "the rollout")
        reconciler.kill()
        until(lambda: place.settled(fair), "the rest of the rollout, which needs nobody")
        place.check(pictures, fair)
        # With an alias that moves on before it is back.
        place.crown(good)
        reconciler.start()
        until(lambda: reconciler.lives() and place.settled(good), "the alias that moved on")
        place.check(pictures, good)


def test_a_killed_store_is_not_missed_and_is_followed_again(
    place: Place, pictures: list[Picture], models: dict[str, Path], tmp_path: Path
) -> None:
    fair, good = (place.register(models[name]) for name in ("fair", "good"))
    place.crown(fair)
    with place.follow("--interval", 1) as reconciler:
        until(lambda: reconciler.lives() and place.settled(fair), "the champion")
        place.store.kill()
        until(lambda: "cannot look" in reconciler.log(), "the reconciler's word")
        place.check(pictures, fair)
        place.store.restart()
        place.crown(good)
        until(lambda: reconciler.lives() and place.settled(good), "the alias that moved when the store was back")
    # Between the reconciler's word to the replicas and their fetching of a version that nobody here has fetched yet.
    renamed = shutil.copytree(models["fair"], tmp_path / "renamed") / "model.json"
    renamed.write_text(renamed.read_text().replace(f'"name": "{NAME}"', '"name": "toy again"'))
    fresh = place.register(renamed.parent)
    place.crown(fresh)
    place.store.kill()
    place.roll_out(fresh)
    until(lambda: place.model().get("errors"), "what is wrong")
    place.check(pictures, good)
    place.store.restart()
    with place.follow("--interval", 1) as reconciler:
        until(lambda: reconciler.lives() and place.settled(fresh), "the version that could not be fetched")
        until(lambda: place.tags(fresh).get("serving.state") == "serving", "the tag")
    assert not until(place.model, "/v1/model")["errors"]
