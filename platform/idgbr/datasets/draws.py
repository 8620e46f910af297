"""Which windows training sees, and in which order: a list of draws fixed by a seed.

A draw is a pure function of the plan's seed and the draw's number, so any worker can compute any part of an epoch
without the rest, a resumed run continues exactly, and the order of files on disk does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from idgbr.config.data import AugmentationConfig, SamplingConfig
from idgbr.datasets.lattice import Positions, build_lattice
from idgbr.errors import UserError

if TYPE_CHECKING:
    from idgbr.datasets.prepare import PreparedRegion

_WORDS = 8  # random words per draw: two counter steps of Philox, four words each


@dataclass(frozen=True)
class Draw:
    """One training window: where it is, how it is turned, and the seed of everything else random about it."""

    index: int
    """Number of the draw in the plan."""
    region: int
    """Position in `DrawPlan.regions`."""
    row: int
    """Upper edge within the region, in pixels; negative where the region is smaller than the window."""
    col: int
    """Left edge within the region, in pixels."""
    transform: int
    """Dihedral transform 0..7."""
    seed: int
    """63-bit seed of the sample's other random numbers."""


class DrawPlan:
    """An endless seeded list of training windows over prepared regions.

    A share `sampling.boundary_weight` of the draws is centred near a label boundary. Of the others a share
    `sampling.class_weight` is centred on a class chosen with equal chances, the rest on any labelled pixel.

    Attributes:
        regions: the regions sorted by id, which `Draw.region` counts.
    """

    def __init__(
        self,
        regions: Sequence[PreparedRegion],
        sampling: SamplingConfig,
        augmentation: AugmentationConfig,
        window: int,
        seed: int,
    ) -> None:
        """Reads the regions' labels once, in strips.

        Args:
            regions: prepared training regions, in any order.
            sampling: weights by class and by boundary.
            augmentation: whether draws are turned.
            window: side of a window in pixels.
            seed: seed of the plan.

        Raises:
            UserError: there is no region, or no labelled pixel in any.
        """
        if not regions:
            raise UserError("no training region to draw windows from: see data.split")
        self.regions = tuple(sorted(regions, key=lambda region: region.id))
        self.window = window
        self.seed = seed
        self._dihedral = augmentation.dihedral
        self._boundary_weight = sampling.boundary_weight
        self._class_weight = sampling.class_weight
        self._size = np.array([(r.grid.height, r.grid.width) for r in self.regions], np.int64)
        lattice = build_lattice([(r.label, r.grid.height, r.grid.width) for r in self.regions])
        if not lattice.classes:
            raise UserError(
                f"no labelled pixel in the {len(self.regions)} training region(s): every label is ignored; "
                "check data.label and data.split"
            )
        self._cell = lattice.cell
        self._boundary = lattice.boundary
        # One array over all classes: a class is a slice of it, and its running pixel count serves draws by area.
        parts = list(lattice.classes.values())
        self._positions = Positions(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("region", "row", "col", "weight"))
        )
        self._starts = np.cumsum([0, *(len(p) for p in parts)])
        self._area = np.cumsum(self._positions.weight, dtype=np.int64)

    def draws(self, start: int, count: int) -> list[Draw]:
        """Draws number start .. start + count - 1."""
        if count <= 0:
            return []
        generator = np.random.Philox(key=self.seed)
        generator.advance(start * _WORDS // 4)
        words = generator.random_raw(count * _WORDS).reshape(count, _WORDS)
        unit = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        region, row, col = self._centres(unit)
        top, left = self._corner(region, row, 0), self._corner(region, col, 1)
        turn = (words[:, 6] >> np.uint64(61)).astype(np.int64) if self._dihedral else np.zeros(count, np.int64)
        seeds = (words[:, 7] >> np.uint64(1)).astype(np.int64)
        columns = (a.tolist() for a in (np.arange(start, start + count), region, top, left, turn, seeds))
        return [Draw(*values) for values in zip(*columns, strict=True)]

    def _centres(self, unit: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
        """Region, row and column of the windows' centres for random numbers (count, 8) in [0, 1)."""
        at_boundary = (unit[:, 0] < self._boundary_weight) & (len(self._boundary) > 0)
        by_class = unit[:, 1] < self._class_weight
        chosen = (unit[:, 2] * (len(self._starts) - 1)).astype(np.int64)
        first, stop = self._starts[chosen], self._starts[chosen + 1]
        of_class = first + (unit[:, 3] * (stop - first)).astype(np.int64)
        of_area = np.searchsorted(self._area, (unit[:, 3] * self._area[-1]).astype(np.int64), side="right")
        pick = np.where(by_class, of_class, of_area)
        centre = [getattr(self._positions, name)[pick].astype(np.int64) for name in ("region", "row", "col")]
        if at_boundary.any():
            edge = (unit[at_boundary, 3] * len(self._boundary)).astype(np.int64)
            for values, name in zip(centre, ("region", "row", "col"), strict=True):
                values[at_boundary] = getattr(self._boundary, name)[edge]
        # A cell keeps one pixel, so a shift of a cell covers it all. Boundaries move further from the centre, for the
        # model must not learn that there is always one in the middle.
        reach = np.where(at_boundary, max(self._cell, self.window // 2), self._cell)
        for axis, word in ((1, 4), (2, 5)):
            centre[axis] += np.floor((unit[:, word] - 0.5) * reach).astype(np.int64)
        return centre[0], centre[1], centre[2]

    def _corner(self, region: NDArray, centre: NDArray, axis: int) -> NDArray:
        """First row (axis 0) or column (axis 1) of the windows, moved into the region or centred on a small one."""
        slack = self._size[region, axis] - self.window
        return np.where(slack >= 0, np.clip(centre - self.window // 2, 0, np.maximum(slack, 0)), slack // 2)
