"""Labels beside an image, however they are stored, as class ids on the image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import shapely

from idgbr import IGNORE
from idgbr.config.data import ClassSpec, LabelConfig
from idgbr.errors import UserError
from idgbr.raster.gdal import gdal_env
from idgbr.raster.grid import Grid, Window
from idgbr.raster.scene import Scene
from idgbr.raster.source import Source
from idgbr.raster.vectors import burn, read_polygons


class LabelReader(Protocol):
    """Reads class ids on the pixels of one image."""

    def read(self, window: Window) -> np.ndarray:
        """Labels of a window in the image scene's pixels: (H, W) uint8, IGNORE where there is none or outside.

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
        return _ColourLabel(uri, image, classes, config)
    return _IndexLabel(uri, image, classes, config)


def read_label(uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig, window: Window) -> np.ndarray:
    """Labels of one window; see `label_reader`, which is cheaper for many."""
    return label_reader(uri, image, classes, config).read(window)


class _RasterLabel:
    """What index and colour rasters share: a scene on the image's grid."""

    def __init__(self, uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig) -> None:
        self.uri, self.classes, self.config = uri, classes, config
        native = image.whole().grid()
        found = native.same_as(Scene(uri).grid())
        if found:
            raise UserError(
                f"label {uri} does not lie on image {image.uri}: {'; '.join(found)}. Expected the same CRS, size and "
                "transform; warp the label onto the image first (gdalwarp -te -ts), or use vector labels."
            )
        gsd = image.gsd if image.gsd is not None else native.gsd
        self.scene = Scene(uri, (), None, image.window, gsd, image.resample_to, nearest=True)

    def _refuse(self, what: str, window: Window, expected: str) -> UserError:
        row, col = self.scene.origin
        return UserError(
            f"label {self.uri}: {what} between rows {window.row + row} and {window.stop_row + row}, columns "
            f"{window.col + col} and {window.stop_col + col}. Expected {expected}."
        )


class _IndexLabel(_RasterLabel):
    def __init__(self, uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig) -> None:
        super().__init__(uri, image, classes, config)
        self.scene = replace(self.scene, bands=(1,))
        if config.nonzero:
            self.known: dict[int, int] = {}
            return
        ids = config.values or {i: i for i in range(len(classes))}
        wrong = sorted(set(ids.values()) - set(range(len(classes))) - {IGNORE})
        if wrong:
            raise UserError(
                f"data.label.values maps to {wrong}; expected class ids 0 to {len(classes) - 1}, or {IGNORE}."
            )
        self.known = {**dict.fromkeys(config.ignore, IGNORE), **ids}

    def read(self, window: Window) -> np.ndarray:
        pixels, valid = self.scene.read(window)
        raw = pixels[0]
        if self.config.nonzero:
            # Zero and non-zero are both classes here, so a nodata tag of 0 or 255 says nothing.
            labels = (raw != 0).astype(np.uint8)
            labels[~_inside(self.scene, window)] = IGNORE
            return labels
        keys = np.array(sorted(self.known))
        ids = np.array([self.known[key] for key in keys], dtype=np.uint8)
        at = np.minimum(np.searchsorted(keys, raw), len(keys) - 1)
        hit = keys[at] == raw
        # A value the config maps by name is a class even where the file's nodata tag says otherwise.
        labels = np.where(
            hit & (valid | (np.isin(raw, list(self.config.values)) & _inside(self.scene, window))), ids[at], IGNORE
        )
        unknown = valid & ~hit
        if unknown.any():
            values = np.unique(raw[unknown])
            raise self._refuse(
                f"value {_some(values)} is no class, {unknown.sum()} px",
                window,
                f"one of {sorted(self.known)}; set data.label.values, or add it to data.label.ignore",
            )
        return labels.astype(np.uint8)


class _ColourLabel(_RasterLabel):
    def __init__(self, uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig) -> None:
        super().__init__(uri, image, classes, config)
        self.palette = _palette(self.scene)
        self.scene = replace(self.scene, bands=(1,) if self.palette is not None else (1, 2, 3))
        known = {int(colour[1:], 16): IGNORE for colour in config.ignore_colours}
        known |= {int(spec.colour[1:], 16): i for i, spec in enumerate(classes)}
        self.colours = np.array(sorted(known), dtype=np.uint32)
        self.ids = np.array([known[int(colour)] for colour in self.colours], dtype=np.uint8)

    def read(self, window: Window) -> np.ndarray:
        pixels, valid = self.scene.read(window)
        rgb = self.palette[:, pixels[0]] if self.palette is not None else pixels.astype(np.uint32)
        packed = (rgb[0] << 16) | (rgb[1] << 8) | rgb[2]
        at = np.minimum(np.searchsorted(self.colours, packed), len(self.colours) - 1)
        unknown = valid & (self.colours[at] != packed)
        if unknown.any():
            values = [f"#{value:06x}" for value in np.unique(packed[unknown])]
            raise self._refuse(
                f"colour {_some(values)} is no class, {unknown.sum()} px",
                window,
                f"one of {', '.join(f'#{c:06x}' for c in self.colours)}, in a lossless format; set the classes' "
                "colours or data.label.ignore_colours",
            )
        return np.where(valid, self.ids[at], IGNORE).astype(np.uint8)


