"""Label rasters as class ids: files of class indices, and files in the classes' colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from idgbr import IGNORE
from idgbr.config.data import ClassSpec, LabelConfig
from idgbr.errors import UserError
from idgbr.raster.gdal import gdal_env
from idgbr.raster.grid import Window
from idgbr.raster.label_places import place_label
from idgbr.raster.label_survey import colour_table, label_header, pack, shares, survey_label
from idgbr.raster.scene import Scene
from idgbr.raster.source import Source, equal_to

Notes = dict[str, np.ndarray]
"""What happened to pixels on their way to class ids, and where: sentence -> (H, W) bool."""

OUTSIDE = "no label: outside of the label file"
_MIXED = 8
_BLENDED = "; so many colours come from smoothed edges or lossy compression: export the labels without either"
"""Said where more than `_MIXED` colours are no class."""
HIDDEN = "transparent, masked or NaN in the label file"


class RasterLabel:
    """What index and colour rasters share: a file that lies on the image's pixels, or on its place."""

    def __init__(
        self, uri: str, image: Scene, classes: Sequence[ClassSpec], config: LabelConfig, bands: Sequence[int]
    ) -> None:
        self.uri, self.classes, self.config = uri, classes, config
        self.source = place_label(uri, image, config, tuple(bands))

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
        tagged = self._tagged(pixels)
        hidden = inside & ~valid & ~tagged
        if self.threshold is not None or self.config.nonzero:
            return self._two_classes(pixels, inside, hidden)
        raw = pixels[0]
        keys = np.array(sorted(self.known))
        ids = np.array([self.known[key] for key in keys], dtype=np.uint8)
        at = np.minimum(np.searchsorted(keys, raw), len(keys) - 1)
        hit = keys[at] == raw
        # A value the config maps by name is a class even where the file's nodata tag says otherwise.
        kept = valid | (np.isin(raw, list(_numbers(self.config.values))) & inside & tagged)
        unknown = valid & ~hit
        if unknown.any():
            raise self._refuse(
                f"value {some(np.unique(raw[unknown]))} is no class",
                unknown,
                window,
                f"one of {sorted(self.known)}; set data.label.values, data.label.nonzero or data.label.threshold"
                + ("" if (raw[unknown] % 1).any() else ", or add it to data.label.ignore"),
            )
        labels = np.where(hit & kept, ids[at], IGNORE).astype(np.uint8)
        return labels, {f"no label: {HIDDEN}": hidden, **self._notes(labels, raw, inside, hit & tagged & ~kept)}

    def _tagged(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) bool: which pixels hold the nodata tag's value."""
        if self.nodata is None:
            return np.zeros(pixels.shape[1:], bool)
        return np.asarray(equal_to(pixels, self.nodata).all(axis=0))

    def _two_classes(self, pixels: np.ndarray, inside: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, Notes]:
        """Labels where every value is class 0 or 1, by a threshold or for being 0 or not.

        Such masks hold 0 and 255, so that neither value means "no label": not for `ignore`, whose default names 255,
        and not for a nodata tag.
        """
        key = "data.label.nonzero" if self.threshold is None else "data.label.threshold"
        notes: Notes = {OUTSIDE: ~inside, f"{HIDDEN} became class 0 ({key}); data.label.values leaves them out": hidden}
        if self.threshold is None:
            high = (pixels != 0).any(axis=0)
            notes |= self._unlikely(pixels, inside)
        else:
            high = pixels.max(axis=0) >= self.threshold
            sides = f"values between 0 and 255 became the class on their side of {self.threshold:g} ({key})"
            notes[sides] = inside & ((pixels > 0) & (pixels < 255)).any(axis=0)
        labels = np.where(inside, high & ~hidden, IGNORE).astype(np.uint8)
        reasons = {value: "(data.label.ignore)" for value in self.config.ignore if isinstance(value, int)}
        if self.nodata is not None:
            reasons[self.nodata] = "is the label file's nodata tag"  # type: ignore[index]
        for value, why in reasons.items():
            if value not in (0, 255):
                where = inside & equal_to(pixels, value).all(axis=0)
                labels[where] = IGNORE
                notes[f"no label: value {value:g} {why}"] = where
        return labels, notes

    def _unlikely(self, pixels: np.ndarray, inside: np.ndarray) -> Notes:
        """Values that rather mean "no label" than class 1: below 0, and 255 beside one other value."""
        raw = pixels[0]
        if len(pixels) > 1 or not ((raw == 255) | (raw < 0)).any():
            return {}
        values = [value for value in survey_label(self.uri).values if value != 0]
        others = [value for value in values if 0 < value != 255]
        found = [value for value in values if value < 0 or (value == 255 and len(others) == 1)]
        read = "{" + ", ".join(["0: 0", *(f"{value:g}: 1" for value in others)]) + "}"
        return {
            f"value {value:g} became class 1 (data.label.nonzero); data.label.values: {read} leaves it without a label":
            inside & (raw == value)
            for value in found
        }  # fmt: skip

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
        rgb, opaque = self._rgb(pixels)
        packed, valid = pack(rgb), valid & opaque
        at = np.minimum(np.searchsorted(self.colours, packed), len(self.colours) - 1)
        unknown = valid & (self.colours[at] != packed)
        if unknown.any():
            raise self._refuse(
                f"colour {some(f'#{value:06x}' for value in np.unique(packed[unknown]))} is no class",
                unknown,
                window,
                f"one of {', '.join(f'#{c:06x}' for c in self.colours)}, in a lossless format; set the classes' "
                "colours or data.label.ignore_colours" + (_BLENDED if len(np.unique(packed[unknown])) > _MIXED else ""),
            )
        labels = np.where(valid, self.ids[at], IGNORE).astype(np.uint8)
        notes = {OUTSIDE: ~inside, f"no label: nodata, or {HIDDEN}": inside & ~valid}
        for colour in self.colours[self.ids == IGNORE]:
            notes[f"no label: colour #{colour:06x} (data.label.ignore_colours)"] = valid & (packed == colour)
        return labels, notes

    def _rgb(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours (3, H, W), and which pixels the colour table shows (H, W)."""
        if self.palette is None:
            return pixels * self.scale if self.scale != 1.0 else pixels, np.ones(pixels.shape[1:], bool)
        index = pixels[0].astype(np.int64)
        if index.size and index.max() >= self.palette.shape[1]:
            raise UserError(
                f"label {self.uri}: palette index {index.max()} has no colour; the table ends at "
                f"{self.palette.shape[1] - 1}. Expected indices that the colour table lists."
            )
        return self.palette[:3, index], self.palette[3, index] > 0


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


def _palette(uri: str) -> np.ndarray | None:
    """(4, N) uint32 colours and opacity of a paletted label; None when it has colour bands.

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


def _numbers(mapping: dict[int | str, int]) -> dict[int, int]:
    """The entries that pixels can have: attribute values of polygons may be words, too."""
    return {key: value for key, value in mapping.items() if isinstance(key, int)}
