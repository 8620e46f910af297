"""Which bands of a file are the model's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rasterio.enums import ColorInterp

from idgbr.errors import UserError
from idgbr.raster.findings import Finding
from idgbr.raster.source import Source

Bands = tuple[int | str, ...]
_SHOW_NOTHING = (ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha)


def choose_bands(
    source: Source, expected: Sequence[int | str], bands_from: Sequence[int | str], key: str
) -> tuple[Bands, Finding | None]:
    """The bands of a file that a model reads.

    Where a model asks for names and the file's bands have none, they are taken in the file's order if their number
    fits. A file of one band with a colour table has red, green and blue.

    Args:
        source: the open file.
        expected: the model's bands, indices or names.
        bands_from: the bands to read instead, in the model's order; empty where nobody said so.
        key: the flag or key that says so.

    Returns:
        Indices or names for `Scene.bands`, and what there is to tell about the choice.

    Raises:
        UserError: the file lacks a band.
    """
    if bands_from:
        if len(bands_from) != len(expected):
            raise UserError(
                f"{key}: names {len(bands_from)} band(s), but the model reads {len(expected)} "
                f"({', '.join(map(str, expected))}); expected as many, in this order"
            )
        source.indexes(tuple(bands_from))
        return tuple(bands_from), None
    try:
        chosen = tuple(expected)
        if source.indexes(chosen)[0] < 0:
            found = "has one band with a colour table, whose red, green and blue are read"
            return chosen, Finding(source.uri, found, "", "", "warning")
        return chosen, None
    except UserError:
        own = source.indexes(())
        if _named(source) or len(own) != len(expected) or not all(isinstance(band, str) for band in expected):
            raise
    words = f"its bands have no names; they are taken in the file's order as {', '.join(map(str, expected))}"
    return tuple(own), Finding(source.uri, words, key, "name the bands where the order is another", "warning")


def shown_colours(source: Source, bands: Bands) -> tuple[str, ...]:
    """What the bands show by their tags; empty where one of them says nothing."""
    names = [source.colour(i) for i in source.indexes(bands)]
    return tuple(name.name for name in names) if not any(name in _SHOW_NOTHING for name in names) else ()


def _named(source: Source) -> bool:
    descriptions = [text or "" for text in source.file.descriptions]
    own = any(text and not re.fullmatch(r"band[ _]*\d+", text, re.IGNORECASE) for text in descriptions)
    return own or any(source.colour(i) not in _SHOW_NOTHING for i in source.file.indexes)
