"""Bodies from strangers: what is read, and what is refused before it is."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from idgbr.raster.decoding import check_values, decode_coarse, decode_image
from idgbr.raster.degrees import without_degrees
from idgbr.raster.encoding import geojson, geotiff, grey_png, palette_png, preview_png
from idgbr.raster.grid import IDENTITY, Grid
from idgbr.raster.image_limits import BadImage, ImageLimits
from idgbr.raster.polygons import PolygonOptions
from idgbr.raster.values import ValueRange

LIMITS = ImageLimits(pixels=10_000, bands=8)
GRID = Grid(None, IDENTITY, 20, 30)
COLOURS = ["#ff0000", "#00ff00", "#0000ff"]


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    with MemoryFile() as file:
        bands, height, width = array.shape
        with file.open(driver="GTiff", count=bands, height=height, width=width, dtype=array.dtype, **options) as out:
            out.write(array)
        return bytes(file.getbuffer())


def jpeg(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.moveaxis(array, 0, -1)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def huge_png(side: int) -> bytes:
    """A few bytes that claim to be side x side pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(side * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


IMAGE = np.random.default_rng(0).integers(1, 255, (3, 20, 30), dtype=np.uint8)


@pytest.mark.parametrize("body", [npy(IMAGE), npy(np.moveaxis(IMAGE, 0, -1)), tiff(IMAGE),
                                  preview_png(IMAGE, np.ones((20, 30), bool))],
                         ids=["npy", "npy, bands last", "tiff", "png"])  # fmt: skip
def test_every_format_gives_the_same_pixels(body: bytes) -> None:
    found = decode_image(body, (1, 2, 3), LIMITS)
    np.testing.assert_array_equal(found.pixels, IMAGE)
    assert found.valid.all() and not found.grid.georeferenced


def test_nodata_and_nan_are_not_valid() -> None:
    image = IMAGE.astype(np.float32)
    image[:, 0, :4] = np.nan
    for body in (npy(image), tiff(image, nodata=np.nan)):
        found = decode_image(body, (1, 2, 3), LIMITS)
        assert (~found.valid).sum() == 4 and np.isfinite(found.pixels).all()


VRT = b"<VRTDataset rasterXSize='9' rasterYSize='9'><SourceFilename>/etc/hostname</SourceFilename></VRTDataset>"

BAD = {
    "empty": (b"", "damaged"),
    "text": (b"hello there", "format"),
    "vrt": (VRT, "format"),
    "vrt behind a JPEG's first bytes": (b"\xff\xd8\xff\xe1" + VRT, "damaged"),
    "zip": (b"PK\x03\x04" + bytes(50), "format"),
    "half a tiff": (tiff(IMAGE, compress="deflate")[:-200], "damaged"),
    "half a png": (preview_png(IMAGE, np.ones((20, 30), bool))[:300], "damaged"),
    "half a jpeg": (jpeg(IMAGE)[:500], "damaged"),
    "a png of too few pixels": (huge_png(100), "damaged"),
    "a png of 60000 x 60000": (huge_png(60_000), "size"),
    "too many pixels": (npy(np.zeros((3, 200, 200), np.uint8)), "size"),
    "too many bands": (tiff(np.ones((9, 4, 4), np.uint8)), "size"),
    "too few bands": (tiff(np.ones((1, 4, 4), np.uint8)), "content"),
    "complex": (tiff(np.ones((3, 4, 4), np.complex64)), "content"),
    "all NaN": (npy(np.full((3, 4, 4), np.nan, np.float32)), "content"),
    "0 x 0": (npy(np.zeros((3, 0, 0), np.uint8)), "content"),
    "objects": (npy(np.array([[["x"]]], dtype=object)), "content"),
    "half an npy": (npy(IMAGE)[:-9], "damaged"),
    "npy without a header": (b"\x93NUMPY\x01\x00\x05\x00abc", "damaged"),
    "npy with half a header": (b"\x93NUMPY\x01\x00\x10\x00{'shape': rubbish", "damaged"),
    "a tiff's first bytes": (b"II*\x00", "damaged"),
    "npy that claims more": (npy(IMAGE).replace(b"(3, 20, 30)", b"(3, 99, 99)"), "damaged"),
    "four dimensions": (npy(np.zeros((1, 3, 4, 4), np.uint8)), "content"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str) -> None:
    body, fault = BAD[name]
    with pytest.raises(BadImage) as caught:
        decode_image(body, (1, 2, 3), LIMITS)
    assert caught.value.fault == fault, caught.value
    # Nothing of the file in memory that it was opened as.
    assert "vsimem" not in str(caught.value) and ".tif" not in str(caught.value)


def test_coarse_maps() -> None:
    ids = (np.indices((20, 30)).sum(0) % 3).astype(np.uint8)
    ids[0, 0] = 255
    for body in (npy(ids), palette_png(ids, COLOURS), tiff(ids[None], nodata=255)):
        np.testing.assert_array_equal(decode_coarse(body, GRID, 3, LIMITS)[0], ids)
    for body, words in ((npy(ids[:5]), "does not lie on the image"), (npy(ids + np.uint8(7)), "no class id"),
                        (tiff(IMAGE), "expected one band")):  # fmt: skip
        with pytest.raises(BadImage, match=words):
            decode_coarse(body, GRID, 3, LIMITS)


def test_another_scale_is_refused() -> None:
    body = tiff(IMAGE, crs="EPSG:32633", transform=from_origin(5e5, 5e6, 2.0, 2.0))
    assert decode_image(body, (1, 2, 3), LIMITS, 1.9).grid.gsd == pytest.approx(2.0)
    with pytest.raises(BadImage, match=r"trained at 0\.5 m"):
        decode_image(body, (1, 2, 3), LIMITS, 0.5)


def test_maps_as_bytes_keep_ids_and_nodata() -> None:
    ids = (np.indices((20, 30)).sum(0) // 9 % 3).astype(np.uint8)
    ids[:3] = 255
    grid = Grid(CRS.from_epsg(32633).to_wkt(), (0.5, 0, 5e5, 0, -0.5, 5e6), 20, 30)
    with MemoryFile(geotiff(ids, grid, "class", COLOURS, {"model": "m/1"})) as file, file.open() as out:
        np.testing.assert_array_equal(out.read(1), ids)
        assert (out.nodata, out.crs.to_epsg(), out.transform.a) == (255, 32633, 0.5)
        assert out.colormap(1)[1] == (0, 255, 0, 255) and out.tags()["model"] == "m/1"
    for body in (palette_png(ids, COLOURS), grey_png(ids)):
        with MemoryFile(body) as file, file.open() as out:
            np.testing.assert_array_equal(out.read(1), ids)
            assert out.nodata == 255
    polygons = geojson(ids, grid, [(i, f"c{i}", c) for i, c in enumerate(COLOURS)], PolygonOptions())
    assert b'"class":"c2"' in polygons and b"crs" not in polygons


def test_values_of_another_scale_are_refused() -> None:
    learnt = ValueRange("uint8", (tuple(np.linspace(5, 250, 9)),) * 3)
    eight, twelve = ((np.arange(1800).reshape(3, 20, 30) % 256).astype(kind) for kind in (np.uint8, np.uint16))
    check_values(decode_image(tiff(eight), [1, 2, 3], LIMITS), learnt)
    picture = decode_image(tiff(twelve * 16), [1, 2, 3], LIMITS)
    check_values(picture, None)
    with pytest.raises(BadImage, match=r"band 1 holds .* \(uint16\), the model learnt .*--value-range match") as caught:
        check_values(picture, learnt)
    assert caught.value.fault == "content"


@pytest.mark.parametrize("kind", ["complex64", "complex_int16"])
def test_complex_pixels_are_refused(kind: str) -> None:
    with MemoryFile() as file:
        with file.open(driver="GTiff", count=1, height=20, width=30, dtype=kind) as out:
            out.write(np.ones((1, 20, 30), np.complex64))
        body = bytes(file.getbuffer())
    with pytest.raises(BadImage, match=f"pixels are .*{kind}"):
        decode_image(body, [1], LIMITS)


def test_bands_without_names_are_taken_in_the_files_order() -> None:
    """As `jobs/refine.py` takes them, also where a program has called them Band 1 and so on."""
    image = IMAGE.astype(np.uint16)
    with MemoryFile() as file:
        with file.open(driver="GTiff", count=3, height=20, width=30, dtype="uint16") as out:
            out.write(image)
            out.descriptions = ("Band 1", "Band 2", "Band 3")
        body = bytes(file.getbuffer())
    for bands, note in ((("red", "green", "blue"), "1,2,3 (file order: the file names no bands)"), ((1, 2, 3), "")):
        found = decode_image(body, bands, LIMITS)
        np.testing.assert_array_equal(found.pixels, image)
        assert found.note == note


def test_places_without_longitude_and_latitude_are_called() -> None:
    for crs, corner, words in (
        ("EPSG:32633", (5e5, 5e6), ""),
        ("EPSG:32633", (5e8, 5e6), "100% of it lies outside of the domain of its CRS EPSG:32633"),
        ("EPSG:4326", (5e5, 80), "lies outside"),
        ("EPSG:4326", (340, 80), ""),
        ('LOCAL_CS["town",UNIT["metre",1]]', (0, 0), "is local"),
    ):
        a = from_origin(*corner, 0.5, 0.5)
        grid = Grid(CRS.from_user_input(crs).to_wkt(), (a.a, a.b, a.c, a.d, a.e, a.f), 20, 30)
        found = without_degrees(grid)
        assert words in found and bool(words) == bool(found)
