"""Which images show the same ground, and splits that keep images of one place together."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from idgbr.datasets.labelled import LabelledScene
from idgbr.raster.findings import Finding
from idgbr.raster.scene import Scene

_SHARED = 0.05
"""Share of an image that has to lie on another one; neighbouring tiles have an edge in common."""


def places_of(scenes: Sequence[LabelledScene]) -> list[int]:
    """The number of the place that each scene shows; scenes that overlap, also by way of others, show one place.

    A scene lies where its image lies, or else its label raster. One without a CRS is a place of its own.
    """
    by_crs: dict[str, list[tuple[int, shapely.Geometry]]] = {}
    for number, scene in enumerate(scenes):
        grid = scene.image.grid()
        if not grid.crs and not scene.by_place:
            grid = Scene(scene.label).grid()
        if grid.crs:
            by_crs.setdefault(grid.crs, []).append((number, shapely.box(*grid.bounds)))
    links: list[tuple[int, int]] = []
    for group in by_crs.values():
        numbers, boxes = np.array([n for n, _ in group]), np.array([box for _, box in group])
        one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
        shared = shapely.area(shapely.intersection(boxes[one], boxes[other]))
        enough = shared > _SHARED * np.minimum(shapely.area(boxes[one]), shapely.area(boxes[other]))
        links += zip(numbers[one[enough]].tolist(), numbers[other[enough]].tolist(), strict=True)
    rows, cols = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links), bool), (rows, cols)), shape=(len(scenes), len(scenes)))
    return [int(place) for place in connected_components(graph, directed=False)[1]]


def shared_ground(scenes: Sequence[LabelledScene], places: Sequence[int]) -> list[Finding]:
    """A warning where several images show one place."""
    sizes = np.bincount(places)
    shared = [number for number, place in enumerate(places) if sizes[place] > 1]
    if not shared:
        return []
    sentence = (
        f"{len(shared)} of {len(scenes)} images show ground that another one shows, too ({len(sizes)} place(s) in all)"
    )
    advice = "images of one place belong to one split, by: file with their names in regions"
    return [Finding(scenes[shared[0]].image.uri, sentence, "data.split", advice, "warning")]


def split_by_place(
    scenes: Sequence[LabelledScene], places: Sequence[int], select: float, test: float, seed: int
) -> dict[str, Any]:
    """Keys of `data.split` that assign whole places: to test and select until each has its share of the images."""
    members: dict[int, list[str]] = {}
    for scene, place in zip(scenes, places, strict=True):
        members.setdefault(place, []).append(PurePosixPath(scene.image.uri).name)
    regions: dict[str, list[str]] = {"train": [], "select": [], "test": []}
    for number in np.random.default_rng(seed).permutation(len(members)):
        targets = {"test": test * len(scenes), "select": select * len(scenes)}
        split = next((name for name, share in targets.items() if len(regions[name]) < share), "train")
        regions[split] += members[sorted(members)[number]]
    listed = {name: [{"match": glob.escape(file)} for file in sorted(files)] for name, files in regions.items()}
    return {"by": "file", "regions": listed}
