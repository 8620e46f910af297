"""What a label raster holds, before anybody says how to read it: values or colours with their shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, Resampling

from idgbr.errors import UserError
from idgbr.raster.gdal import GDAL_ERRORS, gdal_env, version_of
from idgbr.raster.opening import reason
from idgbr.raster.source import Source

MAX_VALUES = 4096
"""Distinct values or colours that are counted one by one; a label with more is no label, or holds instances."""
_MAX_PIXELS = 4 * 2**20
"""Pixels looked at. A larger file is looked at on a regular grid of so many of its pixels."""
_LOSSY = {"JPEG", "WEBP", "JP2OpenJPEG", "jpeg", "jpeg2000", "webp", "ycbcr jpeg"}
_PEAK = 48
"""How far from 0 or 255 a value may lie and still belong to that peak of a blurred mask."""
_PLAIN = 0.95
"""Smallest share of pixels in the two peaks of a blurred mask."""


@dataclass(frozen=True)
class LabelHeader:
    """Metadata of a label raster, which are read without reading pixels.

    Attributes:
        driver: GDAL's name of the format.
        dtype: pixel type.
        bands: how many bands hold pixels, alpha left out.
        coloured: the bands are tagged red, green and blue.
        palette: the file has a colour table.
        lossy: its compression changes values.
        nodata: its nodata tag, None where there is none.
    """

    driver: str
    dtype: str
    bands: int
    coloured: bool
    palette: bool
    lossy: bool
    nodata: float | None


@dataclass(frozen=True)
class LabelSurvey:
    """Contents of a label raster.

    Attributes:
        uri: the file.
        header: its metadata.
        values: counted pixels by the value of the first band; empty where there are more than `MAX_VALUES`.
        colours: counted pixels by #rrggbb, of colour bands or through the colour table; empty likewise.
        scale: factor that brings the file's colours to 0..255.
        alike: all bands hold the same values.
        hidden: share of pixels that are masked, NaN or transparent, be it through the colour table. `colours` leaves
            them out, `values` all but those of the colour table.
    """

    uri: str
    header: LabelHeader
    values: Mapping[float, int]
    colours: Mapping[str, int]
    scale: float
    alike: bool
    hidden: float = 0.0

    @property
    def blurred(self) -> bool:
        """A mask of 0 and 255 whose values were mixed by compression or resizing: two plain peaks, and some between."""
        if not self.values or max(self.values) < 128 or max(self.values) > 255 or min(self.values) < 0:
            return False
        near = sum(n for v, n in self.values.items() if v <= _PEAK or v >= 255 - _PEAK)
        # Ids of classes beside 255 are no blur: that has values on the way up, or some just below the top.
        middle = sum(_PEAK < value < 255 - _PEAK for value in self.values)
        below_top = sum(255 - _PEAK <= value < 255 for value in self.values)
        return (middle > 0 or below_top > 1) and near >= _PLAIN * sum(self.values.values())


def label_header(uri: str) -> LabelHeader:
    """Opens a label raster and reads its metadata.

    Raises:
        UserError: the file is missing, unreadable or damaged.
    """
    return _header(uri, version_of(uri))


def survey_label(uri: str) -> LabelSurvey:
    """Looks at the pixels of a label raster; of a large one at a regular sample of them.

    Raises:
        UserError: the file is missing, unreadable or damaged.
    """
    return _survey(uri, version_of(uri))


@lru_cache(maxsize=4096)
def _header(uri: str, version: tuple[int, int]) -> LabelHeader:
    with gdal_env(uri):
        source = Source(uri, None, None, nearest=True)
        try:
            file = source.file
            compression = file.compression.value.lower() if file.compression else ""
            return LabelHeader(
                driver=file.driver,
                dtype=file.dtypes[0],
                bands=len(source.indexes(())),
                coloured={ColorInterp.red, ColorInterp.green, ColorInterp.blue} <= set(file.colorinterp),
                palette=colour_table(source) is not None,
                lossy=file.driver in _LOSSY or compression in _LOSSY,
                nodata=file.nodata,
            )
        except GDAL_ERRORS as error:
            raise _unreadable(uri, error) from error
        finally:
            source.close()


@lru_cache(maxsize=4096)
def _survey(uri: str, version: tuple[int, int]) -> LabelSurvey:
    with gdal_env(uri):
        source = Source(uri, None, None, nearest=True)
        try:
            file, indexes = source.file, source.indexes(())
            step = max(1, int(np.ceil(np.sqrt(file.height * file.width / _MAX_PIXELS))))
            shape = (len(indexes), -(-file.height // step), -(-file.width // step))
            pixels = file.read(indexes, out_shape=shape, resampling=Resampling.nearest)
            table, seen = colour_table(source), _seen(source, shape[1:])
        except GDAL_ERRORS as error:
            raise _unreadable(uri, error) from error
        finally:
            source.close()
    scale = _colour_scale(pixels)
    rgb = None
    if pixels.dtype.kind == "f":
        seen &= np.isfinite(pixels).all(axis=0)
    if len(indexes) >= 3:
        rgb = pixels[:3] * scale
    shown = seen
    if len(indexes) < 3 and table is not None:
        coloured = table[:, np.clip(pixels[0], 0, table.shape[1] - 1).astype(np.int64)]
        rgb, shown = coloured[:3], seen & (coloured[3] > 0)
    colours = {} if rgb is None else {f"#{int(c):06x}": n for c, n in _counted(pack(rgb)[shown]).items()}
    alike = bool((pixels == pixels[:1]).all())
    hidden = 1 - float(shown.mean())
    return LabelSurvey(uri, label_header(uri), _counted(pixels[0][seen]), colours, scale, alike, hidden)


def _seen(source: Source, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: which pixels neither alpha nor a mask hides."""
    seen = np.ones(shape, bool)
    if source.alpha is not None:
        seen &= source.file.read(source.alpha, out_shape=shape, resampling=Resampling.nearest) != 0
    if source.masked:
        seen &= source.file.read_masks(1, out_shape=shape, resampling=Resampling.nearest) != 0
    return seen


