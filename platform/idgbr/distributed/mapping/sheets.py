"""Inputs and outputs of the refine job: scenes, mosaics of adjacent sheets, and the path of each map."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from idgbr.datasets.labelled import GSD_FACTOR, unique_ids
from idgbr.errors import UserError
from idgbr.models.description import ModelSpec
from idgbr.models.imagery import AS_LEARNT, ImageOptions, compare_values, open_image
from idgbr.raster.crs import same_crs
from idgbr.raster.findings import Finding
from idgbr.raster.grid import Grid, Window
from idgbr.raster.imagery import image_findings, settle
from idgbr.raster.listing import expand
from idgbr.raster.mosaic import Mosaic
from idgbr.raster.scene import Scene
from idgbr.raster.vectors import read_polygons

_WRITTEN = (".tif", ".gpkg", ".geojson", ".qml", ".manifest.json")
"""File name endings of a map and of the files next to it."""


@dataclass(frozen=True)
class Sheets:
    """One scene, or adjacent sheets that are read as one mosaic, and the map of each.

    Attributes:
        image: the scene or the mosaic.
        outputs: path of each map and its place on the image's grid.
        coarse: coarse map on the image's grid; None if stage 1 makes it.
    """

    image: Scene | Mosaic
    outputs: tuple[tuple[str, Window], ...]
    coarse: Scene | Mosaic | None = None

    @property
    def name(self) -> str:
        """Short name for files and messages."""
        return Path(self.outputs[0][0]).stem


def find_sheets(
    patterns: Sequence[str],
    output: str,
    spec: ModelSpec,
    mismatch: Literal["refuse", "resample"],
    coarse: Sequence[str] = (),
    aoi: str = "",
    options: ImageOptions = AS_LEARNT,
    max_unread: float = 0.0,
) -> list[Sheets]:
    """Scenes to refine, adjacent ones joined, cut to an area of interest.

    Args:
        patterns: files, folders or globs of imagery.
        output: a folder, or the path of the one map.
        spec: the model: which bands to read, at which scale.
        mismatch: what to do with imagery of another scale.
        coarse: files, folders or globs of coarse maps, as many as images and in the same order by name.
        aoi: vector file of polygons.
        options: what is said about the imagery.
        max_unread: share of a scene that missing parts may leave without pixels.

    Raises:
        UserError: an image or a coarse map cannot be used; see the messages.
    """
    uris = expand(patterns)
    coarse_uris = expand(coarse) if coarse else []
    paths = _paths(uris, output, [*uris, *coarse_uris, *([aoi] if aoi else [])])
    findings: list[Finding] = []
    scenes = [_checked(uri, spec, mismatch, options, max_unread, findings) for uri in uris]
    coarse_maps = _coarse_scenes(coarse_uris, scenes, findings) if coarse else [None] * len(scenes)
    found = []
    for group in adjacent([scene.grid() for scene in scenes]):
        own = [scenes[i] for i in group]
        values, doubts = compare_values(_named(own), own, own[0].profile().dtype, spec, options.value_range)
        findings += doubts
        own = [replace(scene, maps=values) for scene in own]
        if len(group) == 1:
            found.append(Sheets(own[0], ((paths[group[0]], own[0].grid().window),), coarse_maps[group[0]]))
            continue
        mosaic = Mosaic.of(own)
        maps = [m for i in group if (m := coarse_maps[i]) is not None]
        places = [place for _, place in mosaic.sheets]
        outputs = tuple((paths[i], place) for i, place in zip(group, places, strict=True))
        found.append(Sheets(mosaic, outputs, Mosaic.of(maps) if maps else None))
    settle(findings)
    if not aoi:
        return found
    inside = [cut for sheets in found if (cut := _cut(sheets, aoi)) is not None]
    if not inside:
        raise UserError(f"{aoi}: none of its polygons touches any of the {len(uris)} image(s); check its CRS and place")
    return inside


def adjacent(grids: Sequence[Grid]) -> list[list[int]]:
    """Groups of grids that continue each other: same CRS, pixel size and lattice, touching, hardly overlapping."""
    groups: list[list[int]] = []
    for i, grid in enumerate(grids):
        touched = [group for group in groups if any(_touch(grids[j], grid) for j in group)]
        groups = [group for group in groups if group not in touched]
        groups.append(sorted([i, *(j for group in touched for j in group)]))
    return sorted(groups)


def _touch(one: Grid, other: Grid) -> bool:
    if one.crs is None or other.crs is None or not same_crs(one.crs, other.crs):
        return False
    linear = [(one.transform[k], other.transform[k]) for k in (0, 1, 3, 4)]
    scale = max(abs(one.transform[0]), abs(one.transform[1]))
    if any(abs(a - b) > 1e-6 * scale for a, b in linear):
        return False
    col, row = ~one.affine @ (other.affine @ (0, 0))
    if math.dist((col, row), (round(col), round(row))) > 0.05:
        return False
    place = Window(round(row), round(col), other.height, other.width)
    grown = Window(-1, -1, one.height + 2, one.width + 2)
    shared = place.intersect(one.window)
    # Two dates of the same ground are not sheets of one mosaic.
    smaller = min(one.height * one.width, other.height * other.width)
    return place.intersect(grown) is not None and (shared is None or shared.height * shared.width < smaller / 2)


def _named(scenes: Sequence[Scene]) -> str:
    return scenes[0].uri if len(scenes) == 1 else f"{scenes[0].uri} and {len(scenes) - 1} more sheets"


def _checked(
    uri: str,
    spec: ModelSpec,
    mismatch: Literal["refuse", "resample"],
    options: ImageOptions,
    max_unread: float,
    findings: list[Finding],
) -> Scene:
    scene, doubts = open_image(uri, spec, options, max_unread)
    findings += doubts
    gsd = scene.resolution()
    if gsd is None or spec.gsd is None or 1 / GSD_FACTOR <= gsd / spec.gsd <= GSD_FACTOR:
        return scene
    if mismatch == "resample":
        return replace(scene, resample_to=spec.gsd)
    raise UserError(
        f"{uri}: ground sample distance {gsd:.3g} m; the model was trained at {spec.gsd:.3g} m (a factor "
        f"{GSD_FACTOR} is accepted). Use --gsd-mismatch resample to read it at {spec.gsd:.3g} m"
    )


def _coarse_scenes(uris: Sequence[str], scenes: Sequence[Scene], findings: list[Finding]) -> list[Scene | None]:
    if len(uris) != len(scenes):
        raise UserError(
            f"--coarse: {len(uris)} map(s) for {len(scenes)} image(s); expected one for each, in the same order by name"
        )
    found: list[Scene | None] = []
    for uri, image in zip(uris, scenes, strict=True):
        differences = image.whole().grid().same_as(Scene(uri).grid(), "image", "coarse map")
        if differences:
            raise UserError(
                f"coarse map {uri} does not lie on image {image.uri}: {'; '.join(differences)}. Warp it onto the image "
                "first (gdalwarp -r near -te -ts)"
            )
        findings += image_findings(Scene(uri, bands=(1,)), "--", with_pixels=False)
        gsd = image.gsd if image.gsd is not None else image.whole().grid().gsd
        found.append(Scene(uri, bands=(1,), gsd=gsd, resample_to=image.resample_to, nearest=True))
    return found


def _paths(uris: Sequence[str], output: str, inputs: Sequence[str]) -> list[str]:
    """Where the map of each image goes; no two of them to one place, and none onto an input."""
    if output.lower().endswith((".tif", ".tiff")):
        if len(uris) != 1:
            raise UserError(f"--output {output}: is one file, but there are {len(uris)} images; name a folder")
        paths = [output]
    else:
        paths = [os.path.join(output, f"{name}.tif") for name in unique_ids(uris)]
    images: dict[str, str] = {}
    for uri, path in zip(uris, paths, strict=True):
        other = images.setdefault(path.lower(), uri)
        if other != uri:
            raise UserError(f"--output {output}: {other} and {uri} would both become {path}; refine them one by one")
    written = {os.path.splitext(os.path.realpath(path))[0] + end: path for path in paths for end in _WRITTEN}
    written |= {os.path.realpath(path): path for path in paths}
    for uri in inputs:
        path = written.get(os.path.realpath(uri), "")
        if path:
            raise UserError(
                f"--output {output}: the map {path}, or what stands beside it, would overwrite the input {uri}; name "
                "another folder"
            )
    return paths


def _cut(sheets: Sheets, aoi: str) -> Sheets | None:
    """The part of the sheets within the bounds of the polygons."""
    grid = sheets.image.grid()
    polygons = read_polygons(aoi, grid)
    polygons = polygons.iloc[sorted(polygons.sindex.intersection(grid.bounds))]
    if polygons.empty:
        return None
    left, bottom, right, top = polygons.total_bounds
    corners = [~grid.affine @ corner for corner in ((left, top), (right, top), (left, bottom), (right, bottom))]
    cols, rows = [c for c, _ in corners], [r for _, r in corners]
    row, col = math.floor(min(rows) + 1e-6), math.floor(min(cols) + 1e-6)
    area = Window(row, col, math.ceil(max(rows) - 1e-6) - row, math.ceil(max(cols) - 1e-6) - col).intersect(grid.window)
    if area is None:
        return None
    outputs = tuple(
        (path, shared.shift(-area.row, -area.col))
        for path, place in sheets.outputs
        if (shared := place.intersect(area)) is not None
    )
    if not outputs:
        return None
    coarse = sheets.coarse.crop(area) if sheets.coarse is not None else None
    return Sheets(sheets.image.crop(area), outputs, coarse)
