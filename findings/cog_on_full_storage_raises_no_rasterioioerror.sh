#!/usr/bin/env bash
# Writing a COG to a place that cannot take it fails on closing, by an exception that is no RasterioIOError.
#
# One would guess: rasterio.errors.RasterioIOError is what a failed write raises, as it is for a GTiff, so
# `except RasterioIOError` around the with block is enough.
# What happens: the COG driver writes a temporary file first and the final file when the dataset is closed. If that
# fails, leaving the with block raises rasterio._err.CPLE_OpenFailedError, a subclass of Exception that is neither
# RasterioIOError nor OSError. A GTiff in the same place raises RasterioIOError on opening.
# Versions: rasterio 1.4.4 (wheel, GDAL 3.10.3), numpy 2.2.6, Python 3.11. Not documented.
# What to do: catch rasterio.errors.RasterioError and rasterio._err.CPLE_BaseError, or write locally and move the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "rasterio==1.4.4" "numpy==2.2.6" 2>/dev/null
cat > run.py <<'PYTHON'
import numpy as np
import rasterio
from rasterio.errors import RasterioIOError

print("rasterio", rasterio.__version__, "GDAL", rasterio.__gdal_version__)
profile = {"width": 512, "height": 512, "count": 1, "dtype": "uint8"}


def failure(driver: str) -> tuple[str, BaseException]:
    step = "open"
    try:
        with rasterio.open("no_such_folder/map.tif", "w", driver=driver, **profile) as file:
            step = "write"
            file.write(np.zeros((1, 512, 512), np.uint8))
            step = "close"
    except Exception as error:
        return step, error
    raise SystemExit(f"{driver} wrote into a folder that does not exist")


found = {driver: failure(driver) for driver in ("GTiff", "COG")}
for driver, (step, error) in found.items():
    kinds = [kind.__name__ for kind in type(error).__mro__[:-1]]
    print(f"{driver}: fails at {step} with {' < '.join(kinds)}")
assert found["GTiff"][0] == "open" and isinstance(found["GTiff"][1], RasterioIOError)
assert found["COG"][0] == "close", "the COG driver fails earlier now"
assert not isinstance(found["COG"][1], (RasterioIOError, OSError)), "the exception is an input/output error now"
print("as described")
PYTHON
venv/bin/python run.py
