"""Arrays in NumPy's file format that arrive as bytes: measured by their header before they are read."""

from __future__ import annotations

import io
import math
import tokenize

import numpy as np
from numpy.typing import NDArray

from idgbr.raster.image_limits import BadImage, ImageLimits, check_extent


def read_npy(body: bytes, limits: ImageLimits, what: str) -> NDArray:
    """An array whose header kept the limits; never one of Python objects."""
    shape, dtype, start = npy_header(body, limits, what)
    if len(body) - start != math.prod(shape) * dtype.itemsize:
        raise BadImage(
            "damaged",
            f"{what}: {len(body) - start} bytes of pixels; shape {shape} of {dtype} needs "
            f"{math.prod(shape) * dtype.itemsize}",
        )
    return np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)


def npy_header(body: bytes, limits: ImageLimits, what: str) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and the first byte of the pixels, within the limits."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(stream)
    except (ValueError, KeyError, TypeError, SyntaxError, EOFError, tokenize.TokenError) as error:
        raise BadImage("damaged", f"{what}: its .npy header cannot be read; write the file with numpy.save") from error
    if dtype.kind not in "uif" or dtype.hasobject:
        kind = "objects" if dtype.hasobject else str(dtype)
        raise BadImage("content", f"{what}: pixels are {kind}; expected integers or real numbers")
    # Python takes True for the integer 1, and numpy's header reader with it.
    if len(shape) not in (2, 3) or any(isinstance(side, bool) for side in shape):
        raise BadImage("content", f"{what}: an array of shape {shape}; expected (B, H, W)")
    sides = sorted(shape)[-2:]
    check_extent(sides[0], sides[1], min(shape) if len(shape) == 3 else 1, limits, what)
    return shape, dtype, stream.tell()
