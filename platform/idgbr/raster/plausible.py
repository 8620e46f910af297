"""Whether a file's header can be true: damaged ones claim sizes that would take hours or all memory to believe."""

from __future__ import annotations

import math
import os

import numpy as np
import rasterio
from rasterio.enums import Interleaving

from idgbr.errors import UserError
from idgbr.raster.gdal import gdal_path, is_remote

MAX_BLOCK = 512 * 2**20
"""Bytes of the largest block that is decoded: GDAL decodes a block whole, whatever window is asked of it."""
MAX_BANDS = 4096
"""More than any imaging spectrometer has, and a window of all of them still fits in memory."""
_INDEX_ENTRY = 4
"""Bytes that every block of a TIFF takes in the file at the least, even an empty one: its offset."""


def check_numbers(dataset: rasterio.io.DatasetReader, uri: str) -> None:
    """Refuse a file of complex numbers, of which GDAL knows kinds that NumPy has no name for.

    Raises:
        UserError: some band does not hold integers or real numbers.
    """
    for number, kind in enumerate(dataset.dtypes, 1):
        if kind.startswith("complex"):
            raise UserError(
                f"{uri}: pixels of band {number} are {kind}; expected integers or real numbers. Radar imagery: write "
                'its amplitude first (gdal_calc.py --calc "abs(A)", or an export of intensity)'
            )


def check_plausible(dataset: rasterio.io.DatasetReader, uri: str) -> None:
    """Refuse a file whose header contradicts the file, or describes what cannot be read by windows.

    Raises:
        UserError: too many bands, blocks too large to decode, more blocks than the file has room for, or a transform
            that maps pixels onto a line or a point.
    """
    size = f"{dataset.height} x {dataset.width} px in {dataset.count} band(s)"
    if dataset.count > MAX_BANDS:
        raise UserError(f"{uri}: {size}; expected at most {MAX_BANDS} bands. The file's header is probably damaged.")
    rows, cols = dataset.block_shapes[0]
    apart = dataset.interleaving not in (Interleaving.pixel, None)
    block = rows * cols * np.dtype(dataset.dtypes[0]).itemsize * (1 if apart else dataset.count)
    if block > MAX_BLOCK:
        raise UserError(
            f"{uri}: {size} are stored in blocks of {rows} x {cols} px, {block / 2**20:,.0f} MB each; expected blocks "
            f"of at most {MAX_BLOCK / 2**20:.0f} MB, since a block is decoded whole. Tile the file "
            "(gdal_translate -co TILED=YES); if it was tiled, its header is damaged."
        )
    if dataset.driver == "GTiff" and not is_remote(uri):
        blocks = math.ceil(dataset.height / rows) * math.ceil(dataset.width / cols) * (dataset.count if apart else 1)
        there = os.stat(gdal_path(uri)).st_size
        if blocks * _INDEX_ENTRY > there:
            raise UserError(
                f"{uri}: its header says {size}, {blocks:,} blocks of {rows} x {cols} px; the file has {there:,} "
                "bytes, too few for their index alone. The header is damaged; copy or download the file again."
            )
    if not dataset.transform.is_identity and not abs(dataset.transform.determinant) > 0:
        raise UserError(
            f"{uri}: its transform {tuple(dataset.transform)[:6]} maps all pixels onto a line or a point; expected a "
            "pixel size other than 0. The georeference is damaged; assign it anew (gdal_edit -a_ullr)."
        )
