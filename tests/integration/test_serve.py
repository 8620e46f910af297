"""The service end to end: real Serve, a tiny random model."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import ray
import requests
from rasterio.transform import from_origin
from rasterio.windows import Window
from serving import ROOT, geotiff, npy, picture, read, refine

from idgbr import IGNORE
from idgbr.client import Client, ServiceError
from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.mapping.refine import RefineRequest
from idgbr.distributed.mapping.refine import refine as refine_job
from idgbr.raster.encoding import preview_png

CLASSES = 3
GAUGES = {"idgbr_model_state", "idgbr_model_load_failed", "idgbr_queue_windows"}


@pytest.fixture
def url(open_service: str) -> str:
    return open_service


@pytest.mark.parametrize(
    ("height", "width"),
    [
        pytest.param(50, 60, id="one window"),
        pytest.param(150, 110, id="several windows"),
        pytest.param(480, 520, id="hundreds of windows", marks=pytest.mark.slow),
    ],
)
def test_the_same_map_as_the_job(url: str, named_model: Path, tmp_path: Path, height: int, width: int) -> None:
    pixels = picture(height, width)
    pixels[:, :6] = 0
    body = geotiff(pixels, nodata=0)
    (tmp_path / "scene.tif").write_bytes(body)
    request = RefineRequest(str(named_model), (str(tmp_path / "scene.tif"),), str(tmp_path / "map.tif"))
    refine_job(request, ResourcesConfig(infer_workers=1, cpus_per_worker=0.5))
    job, _ = read((tmp_path / "map.tif").read_bytes())
    answer = refine(url, body)
    assert answer.status_code == 200, answer.text
    served, profile = read(answer.content)
    assert (served == job).mean() >= 0.999
    assert (profile["crs"].to_epsg(), profile["transform"]) == (32633, from_origin(500000, 5000000, 0.5, 0.5))
    assert profile["nodata"] == IGNORE and (served[:6] == IGNORE).all() and served[6:].max() < CLASSES
    assert answer.headers["x-idgbr-model"] == "toy" and "refine;dur=" in answer.headers["server-timing"]


def test_every_kind_of_map(url: str) -> None:
    pixels = picture(40, 40)
    body = geotiff(pixels)
    ids, _ = read(refine(url, body).content)
    as_png, profile = read(refine(url, preview_png(pixels, np.ones((40, 40), bool)), "image/png").content)
    assert (as_png == ids).mean() > 0.99 and profile["driver"] == "PNG"
    polygons = refine(url, body, "application/geo+json").json()
    assert {f["properties"]["class_id"] for f in polygons["features"]} == set(np.unique(ids).tolist())
    longitude, latitude = polygons["features"][0]["geometry"]["coordinates"][0][0]
    assert 14.9 < longitude < 15.1 and 45 < latitude < 46
    assert all(0 <= f["properties"]["uncertainty"] <= 1 for f in polygons["features"])
    simple = refine(url, body, "application/geo+json", simplify=1, regularise="class 1,class 2").json()
    assert len(simple["features"]) == len(polygons["features"])
    assert len(json.dumps(simple)) < len(json.dumps(polygons))


def test_client(url: str, tmp_path: Path) -> None:
    client, pixels = Client(url), picture(70, 90)
    maps = client.refine(pixels, seed=3)
    again = client.refine(pixels, seed=3)
    assert (maps.refined == again.refined).all() and maps.coarse.shape == (70, 90)
    assert maps.uncertainty.max() <= 254 and maps.windows["refiner"] > 1
    own = client.refine(pixels, coarse=np.full((70, 90), 2, np.uint8))
    assert (own.coarse == 2).all() and "coarse" not in own.windows
    (tmp_path / "scene.tif").write_bytes(geotiff(pixels))
    for suffix in ("tif", "png", "geojson"):
        assert client.refine_file(tmp_path / "scene.tif", tmp_path / f"map.{suffix}").stat().st_size > 100
    assert client.model()["classes"][1]["name"] == "class 1"
    with pytest.raises(ServiceError, match="422"):
        client.refine(pixels[:1])


def test_stream_of_steps(url: str) -> None:
    answer = requests.post(f"{url}/v1/refine/stream", npy(picture(100, 60)), params={"steps": 3}, timeout=120)
    lines = [json.loads(line) for line in answer.iter_lines()]
    steps = [line for line in lines if line["type"] == "step"]
    assert lines[0]["type"] == "coarse" and lines[-1]["type"] == "result"
    assert len(steps) == 3 * 2 * steps[0]["parts"] and steps[-1]["progress"] == 1.0
    assert set(lines[-1]["outputs"]) == {"coarse", "refined", "uncertainty"}


def test_coarse_alone_and_description(url: str) -> None:
    body = geotiff(picture(80, 80))
    answer = requests.post(f"{url}/v1/coarse", body, headers={"accept": "image/tiff"}, timeout=120)
    with_refined = Client(url).refine(picture(80, 80))
    assert (read(answer.content)[0] == with_refined.coarse).mean() > 0.99
    model = requests.get(f"{url}/v1/model", timeout=30).json()
    assert model["active"] == model["desired"] and model["name"] == "toy" and not model["errors"]
    assert requests.get(f"{url}/healthz", timeout=30).ok and requests.get(f"{url}/readyz", timeout=30).ok
    assert "/v1/refine/stream" in requests.get(f"{url}/openapi.json", timeout=30).json()["paths"]


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int8"])
def test_bands_without_names_are_read_in_file_order(url: str, dtype: str) -> None:
    pixels = (picture(40, 40) // 2).astype(dtype)
    answer = refine(url, geotiff(pixels))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-idgbr-bands"].startswith("1,2,3 (file order")
    named = refine(url, geotiff(picture(40, 40)))
    assert "x-idgbr-bands" not in named.headers
    four = refine(url, geotiff(np.concatenate([pixels, pixels[:1]])))
    assert four.status_code == 422 and "no band 'red'" in four.json()["detail"]


def test_the_refused_type_is_not_sent(url: str) -> None:
    body = geotiff(picture(40, 40))
    assert refine(url, body, "image/tiff;q=0, */*").headers["content-type"] == "image/png"
    assert refine(url, body, "*/*;q=0.5, image/*;q=0.9, image/tiff;q=0.1").headers["content-type"] == "image/png"


def test_pages_of_other_origins_are_refused_where_there_are_no_keys(url: str) -> None:
    body = npy(picture(40, 40))
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        answer = requests.post(f"{url}/v1/refine", body, headers=headers, timeout=60)
        assert answer.status_code == 403 and "another origin" in answer.json()["detail"]
    headers = {"origin": url, "sec-fetch-site": "same-origin"}
    assert requests.post(f"{url}/v1/refine", body, headers=headers, timeout=120).ok


@pytest.mark.slow
def test_gauges_stay_in_the_export(url: str) -> None:
    port = ray.nodes()[0]["MetricsExportPort"]

    def scrape() -> set[str]:
        lines = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text.splitlines()
        return {name for line in lines for name in GAUGES if line.startswith(f"ray_{name}{{")}

    deadline = time.monotonic() + 120
    while scrape() != GAUGES:
        assert time.monotonic() < deadline
        time.sleep(1)
    first = time.monotonic()
    while time.monotonic() < first + 120:  # what is tested is that time passes, and nothing sets them
        time.sleep(5)
    assert scrape() == GAUGES


def test_the_documented_requests_on_a_synthetic_scene(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture(90, 120)
    pixels[:, :, :7] = 0
    (tmp_path / "scene.tif").write_bytes(geotiff(pixels, nodata=0))
    follow_the_documentation(url, tmp_path, monkeypatch)


def test_the_documented_requests_on_a_crop_of_kampala(
    url: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read at the toy model's scale: it was made for half a metre, the imagery has 7 cm."""
    window, side = Window(1024, 512, 1000, 1000), 150
    with rasterio.open(data_dir / "kampala" / "kampala_blockA_image.tif") as whole:
        pixels = whole.read(window=window, out_shape=(3, side, side))
        place = rasterio.Affine(*whole.window_transform(window)[:6]) * rasterio.Affine.scale(1000 / side)
        profile = {"crs": whole.crs, "transform": place, "nodata": whole.nodata, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", height=side, width=side, **profile) as out:
        out.write(pixels)
    follow_the_documentation(url, tmp_path, monkeypatch)


def follow_the_documentation(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the lines of docs/serving.md's requests as they stand there, but for the address, beside scene.tif."""
    section = (ROOT / "docs/serving.md").read_text().split("\n## Requests\n")[1].split("\n## ")[0]
    blocks = [block.replace("http://127.0.0.1:8000", url) for block in section.split("```")[1::2]]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]
    (snippet,) = [block.removeprefix("python\n") for block in blocks if "Client(" in block]
    with rasterio.open(folder / "scene.tif") as scene:
        image, like = scene.read(), scene.profile
        seen = scene.dataset_mask() > 0
    (folder / "scene.png").write_bytes(preview_png(image, np.ones(image.shape[1:], bool)))
    coarse = np.where(seen, np.arange(image.shape[2]) * CLASSES // image.shape[2], IGNORE).astype(np.uint8)
    with rasterio.open(folder / "othermodel.tif", "w", **like | {"count": 1, "nodata": IGNORE}) as out:
        out.write(coarse, 1)

    def curl(line: str) -> bytes:
        return subprocess.run(["bash", "-c", line], cwd=folder, check=True, capture_output=True, timeout=300).stdout

    as_tiff, as_geojson, as_png, as_stream, model = lines
    curl(as_tiff)
    with rasterio.open(folder / "map.tif") as refined:
        assert (refined.crs, refined.transform, refined.nodata) == (like["crs"], like["transform"], IGNORE)
        ids = refined.read(1)
    assert ((ids == IGNORE) == ~seen).all() and set(np.unique(ids[seen])) <= set(range(CLASSES))
    assert json.loads(curl(as_geojson))["features"]
    curl(as_png)
    assert read((folder / "map.png").read_bytes())[0].shape == seen.shape
    last = json.loads(curl(as_stream).splitlines()[-1])
    assert last["type"] == "result" and last["model"] == json.loads(curl(model))["version"] == "toy"
    monkeypatch.chdir(folder)
    found: dict = {"image": image}
    exec(snippet, found)
    assert json.loads((folder / "map.geojson").read_text())["features"]
    assert found["maps"].refined.shape == found["maps"].uncertainty.shape == seen.shape
