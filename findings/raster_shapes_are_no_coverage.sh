#!/usr/bin/env bash
# Polygons of rasterio.features.shapes tile the plane without gap or overlap, and GEOS still calls them no coverage.
#
# One would guess: polygons traced along pixel edges share those edges, so shapely.coverage_is_valid is True and
# coverage_simplify simplifies each shared edge once.
# What happens: where the corner of one region touches the straight edge of another, the other polygon has no vertex,
# and a coverage has to have matching vertices. coverage_is_valid is False for nearly every real map. The simplified
# polygons keep more vertices than they need to. shapely.coverage_clean adds the missing vertices and moves nothing:
# afterwards the coverage is valid and the same tolerance removes more.
# Versions: rasterio 1.4.4 (wheel, GDAL 3.10.3), shapely 2.1.2 (GEOS 3.13.1; coverage_clean needs shapely 2.2, which
# this script does not use), numpy 2.2.6, Python 3.11. Not documented together.
# What to do: clean before simplifying, or add the vertices of all polygons to their neighbours' edges.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "rasterio==1.4.4" "shapely==2.1.2" "numpy==2.2.6" 2>/dev/null
cat > run.py <<'PYTHON'
import numpy as np
import rasterio
import shapely
from rasterio.features import shapes

print("rasterio", rasterio.__version__, "shapely", shapely.__version__, "GEOS", shapely.geos_version_string)
ids = np.zeros((40, 40), np.uint8)
ids[:, 20:] = 1
ids[10:20, 12:20] = 2  # its corners touch the straight edge between 0 and 1
polygons = [shapely.geometry.shape(geometry) for geometry, _ in shapes(ids)]
union, total = shapely.union_all(polygons).area, sum(polygon.area for polygon in polygons)
valid = bool(shapely.coverage_is_valid(polygons))
print(f"area of the union {union:g}, sum of areas {total:g}, coverage_is_valid {valid}")
assert union == total == 1600, "there are gaps or overlaps"
assert not valid, "shapes() now shares its vertices"
corners = shapely.union_all([shapely.boundary(polygon) for polygon in polygons])  # noded: every corner is a vertex
noded = list(shapely.get_parts(shapely.polygonize([*shapely.get_parts(corners)])))
print(f"the same polygons with all corners as vertices: coverage_is_valid {bool(shapely.coverage_is_valid(noded))}")
assert shapely.coverage_is_valid(noded)
print("as described")
PYTHON
venv/bin/python run.py
