"""The windows of a report: largest gain, median effect, largest loss, and where a map is most fragmented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import fspath

import numpy as np

from idgbr.evaluation.baselines import to_rgb
from idgbr.evaluation.maps import Map, MeasuredRegion, read_ids
from idgbr.evaluation.region import ratio
from idgbr.evaluation.tally import Tally
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene


@dataclass(frozen=True)
class ChosenWindow:
    """A block of a region and what refinement did there.

    Attributes:
        group: best, median, worst or fragments.
        region: the region's id.
        window: in the region's pixels.
        change: change in the share of right pixels, refined minus coarse, -1..1.
        coarse_accuracy: share of right pixels of the coarse map.
    """

    group: str
    region: str
    window: Window
    change: float
    coarse_accuracy: float


@dataclass(frozen=True)
class WindowSample:
    """A chosen window's pixels.

    Attributes:
        chosen: the window.
        image: (H, W, 3) uint8.
        truth: (H, W) uint8 true class ids, IGNORE where there is no label.
        coarse: (H, W) uint8 class ids.
        refined: (H, W) uint8 class ids.
        uncertainty: (H, W) in 0..1, or None.
    """

    chosen: ChosenWindow
    image: np.ndarray
    truth: np.ndarray
    coarse: np.ndarray
    refined: np.ndarray
    uncertainty: np.ndarray | None = None


def block_changes(refined: Tally) -> np.ndarray:
    """Change in the share of right pixels of every labelled block, refined minus coarse, ascending; (n,) float64."""
    change = _change(refined)
    return np.sort(change[~np.isnan(change)])


def _change(refined: Tally) -> np.ndarray:
    right, kept, wrong, fixed = refined.repair.T
    return ratio(kept + fixed - right, right + wrong)


def choose_windows(refined: Tally, count: int = 3) -> list[ChosenWindow]:
    """The `count` best, median and worst blocks by change in right pixels; fewer where there are fewer blocks.

    Blocks labelled on less than half of their area, and slivers at a region's edge, are chosen only where nothing else
    is left.

    Args:
        refined: tally of the refined maps.
        count: windows per group.
    """
    change, labelled = _change(refined), refined.repair[:, 0] + refined.repair[:, 2]
    full = labelled >= 0.5 * np.median(refined.windows[:, 2] * refined.windows[:, 3])
    usable = np.flatnonzero(full) if full.sum() >= 3 * count else np.flatnonzero(labelled > 0)
    order = usable[np.argsort(-change[usable], kind="stable")]
    share = min(count, len(order) // 3) or min(count, len(order))
    middle = max((len(order) - share) // 2, 0)
    groups = {"best": order[:share], "median": order[middle : middle + share], "worst": order[::-1][:share]}
    blocks = {int(block): group for group in reversed(groups) for block in groups[group]}
    return [_chosen(refined, n, group) for group in groups for n in map(int, groups[group]) if blocks[n] == group]


def choose_fragmented(coarse: Tally, refined: Tally, count: int = 1) -> list[ChosenWindow]:
    """The `count` blocks with the most fragments in both maps together, then the largest error of boundary length.

    Args:
        coarse: tally of the coarse maps.
        refined: tally of the refined maps of the same regions.
        count: number of windows; fewer where there are fewer labelled blocks.
    """
    labelled = np.flatnonzero(refined.repair[:, 0] + refined.repair[:, 2] > 0)
    fragments = sum(tally.region_counts[labelled, :, 1].sum(1) for tally in (coarse, refined))
    lengths = [tally.boundary_length[labelled].sum(1) for tally in (coarse, refined)]
    error = sum(np.abs(length[:, 0] - length[:, 1]) for length in lengths)
    order = labelled[np.lexsort((-np.asarray(error), -np.asarray(fragments)))]
    return [_chosen(refined, int(n), "fragments") for n in order[:count]]


def _chosen(refined: Tally, block: int, group: str) -> ChosenWindow:
    right, _, wrong, _ = refined.repair[block]
    return ChosenWindow(
        group,
        refined.regions[refined.block_region[block]],
        Window(*refined.windows[block].tolist()),
        float(_change(refined)[block]),
        float(right / (right + wrong)),
    )


def read_sample(
    region: MeasuredRegion, maps: Mapping[str, Map], chosen: ChosenWindow, uncertainty: np.ndarray | None = None
) -> WindowSample:
    """Read the pixels of a chosen window.

    Args:
        region: the region the window lies in.
        maps: method -> map, "coarse" and "refined" among them.
        chosen: the window.
        uncertainty: (H, W) of the whole region in 0..1; by default the band named "uncertainty" of the refined raster
            (integers are taken as 0..255), if it has one.
    """
    window = chosen.window
    pixels, valid = region.image.read(window)
    if uncertainty is not None:
        doubt: np.ndarray | None = uncertainty[window.slices()]
    elif isinstance(maps["refined"], np.ndarray):
        doubt = None
    else:
        doubt = _uncertainty_band(fspath(maps["refined"]), window)
    return WindowSample(
        chosen,
        to_rgb(pixels, valid),
        read_ids(region.label, window),
        read_ids(maps["coarse"], window),
        read_ids(maps["refined"], window),
        doubt,
    )


def _uncertainty_band(uri: str, window: Window) -> np.ndarray | None:
    if "uncertainty" not in Scene(uri).profile().bands:
        return None
    values, valid = Scene(uri, bands=("uncertainty",)).read(window)
    scale = 255.0 if np.issubdtype(values.dtype, np.integer) else 1.0
    return np.where(valid, values[0] / scale, 0.0)
