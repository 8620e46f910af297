from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idgbr import IGNORE
from idgbr.config.data import AugmentationConfig, DataConfig, LabelConfig, SamplingConfig, SplitConfig
from idgbr.datasets.catalogue import catalogue
from idgbr.datasets.draws import DrawPlan
from idgbr.datasets.lattice import boundary_mask, build_lattice, cell_size, read_index_raster
from idgbr.datasets.prepare import PreparedRegion, prepare_region
from idgbr.datasets.samples import read_samples
from idgbr.datasets.splits import split_regions
from idgbr.errors import UserError
from idgbr.raster.grid import Window

Make = Callable[..., DataConfig]
WriteRaster = Callable[..., str]
TURNED = AugmentationConfig()


@pytest.fixture
def regions(labelled_folder: Make, tmp_path: Path) -> list[PreparedRegion]:
    config = labelled_folder(count=5, height=150, width=130, split=SplitConfig(by="block", block=64))
    split = split_regions(catalogue(config), config.split)
    return [prepare_region(r, config, str(tmp_path / "ready")) for r in split if r.split == "train"]


def test_draws_are_the_same_at_any_start_and_count(regions: list[PreparedRegion]) -> None:
    plan = DrawPlan(regions, SamplingConfig(), TURNED, 48, seed=3)
    whole = plan.draws(0, 200)
    assert [draw.index for draw in whole] == list(range(200))
    pieces = [draw for start in range(0, 200, 7) for draw in plan.draws(start, min(7, 200 - start))]
    assert pieces == whole
    assert plan.draws(123, 1) == [whole[123]]
    assert plan.draws(5, 0) == []


def test_an_epoch_does_not_depend_on_file_order(regions: list[PreparedRegion]) -> None:
    plan = DrawPlan(regions, SamplingConfig(), TURNED, 48, seed=3)
    other = DrawPlan(regions[::-1], SamplingConfig(), TURNED, 48, seed=3)
    assert other.regions == plan.regions
    assert other.draws(0, 100) == plan.draws(0, 100)


def test_another_seed_gives_other_draws(regions: list[PreparedRegion]) -> None:
    one, two = (DrawPlan(regions, SamplingConfig(), TURNED, 48, seed=seed).draws(0, 50) for seed in (0, 1))
    assert len({d.seed for d in one} & {d.seed for d in two}) == 0
    assert len({d.seed for d in one}) == 50
    assert all(0 <= d.seed < 2**63 for d in one)


def test_windows_stay_inside_and_small_regions_are_centred(regions: list[PreparedRegion]) -> None:
    for window in (32, 100):
        plan = DrawPlan(regions, SamplingConfig(), TURNED, window, seed=0)
        for draw in plan.draws(0, 500):
            grid = plan.regions[draw.region].grid
            for start, length in ((draw.row, grid.height), (draw.col, grid.width)):
                if length >= window:
                    assert 0 <= start <= length - window
                else:
                    assert start == (length - window) // 2


def test_every_transform_is_drawn_or_none(regions: list[PreparedRegion]) -> None:
    plan = DrawPlan(regions, SamplingConfig(), TURNED, 48, seed=0)
    assert {draw.transform for draw in plan.draws(0, 200)} == set(range(8))
    plan = DrawPlan(regions, SamplingConfig(), AugmentationConfig(dihedral=False), 48, seed=0)
    assert {draw.transform for draw in plan.draws(0, 200)} == {0}


@pytest.fixture
def lopsided(write_raster: WriteRaster, labelled_folder: Make, tmp_path: Path) -> list[PreparedRegion]:
    """One scene of ground with a small building in a corner, far from a region border."""
    config = labelled_folder(count=3, height=512, width=512, split=SplitConfig(by="fraction"))
    label = np.zeros((512, 512), np.uint8)
    label[300:332, 200:232] = 1
    for number in range(3):
        write_raster(tmp_path / "labels" / f"s{number}_label.tif", label, x=400000.0 + 1000 * number)
    split = split_regions(catalogue(config), config.split)
    return [prepare_region(r, config, str(tmp_path / "ready")) for r in split if r.split == "train"]


