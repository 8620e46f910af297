"""Whether a PNG holds all of its pixels. GDAL reads one that holds fewer, and paints the rest black."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type."""
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Of an interlaced PNG: first row and column, steps of both (PNG specification, 8.2)."""


def is_whole(body: bytes) -> bool:
    """Whether the compressed data is as long as the header asks for, and the last chunk is there.

    Args:
        body: The file; how large it says it is should have been checked before.
    """
    expected = found = 0
    inflate = zlib.decompressobj()
    try:
        for name, data in _chunks(body):
            if name == b"IHDR":
                expected = _bytes(data)
            elif name == b"IDAT":
                while data and found < expected:
                    found += len(inflate.decompress(data, 2**20))
                    data = inflate.unconsumed_tail
            elif name == b"IEND":
                found += 0 if found >= expected else len(inflate.flush())
                return 0 < expected <= found
    except (struct.error, zlib.error, KeyError):
        return False
    return False


def png_ends(path: str) -> bool:
    """Whether the chunks of a local PNG go on to the last one. Their lengths are looked at, nothing is decoded."""
    with open(path, "rb") as file:
        file.seek(len(_SIGNATURE))
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"IEND":
                return True
            file.seek(length + 4, 1)
    return False


def _chunks(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_SIGNATURE)
    while place < len(body):
        length, name = struct.unpack_from(">I4s", body, place)
        yield name, body[place + 8 : place + 8 + length]
        place += length + 12


def _bytes(header: bytes) -> int:
    """Length of all rows, each with a byte that names its filter."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    parts = _PASSES if interlaced else ((0, 0, 1, 1),)
    total = 0
    for row, col, down, right in parts:
        rows, cols = -(-(height - row) // down), -(-(width - col) // right)
        if rows > 0 and cols > 0:
            total += rows * (1 + -(-cols * _CHANNELS[colour] * depth // 8))
    return total
