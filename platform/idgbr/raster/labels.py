"""Labels beside an image, however they are stored, as class ids on the image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import geopandas as gpd
import numpy as np
import shapely

from idgbr import IGNORE
from idgbr.config.data import ClassSpec, LabelConfig
from idgbr.errors import UserError
from idgbr.raster.grid import Window
from idgbr.raster.label_rasters import ColourLabel, IndexLabel, Notes, some
from idgbr.raster.scene import Scene
from idgbr.raster.vectors import NO_VALUE, attribute_value, burn, read_polygons

APART = "background: the label file has no polygon on this image, nor near it"


class LabelReader(Protocol):
    """Reads class ids on the pixels of one image."""

    def explain(self, window: Window) -> tuple[np.ndarray, Notes]:
        """Labels of a window in the image scene's pixels, and what happened to them on the way.

        Returns:
            (H, W) uint8, IGNORE where there is no label or outside; and by sentence the pixels (H, W) bool that it
            is true of: why they carry no label, or why their class is not the value in the file.

        Raises:
            UserError: the label holds a value or colour that is no class.
        """
        ...


def label_reader(uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig) -> LabelReader:
    """The reader for a label file beside an image.

    The label must lie on the pixels of the image's file, whichever rectangle of it `image` is and whatever it is
    resampled to; the reader follows both. Where only one of the two has a georeference, equal sizes suffice.

    Args:
        uri: index raster, colour-coded raster or vector file, as `config.kind` says.
        image: the scene the label belongs to.
        classes: classes in the order of their ids.
        config: how the label is stored.

    Raises:
        UserError: label and image differ in CRS, size or transform, or the label cannot be read.
    """
    if config.kind == "vector":
        return _VectorLabel(uri, image, classes, config)
    if config.kind == "colour":
        return ColourLabel(uri, image, classes, config)
    return IndexLabel(uri, image, classes, config)


def read_label(uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig, window: Window) -> np.ndarray:
    """Labels of one window; see `label_reader`, which is cheaper for many."""
    return label_reader(uri, image, classes, config).explain(window)[0]


class _VectorLabel:
    def __init__(self, uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig) -> None:
        self.grid, self.fill = image.grid(), config.background
        whole = image.whole().grid()
        self.extent = whole.window.shift(-image.origin[0], -image.origin[1])
        if image.resample_to is not None:
            self.extent = replace(image, window=None).grid().window.shift(-image.origin[0], -image.origin[1])
        self.frame = read_polygons(uri, whole, config.layer)
        # Of one file for many images, an image may well lie where nothing was drawn.
        if len(self.frame) and not config.by_place and not _touches(whole.bounds, self.frame):
            raise UserError(
                f"label {uri} lies elsewhere than image {image.uri}: polygons span "
                f"{_rounded(self.frame.total_bounds)}, "
                f"the image {_rounded(whole.bounds)} in its CRS. Expected polygons on the image."
            )
        self.values = _polygon_classes(uri, self.frame, classes, config)
        self.unlabelled = IGNORE in self.values or config.background == IGNORE
        self.apart = bool(len(self.frame)) and not _touches(whole.bounds, self.frame)

    def explain(self, window: Window) -> tuple[np.ndarray, Notes]:
        """See `LabelReader.explain`."""
        labels = burn(self.frame, self.values, self.grid.crop(window), self.fill)
        inside = np.zeros(labels.shape, bool)
        rectangle = self.grid.window.intersect(self.extent)
        if rectangle and (common := rectangle.intersect(window)):
            inside[common.slices((window.row, window.col))] = True
        labels = np.where(inside, labels, np.uint8(IGNORE))
        notes = {APART: inside} if self.apart else {}
        if self.unlabelled:
            notes["no label: polygons in data.label.ignore, or data.label.background"] = inside & (labels == IGNORE)
        return labels, notes


def _touches(bounds: Sequence[float], frame: gpd.GeoDataFrame) -> bool:
    return bool(shapely.box(*bounds).intersects(shapely.box(*frame.total_bounds)))


def _polygon_classes(
    uri: str, frame: gpd.GeoDataFrame, classes: Sequence[ClassSpec], config: LabelConfig
) -> np.ndarray:
    """(N,) class id of each polygon, from the attribute's name or id."""
    for key, value in (("burn", config.burn), ("background", config.background)):
        if value not in range(len(classes)) and value != IGNORE:
            raise UserError(f"data.label.{key} is {value}; expected a class id 0 to {len(classes) - 1}, or {IGNORE}.")
    # A file without features may have no attributes either: all of it is background.
    if not config.attribute or not len(frame):
        return np.full(len(frame), config.burn, dtype=np.uint8)
    columns = [c for c in frame.columns if c != frame.geometry.name]
    if config.attribute not in columns:
        raise UserError(
            f"label {uri}: no attribute {config.attribute!r} (data.label.attribute); "
            f"it has {', '.join(columns) or 'none'}."
        )
    names = {spec.name.strip().lower(): i for i, spec in enumerate(classes)}
    if not any(name.isdigit() for name in names):  # such names are codes, and an id would be one of them
        names |= {str(i): i for i in range(len(classes))}
    names |= {str(value).lower(): IGNORE for value in config.ignore}
    names |= {str(key).lower(): value for key, value in config.values.items()}
    found = [attribute_value(value) for value in frame[config.attribute]]
    unknown = sorted({key for key in found if key not in names})
    if unknown:
        count = sum(key not in names for key in found)
        empty = f" ({NO_VALUE}: the attribute has no value)" if NO_VALUE in unknown else ""
        raise UserError(
            f"label {uri}: attribute {config.attribute!r} is {some(unknown)}{empty} in {count} polygon(s), which is no "
            f"class. Expected one of {', '.join(spec.name for spec in classes)}, or an id; map it with "
            f"data.label.values: {{{unknown[0]}: ID}}, or leave such polygons without a label with data.label.ignore: "
            f"[{unknown[0]}]."
        )
    return np.array([names[key] for key in found], dtype=np.uint8)


def _rounded(bounds: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in bounds) + ")"
