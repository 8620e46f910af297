"""Figures of polygons small enough to check by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from shapely import MultiPolygon, Polygon, affinity, box

from idgbr.evaluation.vectors import corners_off_right_angles, vertices_per_kilometre


def test_vertices_per_kilometre_by_hand() -> None:
    house = box(0, 0, 20, 5)  # 4 vertices on 50 m
    assert vertices_per_kilometre([house]) == pytest.approx(80)
    yard = Polygon(box(0, 0, 30, 20).exterior, [box(5, 5, 10, 10).exterior.coords])  # 8 vertices on 120 m
    assert vertices_per_kilometre([MultiPolygon([house, affinity.translate(yard, 100)])]) == pytest.approx(12 / 0.17)
    assert vertices_per_kilometre([house], metres_per_unit=0.3) == pytest.approx(80 / 0.3)
    assert vertices_per_kilometre([shapely.segmentize(house, 5.0)]) == pytest.approx(200)
    assert math.isnan(vertices_per_kilometre([]))
    assert math.isnan(vertices_per_kilometre([Polygon()]))


def test_corners_off_right_angles_by_hand() -> None:
    angled = Polygon([(0, 0), (10, 0), (10, 6), (6, 6), (6, 10), (0, 10)])  # inward and outward right angles
    assert corners_off_right_angles([angled]) == 0
    assert corners_off_right_angles([affinity.rotate(angled, 37)]) == 0
    assert corners_off_right_angles([shapely.segmentize(affinity.rotate(angled, 37), 1.0)]) == 0  # no corners added
    triangle = Polygon([(0, 0), (10, 0), (0, 10)])  # one right angle of three
    assert corners_off_right_angles([triangle]) == pytest.approx(2 / 3)
    assert corners_off_right_angles([angled, triangle.reverse()]) == pytest.approx(2 / 9)
    hole = Polygon(box(-20, -20, 40, 40).exterior, [triangle.exterior.coords])
    assert corners_off_right_angles([hole]) == pytest.approx(2 / 7)
    assert math.isnan(corners_off_right_angles([]))


@pytest.mark.parametrize(("lean", "off"), [(2.5, 0.0), (3.5, 1.0)])
def test_right_angles_within_three_degrees(lean: float, off: float) -> None:
    leaning = affinity.skew(box(0, 0, 10, 10), xs=lean)
    assert corners_off_right_angles([leaning]) == off


def test_a_circle_has_no_right_angle() -> None:
    circle = shapely.Point(0, 0).buffer(10, quad_segs=4)
    assert corners_off_right_angles([circle]) == 1.0
    assert vertices_per_kilometre(np.array([circle])) == pytest.approx(16 / circle.length * 1000)
