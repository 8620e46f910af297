"""Small rasters for the tests of raster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

sys.path.insert(0, str(Path(__file__).parent))  # this folder's helpers

UTM = "EPSG:32636"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., str]:
    """Writes (B, H, W) as a GeoTIFF at (500000 + 0.5 col, 100000 - 0.5 row) in UTM 36N and returns its path."""

    def write(name: str, pixels: np.ndarray, row: int = 0, col: int = 0, **options: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {
            "driver": "GTiff",
            "crs": UTM,
            "transform": from_origin(500000 + 0.5 * col, 100000 - 0.5 * row, 0.5, 0.5),
        } | options
        colours = settings.pop("colormap", None)
        names = settings.pop("names", ())
        count, height, width = pixels.shape
        with rasterio.open(
            path, "w", count=count, height=height, width=width, dtype=pixels.dtype.name, **settings
        ) as file:
            file.write(pixels)
            for i, band in enumerate(names, 1):
                file.set_band_description(i, band)
            if colours:
                file.write_colormap(1, colours)
        return str(path)

    return write


@pytest.fixture
def pixels() -> np.ndarray:
    """(3, 70, 90) uint8 without a zero."""
    return np.random.default_rng(0).integers(1, 255, (3, 70, 90), dtype=np.uint8)


@pytest.fixture
def noise() -> np.ndarray:
    """Every awkward neighbourhood of ids there is, beside larger areas and nodata."""
    ids = np.random.default_rng(0).integers(0, 3, (1, 60, 80), dtype=np.uint8)
    ids[0, 20:50, 20:60] = 1
    ids[0, :8, :10] = 255
    ids[0, 3, 3] = 2
    return ids
