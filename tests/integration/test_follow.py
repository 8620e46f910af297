"""The running endpoint follows the registry: under load, forth and back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from following import Load, Picture, Place, free_port, same, until
from promotion_toys import NAME, trained_model
from toys import toy_region

from idgbr.inference.predictor import Predictor
from idgbr.inference.whole import predict_whole

SIZES = (64, 100, 150)
"""Pixels; stage 1 sees 64 at a time."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders by quality."""
    folder = tmp_path_factory.mktemp("models")
    return {name: trained_model(folder / name, steps) for name, steps in (("poor", 2), ("fair", 6), ("good", 20))}


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
    said = place.promote("--config", place.gate)
    assert said["exit_code"] == 0, said["text"]
    # It would poll after an hour: what moves, moves by the webhook.
    port = free_port()
    hook = ("--interval", 3600, "--webhook-url", f"http://127.0.0.1:{port}/mlflow", "--port", port)
    with place.follow(*hook, IDGBR_WEBHOOK_SECRET="of the test") as reconciler:
        until(lambda: reconciler.lives() and place.settled(fair), "the first champion")
        place.check(pictures, fair)
        poor = place.register(models["poor"])
        said = place.promote("--config", place.gate)
        assert said["exit_code"] == 1, said["text"]
        assert "regression: mIoU" in said["message"]
        assert place.tags(poor)["gate.verdict"] == "refused"
        assert (place.champion(), place.settled(fair)) == (fair, True)
        good = place.register(models["good"])
        with Load(place.url, pictures) as load:
            until(lambda: load.since(0), "the first answers")
            said = place.promote("--config", place.gate)
            assert said["exit_code"] == 0, said["text"]
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
        said = place.promote("--tracking-uri", place.store.uri, "--rollback")
        assert said["exit_code"] == 0, said["text"]
        until(lambda: reconciler.lives() and place.settled(fair), "the way back")
        place.check(pictures, fair)
