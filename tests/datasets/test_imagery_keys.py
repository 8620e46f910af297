"""Keys of `data` that settle doubts about imagery, from the catalogue to prepared regions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint

from idgbr.config.data import DataConfig
from idgbr.datasets.catalogue import catalogue
from idgbr.datasets.labelled import unique_ids
from idgbr.datasets.prepare import prepare_region
from idgbr.datasets.splits import split_regions
from idgbr.errors import UserError

Make = Callable[..., DataConfig]


def _valid(config: DataConfig, folder: Path) -> int:
    regions = split_regions(catalogue(config), config.split)
    return sum(prepare_region(region, config, str(folder)).valid_pixels for region in regions)


def _rewrite(config: DataConfig, change: Callable[[Path, np.ndarray, dict[str, object]], None]) -> None:
    """Writes every image of the data set anew."""
    for pattern in config.source.images:  # type: ignore[union-attr]
        for path in sorted(
            Path(pattern).parent.glob(Path(pattern).name) if "*" in pattern else Path(pattern).iterdir()
        ):
            with rasterio.open(path) as file:
                pixels, profile = file.read(), dict(file.profile)
            change(path, pixels, profile)


@pytest.mark.parametrize(("alpha", "lost"), [("auto", 0), ("band", 0), ("ignore", 0), ("mask", 32 * 80)])
def test_near_infrared_tagged_alpha_costs_no_pixel(
    labelled_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], alpha: str, lost: int
) -> None:
    def with_infrared(path: Path, pixels: np.ndarray, profile: dict[str, object]) -> None:
        infrared = pixels[:1] // 2 + 60
        infrared[:, 64:] = 0
        with rasterio.open(path, "w", **profile | {"count": 4, "photometric": "RGB", "alpha": "yes"}) as file:
            file.write(np.concatenate([pixels, infrared]))

    config = labelled_folder(count=4)
    _rewrite(config, with_infrared)
    assert _valid(config.model_copy(update={"alpha": alpha}), tmp_path / "ready") == 4 * (96 * 80 - lost)
    printed = " ".join(capsys.readouterr().out.split())
    assert ("tagged alpha but holds imagery" in printed) == (alpha == "auto")
    assert ("alpha is 0 in" in printed) == (alpha == "mask")


@pytest.mark.parametrize(("gcps", "refused"), [("refuse", True), ("ignore", False)])
def test_ground_control_points(labelled_folder: Make, tmp_path: Path, gcps: str, refused: bool) -> None:
    def by_points(path: Path, pixels: np.ndarray, profile: dict[str, object]) -> None:
        profile = {key: value for key, value in profile.items() if key not in ("crs", "transform")}
        points = [GroundControlPoint(r, c, 5e5 + c / 2, 5e6 - r / 2) for r in (0, 96) for c in (0, 80)]
        with rasterio.open(path, "w", **profile) as file:
            file.gcps = (points, rasterio.crs.CRS.from_epsg(32633))
            file.write(pixels)

    config = labelled_folder(count=4)
    _rewrite(config, by_points)
    config = config.model_copy(update={"gcps": gcps})
    if refused:
        with pytest.raises(UserError, match=r"4 ground control points alone.*data\.gcps: warp"):
            catalogue(config)
    else:
        assert _valid(config, tmp_path / "ready") == 4 * 96 * 80


def test_a_tolerance_is_printed_with_what_it_takes(
    labelled_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def blurred(path: Path, pixels: np.ndarray, profile: dict[str, object]) -> None:
        pixels[:, :32] = 0
        pixels[:, 24:32] = 3
        with rasterio.open(path, "w", **profile | {"nodata": 0}) as file:
            file.write(pixels)

    config = labelled_folder(count=4)
    _rewrite(config, blurred)
    assert _valid(config.model_copy(update={"nodata_tolerance": 3}), tmp_path / "ready") <= 4 * 64 * 80
    printed = " ".join(capsys.readouterr().out.split())
    assert "within 3 of nodata (0) and nodata, too" in printed and "data.nodata_tolerance" in printed


@pytest.mark.parametrize(
    ("uris", "names"),
    [
        (["/x/a.tif", "/x/a.png", "/x/b.tif"], ["a_tif", "a_png", "b"]),
        (["/x/a b.tif", "/x/a_b.tif"], ["a_b_1", "a_b_2"]),
        (["/p/x.tif", "/q/x.tif"], ["p_x", "q_x"]),
        (["/x/снимок.tif", "/x/###.tif"], ["снимок", "image"]),
        (["/x/A.tif", "/x/a.tif"], ["A_1", "a_2"]),
    ],
)
def test_no_two_scenes_share_a_name(uris: list[str], names: list[str]) -> None:
    assert unique_ids(uris) == names


def test_a_label_mosaic_with_a_part_gone_is_refused(labelled_folder: Make, tmp_path: Path) -> None:
    """Its ground would be "no label" without a word."""
    config = labelled_folder(count=3)
    label = next(tmp_path.rglob("s1_label.tif"))
    label.with_suffix(".vrt").write_text(
        '<VRTDataset rasterXSize="80" rasterYSize="96"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">gone.tif</SourceFilename><SourceBand>1</SourceBand>'
        '<DstRect xOff="0" yOff="0" xSize="80" ySize="48"/></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    label.unlink()
    with pytest.raises(UserError, match=r"s1_label\.vrt: 1 of the files it is made of .*gone\.tif.*50\.00%"):
        catalogue(config)
