"""Virtual rasters whose parts are not all there.

GDAL reports a missing part of a VRT once per open dataset and reads zeros after that; of a tile index (GTI) it never
says a word. So parts are looked up here: a VRT is opened without those that are gone, and their ground is not valid.
"""

from __future__ import annotations

import io
import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import geopandas as gpd
import numpy as np
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.io import MemoryFile

from idgbr.raster.frames import read_frame
from idgbr.raster.gdal import GDAL_ERRORS, gdal_path, is_remote, open_quietly, version_of
from idgbr.raster.grid import Grid, Window, grid_of

_MOST_XML = 64 * 2**20
"""Bytes of the largest VRT that is looked into: a million parts."""

_indexes: dict[Hashable, MemoryFile] = {}
"""Tile indices in memory, which GDAL reads as long as this process holds them."""


@dataclass(frozen=True)
class MissingPart:
    """A part of a virtual raster that cannot be opened.

    Attributes:
        path: the file.
        place: the ground it should fill, in the raster's pixels.
    """

    path: str
    place: Window


@dataclass(frozen=True)
class Layer:
    """What a band, or all bands, of a virtual raster lacks.

    Attributes:
        band: 1-based index; 0 for all bands.
        missing: the missing parts.
        covered: ground of parts that are there and overlap missing ones.
    """

    band: int
    missing: tuple[MissingPart, ...]
    covered: tuple[Window, ...]


@dataclass(frozen=True)
class Parts:
    """What a virtual raster is to be opened by, and what it lacks.

    Attributes:
        name: the address, or the text of the VRT without its missing parts.
        layers: bands that lack something.
        files: paths of all parts, those that are missing and those of nested ones included.
    """

    name: str
    layers: tuple[Layer, ...] = ()
    files: tuple[str, ...] = ()

    def missing(self, bands: Sequence[int]) -> list[MissingPart]:
        """The missing parts of some bands."""
        return list(dict.fromkeys(part for layer in self._of(bands) for part in layer.missing))

    def unread(self, window: Window, bands: Sequence[int]) -> np.ndarray:
        """(H, W) bool: which pixels of a window some of the bands lack."""
        mask = np.zeros((window.height, window.width), bool)
        for layer in self._of(bands):
            own = np.zeros_like(mask)
            for places, value in (([part.place for part in layer.missing], True), (layer.covered, False)):
                for place in places:
                    shared = place.intersect(window)
                    if shared is not None:
                        own[shared.slices((window.row, window.col))] = value
            mask |= own
        return mask

    def _of(self, bands: Sequence[int]) -> Iterator[Layer]:
        return (layer for layer in self.layers if layer.band == 0 or layer.band in bands)


def parts_of(uri: str) -> Parts:
    """What there is of a raster; of anything but a VRT or a tile index, all.

    Parts in buckets and behind URLs get the benefit of the doubt.
    """
    lowered = uri.lower()
    if lowered.endswith(".vrt"):
        return _vrt_parts(uri)
    if ".gti." in lowered or lowered.endswith(".gti"):
        return _index_parts(uri)
    return Parts(uri)


def _vrt_parts(uri: str) -> Parts:
    path = gdal_path(uri)
    if is_remote(uri) or not os.path.isfile(path) or os.path.getsize(path) > _MOST_XML:
        return Parts(uri)
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        return Parts(uri)  # GDAL says what is wrong with it
    whole = Window(0, 0, int(root.attrib.get("rasterYSize", 0)), int(root.attrib.get("rasterXSize", 0)))
    folder = os.path.dirname(os.path.abspath(path))
    layers: list[Layer] = []
    files: dict[str, None] = {}
    for number, element in [(0, mask) for mask in root.findall("MaskBand")] + list(
        enumerate(root.findall("VRTRasterBand"), 1)
    ):
        missing, covered = _keep_what_is_there(element, folder, whole, files)
        if missing:
            layers.append(Layer(number, tuple(missing), tuple(_near(covered, missing))))
    name = ElementTree.tostring(root, encoding="unicode") if layers else uri
    return Parts(name, tuple(layers), tuple(files))


def _keep_what_is_there(
    element: ElementTree.Element, folder: str, whole: Window, files: dict[str, None]
) -> tuple[list[MissingPart], list[Window]]:
    """Takes sources that cannot be opened out of a band's XML, makes paths of the others absolute.

    Returns:
        What is missing, and the ground of what is there; every path is noted in `files`.
    """
    missing: dict[MissingPart, None] = {}
    covered: list[Window] = []
    for parent in list(element.iter()):
        for source in [child for child in parent if child.find("SourceFilename") is not None]:
            name = source.find("SourceFilename")
            assert name is not None
            file = _resolved(name, folder)
            files[file] = None
            place = _rectangle(source, "DstRect") or whole
            if not _opens(file, version_of(file)):
                parent.remove(source)
                missing[MissingPart(file, place)] = None
                continue
            part = parts_of(file)
            files.update(dict.fromkeys(part.files))
            name.text, name.attrib["relativeToVRT"] = part.name, "0"
            inner = _rectangle(source, "SrcRect") or Window(0, 0, place.height, place.width)
            band = source.findtext("SourceBand") or "1"
            lacks = part.missing([int(band)] if band.isdigit() else [])
            missing |= {MissingPart(p.path, _moved(p.place, inner, place)): None for p in lacks}
            if not lacks:
                covered.append(place)
    return list(missing), covered