class _VectorLabel:
    def __init__(self, uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig) -> None:
        self.grid, self.fill = image.grid(), config.background
        whole = image.whole().grid()
        self.extent = whole.window.shift(-image.origin[0], -image.origin[1])
        if image.resample_to is not None:
            self.extent = replace(image, window=None).grid().window.shift(-image.origin[0], -image.origin[1])
        self.frame = read_polygons(uri, whole)
        if len(self.frame) and not shapely.box(*whole.bounds).intersects(shapely.box(*self.frame.total_bounds)):
            raise UserError(
                f"label {uri} lies elsewhere than image {image.uri}: polygons span "
                f"{_rounded(self.frame.total_bounds)}, "
                f"the image {_rounded(whole.bounds)} in its CRS. Expected polygons on the image."
            )
        self.values = _polygon_classes(uri, self.frame, classes, config)

    def read(self, window: Window) -> np.ndarray:
        labels = burn(self.frame, self.values, self.grid.crop(window), self.fill)
        inside = self.grid.window.intersect(self.extent)
        inside = inside and inside.intersect(window)
        if inside == window:
            return labels
        clipped = np.full(labels.shape, IGNORE, dtype=np.uint8)
        if inside is not None:
            part = inside.slices((window.row, window.col))
            clipped[part] = labels[part]
        return clipped


def _polygon_classes(uri: str, frame: object, classes: Sequence[ClassSpec], config: LabelConfig) -> np.ndarray:
    """(N,) class id of each polygon, from the attribute's name or id."""
    for key, value in (("burn", config.burn), ("background", config.background)):
        if value not in range(len(classes)) and value != IGNORE:
            raise UserError(f"data.label.{key} is {value}; expected a class id 0 to {len(classes) - 1}, or {IGNORE}.")
    if not config.attribute:
        return np.full(len(frame), config.burn, dtype=np.uint8)  # type: ignore[arg-type]
    columns = [c for c in frame.columns if c != frame.geometry.name]  # type: ignore[attr-defined]
    if config.attribute not in columns:
        raise UserError(
            f"label {uri}: no attribute {config.attribute!r} (data.label.attribute); "
            f"it has {', '.join(columns) or 'none'}."
        )
    names = {spec.name.lower(): i for i, spec in enumerate(classes)} | {str(i): i for i in range(len(classes))}
    names |= {str(value): IGNORE for value in config.ignore} | {str(k): v for k, v in config.values.items()}
    found = [_as_key(value) for value in frame[config.attribute]]  # type: ignore[index]
    unknown = sorted({key for key in found if key not in names})
    if unknown:
        count = sum(key not in names for key in found)
        raise UserError(
            f"label {uri}: attribute {config.attribute!r} is {_some(unknown)} in {count} polygons, which is no class. "
            f"Expected one of {', '.join(spec.name for spec in classes)}, or an id."
        )
    return np.array([names[key] for key in found], dtype=np.uint8)


def _as_key(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().lower()


def _palette(scene: Scene) -> np.ndarray | None:
    """(3, 256) uint32 colours of a paletted label; None when it has colour bands.

    Raises:
        UserError: it has neither.
    """
    with gdal_env(scene.uri):
        source = Source(scene.uri, None, None, nearest=True)
        try:
            if source.file.count >= 3:
                return None
            table = source.file.colormap(1)
        except ValueError:
            raise UserError(
                f"label {scene.uri}: {source.file.count} band(s) without a colour table. Expected colours in three "
                "bands or a colour table; for class ids set data.label.kind to index."
            ) from None
        finally:
            source.close()
    palette = np.zeros((3, 256), dtype=np.uint32)
    for index, colour in table.items():
        if index < 256:
            palette[:, index] = colour[:3]
    return palette


def _inside(scene: Scene, window: Window) -> np.ndarray:
    """(H, W) bool: which pixels of a window lie in the scene and its file."""
    inside = np.zeros((window.height, window.width), dtype=bool)
    rectangle: Grid = replace(scene, window=None).grid()
    common = window.shift(*scene.origin).intersect(rectangle.window)
    if common and scene.window:
        common = common.intersect(scene.window)
    if common:
        inside[common.slices((window.row + scene.origin[0], window.col + scene.origin[1]))] = True
    return inside


def _some(values: Sequence[object] | np.ndarray) -> str:
    listed = [str(value) for value in values]
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _rounded(bounds: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in bounds) + ")"
