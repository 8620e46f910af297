"""Right angles for outlines of buildings: a rectilinear polygon along the main direction of a noisy one."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray

MAX_AREA_CHANGE = 0.02
"""Share of its area that a footprint may gain or lose."""
MIN_IOU = 0.95
"""Intersection over union of a footprint with what it was, at least."""

_TOLERANCE = 0.5
"""Pixels by which the first, finest fit may leave the outline."""
_STEP = 1.0
"""Pixels of a step of the stairs that the first fit makes of what is neither level nor upright."""
_TURNS = (-3.0, -1.5, 1.5, 3.0)
"""Degrees by which the main direction is tried anew."""
_MOST_CORNERS = 100
"""Corners of what still counts as a footprint with right angles."""
_CORNER_PRICE = 0.004
"""Intersection over union that a corner must be worth."""

Points = NDArray[np.float64]


def right_angled(polygon: shapely.Polygon, pixel: float) -> shapely.Polygon | None:
    """The rectilinear polygon along the main direction that fits best with few corners; holes likewise.

    The first fit follows the outline closely. Then edges go one by one, those first whose removal moves the least
    area, and the best of all these polygons is taken.

    Args:
        polygon: outline of a footprint in a metric system, such as metres.
        pixel: ground sample distance in the same unit.

    Returns:
        None where nothing lies within `MAX_AREA_CHANGE` and `MIN_IOU` of the polygon.
    """
    polygon = polygon.normalize().simplify(0)  # one start and no vertex on a straight edge, whatever it was cut from
    angle = _main_direction(polygon, pixel)
    best = _best(polygon, pixel, angle)
    if best is None:
        return None
    corners = len(best[1].exterior.coords)
    turned = [_best(polygon, pixel, angle + math.radians(turn), best[0], corners) for turn in _TURNS]
    return max((fit for fit in (best, *turned) if fit is not None), key=lambda fit: fit[0])[1]


def _main_direction(polygon: shapely.Polygon, pixel: float) -> float:
    """Angle in radians of the edges, modulo a right angle; long edges count most."""
    outline = np.diff(shapely.get_coordinates(polygon.exterior.simplify(1.5 * pixel)), axis=0)
    length = np.hypot(*outline.T)
    turned = np.sum(length**2 * np.exp(4j * np.arctan2(outline[:, 1], outline[:, 0])))
    return float(np.angle(turned) / 4)


def _best(
    polygon: shapely.Polygon,
    pixel: float,
    angle: float,
    beat: float = -math.inf,
    most_corners: int = _MOST_CORNERS,
) -> tuple[float, shapely.Polygon] | None:
    """The acceptable fit of the highest score at an angle, with that score, if it is above `beat`."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])  # of row vectors: the main direction becomes the x axis
    rings = [shapely.get_coordinates(ring) @ turn for ring in (polygon.exterior, *polygon.interiors)]
    # A hole is as it was where it has no fit, and otherwise the one with the corners that the outline's noise is worth.
    holes = [next((fit for fit in _fits(ring, pixel) if _alike(fit, ring)), ring) @ turn.T for ring in rings[1:]]
    best = None
    for fit in _fits(rings[0], pixel):
        if len(fit) > most_corners or 1 - _CORNER_PRICE * len(fit) <= beat:
            break  # further ones have more corners
        fitted = shapely.Polygon(fit @ turn.T, holes)
        if not fitted.is_valid or abs(fitted.area / polygon.area - 1) > MAX_AREA_CHANGE:
            continue
        overlap = _iou(fitted, polygon)
        score = overlap - _CORNER_PRICE * len(fit)
        if overlap >= MIN_IOU and score > beat:
            best, beat = (score, fitted), score
    return best


def _alike(fit: Points, ring: Points) -> bool:
    one, other = shapely.Polygon(fit), shapely.Polygon(ring)
    return bool(one.is_valid) and _iou(one, other) >= MIN_IOU


def _iou(one: shapely.Polygon, other: shapely.Polygon) -> float:
    shared = one.intersection(other).area
    return float(shared / (one.area + other.area - shared))


