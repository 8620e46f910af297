"""Maps as bytes to send: GeoTIFF, PNG with a palette, GeoJSON."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.io import MemoryFile

from idgbr import IGNORE
from idgbr.raster.gdal import gdal_env, open_quietly
from idgbr.raster.grid import Grid
from idgbr.raster.polygons import Classes, PolygonOptions, class_polygons, in_degrees

Colour = tuple[int, int, int]

_TILE = 256


def rgb(colour: str) -> Colour:
    """#rrggbb as three numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def geotiff(
    plane: NDArray[np.uint8], grid: Grid, name: str, colours: Sequence[str] = (), tags: Mapping[str, str] | None = None
) -> bytes:
    """One band of bytes as a tiled, compressed GeoTIFF with nodata 255.

    Args:
        plane: (H, W).
        grid: Its georeference.
        name: Of the band.
        colours: Colour table, #rrggbb of each value from 0.
        tags: What to record in the file.
    """
    tiled = min(grid.height, grid.width) > _TILE
    with gdal_env("/vsimem/"), MemoryFile() as file:
        with open_quietly(
            file.name, mode="w", driver="GTiff", height=grid.height, width=grid.width, count=1, dtype="uint8",
            nodata=IGNORE, crs=rasterio.crs.CRS.from_wkt(grid.crs) if grid.crs else None, transform=grid.affine,
            compress="DEFLATE", photometric="PALETTE" if colours else "MINISBLACK",
            **({"tiled": True, "blockxsize": _TILE, "blockysize": _TILE} if tiled else {}),
        ) as out:  # fmt: skip
            if colours:
                out.write_colormap(1, {i: (*rgb(colour), 255) for i, colour in enumerate(colours)})
            out.set_band_description(1, name)
            out.update_tags(**(tags or {}))
            out.write(plane, 1)
        return bytes(file.getbuffer())


def palette_png(ids: NDArray[np.uint8], colours: Sequence[str]) -> bytes:
    """Class ids (H, W) as a PNG whose pixel values are the ids; 255 is transparent."""
    picture = Image.fromarray(ids, "L")
    table = [part for colour in colours for part in rgb(colour)]
    # All 256 entries: a shorter palette would be packed into fewer bits, and nodata with it.
    picture.putpalette([*table, *[0] * (768 - len(table))])
    return _png(picture, transparency=IGNORE)


def grey_png(plane: NDArray[np.uint8]) -> bytes:
    """(H, W) as a grey PNG; 255 is transparent."""
    return _png(Image.fromarray(plane, "L"), transparency=IGNORE)


def preview_png(pixels: NDArray, valid: NDArray[np.bool_], longest: int = 2048) -> bytes:
    """An image (B, H, W) of any dtype as a person would look at it: up to three bands, stretched, small enough.

    Bytes stay as they are; other numbers are stretched between their 2nd and 98th percentile, per band.
    """
    step = max(1, -(-max(valid.shape) // longest))
    bands = pixels[: 3 if len(pixels) >= 3 else 1, ::step, ::step]
    shown = valid[::step, ::step]
    if bands.dtype != np.uint8:
        known = bands[:, shown].astype(np.float64)
        low, high = np.percentile(known, (2, 98), axis=1)[:, :, None, None]
        bands = ((bands - low) / np.maximum(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8)
    colours = np.broadcast_to(bands, (3, *shown.shape))
    return _png(Image.fromarray(np.ascontiguousarray(np.moveaxis(np.stack([*colours, shown * np.uint8(255)]), 0, -1))))


def geojson(
    ids: NDArray[np.uint8],
    grid: Grid,
    classes: Classes,
    options: PolygonOptions,
    planes: dict[str, NDArray[np.uint8]] | None = None,
) -> bytes:
    """Polygons of a class map (H, W), in longitude and latitude where it is georeferenced.

    Args:
        ids: Class ids, 255 is nodata.
        grid: Its georeference.
        classes: (id, name, colour) of each class.
        options: Smallest area, simplification, right angles.
        planes: (H, W) 0..254 for 0..1 by name, of which polygons carry the mean.

    Raises:
        UserError: A class to regularise does not exist.
    """
    frame = in_degrees(class_polygons(ids, grid, classes, options, planes))
    frame = frame.set_geometry(frame.geometry.set_precision(1e-9 if frame.crs is not None else 1e-3, mode="pointwise"))
    document = json.loads(frame.to_json(drop_id=True, show_bbox=False))
    document.pop("crs", None)  # RFC 7946: always longitude and latitude
    return json.dumps(document, separators=(",", ":")).encode()


def _png(picture: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=4, **options)  # type: ignore[arg-type]
    return stream.getvalue()
