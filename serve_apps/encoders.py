"""Encodes the maps of a request in the media types it accepts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from idgbr.errors import UserError
from idgbr.raster.decoding import Picture
from idgbr.raster.encoding import geojson, geotiff, grey_png, palette_png, preview_png
from idgbr.raster.polygons import PolygonOptions
from serve_apps.assembly import Maps
from serve_apps.messages import GEOJSON, GEOTIFF, PNG, MapRequest
from serve_apps.model_folder import Served
from serve_apps.problems import ProblemError


def encoded(request: MapRequest, served: Served, picture: Picture, maps: Maps) -> list[tuple[str, str, bytes]]:
    """Name, media type and bytes of every output in every requested type.

    An output that a type cannot hold (the image as polygons) is left out of that type.
    """
    parts: list[tuple[str, str, bytes]] = []
    for name in request.outputs:
        for media in request.media:
            data = _encode(name, media, request.polygons, served, picture, maps)
            if data is not None:
                parts.append((name, media, data))
    return parts


def _encode(
    name: str, media: str, polygons: PolygonOptions, served: Served, picture: Picture, maps: Maps
) -> bytes | None:
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
    planes = {"uncertainty": maps.uncertainty} if name == "refined" and maps.uncertainty is not None else None
    return geojson(ids, picture.grid, named_classes(served), polygons, planes)


def named_classes(served: Served) -> list[tuple[int, str, str]]:
    """(id, name, colour) of each class."""
    return [(i, c.name, c.colour) for i, c in enumerate(served.spec.classes)]


def check_polygons(request: MapRequest, served: Served) -> None:
    """Refuses options of polygons that the model's classes do not allow, before anything is computed.

    Raises:
        ProblemError: 422.
    """
    try:
        request.polygons.ids(named_classes(served))
    except UserError as error:
        raise ProblemError.of(422, "Invalid parameters", str(error)) from error
