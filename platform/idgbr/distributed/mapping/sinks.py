"""What blended strips become: coarse rasters and maps on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from idgbr import IGNORE
from idgbr.config.data import ClassSpec
from idgbr.distributed.mapping.scenes import Source
from idgbr.inference.planes import to_planes
from idgbr.raster.cog import BandSpec, CogWriter
from idgbr.raster.grid import Grid, Window
from idgbr.raster.vectors import burn, read_polygons

ExtraBand = Literal["coarse", "probability", "uncertainty"]
_COARSE_BLOCK = 256
"""Side of a coarse raster's blocks: stage 2 reads it by windows of 128 px, in 1.7 ms of these and 5.0 ms of 512 px."""
FULL_SCALE = 254
"""uint8 value of 1.0 in probability and uncertainty bands, 255 being nodata."""


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
        outputs: path and place of each map on the grid of the strips.
        grid: the grid of the strips.
        classes: names and colours.
        bands: bands beside the class ids; 0..1 is written as 0..254.
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
            (CogWriter(path, grid.crop(place), specs, colours, {**names, **(tags or {})}, _within(work, path)), place)
            for path, place in outputs
        ]
        self._grid, self._bands, self._coarse, self._aoi = grid, tuple(bands), coarse, aoi
        self._stack = ExitStack()

    @property
    def done(self) -> int:
        under_way = [place.row + writer.rows for writer, place in self._writers if writer.rows < place.height]
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
        planes = self._planes(strip, values)
        for writer, place in self._writers:
            # Of an interrupted mosaic, one sheet may have rows that another still lacks.
            missing = Window(place.row + writer.rows, place.col, place.height - writer.rows, place.width)
            shared = strip.intersect(missing)
            if shared is not None:
                writer.write(shared.row - place.row, planes[:, *shared.slices((row0, 0))])

    def _planes(self, strip: Window, values: np.ndarray) -> np.ndarray:
        probabilities, uncertainty, valid = values[:-2], values[-2], values[-1] > 0.5
        if self._aoi:
            grid = self._grid.crop(strip)
            polygons = read_polygons(self._aoi, grid)
            valid &= burn(polygons, np.ones(len(polygons), np.uint8), grid, 0) > 0
        planes = [probabilities.argmax(0)]
        for name in self._bands:
            if name == "coarse":
                assert self._coarse is not None
                planes.append(self._coarse.read(strip)[0][0])
            else:
                plane = probabilities.max(0) if name == "probability" else uncertainty
                planes.append(np.rint(plane.clip(0, 1) * FULL_SCALE))
        return np.where(valid, np.stack(planes), IGNORE).astype(np.uint8)
