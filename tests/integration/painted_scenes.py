"""Small painted scenes as files: other dtypes, bands, CRSs and containers than a model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_origin

H, W, UTM = 96, 112, "EPSG:32633"
LOCAL = 'LOCAL_CS["Local Coordinates (m)",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]'
GRAD = 0.9 * 111194.9
"""Metres of a grad of latitude, about."""


def painted(seed: int = 0) -> np.ndarray:
    """(3, H, W) uint8 without a zero: ground, and roofs on it."""
    rng = np.random.default_rng(seed)
    image = np.full((3, H, W), 90.0) + rng.normal(0, 6, (3, H, W))
    for _ in range(8):
        top, left = rng.integers(0, H - 20), rng.integers(0, W - 20)
        image[:, top : top + 18, left : left + 18] += rng.choice([[100, -10, -20], [70, 70, 80]])[:, None, None]
    return np.clip(image, 1, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray, place: int = 0, **options: Any) -> Path:
    """A GeoTIFF at 0.5 m in UTM; another place number lies far away."""
    gcps, table = options.pop("gcps", None), options.pop("table", None)
    names, colours, tags = options.pop("names", ()), options.pop("colours", None), options.pop("rpcs", None)
    settings: dict[str, Any] = {"driver": "GTiff"}
    if gcps is None and tags is None:
        settings |= {"crs": UTM, "transform": from_origin(500000 + 1000 * place, 5400000, 0.5, 0.5)}
    if len(pixels) == 3 and pixels.dtype == np.uint8:
        settings["photometric"] = "RGB"
    settings |= options
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    settings.setdefault("dtype", pixels.dtype)
    with rasterio.open(path, "w", count=count, height=height, width=width, **settings) as file:
        if gcps is not None:
            file.gcps = gcps
        if tags is not None:
            file.rpcs = tags
        if colours is not None:
            file.colorinterp = colours
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
        file.write(pixels)
        if table is not None:
            file.write_colormap(1, table)
    return path


def corners(place: int) -> tuple[list[GroundControlPoint], CRS]:
    x, y = 500000 + 1000 * place, 5400000
    points = [GroundControlPoint(r, c, x + 0.5 * c, y - 0.5 * r) for r in (0, H) for c in (0, W)]
    return points, CRS.from_user_input(UTM)


def near_infrared(image: np.ndarray) -> np.ndarray:
    """Four bands, of which GDAL tags the last one alpha; it is 0 over water."""
    infrared = (200 - image[1:2] // 2).astype(np.uint8)
    infrared[:, 60:] = 0
    return np.concatenate([image, infrared])


def mosaic(folder: Path, place: int, count: int = 3, gone: int = 1) -> Path:
    """A VRT of tiles side by side, of which one is not there."""
    x, y = 500000 + 1000 * place, 5400000
    bands = ""
    for i in range(count):
        if i != gone:
            write(folder / f"parts/t{i}.tif", painted(i), transform=from_origin(x + 0.5 * W * i, y, 0.5, 0.5))
    for band, colour in enumerate(("Red", "Green", "Blue"), 1):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">parts/t{i}.tif</SourceFilename><SourceBand>{band}'
            f'</SourceBand><SourceProperties RasterXSize="{W}" RasterYSize="{H}" DataType="Byte"/>'
            f'<SrcRect xOff="0" yOff="0" xSize="{W}" ySize="{H}"/>'
            f'<DstRect xOff="{W * i}" yOff="0" xSize="{W}" ySize="{H}"/></SimpleSource>'
            for i in range(count)
        )
        bands += (
            f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{colour}</ColorInterp>{sources}</VRTRasterBand>'
        )
    path = folder / "mosaic.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{W * count}" rasterYSize="{H}"><SRS>{UTM}</SRS>'
        f"<GeoTransform>{x}, 0.5, 0, {y}, 0, -0.5</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def framed(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image[:, :, 70:] = 0
    return image
