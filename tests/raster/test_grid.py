"""Rectangles and georeference."""

from __future__ import annotations

import pytest
from rasterio.crs import CRS

from idgbr.raster.grid import Grid, Window


def _grid(epsg: int | None, transform: tuple[float, ...], height: int = 100, width: int = 100) -> Grid:
    crs = CRS.from_epsg(epsg).to_wkt() if epsg else None
    return Grid(crs, transform, height, width)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("epsg", "transform", "metres"),
    [
        (32636, (0.09, 0, 5e5, 0, -0.09, 1e5), 0.09),
        (32636, (0.0, 0.3, 5e5, 0.3, 0.0, 1e5), 0.3),  # turned by a quarter
        (2263, (1.0, 0, 987000, 0, -1.0, 200000), 0.3048),  # New York, in feet
        (4326, (1e-5, 0, 10, 0, -1e-5, 0.0005), 1.1095),  # at the equator
        (4326, (2e-5, 0, 10, 0, -1e-5, 60.0005), 1.115),  # a degree of longitude is half as long at 60 degrees
        (3857, (1.0, 0, 0, 0, -1.0, 8399788), 0.5016),  # Web Mercator doubles lengths at 60 degrees
        (None, (0.1, 0, 0, 0, -0.1, 0), None),
    ],
)
def test_ground_sample_distance_is_in_metres(
    epsg: int | None, transform: tuple[float, ...], metres: float | None
) -> None:
    gsd = _grid(epsg, transform).gsd
    assert gsd == (None if metres is None else pytest.approx(metres, rel=2e-3))


def test_crop_moves_the_origin_of_a_rotated_grid() -> None:
    grid = _grid(32636, (0.3, 0.4, 5e5, 0.4, -0.3, 1e5))
    part = grid.crop(Window(10, 20, 5, 6))
    assert part.affine @ (0, 0) == pytest.approx(grid.affine @ (20, 10))
    assert (part.height, part.width) == (5, 6)


def test_same_as_names_both_sides() -> None:
    image = _grid(32636, (0.5, 0, 5e5, 0, -0.5, 1e5))
    assert image.same_as(image) == []
    assert image.same_as(_grid(None, (1, 0, 0, 0, 1, 0))) == []
    [size] = image.same_as(_grid(32636, image.transform, 99))
    assert "image is 100 x 100" in size
    assert "label is 99 x 100" in size
    [crs] = image.same_as(_grid(32637, image.transform))
    assert "EPSG:32636" in crs
    assert "EPSG:32637" in crs
    [shift] = image.same_as(_grid(32636, (0.5, 0, 5e5 + 1, 0, -0.5, 1e5)))
    assert "2 px" in shift


def test_windows_meet() -> None:
    window = Window(-5, 10, 20, 20)
    assert window.intersect(Window(0, 0, 100, 15)) == Window(0, 10, 15, 5)
    assert window.intersect(Window(15, 0, 5, 5)) is None
    assert [t.height for t in Window(0, 0, 25, 10).tiles(10)] == [10, 10, 5]
