"""How clean polygons are: vertices per kilometre of outline, and corners that are no right angles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

TOLERANCE_DEGREES = 3.0
"""Default of the deviation within which a corner is a right angle, and a vertex no corner."""


def vertices_per_kilometre(polygons: Sequence[BaseGeometry], metres_per_unit: float = 1.0) -> float:
    """Vertices of the outlines (outer and inner rings) over their length.

    A ring's closing vertex is not counted. An edge that two polygons share counts for both, with its vertices.

    Args:
        polygons: Polygons or MultiPolygons in one projected CRS; empty geometries count nothing.
        metres_per_unit: Metres per unit of their coordinates.

    Returns:
        Vertices per kilometre; NaN without an outline.
    """
    rings = _rings(polygons)
    kilometres = float(shapely.length(rings).sum()) * metres_per_unit / 1000.0
    vertices = int(shapely.get_num_coordinates(rings).sum()) - len(rings)
    return vertices / kilometres if kilometres > 0 else float("nan")


def corners_off_right_angles(polygons: Sequence[BaseGeometry], tolerance: float = TOLERANCE_DEGREES) -> float:
    """Share of corners that deviate from a right angle by more than a tolerance, for regularised classes.

    A corner is a vertex at which an outline turns by more than `tolerance`: vertices on a straight edge, where a
    neighbour has a corner, are none. Inward and outward corners count alike. The outline of a raster has right angles
    at every pixel; the figure says something of regularised polygons alone, next to their vertices per kilometre.

    Args:
        polygons: Polygons or MultiPolygons in one projected CRS.
        tolerance: Degrees.

    Returns:
        Share in 0..1; NaN without a corner.
    """
    rings = _rings(polygons)
    if len(rings) == 0:
        return float("nan")
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    step, same_ring = np.diff(xy, axis=0), np.diff(ring) == 0
    moves = same_ring & (step != 0).any(1)
    heading, ring = np.arctan2(step[moves, 1], step[moves, 0]), ring[1:][moves]
    # The edge after each edge of a ring; after its last comes its first.
    first = np.searchsorted(ring, ring)
    after = np.arange(1, len(ring) + 1)
    last = np.append(np.diff(ring) != 0, True)
    after[last] = first[last]
    turn = np.abs(np.degrees(np.angle(np.exp(1j * (heading[after] - heading)))))
    corners = turn[turn > tolerance]
    return float((np.abs(corners - 90.0) > tolerance).mean()) if corners.size else float("nan")


def _rings(polygons: Sequence[BaseGeometry]) -> np.ndarray:
    parts = shapely.get_parts(np.asarray(polygons, dtype=object))
    return np.asarray(shapely.get_rings(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]))
