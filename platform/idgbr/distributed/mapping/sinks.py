"""What blended strips become: coarse rasters and maps on disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from idgbr import IGNORE
from idgbr.config.data import ClassSpec
from idgbr.distributed.mapping.tasks import Source
from idgbr.inference.min_region import MinPixels, sieved_planes
from idgbr.inference.planes import to_band, to_planes, to_refined_planes
from idgbr.raster.cog import BandSpec, CogWriter
from idgbr.raster.grid import Grid, Window
from idgbr.raster.scene import Scene
from idgbr.raster.vectors import burn, read_polygons

ExtraBand = Literal["coarse", "probability", "uncertainty"]
_COARSE_BLOCK = 256
"""Side of a coarse raster's blocks: stage 2 reads it by windows of 128 px, in 1.7 ms of these and 5.0 ms of 512 px."""
_TILE = 1024
"""Side of the tiles in which small regions are found."""
_ROWS_BYTES = 8 * 2**20
"""Most bytes of a map's rows that are held while they are put together out of tiles."""


def coarse_bands(classes: Sequence[ClassSpec]) -> list[BandSpec]:
    """Bands of a coarse raster: class ids (255: nodata), then each class's probability times 255."""
    names = ["class", *(f"probability of {spec.name}" for spec in classes)]
    return [BandSpec(name, "uint8", None) for name in names]


def _within(folder: str, path: str) -> str:
    return str(Path(folder, Path(path).name)) if folder else ""


class CoarseSink:
    """Writes strips of (K probabilities, valid) as a coarse raster; a folder `work` keeps them if it is interrupted."""

    def __init__(self, path: str | Path, grid: Grid, classes: Sequence[ClassSpec], work: str = "") -> None:
        self._writer = CogWriter(str(path), grid, coarse_bands(classes), work=work, block=_COARSE_BLOCK)

    @property
    def done(self) -> int:
        return self._writer.rows

    def __enter__(self) -> CoarseSink:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, row0: int, values: np.ndarray) -> None:
        probabilities, valid = values[:-1], values[-1] > 0.5
        self._writer.write(row0, to_planes(probabilities, valid))


class MapSink:
    """Writes strips of (K probabilities, uncertainty, valid) as a map: class ids, and bands as asked for.

    A mosaic's strips are cut into one map per sheet.

    Args:
        outputs: path and extent of each map on the grid of the strips.
        grid: the grid of the strips.
        classes: names and colours.
        bands: bands beside the class ids; see `planes.to_band`.
        coarse: the coarse raster on the grid, for the band of that name.
        aoi: vector file; outside of its polygons is nodata.
        tags: tags of the file.
        work: folder that keeps the strips if writing them is interrupted; empty: nothing is kept.
    """

    def __init__(
        self,
        outputs: Sequence[tuple[str, Window]],
        grid: Grid,
        classes: Sequence[ClassSpec],
        bands: Sequence[ExtraBand] = (),
        coarse: Source | None = None,
        aoi: str = "",
        tags: Mapping[str, str] | None = None,
        work: str = "",
    ) -> None:
        colours = {
            i: (int(c.colour[1:3], 16), int(c.colour[3:5], 16), int(c.colour[5:7], 16)) for i, c in enumerate(classes)
        }
        specs = [BandSpec("class"), *(BandSpec(name) for name in bands)]
        names = {f"class_{i}": spec.name for i, spec in enumerate(classes)}
        self._writers = [
            (CogWriter(path, grid.crop(extent), specs, colours, {**names, **(tags or {})}, _within(work, path)), extent)
            for path, extent in outputs
        ]
        self._grid, self._bands, self._coarse, self._aoi = grid, tuple(bands), coarse, aoi
        self._stack = ExitStack()

    @property
    def done(self) -> int:
        under_way = [extent.row + writer.rows for writer, extent in self._writers if writer.rows < extent.height]
        return min(under_way, default=self._grid.height)

    def __enter__(self) -> MapSink:
        with ExitStack() as opening:
            for writer, _ in self._writers:
                opening.enter_context(writer)
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, row0: int, values: np.ndarray) -> None:
        strip = Window(row0, 0, values.shape[1], values.shape[2])
        self.write_planes(row0, self.planes(strip, values))

    def write_planes(self, row0: int, planes: np.ndarray) -> None:
        """Writes rows of the maps' own bands, as `planes` makes them."""
        strip = Window(row0, 0, planes.shape[1], planes.shape[2])
        for writer, extent in self._writers:
            # Of an interrupted mosaic, one sheet may have rows that another still lacks.
            missing = Window(extent.row + writer.rows, extent.col, extent.height - writer.rows, extent.width)
            shared = strip.intersect(missing)
            if shared is not None:
                writer.write(shared.row - extent.row, planes[:, *shared.slices((row0, 0))])

    @property
    def bands(self) -> int:
        """How many bands the maps have."""
        return 1 + len(self._bands)

    def planes(self, window: Window, values: np.ndarray) -> np.ndarray:
        """The maps' bands (C, h, w) uint8 in a window, out of its values (K + 2, h, w)."""
        probabilities, uncertainty, valid = values[:-2], values[-2], values[-1] > 0.5
        if self._aoi:
            grid = self._grid.crop(window)
            polygons = read_polygons(self._aoi, grid)
            valid &= burn(polygons, np.ones(len(polygons), np.uint8), grid, 0) > 0
        planes = [probabilities.argmax(0)]
        for name in self._bands:
            if name == "coarse":
                assert self._coarse is not None
                planes.append(self._coarse.read(window)[0][0])
            else:
                plane = probabilities.max(0) if name == "probability" else uncertainty
                planes.append(to_band(plane, valid))
        return np.where(valid, np.stack(planes), IGNORE).astype(np.uint8)


