"""A folder of adjacent sheets, read as one scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from idgbr.errors import UserError
from idgbr.raster.crs import crs_name, same_crs
from idgbr.raster.grid import Grid, Window
from idgbr.raster.scene import Scene, SceneProfile

_ALIGNED = 0.05
"""Pixels by which a sheet may be off the common lattice."""


@dataclass(frozen=True)
class Mosaic:
    """Adjacent sheets as one scene, so that a window at a sheet's edge sees what lies beyond it.

    Reads like a `Scene`; build it with `of`. Sheets must share CRS, pixel size and lattice. Where sheets overlap, the
    first one (by name) with a valid pixel counts.

    Attributes:
        sheets: each sheet with its window in the mosaic.
        extent: grid of the smallest upright rectangle round all sheets.
        window: the rectangle of the mosaic that is read; None for all of it.
    """

    sheets: tuple[tuple[Scene, Window], ...]
    extent: Grid
    window: Window | None = None

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> Mosaic:
        """Lays sheets side by side.

        Raises:
            UserError: names the sheet that differs from the first, and how.
        """
        first = scenes[0].grid()
        kind = _kind(scenes[0])
        placed = []
        for scene in scenes:
            grid = scene.grid()
            if scene is not scenes[0] and _kind(scene) != kind:
                raise _differs(scene, scenes[0], f"bands and dtype are {_kind(scene)} against {kind}")
            placed.append(_place(scene, grid, scenes[0], first))
        top, left = min(w.row for w in placed), min(w.col for w in placed)
        bottom, right = max(w.stop_row for w in placed), max(w.stop_col for w in placed)
        extent = first.crop(Window(top, left, bottom - top, right - left))
        return cls(tuple((s, w.shift(-top, -left)) for s, w in zip(scenes, placed, strict=True)), extent)

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the first pixel in the whole mosaic."""
        return (self.window.row, self.window.col) if self.window else (0, 0)

    @property
    def uri(self) -> str:
        """How messages name the mosaic."""
        return (
            self.sheets[0][0].uri
            if len(self.sheets) == 1
            else f"{self.sheets[0][0].uri} and {len(self.sheets) - 1} more"
        )

    def grid(self) -> Grid:
        return self.extent.crop(self.window) if self.window else self.extent

    def resolution(self) -> float | None:
        return self.sheets[0][0].resolution()

    def profile(self) -> SceneProfile:
        """The first sheet's file, with the size of the whole mosaic."""
        return replace(self.sheets[0][0].profile(), height=self.extent.height, width=self.extent.width)

    def crop(self, window: Window) -> Mosaic:
        """The mosaic's part in a window, with the sheets that touch it."""
        window = window.shift(*self.origin)
        touched = tuple((scene, place) for scene, place in self.sheets if place.intersect(window))
        return replace(self, sheets=touched or self.sheets[:1], window=window)

    def check(self) -> None:
        """Checks every sheet; see `Scene.check`."""
        for scene, _ in self.sheets:
            scene.check()

    def unread(self, window: Window) -> str:
        """See `Scene.unread`."""
        area = window.shift(*self.origin)
        for scene, place in self.sheets:
            shared = area.intersect(place)
            if shared and (reason := scene.unread(shared.shift(-place.row, -place.col))):
                return reason
        return ""

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (B, H, W) and validity (H, W) of a window, as `Scene.read`."""
        requested = window.shift(*self.origin)
        area = requested.intersect(self.window) if self.window else requested
        touched = [(s, c) for s, place in self.sheets if area and (c := place.intersect(area))]
        if not touched:
            return self.sheets[0][0].read(Window(-window.height, -window.width, window.height, window.width))
        pixels, valid = None, np.zeros((window.height, window.width), dtype=bool)
        places = dict(self.sheets)
        for scene, common in touched:
            place = places[scene]
            values, here = scene.read(common.shift(-place.row, -place.col))
            if pixels is None:
                pixels = np.zeros((values.shape[0], window.height, window.width), dtype=values.dtype)
            part = common.slices((requested.row, requested.col))
            new = here & ~valid[part]
            pixels[:, *part][:, new] = values[:, new]
            valid[part] |= here
        assert pixels is not None
        return pixels, valid


def _kind(scene: Scene) -> str:
    profile = scene.profile()
    return f"{len(profile.selected)} x {profile.dtype}"


def _place(scene: Scene, grid: Grid, first: Scene, base: Grid) -> Window:
    """The window of a sheet on the first sheet's lattice."""
    if not grid.georeferenced:
        raise UserError(f"{scene.uri}: has no georeference, so it has no place in a mosaic. Refine it by itself.")
    if (grid.crs is None) != (base.crs is None) or (grid.crs and base.crs and not same_crs(grid.crs, base.crs)):
        raise _differs(scene, first, f"CRS is {crs_name(grid.crs)} against {crs_name(base.crs)}")
    # Both corners are placed, so that a pixel size that is slightly off shows as what it adds up to.
    to_base = ~base.affine
    col, row = to_base @ (grid.affine @ (0, 0))
    stop_col, stop_row = to_base @ (grid.affine @ (grid.width, grid.height))
    size = f"{grid.affine.a:.9g}, {grid.affine.e:.9g} against {base.affine.a:.9g}, {base.affine.e:.9g}"
    if abs(stop_row - row - grid.height) > _ALIGNED or abs(stop_col - col - grid.width) > _ALIGNED:
        raise _differs(scene, first, f"pixel size is {size}")
    off = max(abs(row - round(row)), abs(col - round(col)))
    if off > _ALIGNED:
        raise _differs(scene, first, f"pixels are shifted by {off:.2f} px against the common lattice")
    return Window(round(row), round(col), grid.height, grid.width)


def _differs(scene: Scene, first: Scene, how: str) -> UserError:
    return UserError(
        f"{scene.uri}: is no neighbour of {first.uri}: {how}. Expected sheets of one CRS, pixel size and lattice; warp "
        "it (gdalwarp -t_srs -tr -tap), or refine it by itself."
    )
