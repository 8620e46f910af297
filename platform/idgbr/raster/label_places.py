"""Where a label raster lies: on the image's pixels, or somewhere round its place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from idgbr.config.data import LabelConfig
from idgbr.errors import UserError
from idgbr.raster.crs import crs_name, same_crs
from idgbr.raster.grid import Grid, Window
from idgbr.raster.scene import Scene


@dataclass(frozen=True)
class SamePixels:
    """A label file whose pixels are those of the image's file: windows count alike in both."""

    scene: Scene

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels (B, H, W), which of them are valid, and which lie in the file, (H, W) bool each."""
        return (*self.scene.read(window), _inside(self.scene, window))


@dataclass(frozen=True)
class SamePlace:
    """A label file that covers the place of the image: of every image pixel's centre, the label pixel round it."""

    scene: Scene
    image: Grid

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `SamePixels.read`."""
        label = self.scene.grid()
        between = ~label.affine @ self.image.crop(window).affine
        cols = np.floor(between.a * (np.arange(window.width) + 0.5) + between.c).astype(np.int64)
        rows = np.floor(between.e * (np.arange(window.height) + 0.5) + between.f).astype(np.int64)
        top, left = int(rows.min()), int(cols.min())
        source = Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)
        inside = ((rows >= 0) & (rows < label.height))[:, None] & ((cols >= 0) & (cols < label.width))[None]
        if source.intersect(label.window) is None:
            bands = len(self.scene.profile().selected)
            return np.zeros((bands, *inside.shape), np.uint8), np.zeros_like(inside), inside
        pixels, valid = self.scene.read(source)
        at = np.ix_(rows - top, cols - left)
        return np.stack([band[at] for band in pixels]), valid[at], inside


def place_label(uri: str, image: Scene, config: LabelConfig, bands: tuple[int, ...]) -> SamePixels | SamePlace:
    """The bands of a label raster, to be read by windows of the image's pixels.

    Raises:
        UserError: it lies elsewhere, or has other pixels and is not to be read by place.
    """
    native, label = image.whole().grid(), Scene(uri).grid()
    if config.by_place:
        _refuse_elsewhere(uri, image, native, label)
        return SamePlace(Scene(uri, bands, nearest=True), image.grid())
    compared = label
    if max(abs(label.height - native.height), abs(label.width - native.width)) <= config.size_slack:
        compared = replace(label, height=native.height, width=native.width)
    found = native.same_as(compared)
    if found:
        placed = native.georeferenced and label.georeferenced
        by_place = "have it read at the image's place (nearest pixel) with data.label.by_place, " if placed else ""
        raise UserError(
            f"label {uri} does not lie on image {image.uri}: {'; '.join(found)}. Expected the same CRS, size and "
            f"transform; {by_place}warp the label onto the image first (gdalwarp -te -ts), use vector labels, or allow "
            "for some pixels more or less at the right and lower edge with data.label.size_slack."
        )
    gsd = image.gsd if image.gsd is not None else native.gsd
    return SamePixels(Scene(uri, bands, None, image.window, gsd, image.resample_to, nearest=True))


def _refuse_elsewhere(uri: str, image: Scene, native: Grid, label: Grid) -> None:
    place = "one label file for many images (data.label.by_place) is read where each image lies"
    for what, name, grid in (("image", image.uri, native), ("label", uri, label)):
        if not grid.georeferenced:
            raise UserError(f"{what} {name}: has no georeference; {place}. Expected a CRS and a transform in both.")
    if native.crs and label.crs and not same_crs(native.crs, label.crs):
        raise UserError(
            f"label {uri} has CRS {crs_name(label.crs)}, image {image.uri} has {crs_name(native.crs)}; {place}. "
            f"Expected one CRS; warp the label (gdalwarp -r near -t_srs {crs_name(native.crs)})."
        )
    between = ~label.affine @ native.affine
    if abs(between.b) + abs(between.d) > 1e-6 * (abs(between.a) + abs(between.e)):
        raise UserError(f"label {uri} is turned against image {image.uri}; {place}. Expected parallel pixel axes.")


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
