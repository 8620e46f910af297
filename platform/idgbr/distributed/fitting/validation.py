"""The fixed windows of the select split that measurements during training are made on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from idgbr.datasets.draws import Draw
from idgbr.datasets.prepare import PreparedRegion
from idgbr.datasets.samples import read_samples
from idgbr.distributed.source import Columns
from idgbr.raster.windows import plan_windows

BATCH = 4
"""Windows measured at once."""


def choose_windows(regions: Sequence[PreparedRegion], window: int, limit: int) -> list[Draw]:
    """At most `limit` windows without overlap, spread evenly over all regions; the same for the same input."""
    everything = [
        (number, origin.row, origin.col)
        for number, region in enumerate(regions)
        for origin in plan_windows(region.grid.height, region.grid.width, window, 0)
    ]
    count = min(limit, len(everything))
    chosen = [everything[(2 * i + 1) * len(everything) // (2 * count)] for i in range(count)]
    return [Draw(i, region, row, col, 0, i) for i, (region, row, col) in enumerate(chosen)]


def fixed_windows(
    regions: Sequence[PreparedRegion], window: int, limit: int, rank: int, world: int
) -> Iterator[Columns]:
    """This rank's share of the chosen windows, in batches as `read_samples` returns them."""
    mine = choose_windows(regions, window, limit)[rank::world]
    for first in range(0, len(mine), BATCH):
        yield read_samples(regions, mine[first : first + BATCH], window)
