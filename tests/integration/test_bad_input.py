"""What people get wrong, through the jobs they type: a message that names it, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin

from idgbr.distributed.data import spread
from idgbr.errors import UserError

ROOT = Path(__file__).parents[2]
SIZE = 96
ONE_WORKER = ("--workers", 1, "--cpus-per-worker", 0.5)
"""Each is a process that takes seconds to start."""


def job(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, *words: object
) -> dict[str, Any]:
    """Runs jobs/NAME.py as the command line does; its last line, with what it printed."""
    monkeypatch.setattr("sys.argv", [name, *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "jobs" / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr()
    last = json.loads(printed.out.splitlines()[-1])
    assert last["exit_code"] == ended.value.code
    return {**last, "text": printed.out + printed.err}


def write(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    settings = {
        "driver": "GTiff",
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "count": len(pixels),
        "dtype": pixels.dtype,
        "crs": "EPSG:32633",
        "transform": from_origin(500000, 5000000, 0.5, 0.5),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **settings | profile) as out:
        out.write(pixels)
    return path


def image(size: int = SIZE, bands: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, (bands, size, size), dtype=np.uint8)


def truncated(path: Path) -> None:
    whole = write(path, image(256))
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 3])


SCENES = {
    "truncated": (truncated, "x.tif"),
    "text": (lambda path: path.write_text("easting,northing\n1,2\n"), "x.tif"),
    "empty file": (lambda path: path.write_bytes(b""), "x.tif"),
    "one band": (lambda path: write(path, image(bands=1)), "band"),
    "all nodata": (lambda path: write(path, np.zeros((3, SIZE, SIZE), np.uint8), nodata=0), "nodata"),
    "all NaN": (lambda path: write(path, np.full((3, SIZE, SIZE), np.nan, np.float32)), "x.tif"),
    "other scale": (lambda path: write(path, image(), transform=from_origin(0, 0, 5, 5)), "ground sample distance"),
}


@pytest.mark.parametrize("case", SCENES)
def test_scenes_that_cannot_be_refined(
    case: str, toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, expected = SCENES[case]
    make(tmp_path / "x.tif")
    said = job(
        capsys, monkeypatch, "refine", "--model", toy_model, "--input", tmp_path / "x.tif", "--output", tmp_path / "o"
    )
    assert said["exit_code"] == 2, said["text"]
    assert expected in said["message"]
    assert "x.tif" in said["message"]
    assert "Traceback" not in said["text"]
    assert not list(tmp_path.glob("o/*"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--input", "nowhere/*.tif"], "nowhere/*.tif"),
        (["--input", "nowhere.tif"], "nowhere.tif"),
        (["--inptu", "a.tif"], "--input"),
        (["--input", "a.tif", "--bands", "coarse,uncertanty"], "bands"),
    ],
)
def test_words_that_name_nothing(
    words: list[str], expected: str, toy_model: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = job(capsys, monkeypatch, "refine", "--model", toy_model, "--output", tmp_path / "maps", *words)
    assert said["exit_code"] == 2, said["text"]
    assert expected in said["message"]
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("name", ["models:/no-such-model@champion", "models:/no-such-model/3", "no/such/folder"])
def test_a_model_that_does_not_exist(name: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = write(tmp_path / "x.tif", image())
    store = f"sqlite:///{tmp_path}/mlflow.db"
    words = ["--model", name, "--input", scene, "--output", tmp_path / "maps", "--tracking-uri", store]
    said = job(capsys, monkeypatch, "refine", *words)
    assert said["exit_code"] == 2, said["text"]
    assert name.split("/")[1].split("@")[0] in said["message"]


@pytest.mark.usefixtures("ray_session")
def test_coarse_maps_that_do_not_fit(
    toy_model: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write(tmp_path / "x.tif", image())
    other_size = write(tmp_path / "coarse/a.tif", np.zeros((1, SIZE, SIZE - 8), np.uint8))
    other_crs = write(tmp_path / "coarse/b.tif", np.zeros((1, SIZE, SIZE), np.uint8), crs="EPSG:32634")
    unknown = write(tmp_path / "coarse/c.tif", np.full((1, SIZE, SIZE), 77, np.uint8))
    for coarse, expected in ((other_size, "a.tif"), (other_crs, "b.tif"), (unknown, "77")):
        words = ["--model", toy_model, "--input", scene, "--coarse", coarse, "--output", tmp_path / "maps"]
        said = job(capsys, monkeypatch, "refine", *words, *ONE_WORKER)
        assert said["exit_code"] == 2, said["text"]
        assert expected in said["message"]
        assert not list((tmp_path / "maps").glob("*.tif"))


@pytest.mark.usefixtures("ray_session")
def test_odd_scenes_that_are_fine(
    toy_model: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller than a window, and with NaN pixels: a map, with nodata where there is no pixel."""
    write(tmp_path / "in/small.tif", image(20), transform=from_origin(0, 0, 0.5, 0.5))
    holed = image(seed=1).astype(np.float32)
    holed[:, :10] = np.nan
    write(tmp_path / "in/holed.tif", holed, transform=from_origin(9000, 9000, 0.5, 0.5))
    words = ["--model", toy_model, "--input", tmp_path / "in", "--output", tmp_path / "maps"]
    said = job(capsys, monkeypatch, "refine", *words, *ONE_WORKER)
    assert said["exit_code"] == 0, said["text"]
    with rasterio.open(tmp_path / "maps/small.tif") as small, rasterio.open(tmp_path / "maps/holed.tif") as holes:
        assert small.shape == (20, 20)
        assert (small.read(1) != 255).all()
        assert (holes.read(1)[:10] == 255).all()
        assert (holes.read(1)[10:] != 255).all()