def _fits(ring: Points, pixel: float) -> list[Points]:
    """Closed rings with level and upright edges in turn, from four corners to many, for a closed ring (N, 2).

    Every edge lies where it keeps the area under the part of the outline that it stands for.
    """
    start = int(np.argmax(np.hypot(*(ring[:-1] - ring[:-1].mean(0)).T)))
    ring = np.roll(ring[:-1], -start, axis=0)
    ring, corners, level = _with_steps(np.concatenate([ring, ring[:1]]), _TOLERANCE * pixel, _STEP * pixel)
    begins = level != _before(level)
    first, level = corners[begins], level[begins]  # the edges are of the two kinds in turn
    sums = _Sums(ring)
    found: list[Points] = []
    while first.size >= 4:
        position = sums.positions(first, level)
        if first.size < _MOST_CORNERS:
            found.append(_closed(position, level))
        length = np.abs(_after(position) - _before(position))
        moved = length * np.minimum(_before(length), _after(length))
        shortest = int(np.argmin(moved))
        # The edges before and after it become one.
        stays = np.ones(first.size, bool)
        stays[[shortest, (shortest + 1) % first.size]] = False
        first, level = first[stays], level[stays]
    return found[::-1]


def _before(values: NDArray) -> NDArray:
    """The value before each in a ring of them."""
    return np.concatenate([values[-1:], values[:-1]])


def _after(values: NDArray) -> NDArray:
    """The value after each in a ring of them."""
    return np.concatenate([values[1:], values[:1]])


def _closed(position: Points, level: NDArray[np.bool_]) -> Points:
    """The corners, first to first, of edges whose positions across are known."""
    before = _before(position)
    xy = np.stack([np.where(level, before, position), np.where(level, position, before)], axis=1)
    return np.concatenate([xy, xy[:1]])


def _with_steps(ring: Points, tolerance: float, step: float) -> tuple[Points, NDArray[np.int64], NDArray[np.bool_]]:
    """A closed ring's finest edges: the ring with their corners, the index of each edge's first, and which are level.

    What leaves the main directions by more than a step goes by stairs.
    """
    kept = shapely.get_coordinates(shapely.LineString(ring).simplify(tolerance))
    points: list[Points] = []
    corners, level = [], []
    place = count = 0
    for end in kept[1:]:
        last = place + 1 + int(np.flatnonzero((ring[place + 1 :] == end).all(1))[0])
        part = ring[place : last + 1]
        place = last
        extent = np.abs(part[-1] - part[0])
        wide = bool(extent[0] >= extent[1])
        steps = int(extent.min() // step)
        if steps:
            # Where the line is as far as each piece reaches: the long ones along it, the short ones across.
            share = extent.max() / extent.sum()
            reached = (np.arange(steps)[:, None] + [share / 2, 1 - share / 2]).ravel() / steps
            along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(part, axis=0).T))])
            at = np.union1d(along, reached * along[-1])
            part = np.stack([np.interp(at, along, part[:, k]) for k in (0, 1)], axis=1)
            begins = np.searchsorted(at, np.concatenate([[0], reached * along[-1]]))
        else:
            begins = np.zeros(1, np.int64)
        corners += (begins + count).tolist()
        level += [wide == (k % 2 == 0) for k in range(len(begins))]
        points.append(part[:-1])
        count += len(part) - 1
    return np.concatenate([*points, ring[:1]]), np.array(corners), np.array(level)


class _Sums:
    """Integrals along a closed ring, from its first vertex to each."""

    def __init__(self, ring: Points) -> None:
        steps, middles = np.diff(ring, axis=0), (ring[1:] + ring[:-1]) / 2
        parts = np.stack([steps, steps * middles[:, ::-1], np.abs(steps), np.abs(steps) * middles[:, ::-1]])
        self._sums = np.concatenate([np.zeros((4, 1, 2)), np.cumsum(parts, axis=1)], axis=1)

    def positions(self, first: NDArray[np.int64], level: NDArray[np.bool_]) -> Points:
        """Where across its direction each edge, which begins at a vertex `first`, keeps the area under the outline."""
        last = _after(first)
        between = self._sums[:, last] - self._sums[:, first]
        between[:, last <= first] += self._sums[:, -1:]
        extent, area, path, weighted = np.where(level, between[..., 0], between[..., 1])
        straight = np.abs(extent) > path / 2  # what goes to and fro has no area under it: the mean of its points then
        return np.where(straight, area, weighted) / np.where(straight, extent, np.maximum(path, 1e-12))
