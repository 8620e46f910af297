from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio

from idgbr import IGNORE
from idgbr.config.data import DataConfig, SplitConfig, SyntheticSource
from idgbr.datasets.catalogue import catalogue
from idgbr.datasets.splits import split_regions
from idgbr.datasets.synthetic import SYNTHETIC_CLASSES, make_scenes


def test_scenes_are_georeferenced_tiled_and_have_a_margin(tmp_path: Path) -> None:
    made = make_scenes(SyntheticSource(folder=str(tmp_path), scenes=3, size=512))
    assert [split for _, _, split in made] == ["train", "select", "test"]
    bounds = []
    for image, label, _ in made:
        with rasterio.open(image) as i, rasterio.open(label) as la:
            pixels, ids = i.read(), la.read(1)
            assert (i.crs.to_epsg(), i.res, i.nodata, la.nodata) == (32633, (0.3, 0.3), 0, IGNORE)
            assert i.transform == la.transform
            assert i.profile["tiled"]
            assert i.overviews(1) == [2, 4]
            bounds.append(i.bounds)
        margin = (pixels == 0).all(axis=0)
        assert 0 < margin.mean() < 0.15
        assert ((ids == IGNORE) == margin).all()
        assert (pixels[:, ~margin] > 0).all()
        assert set(np.unique(ids)) == {0, 1, 2, 3, 4, IGNORE}
    assert all(a.right < b.left for a, b in pairwise(bounds))


def test_same_seed_same_scene_and_nothing_is_painted_twice(tmp_path: Path) -> None:
    source = SyntheticSource(folder=str(tmp_path / "a"), scenes=1, size=256, seed=4)
    ((image, label, split),) = make_scenes(source)
    assert split is None
    before = [Path(path).stat().st_mtime_ns for path in (image, label)]
    assert make_scenes(source) == [(image, label, None)]
    assert [Path(path).stat().st_mtime_ns for path in (image, label)] == before
    ((other, _, _),) = make_scenes(source.model_copy(update={"folder": str(tmp_path / "b")}))
    with rasterio.open(image) as one, rasterio.open(other) as two:
        assert (one.read() == two.read()).all()


def test_the_catalogue_serves_them_by_split(tmp_path: Path) -> None:
    config = DataConfig(
        name="demo",
        source=SyntheticSource(folder=str(tmp_path), scenes=5, size=128),
        classes=SYNTHETIC_CLASSES,
        split=SplitConfig(by="listed"),
    )
    regions = split_regions(catalogue(config), config.split)
    assert [region.split for region in regions] == ["train", "train", "train", "select", "test"]


def test_roofs_are_not_told_by_colour(tmp_path: Path) -> None:
    """A threshold on colour must not do: the best single split of any band finds few buildings among ground."""
    ((image, label, _),) = make_scenes(SyntheticSource(folder=str(tmp_path), scenes=1, size=512, seed=1))
    with rasterio.open(image) as i, rasterio.open(label) as la:
        pixels, ids = i.read().astype(int), la.read(1)
    for band in pixels:
        hist = [np.cumsum(np.bincount(band[ids == k], minlength=256) / (ids == k).sum()) for k in (0, 1)]
        assert np.abs(hist[0] - hist[1]).max() < 0.6