def _share_near_building(plan: DrawPlan, reach: int) -> float:
    centres = [(d.row + plan.window // 2, d.col + plan.window // 2) for d in plan.draws(0, 2000)]
    return float(np.mean([abs(r - 316) <= reach and abs(c - 216) <= reach for r, c in centres]))


def test_weights_choose_where_windows_lie(lopsided: list[PreparedRegion]) -> None:
    def share(class_weight: float, boundary_weight: float, reach: int = 25) -> float:
        sampling = SamplingConfig(class_weight=class_weight, boundary_weight=boundary_weight)
        return _share_near_building(DrawPlan(lopsided, sampling, TURNED, 32, seed=0), reach)

    assert share(0.0, 0.0) < 0.03
    assert share(1.0, 0.0) == pytest.approx(0.5, abs=0.05)
    assert share(0.0, 1.0) == pytest.approx(1.0, abs=0.01)
    assert share(0.0, 0.5) == pytest.approx(0.5, abs=0.05)


def test_the_lattice_knows_every_pixel(regions: list[PreparedRegion]) -> None:
    labels = [(r.label, r.grid.height, r.grid.width) for r in regions]
    lattice = build_lattice(labels)
    for value, positions in lattice.classes.items():
        assert positions.weight.sum() == sum(r.histogram[value] for r in regions)
        for region, row, col in list(zip(positions.region, positions.row, positions.col, strict=True))[:50]:
            assert read_index_raster(labels[region][0], Window(int(row), int(col), 1, 1))[0, 0] == value
    assert lattice.boundary.weight.sum() == sum(r.boundary_pixels for r in regions)


def test_cells_grow_with_the_data() -> None:
    assert cell_size(10**8) == 16
    assert cell_size(10**11) == 256


def test_boundary_between_ignored_and_a_class_is_none() -> None:
    label = np.array([[0, 0, 1], [IGNORE, 1, 1]], np.uint8)
    assert boundary_mask(label).tolist() == [[False, True, False], [False, False, False]]


def test_samples_are_the_scene_seen_through_the_window(regions: list[PreparedRegion], tmp_path: Path) -> None:
    plan = DrawPlan(regions, SamplingConfig(), TURNED, 100, seed=0)
    draws = plan.draws(0, 20)
    samples = read_samples(plan.regions, draws, 100)
    assert samples["image"].shape == (20, 3, 100, 100) and samples["image"].dtype == np.uint8
    assert "coarse" not in samples
    for number, draw in enumerate(draws):
        sample, region = {key: values[number] for key, values in samples.items()}, plan.regions[draw.region]
        assert sample["valid"].sum() == min(100, region.grid.height) * min(100, region.grid.width)
        assert (sample["label"][sample["valid"] == 0] == IGNORE).all()
        valid = sample["valid"] > 0
        assert (sample["image"][0][valid] // 60 == sample["label"][valid]).all()
        assert (sample["row"], sample["col"]) == (region.origin[0] + draw.row, region.origin[1] + draw.col)
        assert (sample["seed"], sample["transform"]) == (draw.seed, draw.transform)
        alone = read_samples(plan.regions, [draw], 100)
        assert all((values[0] == sample[key]).all() for key, values in alone.items())


def test_a_coarse_map_travels_with_the_sample(
    regions: list[PreparedRegion], write_raster: WriteRaster, tmp_path: Path
) -> None:
    grid = regions[0].grid
    coarse = np.arange(4 * grid.height * grid.width, dtype=np.uint32).astype(np.uint8)
    coarse = coarse.reshape(4, grid.height, grid.width)
    path = write_raster(tmp_path / "coarse.tif", coarse)
    region = replace(regions[0], coarse=path)
    window = max(grid.height, grid.width) + 10
    draw = DrawPlan([region], SamplingConfig(), TURNED, window, seed=0).draws(0, 1)[0]
    sample = {key: values[0] for key, values in read_samples([region], [draw], window).items()}
    assert sample["coarse"].shape == (4, window, window)
    assert (sample["coarse"][0][sample["valid"] == 0] == IGNORE).all()
    inside = sample["coarse"][:, -draw.row :, -draw.col :][:, : grid.height, : grid.width]
    assert (inside == coarse).all()


def test_nothing_labelled_is_refused(labelled_folder: Make, tmp_path: Path) -> None:
    nothing = LabelConfig(values={0: 255, 1: 255, 2: 255})
    config = labelled_folder(split=SplitConfig(by="block", block=32), label=nothing)
    region = split_regions(catalogue(config), config.split)[0]
    prepared = prepare_region(region, config, str(tmp_path / "ready"))
    with pytest.raises(UserError, match="no labelled pixel in the 1 training"):
        DrawPlan([prepared], SamplingConfig(), TURNED, 32, seed=0)
    with pytest.raises(UserError, match="no training region"):
        DrawPlan([], SamplingConfig(), TURNED, 32, seed=0)
