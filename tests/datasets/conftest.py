"""Small imagery that the tests of this folder make themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

from idgbr.config.data import ClassSpec, DataConfig, FolderSource
from idgbr.raster.gdal import open_quietly

CLASSES = [
    ClassSpec(name="ground", colour="#c8c8a0"),
    ClassSpec(name="building", colour="#dc2828"),
    ClassSpec(name="road", colour="#5a5a5a"),
]

WriteRaster = Callable[..., str]


@pytest.fixture
def write_raster() -> WriteRaster:
    """Writes bands (B, H, W) or one band (H, W); georeferenced by default."""

    def write(
        path: Path,
        bands: np.ndarray,
        crs: str | None = "EPSG:32633",
        gsd: float = 0.5,
        x: float = 400000.0,
        **options: object,
    ) -> str:
        bands = bands[None] if bands.ndim == 2 else bands
        path.parent.mkdir(parents=True, exist_ok=True)
        if crs is not None:
            options |= {"crs": crs, "transform": from_origin(x, 5800000.0, gsd, gsd)}
        driver = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}[path.suffix]
        count, height, width = bands.shape
        with open_quietly(
            str(path), mode="w", driver=driver, count=count, height=height, width=width, dtype=bands.dtype, **options
        ) as dst:
            dst.write(bands)
        return str(path)

    return write


@pytest.fixture
def labelled_folder(tmp_path: Path, write_raster: WriteRaster) -> Callable[..., DataConfig]:
    """Makes `count` image and label pairs of random blocks and the configuration that reads them."""

    def make(count: int = 4, height: int = 96, width: int = 80, seed: int = 0, **changes: object) -> DataConfig:
        rng = np.random.default_rng(seed)
        for number in range(count):
            cells = rng.integers(0, len(CLASSES), (-(-height // 16), -(-width // 16)), dtype=np.uint8)
            label = np.kron(cells, np.ones((16, 16), np.uint8))[:height, :width]
            image = (60 * label[None] + rng.integers(1, 40, (3, height, width))).astype(np.uint8)
            write_raster(tmp_path / "images" / f"s{number}_image.tif", image, x=400000.0 + 1000 * number)
            write_raster(tmp_path / "labels" / f"s{number}_label.tif", label, x=400000.0 + 1000 * number)
        fields: dict = {
            "name": "toy",
            "source": FolderSource(
                images=[str(tmp_path / "images")], labels=[str(tmp_path / "labels")], pair=r"(.+)_(?:image|label)"
            ),
            "classes": CLASSES,
        }
        return DataConfig(**(fields | changes))

    return make
