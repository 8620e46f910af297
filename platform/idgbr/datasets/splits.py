"""Regions: rectangles of scenes, each in one split, no pixel in two."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from idgbr.config.data import Box, FileRegion, SplitConfig
from idgbr.datasets.labelled import LabelledScene
from idgbr.errors import UserError
from idgbr.raster.grid import Window

SPLITS = ("train", "select", "test")


@dataclass(frozen=True)
class Region:
    """A rectangle of a labelled scene that belongs to one split.

    Attributes:
        id: name, unique in the data set, fit for a file name.
        split: train, select or test.
        scene: the scene it lies in.
        window: where it lies, in the scene's pixels.
    """

    id: str
    split: str
    scene: LabelledScene
    window: Window


def split_regions(scenes: Sequence[LabelledScene], config: SplitConfig) -> list[Region]:
    """Deals scenes, or rectangles of them, to train, select and test.

    Args:
        scenes: the catalogue, in any order; the result does not depend on it.
        config: how to split.

    Returns:
        Regions sorted by id. Regions of the same scene never overlap.

    Raises:
        UserError: a split stays empty, regions overlap, or a pattern of `regions` matches no scene.
    """
    ordered = sorted(scenes, key=lambda scene: scene.id)
    if config.by == "listed":
        regions = _listed(ordered)
    elif config.by == "file":
        regions = _by_file(ordered, config)
        _refuse_overlap(regions)
    elif config.by == "fraction":
        regions = _by_fraction(ordered, config)
    else:
        regions = _by_block(ordered, config)
    _refuse_empty(regions, config, len(ordered))
    return sorted(regions, key=lambda region: region.id)


def _whole(scene: LabelledScene, split: str) -> Region:
    grid = scene.image.grid()
    return Region(scene.id, split, scene, Window(0, 0, grid.height, grid.width))


def _part(scene: LabelledScene, split: str, window: Window) -> Region:
    return Region(f"{scene.id}_r{window.row}c{window.col}", split, scene, window)


def _listed(scenes: Sequence[LabelledScene]) -> list[Region]:
    for scene in scenes:
        if scene.split not in SPLITS:
            raise UserError(
                f"data.split.by is listed, but the source names no split for {scene.image.uri}; "
                "set data.split.by to file, fraction or block"
            )
    return [_whole(scene, str(scene.split)) for scene in scenes]


def _by_file(scenes: Sequence[LabelledScene], config: SplitConfig) -> list[Region]:
    out = []
    names = {scene.id: PurePosixPath(scene.image.uri).name for scene in scenes}
    for split, entries in config.regions.items():
        for entry in entries:
            matches = [scene for scene in scenes if fnmatch.fnmatchcase(names[scene.id], entry.match)]
            if not matches:
                known = sorted(names.values())
                shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
                raise UserError(f"data.split.regions.{split}: no image is named {entry.match}; images: {shown}")
            out += [_boxed(scene, split, entry) for scene in matches]
    return out


def _boxed(scene: LabelledScene, split: str, entry: FileRegion) -> Region:
    """The rectangle of a box given in fractions; boxes that share a fraction share the edge, not a pixel."""
    if entry.box == Box():
        return _whole(scene, split)
    grid = scene.image.grid()
    top, bottom = (round(f * grid.height) for f in (entry.box.top, entry.box.bottom))
    left, right = (round(f * grid.width) for f in (entry.box.left, entry.box.right))
    if bottom <= top or right <= left:
        raise UserError(
            f"data.split.regions.{split}: the box of {entry.match} holds no pixel of {scene.image.uri} "
            f"({grid.height} x {grid.width} px)"
        )
    return _part(scene, split, Window(top, left, bottom - top, right - left))


def _shares(count: int, config: SplitConfig) -> tuple[int, int]:
    """How many of `count` things go to select and to test: rounded, but at least one of each that has a share."""
    select, test = (max(1, round(share * count)) if share > 0 else 0 for share in (config.select, config.test))
    return select, test


def _deal(count: int, config: SplitConfig) -> list[str]:
    """The split of each of `count` things, shuffled by the seed."""
    select, test = _shares(count, config)
    dealt = np.array((["test"] * test + ["select"] * select + ["train"] * count)[:count])
    out = np.empty_like(dealt)
    out[np.random.default_rng(config.seed).permutation(count)] = dealt
    return [str(split) for split in out]


def _by_fraction(scenes: Sequence[LabelledScene], config: SplitConfig) -> list[Region]:
    return [_whole(scene, split) for scene, split in zip(scenes, _deal(len(scenes), config), strict=True)]


def _by_block(scenes: Sequence[LabelledScene], config: SplitConfig) -> list[Region]:
    """Blocks of all scenes dealt at random; neighbours of the same split become one region, so that training windows
    and inference see as much ground in one piece as there is.
    """
    blocks = []
    for scene in scenes:
        grid = scene.image.grid()
        rows, cols = _cuts(grid.height, config.block), _cuts(grid.width, config.block)
        blocks.append((scene, rows, cols))
    dealt = iter(_deal(sum((len(rows) - 1) * (len(cols) - 1) for _, rows, cols in blocks), config))
    out = []
    for scene, rows, cols in blocks:
        table = [[next(dealt) for _ in cols[1:]] for _ in rows[1:]]
        out += [_part(scene, split, window) for split, window in _merge(table, rows, cols)]
    return out


def _cuts(length: int, block: int) -> list[int]:
    """Edges of blocks along one side; a remainder of less than half a block joins the last one."""
    count = max(1, int(length / block + 0.5))
    return [*(i * block for i in range(count)), length]


def _merge(table: list[list[str]], rows: list[int], cols: list[int]) -> list[tuple[str, Window]]:
    """Rectangles of equal entries: runs along each row, then runs that continue in the next row."""
    done: list[tuple[str, Window]] = []
    above: dict[tuple[str, int, int], Window] = {}
    for i, line in enumerate(table):
        current: dict[tuple[str, int, int], Window] = {}
        start = 0
        for j in range(1, len(line) + 1):
            if j == len(line) or line[j] != line[start]:
                key = (line[start], start, j)
                before = above.pop(key, None)
                top = before.row if before else rows[i]
                current[key] = Window(top, cols[start], rows[i + 1] - top, cols[j] - cols[start])
                start = j
        done += [(key[0], window) for key, window in above.items()]
        above = current
    return done + [(key[0], window) for key, window in above.items()]


def _refuse_overlap(regions: Sequence[Region]) -> None:
    by_image: dict[str, list[Region]] = {}
    for region in regions:
        by_image.setdefault(region.scene.image.uri, []).append(region)
    for uri, group in by_image.items():
        for i, one in enumerate(group):
            for other in group[i + 1 :]:
                shared = one.window.intersect(other.window)
                if shared is not None:
                    raise UserError(
                        f"data.split: {uri} has {shared.height} x {shared.width} px in two regions, "
                        f"{one.split} {_words(one.window)} and {other.split} {_words(other.window)}; "
                        "regions must share no pixel"
                    )


def _words(window: Window) -> str:
    return f"(rows {window.row}-{window.stop_row}, columns {window.col}-{window.stop_col})"


def _refuse_empty(regions: Sequence[Region], config: SplitConfig, scenes: int) -> None:
    """Every split is needed: train to learn, select to choose, test to claim."""
    advice = {
        "listed": "the source lists none: add some, or set data.split.by to file, fraction or block",
        "file": "name scenes, or boxes of scenes, under data.split.regions.{split}",
        "fraction": f"{scenes} scene(s) are too few, or data.split.{{split}} is 0: raise it, or split by block",
        "block": "raise data.split.{split}, or take smaller blocks with data.split.block",
    }[config.by]
    for split in SPLITS:
        if not any(region.split == split for region in regions):
            if split == "train" and config.by in ("fraction", "block"):
                raise UserError(
                    f"data.split: no training region is left of {scenes} scene(s) with select {config.select} and "
                    f"test {config.test}; lower them, or split by (smaller) blocks"
                )
            raise UserError(f"data.split: the {split} split is empty; {advice.format(split=split)}")
