"""Images that arrive as bytes from strangers: recognised by content, measured before they are decoded, then read.

A body is handed to the one GDAL driver its first bytes stand for. Left to choose, GDAL would also take it for formats
that name other files and addresses (VRT and its kin), and open these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from idgbr import IGNORE
from idgbr.errors import UserError
from idgbr.raster.bands import choose_bands
from idgbr.raster.gdal import GDAL_ERRORS, gdal_env, open_quietly
from idgbr.raster.grid import IDENTITY, Grid
from idgbr.raster.image_limits import BadImage, Fault, ImageLimits, check_extent
from idgbr.raster.npy import npy_header, read_npy
from idgbr.raster.opening import Reading, reason
from idgbr.raster.png import is_whole
from idgbr.raster.source import Source
from idgbr.raster.values import ValueRange, compare_pixels

_MAGIC = {
    b"II*\x00": "GTiff",
    b"MM\x00*": "GTiff",
    b"II+\x00": "GTiff",
    b"MM\x00+": "GTiff",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\x93NUMPY": "npy",
}
FORMATS = "GeoTIFF (COG included), PNG, JPEG or .npy"


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: (B, H, W) in its own dtype; 0 where a value was not finite.
        valid: (H, W) bool.
        grid: size and georeference; the identity without CRS where it has none.
        note: how bands were matched where the file does not name them; empty otherwise.
    """

    pixels: NDArray
    valid: NDArray[np.bool_]
    grid: Grid
    note: str = ""


def image_format(body: bytes, what: str = "image") -> str:
    """The format the first bytes stand for: GDAL's driver name, or npy.

    Raises:
        BadImage: empty, or none of the formats that are read.
    """
    if not body:
        raise BadImage("damaged", f"{what}: is empty; expected {FORMATS}")
    for magic, name in _MAGIC.items():
        if body.startswith(magic):
            return name
    raise BadImage(
        "format", f"{what}: its first bytes ({body[:8].hex(' ')}) are of no known format; expected {FORMATS}"
    )


def image_size(body: bytes, limits: ImageLimits) -> tuple[int, int]:
    """Rows and columns of an image, from its header.

    Raises:
        BadImage: see `Fault`.
    """
    if image_format(body) == "npy":
        shape, _, _ = npy_header(body, limits, "image")
        rows, cols = shape[-2:] if len(shape) == 2 or min(shape) != shape[2] else shape[:2]
        return rows, cols
    with _opened(body, limits, "image") as source:
        return source.native.height, source.native.width


def decode_image(
    body: bytes, bands: Sequence[int | str], limits: ImageLimits, model_gsd: float | None = None, factor: float = 1.5
) -> Picture:
    """Decode an image as `Scene.read` reads a file: the same bands, validity and dtype.

    Args:
        body: the file's bytes; .npy holds (B, H, W), or (H, W, B) where only that fits the bands.
        bands: 1-based indices or names, in the model's order.
        limits: checked against the header, before a pixel is decoded.
        model_gsd: ground sample distance in metres the image should have, if known and if it has one.
        factor: by how much it may be off.

    Raises:
        BadImage: see `Fault`.
    """
    if image_format(body) == "npy":
        return _from_array(read_npy(body, limits, "image"), bands)
    with _opened(body, limits, "image") as source:
        _check_scale(source.native.gsd, model_gsd, factor)
        chosen, _ = choose_bands(source, bands, (), "")
        order = ",".join(map(str, chosen))
        note = "" if chosen == tuple(bands) else f"{order} (file order: the file names no bands)"
        return replace(_read(source, chosen, "image"), note=note)


def check_values(picture: Picture, learnt: ValueRange | None) -> None:
    """Refuse an image whose values are of another scale than those a model learnt.

    Args:
        picture: the decoded image.
        learnt: the model's values; None where it keeps none.

    Raises:
        BadImage: band, values and the model's values.
    """
    finding = learnt and compare_pixels("image", picture.pixels, picture.valid, learnt)
    if finding and finding.severity == "error":
        raise BadImage("content", finding.message())


