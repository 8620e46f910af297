#!/usr/bin/env bash
# Four uint8 bands written by rasterio with default options: the fourth is tagged alpha, and masks the image.
#
# One would guess: red, green, blue and near infrared written as a plain four-band GeoTIFF are four bands of data; a
# pixel is invalid only by a nodata value or a mask that somebody wrote.
# What happens: GDAL's GTiff driver takes three or four uint8 bands for RGB or RGBA. The fourth band's colour
# interpretation is alpha, so dataset_mask() is 0 wherever near infrared is 0 (water, deep shadow), and partly
# transparent elsewhere. The same array as uint16 has no alpha and is valid throughout.
# Versions: rasterio 1.4.4 (wheel, GDAL 3.10.3), numpy 2.2.6, Python 3.11. The driver's page names the photometric
# option's default; the consequence for masks is not documented.
# What to do: write photometric="MINISBLACK" (or set colorinterp); on reading, believe an alpha band only where its
# values look like a mask.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "rasterio==1.4.4" "numpy==2.2.6" 2>/dev/null
cat > run.py <<'PYTHON'
import numpy as np
import rasterio

print("rasterio", rasterio.__version__, "GDAL", rasterio.__gdal_version__)
rng = np.random.default_rng(0)
bands = rng.integers(1, 255, (4, 64, 64), dtype=np.uint8)
bands[3, :, :20] = 0  # water: no near infrared comes back


def invalid(name: str, dtype: str, **options: str) -> tuple[str, int]:
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 4, "dtype": dtype, **options}
    with rasterio.open(name, "w", **profile) as file:
        file.write(bands.astype(dtype))
    with rasterio.open(name) as file:
        return file.colorinterp[3].name, int((file.dataset_mask() == 0).sum())


found = {
    "uint8": invalid("a.tif", "uint8"),
    "uint8, MINISBLACK": invalid("b.tif", "uint8", photometric="MINISBLACK"),
    "uint16": invalid("c.tif", "uint16"),
}
for name, (colour, pixels) in found.items():
    print(f"{name}: fourth band is {colour}, {pixels} of {64 * 64} pixels invalid")
assert found["uint8"] == ("alpha", 20 * 64), "the fourth band is no longer taken for alpha"
assert found["uint8, MINISBLACK"] == ("undefined", 0) and found["uint16"][1] == 0
print("as described")
PYTHON
venv/bin/python run.py
