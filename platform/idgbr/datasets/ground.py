"""Hashes of imagery tiles, which identify a model's training area under any file name, crop or format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from idgbr.datasets.prepare import PreparedRegion
from idgbr.raster.grid import Window

TILE = 128
"""Side of a tile in pixels."""
_DIGITS = 12


def tile_hashes(region: PreparedRegion) -> list[str]:
    """Hashes of the region's tiles, sorted, each once.

    Tiles lie on a lattice that starts at the scene's first pixel, so that two regions of one scene that share ground
    share hashes, wherever each of them begins, but for what is less than a tile. Tiles that an edge cuts are left out;
    a region without a whole tile counts as one. Tiles of a single value, nodata above all, say nothing.

    Args:
        region: the region; its pixels are read once, a row of tiles at a time.
    """
    found: set[str] = set()
    grid, (top, left) = region.grid, region.origin
    tiles = [
        Window(row, col, min(TILE, grid.height - row), min(TILE, grid.width - col))
        for row in range(-top % TILE, grid.height, TILE)
        for col in range(-left % TILE, grid.width, TILE)
    ]
    whole = [tile for tile in tiles if (tile.height, tile.width) == (TILE, TILE)]
    for tile in whole or [grid.window]:
        pixels, valid = region.image.read(tile)
        seen = np.where(valid, pixels, 0)
        if seen.min() != seen.max():
            digest = hashlib.blake2b(np.ascontiguousarray(seen).data, digest_size=8)
            found.add(digest.hexdigest()[:_DIGITS])
    return sorted(found)


def shared(one: Iterable[str], other: Iterable[str]) -> int:
    """How many tiles two collections of hashes have in common."""
    return len(set(one) & set(other))
