"""How clean the polygons of a layer are: vertices per kilometre of outline, and corners off right angles.

python jobs/benchmark.py polygons --layer maps/scene.gpkg
python jobs/benchmark.py polygons --layer maps/scene.gpkg --regularised building

Prints a row per class. Corners are judged for regularised classes alone: the outline of a raster has right angles at
every pixel. Takes what jobs/refine.py writes, and any other vector layer with a class attribute.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from idgbr.cli import JobFlags
from idgbr.errors import UserError


class Flags(JobFlags):
    """Flags of the benchmark."""

    layer: str
    """Vector file with polygons: GeoPackage, GeoJSON or any other that GDAL reads."""
    attribute: str = "class"
    """Attribute that holds the class."""
    regularised: list[str] = []
    """Classes whose corners should be right angles."""
    tolerance: float = Field(3.0, gt=0, lt=45)
    """Degrees within which a corner is a right angle."""


def main(flags: Flags) -> dict[str, object]:
    """Measures and prints a table."""
    from rich.console import Console
    from rich.table import Table

    from idgbr.evaluation.vectors import corners_off_right_angles, vertices_per_kilometre

    frame = _read(flags.layer)
    if flags.attribute not in frame.columns:
        raise UserError(
            f"{flags.layer}: no attribute {flags.attribute!r}; found {', '.join(map(str, frame.columns))}. Name the "
            "attribute that holds the class with --attribute"
        )
    classes = {str(name): list(part.geometry) for name, part in frame.groupby(flags.attribute, sort=True)}
    if unknown := [name for name in flags.regularised if name not in classes]:
        raise UserError(f"--regularised: {flags.layer} has no class {unknown[0]!r}; found {', '.join(classes)}")
    metres = 1.0 if frame.crs is None else float(frame.crs.axis_info[0].unit_conversion_factor)
    table = Table(title=flags.layer)
    for heading in ("class", "polygons", "vertices per kilometre", "corners off right angles, percent"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    figures: dict[str, dict[str, float]] = {}
    for name, polygons in classes.items():
        figures[name] = {"polygons": len(polygons), "vertices_per_km": vertices_per_kilometre(polygons, metres)}
        corners = ""
        if name in flags.regularised:
            share = figures[name]["corners_off"] = corners_off_right_angles(polygons, flags.tolerance)
            corners = f"{100 * share:.2f}"
        table.add_row(name, f"{len(polygons):,}", f"{figures[name]['vertices_per_km']:.1f}", corners)
    Console().print(table)
    return {"classes": figures}


def _read(path: str) -> Any:
    """A layer as a GeoDataFrame in a projected CRS: longitude and latitude are projected to their UTM zone."""
    import geopandas as gpd
    from pyogrio.errors import DataSourceError

    try:
        frame = gpd.read_file(path)
    except (DataSourceError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a vector layer ({error}); expected polygons") from error
    kinds = set(frame.geometry.geom_type.dropna()) if "geometry" in frame else set()
    if not kinds or not kinds <= {"Polygon", "MultiPolygon"}:
        raise UserError(f"{path}: found {', '.join(sorted(kinds)) or 'no geometry'}; expected polygons")
    return frame.to_crs(frame.estimate_utm_crs()) if frame.crs is not None and frame.crs.is_geographic else frame