def _index_parts(uri: str) -> Parts:
    """Parts of a tile index: the features of a vector layer, each with the path of a file."""
    source, column = _index_layer(uri)
    try:
        with open_quietly(uri) as dataset:
            grid = grid_of(dataset)
        frame = read_frame(gdal_path(source))
    except (*GDAL_ERRORS, DataSourceError, DataLayerError, ValueError):
        return Parts(uri)
    if column not in frame.columns:
        return Parts(uri)
    folder = os.path.dirname(os.path.abspath(gdal_path(source)))
    missing, covered, files = [], [], []
    for name, shape in zip(frame[column], frame.geometry, strict=True):
        file = str(name) if is_remote(str(name)) else os.path.join(folder, str(name))
        files.append(file)
        place = _pixels(grid, shape.bounds)
        if _opens(file, version_of(file)):
            covered.append(place)
        else:
            missing.append(MissingPart(file, place))
    if not missing:
        return Parts(uri, (), tuple(files))
    there = frame.assign(location=files)[[_opens(file, version_of(file)) for file in files]]
    layer = Layer(0, tuple(missing), tuple(_near(covered, missing)))
    return Parts(_index_of(there, grid), (layer,), tuple(files))


def _index_of(frame: gpd.GeoDataFrame, grid: Grid) -> str:
    """A tile index in memory, on the grid of the caller, as text that GDAL opens.

    In a read that touches a tile that is gone, GDAL leaves the tiles after it blank, too: so it must not know of it.
    """
    left, bottom, right, top = grid.bounds
    size = {"ResX": abs(grid.transform[0]), "ResY": abs(grid.transform[4])}
    size |= {"MinX": left, "MinY": bottom, "MaxX": right, "MaxY": top}
    key = (tuple(frame["location"]), tuple(size.items()))
    if key not in _indexes:
        buffer = io.BytesIO()
        pyogrio.write_dataframe(frame[["location", frame.geometry.name]], buffer, driver="GPKG", layer="index")
        _indexes[key] = MemoryFile(buffer.getvalue(), ext=".gpkg")
    root = ElementTree.Element("GDALTileIndexDataset")
    texts = {"IndexDataset": _indexes[key].name, "IndexLayer": "index", "LocationField": "location"}
    for name, value in (texts | {name: repr(number) for name, number in size.items()}).items():
        ElementTree.SubElement(root, name).text = value
    return ElementTree.tostring(root, encoding="unicode")


def _index_layer(uri: str) -> tuple[str, str]:
    """Vector file of a tile index, and its column of paths."""
    if not uri.lower().endswith(".gti"):
        return uri, "location"
    try:
        root = ElementTree.parse(gdal_path(uri)).getroot()
    except (ElementTree.ParseError, OSError):
        return uri, "location"
    index = root.findtext("IndexDataset") or uri
    beside = os.path.join(os.path.dirname(os.path.abspath(uri)), index)
    return beside if os.path.exists(beside) else index, root.findtext("LocationField") or "location"


@lru_cache(maxsize=65536)
def _opens(file: str, version: tuple[int, int]) -> bool:
    if is_remote(file) or file.lstrip().startswith("<"):
        return True
    if not os.path.exists(gdal_path(file)) and ":" not in file:  # not a subdataset
        return False
    try:
        open_quietly(file).close()
    except GDAL_ERRORS:
        return False
    return True


def _resolved(name: ElementTree.Element, folder: str) -> str:
    text = (name.text or "").strip()
    beside = name.attrib.get("relativeToVRT") == "1" or name.attrib.get("relativetoVRT") == "1"
    return os.path.normpath(os.path.join(folder, text)) if beside else text


def _rectangle(source: ElementTree.Element, kind: str) -> Window | None:
    found = source.find(kind)
    if found is None:
        return None
    col, row, width, height = (float(found.attrib.get(key, 0)) for key in ("xOff", "yOff", "xSize", "ySize"))
    return _window(row, col, row + height, col + width)


def _moved(place: Window, inner: Window, outer: Window) -> Window:
    """Where a rectangle of a part's pixels lies in the raster that shows `inner` of the part in `outer`."""
    down, right = outer.height / max(1, inner.height), outer.width / max(1, inner.width)
    row, stop = ((at - inner.row) * down + outer.row for at in (place.row, place.stop_row))
    col, end = ((at - inner.col) * right + outer.col for at in (place.col, place.stop_col))
    found = _window(row, col, stop, end).intersect(outer)
    return found or Window(outer.row, outer.col, 0, 0)


def _pixels(grid: Grid, bounds: Sequence[float]) -> Window:
    left, bottom, right, top = bounds
    corners = [~grid.affine @ corner for corner in ((left, top), (right, top), (left, bottom), (right, bottom))]
    cols, rows = [c for c, _ in corners], [r for _, r in corners]
    return _window(min(rows), min(cols), max(rows), max(cols))


def _window(row: float, col: float, stop_row: float, stop_col: float) -> Window:
    top, left = math.floor(row + 1e-3), math.floor(col + 1e-3)
    return Window(top, left, math.ceil(stop_row - 1e-3) - top, math.ceil(stop_col - 1e-3) - left)


def _near(places: Sequence[Window], missing: Sequence[MissingPart]) -> Iterator[Window]:
    """Those of the places that touch a missing part."""
    holes = [part.place for part in missing]
    return (place for place in dict.fromkeys(places) if any(place.intersect(hole) for hole in holes))