class SievedMapSink:
    """A `MapSink` of a map without small regions.

    A region may reach over many strips: the strips are kept as a raster of all probabilities, beside the map or in the
    folder `work`, and the map is made of that, tile by tile, once it is complete.

    Args:
        maps: the maps.
        grid: the grid of the strips.
        classes: the classes.
        minimum: pixels of the smallest region, by class.
        beside: path of one of the maps.
        work: folder that keeps the strips if writing them is interrupted; empty: nothing is kept.
    """

    def __init__(
        self, maps: MapSink, grid: Grid, classes: Sequence[ClassSpec], minimum: MinPixels, beside: str, work: str = ""
    ) -> None:
        self._maps, self._grid, self._classes, self._minimum = maps, grid, classes, minimum
        self._beside, self._work, self._folder = Path(beside), work, work
        self._writer: CogWriter | None = None

    @property
    def _raster(self) -> Path:
        return Path(self._folder, "probabilities.tif")

    @property
    def done(self) -> int:
        if not self._work:
            return 0
        return self._grid.height if self._raster.exists() else self._planes_writer().rows

    def __enter__(self) -> SievedMapSink:
        if not self._work:
            self._beside.parent.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.mkdtemp(prefix=f".{self._beside.name}.", dir=self._beside.parent)
        if not self._raster.exists():
            self._writer = self._planes_writer()
            try:
                self._writer.__enter__()
            except BaseException:
                self._clear()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        done = False
        try:
            if self._writer is not None:
                self._writer.__exit__(kind, error, trace)
            if kind is None:
                self._write_maps()
                done = True
        finally:
            self._clear(done)

    def write(self, row0: int, values: np.ndarray) -> None:
        assert self._writer is not None
        self._writer.write(row0, to_refined_planes(values[:-2], values[-2], values[-1] > 0.5))

    def _planes_writer(self) -> CogWriter:
        bands = [*coarse_bands(self._classes), BandSpec("uncertainty", "uint8", None)]
        work = os.path.join(self._folder, "rows") if self._work else ""
        return CogWriter(str(self._raster), self._grid, bands, work=work, block=_COARSE_BLOCK)

    def _write_maps(self) -> None:
        whole, scene = self._grid.window, Scene(str(self._raster))
        height = max(1, min(_TILE, _ROWS_BYTES // (whole.width * self._maps.bands)))

        def read(window: Window) -> np.ndarray:
            return scene.read(window)[0]

        with self._maps:
            for row in range(self._maps.done, whole.height, height):
                strip = Window(row, 0, min(height, whole.height - row), whole.width)
                planes = np.empty((self._maps.bands, strip.height, strip.width), np.uint8)
                for tile in strip.tiles(_TILE):
                    values = sieved_planes(read, tile, whole, self._minimum)
                    planes[:, *tile.slices((row, 0))] = self._maps.planes(tile, values)
                self._maps.write_planes(row, planes)

    def _clear(self, done: bool = False) -> None:
        if done or not self._work:
            shutil.rmtree(self._folder, ignore_errors=True)


def map_sink(
    outputs: Sequence[tuple[str, Window]],
    grid: Grid,
    classes: Sequence[ClassSpec],
    bands: Sequence[ExtraBand] = (),
    *,
    minimum: MinPixels = (),
    coarse: Source | None = None,
    aoi: str = "",
    tags: Mapping[str, str] | None = None,
    work: str = "",
) -> MapSink | SievedMapSink:
    """The sink of maps with or without a minimum mapping unit, see `MapSink` and `min_region.min_pixels`."""
    maps = MapSink(outputs, grid, classes, bands, coarse, aoi, tags, work)
    if not minimum:
        return maps
    return SievedMapSink(maps, grid, classes, minimum, outputs[0][0], os.path.join(work, "sieve") if work else "")
