"""Label rasters as class ids: files of class indices, and files in the classes' colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from idgbr import IGNORE
from idgbr.config.data import ClassSpec, LabelConfig
from idgbr.errors import UserError
from idgbr.raster.crs import crs_name, same_crs
from idgbr.raster.gdal import gdal_env
from idgbr.raster.grid import Grid, Window
from idgbr.raster.label_survey import colour_table, label_header, pack, shares, survey_label
from idgbr.raster.scene import Scene
from idgbr.raster.source import Source

Notes = dict[str, np.ndarray]
"""What happened to pixels on their way to class ids, and where: sentence -> (H, W) bool."""

OUTSIDE = "no label: outside of the label file"


@dataclass(frozen=True)
class _SamePixels:
    """A label file whose pixels are those of the image's file: windows count alike in both."""

    scene: Scene

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels (B, H, W), which of them are valid, and which lie in the file, (H, W) bool each."""
        return (*self.scene.read(window), _inside(self.scene, window))


@dataclass(frozen=True)
class _SamePlace:
    """A label file that covers the place of the image: of every image pixel's centre, the label pixel round it."""

    scene: Scene
    image: Grid

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `_SamePixels.read`."""
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


class RasterLabel:
    """What index and colour rasters share: a file that lies on the image's pixels, or on its place."""

    def __init__(
        self, uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig, bands: Sequence[int]
    ) -> None:
        self.uri, self.classes, self.config = uri, classes, config
        self.source = _placed(uri, image, config, tuple(bands))

    def _refuse(self, found: str, unknown: np.ndarray, window: Window, expected: str) -> UserError:
        row, col = self.source.scene.origin
        return UserError(
            f"label {self.uri}: {found}, {unknown.sum()} px between rows {window.row + row} and "
            f"{window.stop_row + row}, columns {window.col + col} and {window.stop_col + col}. Expected {expected}."
        )


class IndexLabel(RasterLabel):
    """A label raster whose values are, or stand for, class ids."""

    def __init__(self, uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig) -> None:
        header = label_header(uri)
        if header.coloured and not config.nonzero and not survey_label(uri).alike:
            raise UserError(
                f"label {uri}: its bands are red, green and blue and hold colours: "
                f"{shares(survey_label(uri).colours)}. Expected class ids in one band; set data.label.kind to colour, "
                "or data.label.nonzero to true where every colour but black is one class."
            )
        super().__init__(uri, image, classes, config, range(1, header.bands + 1) if config.nonzero else (1,))
        self.nodata = header.nodata
        self.threshold = _threshold(uri, len(classes), config)
        self.known: dict[int, int] = {}
        if not config.nonzero and self.threshold is None:
            ids = _numbers(config.values) or {i: i for i in range(len(classes))}
            wrong = sorted(set(ids.values()) - set(range(len(classes))) - {IGNORE})
            if wrong:
                raise UserError(
                    f"data.label.values maps to {wrong}; expected class ids 0 to {len(classes) - 1}, or {IGNORE}."
                )
            ignored = {value: IGNORE for value in config.ignore if isinstance(value, int)}
            # A value that is mapped by name counts; one that is ignored by name is no class for being a class id.
            self.known = ignored | ids if config.values else ids | ignored

    def explain(self, window: Window) -> tuple[np.ndarray, Notes]:
        """See `LabelReader.explain`."""
        pixels, valid, inside = self.source.read(window)
        if self.threshold is not None:
            # Both sides of the threshold are classes here, and so are both of zero: a nodata tag says nothing.
            high = pixels.max(axis=0) >= self.threshold
            between = inside & ((pixels > 0) & (pixels < 255)).any(axis=0)
            return np.where(inside, high, IGNORE).astype(np.uint8), {
                OUTSIDE: ~inside,
                f"values between 0 and 255 became the class on their side of {self.threshold:g} "
                "(data.label.threshold)": between,
            }
        if self.config.nonzero:
            return np.where(inside, (pixels != 0).any(axis=0), IGNORE).astype(np.uint8), {OUTSIDE: ~inside}
        raw = pixels[0]
        keys = np.array(sorted(self.known))
        ids = np.array([self.known[key] for key in keys], dtype=np.uint8)
        at = np.minimum(np.searchsorted(keys, raw), len(keys) - 1)
        hit = keys[at] == raw
        # A value the config maps by name is a class even where the file's nodata tag says otherwise.
        kept = valid | (np.isin(raw, list(_numbers(self.config.values))) & inside)
        unknown = valid & ~hit
        if unknown.any():
            raise self._refuse(
                f"value {some(np.unique(raw[unknown]))} is no class",
                unknown,
                window,
                f"one of {sorted(self.known)}; set data.label.values, data.label.nonzero or data.label.threshold, or "
                "add it to data.label.ignore",
            )
        labels = np.where(hit & kept, ids[at], IGNORE).astype(np.uint8)
        return labels, self._notes(labels, raw, inside, hit & ~kept)

    def _notes(self, labels: np.ndarray, raw: np.ndarray, inside: np.ndarray, tagged: np.ndarray) -> Notes:
        notes: Notes = {OUTSIDE: ~inside}
        for value in (key for key, number in self.known.items() if number == IGNORE and key != self.nodata):
            notes[f"no label: value {value} (data.label.ignore)"] = inside & (raw == value)
        if self.nodata is None:
            return notes
        tag = f"no label: value {self.nodata:g} is the label file's nodata tag"
        if any(key == self.nodata and number != IGNORE for key, number in self.known.items()):
            notes[f"{tag}, though a class has it; data.label.values: {{{self.nodata:g}: ID}} makes it count"] = tagged
        else:
            notes[tag] = inside & (labels == IGNORE) & (raw == self.nodata)
        return notes


