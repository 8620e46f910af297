"""Adjacent sheets as one scene."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from affine import Affine

from idgbr.errors import UserError
from idgbr.raster.grid import Window
from idgbr.raster.mosaic import Mosaic
from idgbr.raster.scene import Scene

Make = Callable[..., str]


def test_windows_read_across_the_seams(make: Make, pixels: np.ndarray) -> None:
    cuts = [(0, 0, 40, 50), (0, 50, 40, 40), (40, 0, 30, 50)]  # the fourth sheet is missing
    sheets = [
        Scene(make(f"{r}_{c}.tif", pixels[:, r : r + h, c : c + w], row=r, col=c)) for r, c, h, w in reversed(cuts)
    ]
    mosaic = pickle.loads(pickle.dumps(Mosaic.of(sheets)))
    assert (mosaic.grid().height, mosaic.grid().width) == (70, 90)
    assert mosaic.grid().affine @ (0, 0) == (500000, 100000)
    assert [w for _, w in mosaic.sheets] == [Window(*cut) for cut in reversed(cuts)]
    image, valid = mosaic.read(Window(30, 40, 20, 20))
    assert valid.sum() == 300
    np.testing.assert_array_equal(image[:, valid], pixels[:, 30:50, 40:60][:, valid])
    part = mosaic.crop(Window(30, 40, 20, 20))
    assert part.origin == (30, 40)
    np.testing.assert_array_equal(part.read(Window(0, 0, 20, 20))[0], image)
    assert part.read(Window(-10, 0, 10, 20))[1].sum() == 0
    assert not mosaic.read(Window(500, 500, 8, 8))[1].any()
    mosaic.check()


def test_overlapping_sheets_fill_each_others_nodata(make: Make, pixels: np.ndarray) -> None:
    left, right = pixels[:, :, :60].copy(), pixels[:, :, 40:]
    left[:, :, 50:] = 0
    mosaic = Mosaic.of([Scene(make("a.tif", left, nodata=0)), Scene(make("b.tif", right, col=40, nodata=0))])
    image, valid = mosaic.read(Window(0, 0, 70, 90))
    assert valid.all()
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crs": "EPSG:32637"}, "EPSG:32637 against EPSG:32636"),
        ({"col": 90.4}, "shifted by 0.40 px"),
        ({"transform": (0.51, 0, 500045, 0, -0.51, 100000)}, "pixel size is 0.51"),
        ({"crs": None, "transform": None}, "no georeference"),
    ],
)
def test_the_sheet_that_differs_is_named(make: Make, pixels: np.ndarray, change: dict, words: str) -> None:
    if change.get("transform"):
        change = {"transform": Affine(*change["transform"])}
    first, odd = Scene(make("a.tif", pixels)), Scene(make("odd.tif", pixels, **change))
    with pytest.raises(UserError, match=rf"odd\.tif.*{words}"):
        Mosaic.of([first, odd])
    with pytest.raises(UserError, match=r"grey\.tif.*1 x uint8 against 3 x uint8"):
        Mosaic.of([first, Scene(make("grey.tif", pixels[:1], col=90))])
