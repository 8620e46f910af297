"""Vector files as frames, also where PROJ's registry lacks the code of their CRS."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import pyogrio
import shapely
from pyproj.exceptions import CRSError as ProjCrsError
from rasterio.crs import CRS
from rasterio.errors import CRSError

from idgbr.errors import UserError


def is_parquet(path: str) -> bool:
    """Whether a file is GeoParquet, for which GDAL's driver is mostly not there."""
    return path.lower().endswith((".parquet", ".geoparquet"))


def read_frame(path: str, **options: Any) -> gpd.GeoDataFrame:
    """A layer of a vector file.

    GDAL names a CRS by its code where it has one, and geopandas looks the code up in pyproj's own registry, which may
    be older. The definition is rasterio's then.

    Args:
        path: the file as GDAL knows it.
        options: of pyogrio, such as `layer`.

    Raises:
        UserError: neither registry knows the code.
    """
    if is_parquet(path):
        return gpd.read_parquet(path)
    try:
        return gpd.read_file(path, engine="pyogrio", **options)
    except ProjCrsError as error:
        meta, _, shapes, columns = pyogrio.raw.read(path, **options)
        try:
            crs = CRS.from_user_input(meta["crs"]).to_wkt()
        except CRSError:
            raise UserError(
                f"{path}: its CRS {meta['crs']} is in no registry here ({error}). Expected one that is; write the file "
                "anew with the definition (ogr2ogr -a_srs)"
            ) from error
        data = dict(zip(meta["fields"], columns, strict=True))
        return gpd.GeoDataFrame(data, geometry=shapely.from_wkb(shapes), crs=crs)
