"""Encodes the maps of a request in the media types it accepts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from idgbr.raster.decoding import Picture
from idgbr.raster.encoding import geojson, geotiff, grey_png, palette_png, preview_png
from serve_apps.assembly import Maps
from serve_apps.messages import GEOJSON, GEOTIFF, PNG, MapRequest
from serve_apps.model_folder import Served


def encoded(request: MapRequest, served: Served, picture: Picture, maps: Maps) -> list[tuple[str, str, bytes]]:
    """Name, media type and bytes of every output in every requested type.

    An output that a type cannot hold (the image as polygons) is left out of that type.
    """
    parts: list[tuple[str, str, bytes]] = []
    for name in request.outputs:
        for media in request.media:
            data = _encode(name, media, request.min_area, served, picture, maps)
            if data is not None:
                parts.append((name, media, data))
    return parts


def _encode(name: str, media: str, min_area: float, served: Served, picture: Picture, maps: Maps) -> bytes | None:
    spec = served.spec
    if name == "image":
        return preview_png(picture.pixels, picture.valid) if media == PNG else None
    if name == "uncertainty":
        assert maps.uncertainty is not None
        if media == GEOJSON:
            return None
        return grey_png(maps.uncertainty) if media == PNG else geotiff(maps.uncertainty, picture.grid, name)
    ids: NDArray[np.uint8] | None = maps.planes[0] if name == "coarse" else maps.refined
    assert ids is not None
    colours = [c.colour for c in spec.classes]
    if media == PNG:
        return palette_png(ids, colours)
    if media == GEOTIFF:
        tags = {f"class_{i}": c.name for i, c in enumerate(spec.classes)} | {"model": served.label}
        return geotiff(ids, picture.grid, "class", colours, tags)
    return geojson(ids, picture.grid, [(i, c.name, c.colour) for i, c in enumerate(spec.classes)], min_area)
