"""GeoTIFFs that went wrong: whole files to start from, and ways to spoil them, the same ones on every run."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

# TIFF 6.0, and SampleFormat of its technical note.
TAGS = {
    "ImageWidth": 256,
    "ImageLength": 257,
    "BitsPerSample": 258,
    "Compression": 259,
    "Photometric": 262,
    "StripOffsets": 273,
    "SamplesPerPixel": 277,
    "RowsPerStrip": 278,
    "StripByteCounts": 279,
    "PlanarConfig": 284,
    "Predictor": 317,
    "TileWidth": 322,
    "TileLength": 323,
    "TileOffsets": 324,
    "TileByteCounts": 325,
    "SampleFormat": 339,
    "ModelPixelScale": 33550,
    "GeoKeyDirectory": 34735,
    "GDAL_NODATA": 42113,
}
ABSURD = (0, 1, 3, 65535, 2**31 - 1, 2**32 - 1)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class Entry:
    """One entry of a TIFF's first directory.

    Attributes:
        tag: its number.
        kind: TIFF's number of the value's type.
        at: where in the file the value, or the offset of the values, lies.
        width: bytes there.
    """

    tag: int
    kind: int
    at: int
    width: int


def entries(content: bytes) -> tuple[str, list[Entry]]:
    """Byte order as struct has it, and the entries of the first directory; of classic TIFF and of BigTIFF."""
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    at = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), content, at)[0]
    size, width = (20, 8) if big else (12, 4)
    first = at + (8 if big else 2)
    found = []
    for i in range(min(count, 200)):
        tag, kind = struct.unpack_from(order + "HH", content, first + i * size)
        found.append(Entry(tag, kind, first + i * size + size - width, width))
    return order, found


def patched(content: bytes, tag: int, value: int) -> bytes | None:
    """The file with `value` where the first directory has the value of `tag`; None where it has no such tag."""
    order, found = entries(content)
    entry = next((e for e in found if e.tag == tag), None)
    if entry is None:
        return None
    width = min(_TYPE_BYTES.get(entry.kind, 4), entry.width)
    code = {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
    spoilt = bytearray(content)
    struct.pack_into(order + code, spoilt, entry.at, value & (2 ** (8 * width) - 1))
    return bytes(spoilt)


def flipped(content: bytes, rng: random.Random, count: int, reach: int) -> bytes:
    """The file with some bits of its first `reach` bytes turned over."""
    spoilt = bytearray(content)
    for _ in range(count):
        spoilt[rng.randrange(min(reach, len(spoilt)))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def mutations(name: str, content: bytes, thorough: bool) -> Iterator[tuple[str, bytes]]:
    """Spoilt copies of a file, each with words for what was done to it."""
    rng = random.Random(name)
    for part in (0.02, 0.3, 0.6, 0.95):
        yield f"cut at {part}", content[: int(len(content) * part)]
    for i, count in enumerate((1, 1, 2, 4, 16)):
        yield f"header flipped {i}", flipped(content, rng, count, 400)
    yield "flipped all over", flipped(content, rng, 200, len(content))
    directory = min((entry.at for entry in entries(content)[1]), default=0)
    for i in range(6 if thorough else 2):
        spoilt = bytearray(content)
        for _ in range(1 + i):
            spoilt[min(directory - 8 + rng.randrange(240), len(spoilt) - 1)] = rng.randrange(256)
        yield f"directory overwritten {i}", bytes(spoilt)
    for tag, number in TAGS.items():
        for value in ABSURD if thorough else (rng.choice(ABSURD),):
            if (spoilt_tag := patched(content, number, value)) is not None:
                yield f"{tag} is {value}", spoilt_tag
    huge = content
    for number in (256, 257):
        huge = patched(huge, number, 2**31 - 1) or huge
    yield "2147483647 px square", huge
    yield "nothing but zeros after the header", content[:8] + bytes(len(content) - 8)


def write_whole(folder: Path) -> list[Path]:
    """Small sound files, one of every kind that matters to a reader: types, layouts, masks, palettes, BigTIFF."""
    rng = np.random.default_rng(0)
    byte = rng.integers(1, 255, (3, 48, 64), dtype=np.uint8)
    kinds: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "tiled": (byte, {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate", "nodata": 0}),
        "striped": (byte.astype(np.uint16) * 9, {"blockysize": 5}),
        "separate": (byte, {"interleave": "band", "compress": "lzw", "predictor": 2}),
        "real": (byte.astype(np.float32) / 7, {"compress": "deflate", "predictor": 3, "nodata": -3.4e38}),
        "double": (byte[:1].astype(np.float64), {"nodata": float("nan")}),
        "signed": (byte[:1].astype(np.int16) - 128, {"compress": "packbits", "nodata": -9999}),
        "int8": ((byte[:1] // 2).astype(np.int8), {}),
        "long": (byte[:1].astype(np.uint64) * 2**40, {}),
        "complex": (byte[:1].astype(np.complex64), {}),
        "bits": (byte[:1] % 2, {"nbits": 1}),
        "twelve": (byte[:1].astype(np.uint16), {"nbits": 12}),
        "big": (byte, {"BIGTIFF": "YES", "tiled": True, "blockxsize": 32, "blockysize": 32}),
        "motorola": (byte, {"ENDIANNESS": "BIG"}),
        "jpeg": (byte, {"compress": "jpeg", "photometric": "ycbcr", "tiled": True, "blockxsize": 32, "blockysize": 32}),
        "alpha": (np.concatenate([byte, byte[:1] // 128 * 255]), {"photometric": "RGB", "alpha": "yes"}),
        "palette": (byte[:1] % 4, {"photometric": "palette"}),
        "sparse": (np.zeros((1, 48, 64), np.uint8), {"sparse_ok": True, "tiled": True, "blockxsize": 16,
                                                     "blockysize": 16, "nodata": 0}),
        "mask": (byte, {}),
    }  # fmt: skip
    paths = []
    for name, (pixels, options) in kinds.items():
        path = folder / f"{name}.tif"
        profile = {"driver": "GTiff", "count": len(pixels), "height": 48, "width": 64, "dtype": pixels.dtype.name,
                   "crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 0.5, 0.5)}  # fmt: skip
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", **profile | options) as out,
        ):
            if name != "sparse":
                out.write(pixels)
            if name == "mask":
                out.write_mask(pixels[0] > 99)
            if name == "palette":
                out.write_colormap(1, {i: (50 * i, 80, 90) for i in range(4)})
        paths.append(path)
    return paths
