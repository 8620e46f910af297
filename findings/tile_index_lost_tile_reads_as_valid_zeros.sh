#!/usr/bin/env bash
# A GDAL tile index (GTI) with one lost tile: its pixels, and those of every tile after it in the same read, are zeros
# that count as valid, without an error or a warning.
#
# One would guess: a mosaic raises when one of its files cannot be opened, or at worst the lost tile alone is blank.
# What happens: reading succeeds. The lost tile reads as 0, and in a read that touches several tiles all those that come
# after the lost one read as 0, too, though their files are there: read one by one they have their values. Without a
# nodata value in the first tile the mask calls all of it valid. Only a loss of the first feature's tile makes open()
# fail. (Pixel type is the first feature's: values above 255 of a later uint16 tile come back as 255 behind uint8.)
# Versions: rasterio 1.4.4 (wheel, GDAL 3.10.3), geopandas 1.1.1, pyogrio 0.11.1, shapely 2.1.2, numpy 2.2.6, Python
# 3.11. Not documented.
# What to do: check that every tile opens before the index is written and before it is read; give all tiles one dtype
# and a nodata value.
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
from rasterio.windows import Window
from shapely import box

print("rasterio", rasterio.__version__, "GDAL", rasterio.__gdal_version__)
tiles = (("uint8", 7), ("uint8", 9), ("uint8", 11), ("uint16", 1000))
for number, (dtype, value) in enumerate(tiles):
    transform = from_origin(500000 + 64 * number, 5000000, 1, 1)
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": dtype, "crs": "EPSG:32633"}
    with rasterio.open(f"tile{number}.tif", "w", transform=transform, **profile) as file:
        file.write(np.full((1, 64, 64), value, dtype))
boxes = [box(500000 + 64 * n, 5000000 - 64, 500000 + 64 * n + 64, 5000000) for n in range(len(tiles))]
names = [f"tile{n}.tif" for n in range(len(tiles))]
index = geopandas.GeoDataFrame({"location": names}, geometry=boxes, crs="EPSG:32633")
index.to_file("mosaic.gti.gpkg", driver="GPKG")
os.remove("tile1.tif")
with warnings.catch_warnings(record=True) as caught, rasterio.open("mosaic.gti.gpkg") as mosaic:
    warnings.simplefilter("always")
    whole, mask = mosaic.read(1), mosaic.dataset_mask()
    single = [np.unique(mosaic.read(1, window=Window(64 * n, 0, 64, 64))).tolist() for n in range(len(tiles))]
together = [np.unique(whole[:, 64 * n : 64 * n + 64]).tolist() for n in range(len(tiles))]
print("warnings:", [str(warning.message) for warning in caught], "mask:", np.unique(mask).tolist())
print("tiles in one read:", together)
print("tiles one by one: ", single)
assert not caught and (mask == 255).all(), "the loss is no longer silent"
assert single == [[7], [0], [11], [255]], "a lost tile no longer reads as zeros, or a wider dtype is no longer cut"
assert together == [[7], [0], [0], [0]], "tiles behind a lost one are read now"
print("as described")
PYTHON
venv/bin/python run.py