def decode_coarse(body: bytes, image: Grid, classes: int, limits: ImageLimits) -> NDArray[np.uint8]:
    """Decode somebody's coarse map of an image: class ids, nodata as IGNORE.

    Args:
        body: the file's bytes, one band of class ids; .npy holds (H, W).
        image: grid of the image it belongs to.
        classes: how many the model has.
        limits: as for the image.

    Returns:
        (1, H, W).

    Raises:
        BadImage: of another size or place than the image, or with ids the model does not know.
    """
    if image_format(body, "coarse map") == "npy":
        array = read_npy(body, limits, "coarse map")
        ids = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
        if ids.ndim != 2:
            raise BadImage("content", f"coarse map: shape {array.shape}; expected class ids, (H, W)")
        picture = Picture(ids[None], np.isfinite(ids), Grid(None, IDENTITY, *ids.shape))
    else:
        with _opened(body, limits, "coarse map") as source:
            if source.file.count != 1:
                raise BadImage(
                    "content",
                    f"coarse map: {source.file.count} bands; expected one band of class ids (no colours: a palette "
                    "PNG or a single-band GeoTIFF)",
                )
            picture = _read(source, (1,), "coarse map")
    differences = image.same_as(picture.grid, "image", "coarse map")
    if differences:
        raise BadImage("content", f"coarse map: does not lie on the image: {'; '.join(differences)}")
    ids = np.where(picture.valid, picture.pixels[0], IGNORE)
    wrong = np.setdiff1d(np.unique(ids), [*range(classes), IGNORE])
    if wrong.size:
        raise BadImage(
            "content", f"coarse map: value {wrong[0]} is no class id; expected 0..{classes - 1}, or {IGNORE} for nodata"
        )
    return ids[None].astype(np.uint8)


@contextmanager
def _opened(body: bytes, limits: ImageLimits, what: str) -> Iterator[Source]:
    driver = image_format(body, what)
    # A JPEG that is cut off is a mere warning to libjpeg, which paints the rest grey.
    with gdal_env("/vsimem/"), rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True), MemoryFile(body) as file:
        try:
            # The header alone: nothing is decoded before the limits are kept.
            with open_quietly(file.name, driver=driver) as header:
                _check_size(header, limits, what)
            if driver == "PNG" and not is_whole(body):
                raise BadImage("damaged", f"{what}: the PNG is cut off, or a part of it is missing; send all of it")
            source = Source(file.name, None, None, False, driver, Reading(gcps="refuse"))
        except GDAL_ERRORS as error:
            raise BadImage("damaged", f"{what}: cannot be opened as {driver} ({_brief(error, file.name)})") from error
        except BadImage:
            raise
        except UserError as error:
            raise BadImage("content", f"{what}: {_brief(error, file.name)}") from error
        try:
            yield source
        except BadImage:
            raise
        except UserError as error:
            fault: Fault = "damaged" if "truncated or damaged" in str(error) else "content"
            raise BadImage(fault, f"{what}: {_brief(error, file.name)}") from error
        finally:
            source.close()


def _check_size(file: rasterio.io.DatasetReader, limits: ImageLimits, what: str) -> None:
    check_extent(file.height, file.width, file.count, limits, what)
    # A file may ask for decoding more than itself at once: its blocks.
    if math.prod(file.block_shapes[0]) > max(limits.pixels, 2**22):
        raise BadImage("size", f"{what}: its blocks are {file.block_shapes[0]} px; expected tiles of 256 or 512")
    if any(kind.startswith("complex") for kind in file.dtypes) or len(set(file.dtypes)) != 1:
        raise BadImage("content", f"{what}: pixels are {file.dtypes}; expected integers or real numbers of one type")


def _read(source: Source, bands: Sequence[int | str], what: str) -> Picture:
    known = source.indexes(tuple(bands))
    pixels, valid = source.read(source.native.window, known)
    if not valid.any():
        raise BadImage("content", f"{what}: not one valid pixel; all are nodata, transparent or not finite")
    return Picture(pixels, valid, source.native)


def _check_scale(gsd: float | None, expected: float | None, factor: float) -> None:
    if gsd is None or expected is None or 1 / factor <= gsd / expected <= factor:
        return
    raise BadImage(
        "content",
        f"image: ground sample distance {gsd:.3g} m; the model was trained at {expected:.3g} m (a factor {factor} is "
        f"accepted). Resample it to {expected:.3g} m first (gdalwarp -tr)",
    )


def _from_array(array: NDArray, bands: Sequence[int | str]) -> Picture:
    if array.ndim == 2:
        array = array[None]
    if array.shape[0] != len(bands) and array.shape[2] == len(bands):
        array = np.moveaxis(array, -1, 0)
    if array.shape[0] != len(bands):
        raise BadImage(
            "content",
            f"image: an array of shape {array.shape}; the model takes ({len(bands)}, H, W)",
        )
    finite = np.isfinite(array).all(axis=0)
    if not finite.any():
        raise BadImage("content", "image: not one pixel is finite")
    pixels = np.where(np.isfinite(array), array, 0).astype(array.dtype.newbyteorder("="))
    return Picture(pixels, finite, Grid(None, IDENTITY, *finite.shape))


def _brief(error: BaseException, name: str) -> str:
    """The error's message without the address of the file in memory."""
    folder, _, file = name.rpartition("/")
    return reason(error).replace(f"{name}: ", "").replace(name, "the file").replace(f"{file}: ", "").replace(folder, "")
