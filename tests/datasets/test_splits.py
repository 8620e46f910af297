from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from idgbr.config.data import Box, DataConfig, FileRegion, SplitConfig
from idgbr.datasets.catalogue import catalogue
from idgbr.datasets.labelled import LabelledScene
from idgbr.datasets.splits import Region, split_regions
from idgbr.errors import UserError

Make = Callable[..., DataConfig]


def _cover(scenes: list[LabelledScene], regions: list[Region]) -> dict[str, np.ndarray]:
    """How many regions each pixel of each scene is in."""
    cover = {}
    for scene in scenes:
        grid = scene.image.grid()
        cover[scene.id] = np.zeros((grid.height, grid.width), int)
    for region in regions:
        cover[region.scene.id][region.window.slices()] += 1
    return cover


@pytest.mark.parametrize("seed", range(12))
def test_random_layouts_share_no_pixel_and_lose_none(labelled_folder: Make, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(64, 200, 2).tolist()
    by = ["block", "fraction"][seed % 2]
    split = SplitConfig(
        by=by, block=32, select=float(rng.uniform(0.05, 0.3)), test=float(rng.uniform(0.05, 0.3)), seed=seed
    )
    scenes = catalogue(labelled_folder(count=int(rng.integers(4, 7)), height=height, width=width))
    regions = split_regions(scenes, split)
    assert all((count == 1).all() for count in _cover(scenes, regions).values())
    assert {region.split for region in regions} == {"train", "select", "test"}
    assert len({region.id for region in regions}) == len(regions)
    shuffled = [scenes[i] for i in rng.permutation(len(scenes))]
    assert split_regions(shuffled, split) == regions


def test_shares_of_blocks_are_kept(labelled_folder: Make) -> None:
    scenes = catalogue(labelled_folder(count=3, height=320, width=320))
    regions = split_regions(scenes, SplitConfig(by="block", block=32, select=0.2, test=0.3))
    area = {s: sum(r.window.height * r.window.width for r in regions if r.split == s) for s in ("select", "test")}
    assert area["select"] / (3 * 320 * 320) == pytest.approx(0.2, abs=0.01)
    assert area["test"] / (3 * 320 * 320) == pytest.approx(0.3, abs=0.01)


def test_boxes_that_meet_share_no_pixel(labelled_folder: Make) -> None:
    scenes = catalogue(labelled_folder(count=2, height=101, width=99))
    split = SplitConfig(
        by="file",
        regions={
            "train": [FileRegion(match="s0_*", box=Box(right=0.3333))],
            "select": [FileRegion(match="s0_*", box=Box(left=0.3333))],
            "test": [FileRegion(match="s1_*")],
        },
    )
    regions = split_regions(scenes, split)
    assert all((count == 1).all() for count in _cover(scenes, regions).values())


def test_overlapping_boxes_are_refused(labelled_folder: Make) -> None:
    split = SplitConfig(
        by="file",
        regions={
            "train": [FileRegion(match="s0_*", box=Box(right=0.6))],
            "select": [FileRegion(match="s0_*", box=Box(left=0.5))],
            "test": [FileRegion(match="s1_*")],
        },
    )
    with pytest.raises(UserError, match=r"s0_image.tif has 96 x 8 px in two regions, train .* and select"):
        split_regions(catalogue(labelled_folder(count=2)), split)


def test_a_pattern_without_a_scene_names_the_images(labelled_folder: Make) -> None:
    split = SplitConfig(by="file", regions={"train": [FileRegion(match="area_*")]})
    with pytest.raises(UserError, match=r"train: no image is named area_\*; images: s0_image.tif, s1_image.tif"):
        split_regions(catalogue(labelled_folder(count=2)), split)


def test_empty_splits_are_refused_with_advice(labelled_folder: Make) -> None:
    scenes = catalogue(labelled_folder(count=2))
    with pytest.raises(UserError, match="names no split"):
        split_regions(scenes, SplitConfig(by="listed"))
    with pytest.raises(UserError, match="no training region is left of 2"):
        split_regions(scenes, SplitConfig(by="fraction"))
    with pytest.raises(UserError, match=r"select split is empty.*data.split.select"):
        split_regions(scenes, SplitConfig(by="block", block=32, select=0))
    only_train = SplitConfig(by="file", regions={"train": [FileRegion(match="*")]})
    with pytest.raises(UserError, match=r"select split is empty.*data.split.regions.select"):
        split_regions(scenes, only_train)
