"""Styles for QGIS: the classes' names and colours, for maps and for their polygons."""

from __future__ import annotations

import os
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from idgbr import IGNORE
from idgbr.files import write_atomically

_OUTLINE = "60,60,60,255"
"""Red, green, blue and opacity of the outlines of polygons."""


def qgis_style(classes: Sequence[tuple[int, str, str]]) -> str:
    """A QML document that styles a class map of any number of bands and its polygons.

    QGIS looks for the style of a layer under the layer's file name, so a map and its polygons share one: rasters take
    the `pipe` (band 1 paletted, nodata transparent), vectors the `renderer-v2` (by class id).

    Args:
        classes: (id, name, colour as #rrggbb) of each class.
    """
    root = Element("qgis", version="3.34.0", styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    raster = SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor="")
    SubElement(raster, "rasterTransparency")
    palette = SubElement(raster, "colorPalette")
    vector = SubElement(root, "renderer-v2", type="categorizedSymbol", attr="class_id", symbollevels="0",
                        forceraster="0", enableorderby="0")  # fmt: skip
    categories, symbols = SubElement(vector, "categories"), SubElement(vector, "symbols")
    for number, (class_id, name, colour) in enumerate(classes):
        SubElement(palette, "paletteEntry", value=str(class_id), color=colour, label=name, alpha="255")
        SubElement(
            categories, "category", value=str(class_id), type="long", label=name, symbol=str(number), render="true"
        )
        symbol = SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1", clip_to_extent="1")
        layer = SubElement(symbol, "layer", {"class": "SimpleFill"}, enabled="1", locked="0")
        options = SubElement(layer, "Option", type="Map")
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        for key, value in {
            "color": f"{red},{green},{blue},255",
            "style": "solid",
            "outline_color": _OUTLINE,
            "outline_style": "solid",
            "outline_width": "0.1",
            "outline_width_unit": "MM",
        }.items():
            SubElement(options, "Option", type="QString", name=key, value=value)
    SubElement(palette, "paletteEntry", value=str(IGNORE), color="#000000", label="no data", alpha="0")
    SubElement(root, "layerGeometryType").text = "2"
    indent(root)
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + tostring(root, encoding="unicode") + "\n"


def write_style(map_path: str | os.PathLike[str], classes: Sequence[tuple[int, str, str]]) -> str:
    """Writes NAME.qml next to a map or its polygons, atomically, and returns its path."""
    path = os.path.splitext(os.fspath(map_path))[0] + ".qml"
    write_atomically(path, qgis_style(classes))
    return path
