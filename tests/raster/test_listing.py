"""Files named by patterns, on disk and in a bucket that a local server holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from idgbr.errors import UserError
from idgbr.raster.grid import Window
from idgbr.raster.listing import VECTOR_SUFFIXES, expand
from idgbr.raster.scene import Scene

Make = Callable[..., str]


def test_files_folders_and_globs(tmp_path: Path) -> None:
    for name in ("b.tif", "a.TIF", "note.txt", "c.gpkg", "deep/d.tif", "._a.TIF", ".b.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    root = str(tmp_path)
    assert expand([root]) == [f"{root}/a.TIF", f"{root}/b.tif"]
    assert expand([f"{root}/*.tif", f"{root}/b.tif"]) == [f"{root}/b.tif"]
    assert expand([f"{root}/**/*.tif"]) == [f"{root}/b.tif", f"{root}/deep/d.tif"]
    assert expand([root], VECTOR_SUFFIXES) == [f"{root}/c.gpkg"]
    for nothing in (f"{root}/*.jp2", f"{root}/missing.tif", f"{root}/missing/"):
        with pytest.raises(UserError, match="Expected files"):
            expand([nothing])
    (tmp_path / "only").mkdir()
    (tmp_path / "only/c.gpkg").touch()
    with pytest.raises(UserError, match=r"holds \.gpkg; .*data\.label\.kind vector"):
        expand([f"{root}/only"])
    with pytest.raises(UserError, match="no input"):
        expand([])


def test_bucket_is_listed_and_read(make: Make, pixels: np.ndarray, bucket: Callable[[str, bytes], None]) -> None:
    image = Path(make("a.tif", pixels, nodata=0)).read_bytes()
    for key in ("city/a.tif", "city/b.tif", "city/readme.txt", "city/deep/c.tif", "other/d.tif"):
        bucket(key, image)
    bucket("city/broken.tif", image[: len(image) // 2])
    assert expand(["s3://maps/city/a.tif"]) == ["s3://maps/city/a.tif"]
    listed = ["s3://maps/city/a.tif", "s3://maps/city/b.tif", "s3://maps/city/broken.tif"]
    assert expand(["s3://maps/city"]) == expand(["s3://maps/city/"]) == expand(["s3://maps/city/*.tif"]) == listed
    assert expand(["s3://maps/*/?.tif"]) == ["s3://maps/city/a.tif", "s3://maps/city/b.tif", "s3://maps/other/d.tif"]
    assert "s3://maps/city/deep/c.tif" in expand(["s3://maps/**/*.tif"])
    scene = Scene("s3://maps/city/a.tif")
    scene.check()
    np.testing.assert_array_equal(scene.read(Window(20, 30, 40, 50))[0], pixels[:, 20:60, 30:80])
    for bad in ("s3://maps/city/broken.tif", "s3://maps/city/readme.tif", "s3://nowhere/a.tif"):
        with pytest.raises(UserError, match=bad):
            Scene(bad).check()
    for nothing in ("s3://maps/empty/", "s3://maps/city/*.jp2", "s3://nowhere/*.tif"):
        with pytest.raises(UserError, match=nothing.replace("*", r"\*")):
            expand([nothing])