def experiment(folder: Path, **data: object) -> Path:
    """A small experiment over folder/images and folder/labels."""
    tree = {
        "data": {
            "name": "bad",
            "source": {"kind": "folder", "images": [str(folder / "images")], "labels": [str(folder / "labels")]},
            "classes": [{"name": "a", "colour": "#ff0000"}, {"name": "b", "colour": "#00ff00"}],
            "split": {"by": "block", "block": 32},
            **data,
        },
        "resources": {"storage": str(folder / "runs")},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


ids = np.random.default_rng(0).integers(0, 2, (1, SIZE, SIZE), dtype=np.uint8)
COLOURS = {"label": {"kind": "colour"}}
LABELS = {
    "unknown id": (ids + 5, {}, {}, "5"),
    "unknown colour": (np.full((3, SIZE, SIZE), 9, np.uint8), {}, COLOURS, "#090909"),
    "other size": (ids[:, :-4], {}, {}, "x.tif"),
    "other CRS": (ids, {"crs": "EPSG:32634"}, {}, "32634"),
    "other place": (ids, {"transform": from_origin(500010, 5000000, 0.5, 0.5)}, {}, "x.tif"),
    "no label anywhere": (np.full((1, SIZE, SIZE), 255, np.uint8), {}, {}, "label"),
}


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.usefixtures("ray_session")
def test_labels_that_do_not_fit(case: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, profile, data, expected = LABELS[case]
    write(tmp_path / "images/x.tif", image())
    write(tmp_path / "labels/x.tif", pixels, **profile)
    said = job(capsys, monkeypatch, "train", "--config", experiment(tmp_path, **data))
    assert said["exit_code"] == 2, said["text"]
    assert expected in said["message"]
    assert "Traceback" not in said["text"]


@pytest.mark.usefixtures("ray_session")
def test_of_many_bad_files_the_first_is_told_and_the_rest_keep_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Tasks that fail when nobody waits for them any more must not print their tracebacks among the message."""

    def bad(number: int) -> int:
        raise UserError(f"file {number}")

    for _ in range(2):  # what the first round leaves behind ends at the latest in the second
        with pytest.raises(UserError, match="file 0"):
            spread(bad, range(40))
        assert spread(str, range(40)) == [str(number) for number in range(40)]
    assert "Unhandled error" not in caplog.text


def test_gpus_that_no_machine_has_are_not_waited_for(tmp_path: Path) -> None:
    path = experiment(tmp_path)
    words = [sys.executable, ROOT / "jobs/pipeline.py", "--config", path, "--resources.gpus_per_worker", "64"]
    # A process of its own: a Ray that runs already, as that of other tests may, could still be given GPUs.
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stdout + done.stderr
    message = json.loads(done.stdout.splitlines()[-1])["message"]
    assert "resources.gpus_per_worker 64: Ray found" in message and "ray_address" in message


def test_faults_of_the_configuration(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "images/x.tif", image())
    path = experiment(tmp_path)
    for words, expected in (
        (["--training.refiner.stesp", 3], "--training.refiner.steps"),
        (["--coarse.decoder"], "coarse.decoder"),
        (["--refiner.window", "wide"], "refiner.window"),
    ):
        said = job(capsys, monkeypatch, "pipeline", "--config", path, *words)
        assert said["exit_code"] == 2, said["text"]
        assert expected in said["message"]
    path.write_text(path.read_text().replace("classes:", "clases:"))
    said = job(capsys, monkeypatch, "pipeline", "--config", path)
    assert said["exit_code"] == 2
    assert "classes" in said["message"] and "experiment.yaml" in said["message"]
    shutil.rmtree(tmp_path / "images")
    said = job(capsys, monkeypatch, "pipeline", "--config", tmp_path / "gone.yaml")
    assert said["exit_code"] == 2
    assert "gone.yaml" in said["message"]
