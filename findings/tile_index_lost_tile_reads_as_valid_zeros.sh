#!/usr/bin/env bash
# A GDAL tile index (GTI) over a tile that is gone reads zeros that count as valid, without an error or a warning.
#
# One would guess: as a VRT does on its first read, a mosaic raises when one of its files cannot be opened.
# What happens: reading succeeds. The lost tile's pixels are 0; without a nodata value in the first tile the mask says
# that they are valid. Pixel type and nodata are the first feature's: values above 255 of a later uint16 tile come back
# as 255 where the first tile is uint8. Only a loss of the first feature's tile makes open() fail.
# Versions: rasterio 1.4.4 (wheel, GDAL 3.10.3), geopandas 1.1.1, pyogrio 0.11.1, shapely 2.1.2, numpy 2.2.6, Python
# 3.11. Not documented.
# What to do: check that every tile opens before the index is written, give every tile one dtype and a nodata value.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "rasterio==1.4.4" "geopandas==1.1.1" "pyogrio==0.11.1" \
    "shapely==2.1.2" "numpy==2.2.6" 2>/dev/null
cat > run.py <<'PYTHON'
import os
import warnings

import geopandas
import numpy as np
import rasterio
from rasterio.transform import from_origin
from shapely import box

print("rasterio", rasterio.__version__, "GDAL", rasterio.__gdal_version__)
for number, (dtype, value) in enumerate((("uint8", 7), ("uint8", 9), ("uint16", 1000))):
    transform = from_origin(500000 + 64 * number, 5000000, 1, 1)
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": dtype, "crs": "EPSG:32633"}
    with rasterio.open(f"tile{number}.tif", "w", transform=transform, **profile) as file:
        file.write(np.full((1, 64, 64), value, dtype))
boxes = [box(500000 + 64 * n, 5000000 - 64, 500000 + 64 * n + 64, 5000000) for n in range(3)]
index = geopandas.GeoDataFrame({"location": [f"tile{n}.tif" for n in range(3)]}, geometry=boxes, crs="EPSG:32633")
index.to_file("mosaic.gti.gpkg", driver="GPKG")
os.remove("tile1.tif")
with warnings.catch_warnings(record=True) as caught, rasterio.open("mosaic.gti.gpkg") as mosaic:
    warnings.simplefilter("always")
    pixels, mask = mosaic.read(1), mosaic.dataset_mask()
print("warnings while reading:", [str(warning.message) for warning in caught])
for number in range(3):
    part = slice(64 * number, 64 * number + 64)
    print(f"tile {number}: values {np.unique(pixels[:, part]).tolist()}, mask {np.unique(mask[:, part]).tolist()}")
assert (pixels[:, :64] == 7).all() and not caught
assert (pixels[:, 64:128] == 0).all() and (mask[:, 64:128] == 255).all(), "the lost tile no longer reads as valid zeros"
assert (pixels[:, 128:] == 255).all(), "a wider dtype is no longer cut to the first tile's"
print("as described")
PYTHON
venv/bin/python run.py
