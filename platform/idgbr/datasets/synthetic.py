"""Synthetic scenes on disk: georeferenced orthophoto and exact label, for the demo and the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import from_origin

from idgbr import IGNORE
from idgbr.config.data import ClassSpec, SyntheticSource
from idgbr.datasets.synthetic_paint import paint_scene
from idgbr.files import atomic_path

Split = Literal["train", "select", "test"]

SYNTHETIC_CLASSES = [
    ClassSpec(name="ground", colour="#c8c8a0"),
    ClassSpec(name="building", colour="#dc2828"),
    ClassSpec(name="road", colour="#5a5a5a"),
    ClassSpec(name="tree", colour="#147814"),
    ClassSpec(name="field", colour="#f0dc3c"),
]
"""Classes of the synthetic scenes, in the order of their ids."""

_PAINTER = 4  # raised when the painting changes, so that scenes kept from an older version are painted anew
_GSD = 0.3
_GROUND_BLOCK = 8192.0  # metres between the scenes' corners, so that no two overlap


def make_scenes(source: SyntheticSource) -> list[tuple[str, str, Split | None]]:
    """Paints the scenes that are not in the folder yet.

    The last fifth of the scenes (at least one) is the test split, the ones before it select, the rest train; fewer
    than three scenes carry no split of their own (use `split.by: block`).

    Returns:
        Image path, label path and split per scene, in order. Images are uint8 RGB, nodata 0, EPSG:32633, 0.3 m;
        labels uint8 class ids, nodata 255; both tiled with overviews.
    """
    folder = Path(source.folder)
    folder.mkdir(parents=True, exist_ok=True)
    out: list[tuple[str, str, Split | None]] = []
    for number in range(source.scenes):
        stem = f"scene_{source.seed}_{source.size}_{number:02d}_v{_PAINTER}"
        image, label = folder / f"{stem}_image.tif", folder / f"{stem}_label.tif"
        if not (image.exists() and label.exists()):
            rng = np.random.default_rng([source.seed, source.size, number])
            pixels, ids = paint_scene(source.size, rng)
            _cut_margin(pixels, ids, rng)
            _write(label, ids[None], IGNORE, number, source)
            _write(image, pixels, 0, number, source)
        out.append((str(image), str(label), _split(number, source.scenes)))
    return out


def _split(number: int, scenes: int) -> Split | None:
    if scenes < 3:
        return None
    share = max(1, scenes // 5)
    if number >= scenes - share:
        return "test"
    return "select" if number >= scenes - 2 * share else "train"


def _cut_margin(image: NDArray[np.uint8], label: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Blanks, in place, a slanted wedge along one side, as where a flight strip ends."""
    size = label.shape[0]
    a, b = rng.uniform(0.01, 0.07, 2) * size
    along = np.linspace(a, b, size)
    outside = np.rot90(np.arange(size)[:, None] < along[None, :], int(rng.integers(4)))
    image[:, outside] = 0
    label[outside] = IGNORE


def _write(path: Path, bands: NDArray[np.uint8], nodata: int, number: int, source: SyntheticSource) -> None:
    """Writes bands (B, S, S) as a tiled GeoTIFF with overviews; the final name appears only when it is whole."""
    with (
        atomic_path(path) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            dtype="uint8",
            count=len(bands),
            height=bands.shape[1],
            width=bands.shape[2],
            crs="EPSG:32633",
            nodata=nodata,
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="deflate",
            transform=from_origin(400000 + number * _GROUND_BLOCK, 5800000, _GSD, _GSD),
        ) as dst,
    ):
        dst.write(bands)
        if len(bands) == 3:
            dst.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            dst.descriptions = ("red", "green", "blue")
        dst.update_tags(source=json.dumps(source.model_dump(exclude={"folder"})))
        dst.build_overviews([2, 4], Resampling.average if len(bands) == 3 else Resampling.nearest)