class ColourLabel(RasterLabel):
    """A label raster in the classes' colours: in three bands of 8 or 16 bits or floats, or through a colour table."""

    def __init__(self, uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig) -> None:
        self.palette, self.scale = _palette(uri), 1.0
        super().__init__(uri, image, classes, config, (1,) if self.palette is not None else (1, 2, 3))
        if self.palette is None and self.source.scene.profile().dtype != "uint8":
            self.scale = survey_label(uri).scale
        known = {int(colour[1:], 16): IGNORE for colour in config.ignore_colours}
        known |= {int(spec.colour[1:], 16): i for i, spec in enumerate(classes)}
        self.colours = np.array(sorted(known), dtype=np.uint32)
        self.ids = np.array([known[int(colour)] for colour in self.colours], dtype=np.uint8)

    def explain(self, window: Window) -> tuple[np.ndarray, Notes]:
        """See `LabelReader.explain`."""
        pixels, valid, inside = self.source.read(window)
        packed = pack(self._rgb(pixels))
        at = np.minimum(np.searchsorted(self.colours, packed), len(self.colours) - 1)
        unknown = valid & (self.colours[at] != packed)
        if unknown.any():
            raise self._refuse(
                f"colour {some(f'#{value:06x}' for value in np.unique(packed[unknown]))} is no class",
                unknown,
                window,
                f"one of {', '.join(f'#{c:06x}' for c in self.colours)}, in a lossless format; set the classes' "
                "colours or data.label.ignore_colours",
            )
        labels = np.where(valid, self.ids[at], IGNORE).astype(np.uint8)
        notes = {OUTSIDE: ~inside, "no label: the label file's nodata tag or mask": inside & ~valid}
        for colour in self.colours[self.ids == IGNORE]:
            notes[f"no label: colour #{colour:06x} (data.label.ignore_colours)"] = valid & (packed == colour)
        return labels, notes

    def _rgb(self, pixels: np.ndarray) -> np.ndarray:
        if self.palette is None:
            return pixels * self.scale if self.scale != 1.0 else pixels
        index = pixels[0].astype(np.int64)
        if index.size and index.max() >= self.palette.shape[1]:
            raise UserError(
                f"label {self.uri}: palette index {index.max()} has no colour; the table ends at "
                f"{self.palette.shape[1] - 1}. Expected indices that the colour table lists."
            )
        rgb: np.ndarray = self.palette[:, index]
        return rgb


def some(values: Iterable[object]) -> str:
    """The first five of some values, and how many more there are."""
    listed = [f"{value:g}" if isinstance(value, np.floating) else str(value) for value in values]
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _threshold(uri: str, classes: int, config: LabelConfig) -> float | None:
    """The value from which on a pixel is of class 1; None where values stand for themselves."""
    if config.threshold is not None:
        return config.threshold
    # Lossless files are taken at their word: that a mask of 0 and 255 was blurred must not depend on one file alone.
    header = label_header(uri)
    if not header.lossy or classes != 2 or config.values:
        return None
    survey = survey_label(uri)
    values = set(survey.values)
    if survey.blurred or (values and values <= {0, 255}):
        return 128.0
    if values <= set(range(classes)):
        return None
    raise UserError(
        f"label {survey.uri}: a lossy {header.driver} file with {len(survey.values) or 'thousands of'} values without "
        f"two plain peaks at 0 and 255: {shares(survey.values)}. Expected a lossless label; store it as PNG or "
        "GeoTIFF, or set data.label.threshold to the value from which on a pixel is of class 1."
    )


def _placed(uri: str, image: Scene, config: LabelConfig, bands: tuple[int, ...]) -> _SamePixels | _SamePlace:
    native, label = image.whole().grid(), Scene(uri).grid()
    if config.by_place:
        _refuse_elsewhere(uri, image, native, label)
        return _SamePlace(Scene(uri, bands, nearest=True), image.grid())
    compared = label
    if max(abs(label.height - native.height), abs(label.width - native.width)) <= config.size_slack:
        compared = replace(label, height=native.height, width=native.width)
    found = native.same_as(compared)
    if found:
        raise UserError(
            f"label {uri} does not lie on image {image.uri}: {'; '.join(found)}. Expected the same CRS, size and "
            "transform; warp the label onto the image first (gdalwarp -te -ts), use vector labels, or allow for "
            "some pixels more or less at the right and lower edge with data.label.size_slack."
        )
    gsd = image.gsd if image.gsd is not None else native.gsd
    return _SamePixels(Scene(uri, bands, None, image.window, gsd, image.resample_to, nearest=True))


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


def _palette(uri: str) -> np.ndarray | None:
    """(3, N) uint32 colours of a paletted label; None when it has colour bands.

    Raises:
        UserError: it has neither.
    """
    with gdal_env(uri):
        source = Source(uri, None, None, nearest=True)
        try:
            if source.file.count >= 3:
                return None
            table, count = colour_table(source), source.file.count
        finally:
            source.close()
    if table is None:
        raise UserError(
            f"label {uri}: {count} band(s) without a colour table. Expected colours in three "
            "bands or a colour table; for class ids set data.label.kind to index."
        )
    return table


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


def _numbers(mapping: dict[int | str, int]) -> dict[int, int]:
    """The entries that pixels can have: attribute values of polygons may be words, too."""
    return {key: value for key, value in mapping.items() if isinstance(key, int)}
