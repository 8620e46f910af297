"""Which windows a report shows: where refinement helped most, where it did what it mostly does, where it hurt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import fspath

import numpy as np

from idgbr.evaluation.baselines import to_picture
from idgbr.evaluation.maps import Map, MeasuredRegion, read_ids
from idgbr.evaluation.region import ratio
from idgbr.evaluation.tally import Tally
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene


@dataclass(frozen=True)
class ChosenWindow:
    """A block of a region and what refinement did there.

    Attributes:
        group: best, median or worst.
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
class WindowPicture:
    """A chosen window's pixels: image (H, W, 3) uint8; truth, coarse, refined (H, W) uint8 class ids; uncertainty
    (H, W) in 0..1 or None.
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

    Blocks labelled on less than half of their area, and slivers at a region's edge, are taken only where nothing else
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
    taken: set[int] = set()
    chosen = []
    for group, blocks in groups.items():
        for n in (int(b) for b in blocks if int(b) not in taken):
            taken.add(n)
            chosen.append(
                ChosenWindow(
                    group,
                    refined.regions[refined.block_region[n]],
                    Window(*refined.windows[n].tolist()),
                    float(change[n]),
                    float(refined.repair[n, 0] / labelled[n]),
                )
            )
    return chosen


def read_picture(
    region: MeasuredRegion, maps: Mapping[str, Map], chosen: ChosenWindow, uncertainty: np.ndarray | None = None
) -> WindowPicture:
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
    return WindowPicture(
        chosen,
        to_picture(pixels, valid),
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
