"""From a folder of tiles and masks to a trained model in two commands, with no key typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_label_cases import TILES, job, rasters, tiles

SHORT = ["--training.coarse.steps", 2, "--coarse.folds", 0, "--training.refiner.steps", 2, "--sampler.samples", 1,
         "--training.coarse.batch", 2, "--training.refiner.batch", 2]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_what_inspection_writes_trains(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles(tmp_path)
    rasters(lambda i: i * 255)(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["--images", tmp_path / "images", "--labels", tmp_path / "labels", "--write", tmp_path / "mytown.yaml"]
    said = job(capsys, monkeypatch, "inspect", *words)
    assert said["exit_code"] == 0, said["text"]
    assert said["outputs"]["data"]["label"] == {"kind": "index", "nonzero": True, "ignore": []}
    assert said["outputs"]["images"] == TILES
    assert said["outputs"]["minutes"] > 0
    trained = job(capsys, monkeypatch, "train", "--config", tmp_path / "mytown.yaml", *SHORT)
    assert trained["exit_code"] == 0, trained["text"]
    assert trained["outputs"]["model"] == "models:/idgbr-mytown/1"
    again = job(capsys, monkeypatch, "inspect", *words)
    assert again["exit_code"] == 2 and "--force" in again["message"]


def test_labels_without_partners_are_named_and_nothing_is_written(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles(tmp_path)
    rasters()(tmp_path)
    (tmp_path / "labels/t1.tif").rename(tmp_path / "labels/other.tif")
    words = ["--images", tmp_path / "images", "--labels", tmp_path / "labels", "--write", tmp_path / "mytown.yaml"]
    said = job(capsys, monkeypatch, "inspect", *words)
    assert said["exit_code"] == 2
    assert "t1.tif" in said["message"] and "data.source.pair" in said["message"]
    assert not (tmp_path / "mytown.yaml").exists()


def test_images_alone_are_described(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles(tmp_path)
    said = job(capsys, monkeypatch, "inspect", "--images", tmp_path / "images")
    assert said["exit_code"] == 0
    assert "EPSG:32633" in said["text"] and "64 x 64" in said["text"] and "0.5" in said["text"]
    assert np.isclose(said["outputs"]["images"], TILES)
