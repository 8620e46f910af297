"""A minimum mapping unit gives one map, whoever makes it: job, endpoint, stream, MLflow model, notebook call."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from mlflow.pyfunc.model import PythonModelContext
from numpy.typing import NDArray
from scipy import ndimage
from serving import geotiff, picture, read, refine, service

from idgbr import IGNORE
from idgbr.client import Client
from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.mapping import sinks
from idgbr.distributed.mapping.refine import RefineRequest
from idgbr.distributed.mapping.refine import refine as refine_job
from idgbr.errors import UserError
from idgbr.inference.refine import refine as refine_call
from idgbr.registry.pyfunc_model import RefinedMapModel

MIN_REGION = {"class 0": 3.0, "class 1": 5.0, "class 2": 2.0}
"""Square metres; the toy model's pixels have half a metre."""
HEIGHT, WIDTH = 150, 110
RESOURCES = ResourcesConfig(infer_workers=1, cpus_per_worker=0.5)


@pytest.fixture(scope="module")
def model(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sieved") / "toy"
    shutil.copytree(toy_model, folder)
    spec = json.loads((folder / "model.json").read_text())
    spec["sampler"]["min_region"] = MIN_REGION
    (folder / "model.json").write_text(json.dumps(spec))
    return folder


@pytest.fixture(scope="module")
def url(ray_session: None, model: Path) -> Iterator[str]:
    with service(model) as address:
        yield address


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = picture(HEIGHT, WIDTH)
    pixels[:, :6] = 0
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    path.write_bytes(geotiff(pixels, nodata=0))
    return path


def disk_full(*_: object) -> None:
    raise UserError("disk full")


def job(model: Path, scene: Path, folder: Path, *coarse: str) -> NDArray[np.uint8]:
    refine_job(RefineRequest(str(model), (str(scene),), str(folder / "map.tif"), coarse), RESOURCES)
    assert sorted(path.name for path in folder.iterdir()) == ["map.qml", "map.tif"]
    return read((folder / "map.tif").read_bytes())[0]


def regions_below(ids: NDArray[np.uint8], minimum: dict[str, float]) -> int:
    """How many regions that touch another class are below the minimum."""
    count = 0
    for value, square_metres in enumerate(minimum.values()):
        labels, found = ndimage.label(ids == value)
        for number in range(1, found + 1):
            region = labels == number
            around = ndimage.binary_dilation(region) & ~region
            count += region.sum() < 4 * square_metres and bool((ids[around] != IGNORE).any())
    return count


def test_both_stages(
    url: str, model: Path, toy_model: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plain", "whole", "tiles"):
        (tmp_path / name).mkdir()
    plain = job(toy_model, scene, tmp_path / "plain")
    whole = job(model, scene, tmp_path / "whole")
    assert regions_below(plain, MIN_REGION) > 0 == regions_below(whole, MIN_REGION)
    assert (whole[:6] == IGNORE).all() and (whole[6:] != IGNORE).all()
    monkeypatch.setattr(sinks, "_TILE", 40)
    with monkeypatch.context() as patch:
        patch.setattr(sinks, "sieved_planes", disk_full)
        with pytest.raises(UserError, match="disk full"):
            job(model, scene, tmp_path / "tiles")
    np.testing.assert_array_equal(job(model, scene, tmp_path / "tiles"), whole)

    served, _ = read(refine(url, scene.read_bytes()).content)
    assert (served == whole).mean() >= 0.999
    shell = RefinedMapModel()
    shell.load_context(PythonModelContext({"model": str(model)}, {}))
    assert (shell.predict(None, str(scene)) == whole).mean() >= 0.999
    stream = requests.post(f"{url}/v1/refine/stream", scene.read_bytes(), timeout=300)
    last = json.loads(stream.content.splitlines()[-1])
    assert last["type"] == "result", last
    assert last["shares"] == pytest.approx(
        {f"class {i}": (served == i).sum() / (served != IGNORE).sum() for i in range(3)}, abs=2e-3
    )


def test_a_coarse_map_of_another_model(url: str, model: Path, scene: Path, tmp_path: Path) -> None:
    pixels = picture(HEIGHT, WIDTH)
    ids = (picture(HEIGHT, WIDTH, seed=5)[0] // 86).astype(np.uint8)
    coarse = tmp_path / "coarse.tif"
    coarse.write_bytes(geotiff(ids[None]))
    whole = tmp_path / "whole.tif"
    whole.write_bytes(geotiff(pixels))
    (tmp_path / "job").mkdir()
    made = job(model, whole, tmp_path / "job", str(coarse))
    assert regions_below(made, MIN_REGION) == 0
    call = refine_call(pixels, ids, model=model, progress=False)
    assert (call.ids == made).mean() >= 0.999
    maps = Client(url).refine(pixels, coarse=ids)
    assert (maps.refined == made).mean() >= 0.999
