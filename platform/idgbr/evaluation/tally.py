"""Everything counted of one method's maps, as pieces that add up over regions in any order and on any machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from idgbr.evaluation.blocks import Blocks
from idgbr.evaluation.boundary import boundary_f1_counts, boundary_iou_counts, wfm
from idgbr.evaluation.fragments import FRAGMENT, boundary_length_counts, region_counts
from idgbr.evaluation.region import block_confusion
from idgbr.evaluation.repair import class_repair_counts, repair_counts

IMAGE_BLOCKS = 2
"""Side of a WFm image in blocks."""


@dataclass(frozen=True)
class Tally:
    """Counts per block and WFm per image of one method on any number of regions; picklable, merged with +.

    WFm is averaged per image, which asks for images of comparable size: a region is cut into images of IMAGE_BLOCKS x
    `block` px a side (512 px by default); a smaller region is one image.

    Attributes:
        classes: number of classes K.
        regions: ids of the regions, ascending.
        block_region: (n,) index into `regions` of every block.
        windows: (n, 4) row, col, height, width of every block, in its region's pixels.
        confusion: (n, K, K + 1), rows the truth, last column labelled pixels without an answer.
        boundary_iou: (n, K, 2) intersection, union.
        boundary_f1: (n, K, 4) predicted boundary pixels that match, predicted, true that match, true.
        repair: (n, 4) right in the coarse map, of those kept, wrong, of those repaired; all 0 without a coarse map.
        class_repair: (n, K, 5) the same per class, see `class_repair_counts`; all 0 without a coarse map.
        region_counts: (n, K, 4) regions and fragments of the map, regions and fragments of the truth; each counted once
            per region of the scene, in the block of its first pixel.
        boundary_length: (n, K, 2) pixel edges between classes, of map and truth.
        image_region: (m,) index into `regions` of every image.
        wfm: (m, 3, 2) WFm of k = 3, 5, 7, edge and non-edge; NaN where an image has no such true pixel.
    """

    classes: int
    regions: tuple[str, ...]
    block_region: np.ndarray
    windows: np.ndarray
    confusion: np.ndarray
    boundary_iou: np.ndarray
    boundary_f1: np.ndarray
    repair: np.ndarray
    class_repair: np.ndarray
    region_counts: np.ndarray
    boundary_length: np.ndarray
    image_region: np.ndarray
    wfm: np.ndarray

    def __add__(self, other: Tally) -> Tally:
        return merge([self, other])

    def only(self, regions: Iterable[str]) -> Tally:
        """The tally of the named regions alone."""
        chosen = set(regions)
        keep = [i for i, name in enumerate(self.regions) if name in chosen]
        renumber = np.full(len(self.regions), -1)
        renumber[keep] = np.arange(len(keep))
        blocks, images = np.isin(self.block_region, keep), np.isin(self.image_region, keep)
        return Tally(
            self.classes,
            tuple(self.regions[i] for i in keep),
            block_region=renumber[self.block_region[blocks]],
            image_region=renumber[self.image_region[images]],
            wfm=self.wfm[images],
            **{name: getattr(self, name)[blocks] for name in PER_BLOCK},
        )


PER_BLOCK = ("windows", "confusion", "boundary_iou", "boundary_f1", "repair", "class_repair", "region_counts",
             "boundary_length")  # fmt: skip
"""Arrays of a tally with an entry per block."""


def merge(tallies: Iterable[Tally]) -> Tally:
    """One tally of several, regions in the order of their ids whatever order they come in.

    Raises:
        ValueError: no tally, another number of classes, or a region that would be counted twice.
    """
    parts = list(tallies)
    if not parts:
        raise ValueError("nothing to merge")
    if len({part.classes for part in parts}) > 1:
        raise ValueError(f"tallies of {sorted({part.classes for part in parts})} classes do not add up")
    names = [name for part in parts for name in part.regions]
    if len(set(names)) < len(names):
        raise ValueError(f"counted twice: {sorted({name for name in names if names.count(name) > 1})}")
    starts = np.cumsum([0, *(len(part.regions) for part in parts)])
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.argsort(order)
    block_region = rank[np.concatenate([part.block_region + s for part, s in zip(parts, starts, strict=False)])]
    image_region = rank[np.concatenate([part.image_region + s for part, s in zip(parts, starts, strict=False)])]
    # Stable, so that the blocks of a region keep their order and those of two methods stay paired.
    blocks, images = np.argsort(block_region, kind="stable"), np.argsort(image_region, kind="stable")

    def joined(name: str, by: np.ndarray) -> np.ndarray:
        values: np.ndarray = np.concatenate([getattr(part, name) for part in parts])
        return np.take(values, by, axis=0)

    return Tally(
        parts[0].classes,
        tuple(names[i] for i in order),
        block_region=block_region[blocks],
        image_region=image_region[images],
        wfm=joined("wfm", images),
        **{name: joined(name, blocks) for name in PER_BLOCK},
    )


def tally_region(
    truth: np.ndarray,
    pred: np.ndarray,
    coarse: np.ndarray | None,
    classes: int,
    block: int = 256,
    region: str = "region",
    fragment: int = FRAGMENT,
) -> Tally:
    """Count everything about one method's map of one region.

    Args:
        truth: (H, W) uint8 true class ids, IGNORE where there is no label.
        pred: (H, W) uint8 predicted class ids; a labelled pixel left at IGNORE counts as wrong.
        coarse: (H, W) uint8 the map that was refined, for the repair figures; None for the coarse map itself.
        classes: number of classes K.
        block: side of the blocks in pixels.
        region: the region's id.
        fragment: pixels of the smallest region that is no fragment.

    Raises:
        ValueError: the shapes differ, or an id is not a class.
    """
    blocks = Blocks.of((truth.shape[0], truth.shape[1]), block)
    images = Blocks.of((truth.shape[0], truth.shape[1]), IMAGE_BLOCKS * block)
    counts = block_confusion(pred, truth, classes, blocks.index(), len(blocks))
    if coarse is None:
        repair, class_repair = np.zeros((len(blocks), 4), np.int64), np.zeros((len(blocks), classes, 5), np.int64)
    else:
        repair = repair_counts(pred, coarse, truth, blocks)
        class_repair = class_repair_counts(pred, coarse, truth, classes, blocks)
    return Tally(
        classes,
        (region,),
        block_region=np.zeros(len(blocks), np.int64),
        windows=blocks.windows(),
        confusion=counts,
        boundary_iou=boundary_iou_counts(pred, truth, classes, blocks),
        boundary_f1=boundary_f1_counts(pred, truth, classes, blocks),
        repair=repair,
        class_repair=class_repair,
        region_counts=region_counts(pred, truth, classes, blocks, fragment),
        boundary_length=boundary_length_counts(pred, truth, classes, blocks),
        image_region=np.zeros(len(images), np.int64),
        wfm=wfm(pred, truth, images),
    )
