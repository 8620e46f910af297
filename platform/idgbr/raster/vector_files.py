"""Vector files written frame by frame: GeoPackage, GeoJSON, FlatGeobuf, GeoParquet."""

from __future__ import annotations

import datetime
import io
import json
import warnings
from collections.abc import Iterator

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio

from idgbr.raster.gdal import gdal_env

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf", ".parquet": "Parquet"}
"""GDAL's name of the format of each suffix."""
LAYER = "classes"
"""Name of the layer in formats that name layers."""


def write_frames(frames: Iterator[gpd.GeoDataFrame], path: str, driver: str) -> int:
    """Streams polygons into a file.

    Args:
        frames: One at least, all with the same columns and CRS.
        path: The file.
        driver: One of `DRIVERS`.

    Returns:
        How many features the file holds.
    """
    return _write_parquet(frames, path) if driver == "Parquet" else _write_with_gdal(frames, path, driver)


def write_layer_style(path: str, qml: str) -> None:
    """Puts a style into a GeoPackage, where QGIS takes it as the default of the layer."""
    style = {
        "f_table_catalog": "",
        "f_table_schema": "",
        "f_table_name": LAYER,
        "f_geometry_column": "geom",
        "styleName": "classes",
        "styleQML": qml,
        "styleSLD": "",
        "useAsDefault": True,
        "description": "Class names and colours",
        "owner": "",
        "ui": "",
        "update_time": datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0),
    }
    with gdal_env():
        pyogrio.write_dataframe(pd.DataFrame([style]), path, layer="layer_styles", driver="GPKG", append=True)


def _write_parquet(frames: Iterator[gpd.GeoDataFrame], path: str) -> int:
    """GeoParquet 1.1 with each feature's box in a column `bbox`, one row group a frame."""
    count = 0
    bounds: list[tuple[float, float, float, float]] = []
    writer: pq.ParquetWriter | None = None
    geo: dict = {}
    try:
        for frame in frames:
            if writer is not None and frame.empty:
                continue
            encoded = io.BytesIO()
            frame.to_parquet(encoded, index=False, write_covering_bbox=True, geometry_encoding="WKB")
            table = pq.read_table(encoded)
            if writer is None:
                geo = json.loads(table.schema.metadata[b"geo"])
                writer = pq.ParquetWriter(path, table.schema.remove_metadata(), compression="zstd")
            writer.write_table(table.replace_schema_metadata(None).cast(writer.schema))
            if not frame.empty:
                bounds.append(tuple(frame.total_bounds.tolist()))
            count += len(frame)
        assert writer is not None
        column = geo["columns"][geo["primary_column"]]
        column["geometry_types"] = ["Polygon"]
        column.pop("bbox", None)
        if bounds:
            left, bottom, right, top = zip(*bounds, strict=True)
            column["bbox"] = [min(left), min(bottom), max(right), max(top)]
        writer.add_key_value_metadata({"geo": json.dumps(geo)})
    finally:
        if writer is not None:
            writer.close()
    return count


def _write_with_gdal(frames: Iterator[gpd.GeoDataFrame], path: str, driver: str) -> int:
    first = next(frames)
    table = pa.table(first.to_arrow(index=False))
    failure: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from table.to_batches()
            for frame in frames:
                yield from pa.table(frame.to_arrow(index=False)).cast(table.schema).to_batches()
        except Exception as error:  # GDAL, which pulls, would pass on its text only
            failure.append(error)
            raise

    options = {"COORDINATE_PRECISION": "10"} if driver == "GeoJSON" else {}
    with gdal_env(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")  # a map without a CRS is welcome
        try:
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(table.schema, batches()),
                path,
                layer=LAYER,
                driver=driver,
                geometry_type="Polygon",
                crs=None if first.crs is None else first.crs.to_wkt(),
                **options,
            )
        except Exception:
            if failure:
                raise failure[0] from None
            raise
        return int(pyogrio.read_info(path, force_feature_count=True)["features"])
