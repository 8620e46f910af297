"""Coordinate reference systems: which of them are one, what they are called, how long their unit is.

A system is what its definition (WKT) says. Codes are looked up nowhere, since the registries of GDAL and PROJ that come
with different packages differ.
"""

from __future__ import annotations

import math
from functools import lru_cache

import pyproj
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError

Point = tuple[float, float]


@lru_cache(maxsize=256)
def same_crs(one: str, other: str) -> bool:
    """Whether two WKT strings mean the same system on the ground, whatever their dialect and their heights' datum."""
    if one == other:
        return True
    a, b = CRS.from_wkt(horizontal(one)), CRS.from_wkt(horizontal(other))
    return a == b or (a.to_epsg() is not None and a.to_epsg() == b.to_epsg())


@lru_cache(maxsize=256)
def horizontal(wkt: str) -> str:
    """The part of a system that says where a point lies on the ground: pixels have no height."""
    try:
        crs = pyproj.CRS.from_wkt(wkt)
    except ProjError:  # newer than the registry; then it is taken as it stands
        return wkt
    if not crs.is_compound and len(crs.axis_info) <= 2:
        return wkt
    plane: str = (crs.sub_crs_list[0] if crs.is_compound else crs).to_2d().to_wkt("WKT1_GDAL")
    return plane


@lru_cache(maxsize=256)
def crs_name(wkt: str | None) -> str:
    """A short name for messages: EPSG code when there is one, else the name inside the WKT."""
    if wkt is None:
        return "none"
    epsg = CRS.from_wkt(wkt).to_epsg()
    return f"EPSG:{epsg}" if epsg else (wkt.split('"')[1] if '"' in wkt else wkt[:40])


@lru_cache(maxsize=256)
def metres_per_unit(wkt: str) -> float | None:
    """Length of the unit of a projected or local system in metres; None of angles and of units nobody knows."""
    crs = CRS.from_wkt(wkt)
    local = wkt.lstrip().upper().startswith(("LOCAL_CS", "ENGCRS", "ENGINEERINGCRS"))
    if not (crs.is_projected or local):
        return None
    try:
        name, factor = crs.linear_units_factor if crs.is_projected else crs.units_factor
    except CRSError:
        return None
    if any(word in name.lower() for word in ("unknown", "degree", "grad", "gon", "radian")):
        return None
    return float(factor) if factor > 0 else None


@lru_cache(maxsize=256)
def degrees_per_unit(wkt: str) -> float | None:
    """Size of the unit of a geographic system in degrees (grads are 0.9); None of all others."""
    crs = CRS.from_wkt(wkt)
    return math.degrees(crs.units_factor[1]) if crs.is_geographic else None


def ground_sides(wkt: str, corner: Point, right: Point, below: Point) -> Point:
    """Lengths of a pixel's upper and left side in metres along the ellipsoid; not finite where they are unknown.

    Args:
        wkt: a projected or geographic system.
        corner: the pixel's corner in that system.
        right: the next corner to the right.
        below: the next corner below.
    """
    points = (corner, right, below)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    degrees = degrees_per_unit(wkt)
    if degrees is not None:
        # Lengths along the ellipsoid do not depend on where longitudes begin.
        xs, ys = [x * degrees for x in xs], [y * degrees for y in ys]
    else:
        try:
            xs, ys = Transformer.from_crs(wkt, "OGC:CRS84", always_xy=True).transform(xs, ys)
        except ProjError:
            return math.nan, math.nan
    _, _, sides = Geod(ellps="WGS84").inv([xs[0]] * 2, [ys[0]] * 2, xs[1:], ys[1:])
    return sides[0], sides[1]
