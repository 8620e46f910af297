"""What strips become on disk, with a minimum mapping unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

from idgbr import IGNORE
from idgbr.config.data import ClassSpec
from idgbr.distributed.mapping import sinks
from idgbr.distributed.mapping.sinks import map_sink
from idgbr.inference.min_region import apply_min_region
from idgbr.inference.planes import to_band
from idgbr.raster.grid import IDENTITY, Grid, Window

HEIGHT, WIDTH, CLASSES = 90, 70, 3
SPECS = [ClassSpec(name=f"class {i}", colour="#102030") for i in range(CLASSES)]
MINIMUM = (12.0, 20.0, 5.0)
GRID = Grid(None, IDENTITY, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def values() -> NDArray[np.float32]:
    """Probabilities, uncertainty and validity of a noisy map with holes."""
    rng = np.random.default_rng(1)
    planes = np.stack([ndimage.gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), 1.2) for _ in range(CLASSES)])
    probabilities = np.exp(6 * planes) / np.exp(6 * planes).sum(0)
    valid = ndimage.gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), 4) > -0.08
    return np.concatenate([probabilities, 1 - probabilities.max(0, keepdims=True), valid[None]], dtype=np.float32)


def strips(values: NDArray[np.float32], first: int, stop: int) -> list[tuple[int, NDArray[np.float32]]]:
    return [(row, values[:, row : min(row + 17, stop)]) for row in range(first, stop, 17)]


@pytest.mark.parametrize("tile", [23, 64, 1024])
def test_a_map_is_sieved_as_in_memory(
    values: NDArray[np.float32], tmp_path: Path, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_TILE", tile)
    path = tmp_path / "new" / "map.tif"
    bands = ("probability", "uncertainty")
    with map_sink([(str(path), GRID.window)], GRID, SPECS, bands, minimum=MINIMUM) as sink:
        for row, strip in strips(values, 0, HEIGHT):
            sink.write(row, strip)
    assert [p.name for p in path.parent.iterdir()] == ["map.tif"]
    valid = values[-1] > 0.5
    probabilities, uncertainty = apply_min_region(values[:-2], values[-2], valid, MINIMUM)
    ids = np.where(valid, probabilities.argmax(0), IGNORE)
    with rasterio.open(path) as out:
        written = out.read()
    np.testing.assert_array_equal(written[0], ids)
    assert (written[0] != np.where(valid, values[:-2].argmax(0), IGNORE)).sum() > 50
    for band, expected in zip(written[1:], (probabilities.max(0), uncertainty), strict=True):
        assert (np.abs(band.astype(int) - to_band(expected, valid)) <= 2).all()


def test_an_interrupted_map_goes_on_after_its_rows(values: NDArray[np.float32], tmp_path: Path) -> None:
    def opened(name: str, work: str = "") -> sinks.MapSink | sinks.SievedMapSink:
        outputs = [(str(tmp_path / f"{name}-{i}.tif"), Window(40 * i, 0, 40 + 10 * i, WIDTH)) for i in range(2)]
        return map_sink(outputs, GRID, SPECS, minimum=MINIMUM, work=work)

    with opened("plain") as sink:
        for row, strip in strips(values, 0, HEIGHT):
            sink.write(row, strip)
    work = str(tmp_path / "work")
    interrupted = opened("resumed", work)
    interrupted.__enter__()
    for row, strip in strips(values, 0, 34):
        interrupted.write(row, strip)
    error = KeyboardInterrupt()
    interrupted.__exit__(type(error), error, None)
    assert not list(tmp_path.glob("resumed*"))
    assert opened("resumed", work).done == 34
    with opened("resumed", work) as sink:
        for row, strip in strips(values, 34, HEIGHT):
            sink.write(row, strip)
    for i in range(2):
        plain, resumed = (rasterio.open(tmp_path / f"{name}-{i}.tif").read(1) for name in ("plain", "resumed"))
        np.testing.assert_array_equal(plain, resumed)
