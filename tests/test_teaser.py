"""The README's picture: the same square of image and maps, from the newest finished demo."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from idgbr.cli import parse_job
from idgbr.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def teaser() -> dict:
    return runpy.run_path(str(ROOT / "docs/teaser.py"))


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    with rasterio.open(path, "w", driver="GTiff", width=width, height=height, count=bands, dtype="uint8") as raster:
        raster.write(pixels)


def test_three_panels_of_one_square(teaser: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flags = [f"--storage={tmp_path}", f"--data={tmp_path}", "--row=4", "--col=8", "--size=16", "--scale=3"]
    job, _ = parse_job(teaser["Flags"], [*flags, f"--output={tmp_path}/teaser.png"])
    with pytest.raises(UserError, match="found no maps"):
        teaser["main"](job)
    ids = np.zeros((1, 32, 32), np.uint8)
    write(tmp_path / "scene_image.tif", np.full((3, 32, 32), 90, np.uint8))
    write(tmp_path / "coarse/demo-coarse/scene_image-piece0.tif", ids)
    ids[0, 4:20, 8:24] = 1
    write(tmp_path / "results/demo-refiner/maps/scene_image-piece0.tif", ids)
    teaser["main"](job)
    picture = np.array(Image.open(tmp_path / "teaser.png").convert("RGB"))
    assert picture.shape == (16 * 3 + teaser["TITLE_PX"], 3 * 48 + 2 * teaser["GAP_PX"], 3)
    panels = [picture[-48:, left : left + 48].reshape(-1, 3) for left in (0, 60, 120)]
    assert [set(map(tuple, panel)) for panel in panels] == [{(90, 90, 90)}, {(200, 200, 160)}, {(220, 40, 40)}]


def test_the_committed_picture_is_small() -> None:
    assert (ROOT / "docs/images/teaser.png").stat().st_size < 200_000
