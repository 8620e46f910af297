"""Requests that cannot be answered with a map, each with the status of its answer."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np
import requests
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from serving import geotiff, npy, picture

LIMITS = {"steps": 8, "samples": 4, "pixels": 250_000, "bands": 8, "body_mb": 2, "body_s": 10, "request_s": 540}


class Bad(NamedTuple):
    """A bad request.

    Attributes:
        status: of the answer.
        detail: part of the problem's detail.
        body: of the request.
        more: further arguments of requests.request.
        path: of the URL.
        method: of HTTP.
    """

    status: int
    detail: str
    body: bytes = b""
    more: dict[str, Any] = {}
    path: str = "/v1/refine"
    method: str = "POST"


def _encoded(kind: str, pixels: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def _png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


def _sparse(height: int, width: int) -> bytes:
    """A GeoTIFF of many pixels, none of which is stored."""
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8"}
    with MemoryFile() as file:
        with file.open(**profile, sparse_ok=True, tiled=True, transform=from_origin(0, 0, 0.5, 0.5)):
            pass
        return bytes(file.getbuffer())


def _npy_header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    return stream.getvalue()


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("scene.tif", b"x")
    return stream.getvalue()


def _with(coarse: bytes) -> dict[str, Any]:
    return {"files": {"image": TIFF, "coarse": coarse}}


def _asks(**query: Any) -> dict[str, Any]:
    return {"params": query}


PIXELS = picture(64, 64)
TIFF, PNG = geotiff(PIXELS), _encoded("PNG", PIXELS.transpose(1, 2, 0))
JPEG = _encoded("JPEG", PIXELS.transpose(1, 2, 0), quality=90)
NAN = np.full((3, 64, 64), np.nan, np.float32)
IDS = np.zeros((1, 64, 64), np.uint8)
FAR = geotiff(PIXELS, west=1e9)
LOCAL = geotiff(PIXELS, crs='LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]')
GEOJSON = {"headers": {"accept": "application/geo+json"}}
VRT = b'<VRTDataset rasterXSize="9" rasterYSize="9"><SourceFilename>/etc/passwd</SourceFilename></VRTDataset>'
FORM = {"content-type": "multipart/form-data; boundary=x"}

BAD = {
    # Not an image.
    "empty body": Bad(400, "empty"),
    "text": Bad(415, "no known format", b"easting,northing\n1,2\n"),
    "text that claims to be a TIFF": Bad(415, "GeoTIFF", b"x" * 99, {"headers": {"content-type": "image/tiff"}}),
    "zip": Bad(415, "no known format", _zip()),
    "GIF": Bad(415, "no known format", _encoded("GIF", PIXELS[0])),
    "VRT that names a file": Bad(415, "no known format", VRT),
    "address of another machine": Bad(415, "no known format", b"/vsicurl/http://169.254.169.254/latest/"),
    "text whose bytes are not text": Bad(415, "ff fe 00", b"\xff\xfe\x00\x01"),
    "JSON": Bad(415, "no known format", b'{"image": [[1, 2], [3, 4]]}'),
    # Damaged.
    "PNG cut off": Bad(400, "cut off", PNG[: len(PNG) // 2]),
    "TIFF cut off": Bad(400, "image", TIFF[: len(TIFF) // 2]),
    "JPEG cut off": Bad(400, "image", JPEG[: len(JPEG) // 2]),
    "npy cut off": Bad(400, "bytes of pixels", npy(PIXELS)[:-9]),
    "npy with a broken header": Bad(400, "numpy.save", b"\x93NUMPY\x01\x00\x10\x00{'descr': oops  "),
    "first bytes of a TIFF alone": Bad(400, "image", b"II*\x00"),
    # Too much.
    "PNG bomb": Bad(413, "px", _png_header(60000, 60000)),
    "TIFF bomb": Bad(413, "px", _sparse(60000, 60000)),
    "npy with a boolean side": Bad(422, "shape", _npy_header((3, True, 64)) + bytes(192)),
    "npy that claims a terabyte": Bad(413, "px", _npy_header((3, 600000, 600000))),
    "more pixels than are accepted": Bad(413, "px", npy(np.zeros((3, 400, 700), np.uint8))),
    "20 bands": Bad(413, "20 bands", geotiff(np.ones((20, 40, 40), np.uint8))),
    "20 bands as npy": Bad(413, "20 bands", npy(np.ones((20, 40, 40), np.uint8))),
    "more bytes than are accepted": Bad(413, "MB", b"II*\x00" + b"0" * 2_500_000),
    # An image of no use.
    "one band": Bad(422, "band", geotiff(PIXELS[:1])),
    "one band as npy": Bad(422, "shape", npy(PIXELS[:1])),
    "four axes": Bad(422, "shape", npy(PIXELS[None])),
    "0 x 0": Bad(422, "at least one pixel", npy(np.zeros((3, 0, 0), np.uint8))),
    "all NaN": Bad(422, "finite", npy(NAN)),
    "all NaN, as GeoTIFF": Bad(422, "valid", geotiff(NAN)),
    "all nodata": Bad(422, "valid", geotiff(np.zeros((3, 64, 64), np.uint8), nodata=0)),
    "complex numbers": Bad(422, "complex", npy(PIXELS.astype(np.complex64))),
    "text in an array": Bad(422, "pixels are", npy(np.full((3, 9, 9), "a"))),
    "Python objects": Bad(422, "pixels are", _pickled()),
    "ten times the model's scale": Bad(422, "ground sample distance", geotiff(PIXELS, gsd=5.0)),
    # The caller's own coarse map.
    "coarse map of another size": Bad(422, "does not lie", b"", _with(geotiff(IDS[:, :50]))),
    "coarse map of another place": Bad(422, "does not lie", b"", _with(geotiff(IDS, gsd=0.6))),
    "coarse map with an unknown class": Bad(422, "no class id", b"", _with(geotiff(IDS + 77))),
    "coarse map with fractions": Bad(422, "no class id", b"", _with(geotiff(IDS + np.float32(0.5)))),
    "coarse map in colours": Bad(422, "3 bands", b"", _with(TIFF)),
    "coarse map of nodata alone": Bad(422, "no pixel has a class", b"", _with(geotiff(IDS + 255))),
    "coarse map that is text": Bad(415, "coarse map", b"", _with(b"nothing")),
    "empty coarse map": Bad(400, "coarse map", b"", _with(b"")),
    "coarse map to stage 1": Bad(400, "stage 1", b"", _with(geotiff(IDS)), "/v1/coarse"),
    # Forms.
    "form with two images": Bad(
        400, "2 times", b"", {"files": [("image", ("a.tif", TIFF)), ("image", ("b.tif", TIFF))]}
    ),
    "form without an image": Bad(400, "image", b"", {"files": {"coarse": geotiff(IDS)}}),
    "form with another part": Bad(400, "'mask'", b"", {"files": {"mask": TIFF}}),
    "form with an address instead of a file": Bad(
        400, "form", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nhttp://x/y\r\n--x--\r\n',
        {"headers": FORM},
    ),
    "form without a boundary": Bad(400, "form", TIFF, {"headers": {"content-type": "multipart/form-data"}}),
    "form that is none": Bad(400, "", TIFF, {"headers": FORM}),
    # Parameters.
    "unknown parameter": Bad(422, "stesp", TIFF, _asks(stesp=3)),
    "steps twice": Bad(422, "2 times (3, 5)", TIFF, {"params": [("steps", 3), ("steps", 5)]}),
    "no steps": Bad(422, "steps", TIFF, _asks(steps=0)),
    "too many steps": Bad(422, "at most 8", TIFF, _asks(steps=99)),
    "steps in words": Bad(422, "steps", TIFF, _asks(steps="many")),
    "too many samples": Bad(422, "at most 4", TIFF, _asks(samples=5)),
    "guidance NaN": Bad(422, "guidance", TIFF, _asks(guidance="nan")),
    "negative seed": Bad(422, "seed", TIFF, _asks(seed=-1)),
    "seed of 100 bits": Bad(422, "seed", TIFF, _asks(seed=2**100)),
    "unknown output": Bad(422, "masks", TIFF, _asks(outputs="masks")),
    "two outputs in one file": Bad(422, "multipart", TIFF, _asks(outputs="coarse,refined")),
    "unknown class to regularise": Bad(422, "unknown class 'shed'", TIFF, _asks(regularise="shed")),
    "infinite simplification": Bad(422, "simplify", TIFF, _asks(simplify="inf")),
    "infinite polygons": Bad(422, "min_area", TIFF, _asks(min_area="inf")),
    "unknown format of a stream": Bad(422, "formats", TIFF, _asks(formats="bmp"), "/v1/refine/stream"),
    "text to the stream": Bad(415, "no known format", b"text", path="/v1/refine/stream"),
    "type that is not offered": Bad(406, "Accept", TIFF, {"headers": {"accept": "text/html"}}),
    "GeoJSON of a place outside of its projection": Bad(422, "outside of the domain", FAR, GEOJSON),
    "GeoJSON in a local CRS": Bad(422, "image: ", LOCAL, GEOJSON),
    # HTTP.
    "wrong method": Bad(405, "allowed: POST", method="GET"),
    "name of another service": Bad(421, "evil.example", TIFF, {"headers": {"host": "evil.example:8000"}}),
    "no such path": Bad(404, "", TIFF, path="/v1/segment"),
    "path out of the page's folder": Bad(404, "", path="/page/..%2f..%2fsettings.py", method="GET"),
}  # fmt: skip
BAD_KEYS = {
    "no key": Bad(401, "missing", TIFF, {"headers": {"authorization": ""}}),
    "wrong key": Bad(401, "not known", TIFF, {"headers": {"authorization": "Bearer 0123456789abcdef"}}),
    "key in another scheme": Bad(401, "missing", TIFF, {"headers": {"authorization": "Basic dXNlcjpwYXNz"}}),
    "key that is no text": Bad(401, "not known", TIFF, {"headers": {"x-api-key": b"\xff\xfe\x00".strip(b"\x00")}}),
}


def ask(url: str, bad: Bad, **headers: str) -> requests.Response:
    """Sends the request, with these headers where it has none of its own."""
    more = {"data": bad.body or None, **bad.more}
    return requests.request(bad.method, url + bad.path, headers=headers | more.pop("headers", {}), timeout=300, **more)


def check(url: str, bad: Bad, **headers: str) -> None:
    """It is answered by a problem that says what is wrong, and nothing of how the service is made."""
    answer = ask(url, bad, **headers)
    assert answer.status_code == bad.status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == bad.status and bad.detail in problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    for internal in ("Traceback", "/vsimem/", "b'", "allow_pickle", "object at 0x"):
        assert internal not in problem["detail"]