def _unreadable(uri: str, error: BaseException) -> UserError:
    return UserError(f"{uri}: cannot be read ({reason(error)}). Expected a label raster; copy or download it again.")


def colour_table(source: Source) -> np.ndarray | None:
    """(4, N) uint32 colours and opacity of a file with a colour table; None without one.

    N is more than the largest index.
    """
    try:
        table = source.file.colormap(1)
    except ValueError:
        return None
    # An index without an entry is black, as GDAL itself expands it.
    largest = max(np.iinfo(source.file.dtypes[0]).max if source.file.dtypes[0] == "uint8" else 0, *table)
    palette = np.zeros((4, largest + 1), dtype=np.uint32)
    palette[3] = 255
    for index, colour in table.items():
        palette[:, index] = colour
    return palette


def _colour_scale(pixels: np.ndarray) -> float:
    """Factor that brings colours to 0..255: they are stored as floats 0..1, or with 16 bits, as well."""
    largest = float(np.nanmax(pixels)) if pixels.size else 0.0
    if pixels.dtype.kind == "f" and largest <= 1.0:
        return 255.0
    return 1 / 257 if pixels.dtype == np.uint16 and largest > 255 else 1.0


def pack(rgb: np.ndarray) -> np.ndarray:
    """Colours (3, H, W) of 0..255 as numbers 0xRRGGBB (H, W); what is out of that range, or not finite, is clipped."""
    whole = np.nan_to_num(np.clip(np.rint(rgb.astype(np.float64)), 0, 255)).astype(np.uint32)
    packed: np.ndarray = (whole[0] << 16) | (whole[1] << 8) | whole[2]
    return packed


def merged(surveys: Iterable[LabelSurvey]) -> tuple[dict[float, int], dict[str, int]]:
    """Values and colours of several labels together, the commonest first."""
    values: dict[float, int] = {}
    colours: dict[str, int] = {}
    for survey in surveys:
        for value, count in survey.values.items():
            values[value] = values.get(value, 0) + count
        for colour, count in survey.colours.items():
            colours[colour] = colours.get(colour, 0) + count
    return _by_count(values), _by_count(colours)


def shares(counts: Mapping[Any, int], most: int = 8) -> str:
    """Counts in words, the commonest first: `0 (78.2 %), 255 (21.8 %)`."""
    total = max(1, sum(counts.values()))
    listed = [f"{key:g}" if isinstance(key, float) else str(key) for key in _by_count(counts)]
    words = [f"{name} ({count / total:.1%})" for name, count in zip(listed, _by_count(counts).values(), strict=True)][
        :most
    ]
    return ", ".join(words) + (f" and {len(counts) - most} more" if len(counts) > most else "")


def _counted(plane: np.ndarray) -> dict[float, int]:
    values, counts = np.unique(plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane, return_counts=True)
    if len(values) > MAX_VALUES:
        return {}
    return {value.item(): int(count) for value, count in zip(values, counts, strict=True)}


def _by_count(counts: Mapping[Any, int]) -> dict[Any, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], str(item[0]))))
