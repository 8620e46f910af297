#!/usr/bin/env bash
# A vector layer that pyogrio wrote in a recent CRS cannot be read by geopandas in the same environment, although the
# file itself holds the full definition of the CRS.
#
# One would guess: a GeoPackage stores its CRS as WKT, so whoever reads the file needs no registry; at worst the CRS is
# lost and the geometries stay.
# What happens: pyogrio's wheel and pyproj's wheel each carry their own EPSG registry. pyogrio 0.13.0 writes a layer in
# EPSG:10792 (UGRF / UTM zone 35N) as GeoPackage, FlatGeobuf, Shapefile and GeoJSON. On reading, pyogrio passes on the
# authority code alone, pyproj 3.7.2 (EPSG registry 11.022) does not know it, and geopandas.read_file raises CRSError:
# not one geometry can be read, from files whose own WKT pyproj reads without complaint.
# Versions: pyogrio 0.13.0 (wheel, GDAL 3.12.4), pyproj 3.7.2 (PROJ 9.5.1), geopandas 1.2.0, shapely 2.1.2, numpy 2.2.6,
# Python 3.11. Not documented.
# What to do: on CRSError read the geometries with pyogrio.raw and set the CRS from the file's own WKT, or give a CRS
# newer than the oldest registry as WKT, not as a code, wherever both libraries meet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "pyogrio==0.13.0" "pyproj==3.7.2" "geopandas==1.2.0" \
    "shapely==2.1.2" "numpy==2.2.6" "pandas==2.3.3" 2>/dev/null
cat > run.py <<'PYTHON'
import sqlite3

import geopandas
import numpy as np
import pyogrio
import pyproj
import shapely
from pyogrio.raw import read, write

registry = pyproj.database.get_database_metadata("EPSG.VERSION")
print(f"pyogrio {pyogrio.__version__}, GDAL {'.'.join(map(str, pyogrio.__gdal_version__))}, geopandas {geopandas.__version__}")
print(f"pyproj {pyproj.__version__}, PROJ {pyproj.proj_version_str}, its EPSG registry {registry}")
box = np.array([shapely.to_wkb(shapely.box(500000, 9900000, 500100, 9900100))], object)
for suffix in ("gpkg", "fgb", "shp", "geojson"):
    path = f"layer.{suffix}"
    write(path, box, [np.array([1])], ["id"], geometry_type="Polygon", crs="EPSG:10792")
    try:
        found = f"read {len(geopandas.read_file(path))} feature(s)"
    except pyproj.exceptions.CRSError as error:
        found = f"CRSError: {str(error).splitlines()[0][:60]}"
    print(f"{path}: geopandas.read_file: {found}; pyogrio.raw.read: {len(read(path)[2])} feature(s)")
    assert found.startswith("CRSError"), "geopandas reads the layer now"
(wkt,) = sqlite3.connect("layer.gpkg").execute(
    "select definition from gpkg_spatial_ref_sys where organization_coordsys_id = 10792"
).fetchone()
print(f"WKT in the GeoPackage, {len(wkt)} characters, read by pyproj: {pyproj.CRS.from_wkt(wkt).name}")
print("as described")
PYTHON
venv/bin/python run.py
