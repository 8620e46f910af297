"""Plain-Python evaluation of a set of regions: count each where it is read, add up, compute the figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from os import fspath

import numpy as np

from idgbr.config.data import ClassSpec
from idgbr.errors import UserError
from idgbr.evaluation.baselines import BASELINES, available, refine_classically
from idgbr.evaluation.bootstrap import intervals
from idgbr.evaluation.fragments import FRAGMENT
from idgbr.evaluation.maps import Map, MeasuredRegion, read_ids
from idgbr.evaluation.result import MERGED, EvaluationResult
from idgbr.evaluation.scores import Scores
from idgbr.evaluation.tally import Tally, merge, tally_region
from idgbr.evaluation.windows import block_changes
from idgbr.raster.grid import Window
from idgbr.raster.sieve import sieve


def evaluate_region(
    region: MeasuredRegion,
    maps: Mapping[str, Map],
    classes: int,
    block: int = 256,
    baselines: Sequence[str] = (),
    probabilities: np.ndarray | None = None,
    fragment: int = FRAGMENT,
    min_pixels: Sequence[float] = (),
) -> dict[str, Tally]:
    """Count every method's map of one region against its label.

    With a minimum mapping unit the coarse map and every classical refiner are measured twice: as they are, and as
    METHOD_merged with their small regions merged as the refiner merges its own.

    Args:
        region: the region.
        maps: method -> map; "coarse" is the one that repairs are counted against and baselines start from.
        classes: number of classes K.
        block: side of the blocks in pixels.
        baselines: classical refiners to run here; those that are not installed are left out.
        probabilities: (K, H, W) in 0..1 of the coarse map, for the baselines and for merging small regions.
        fragment: pixels of the smallest region that is no fragment.
        min_pixels: minimum mapping unit of each class in pixels, (K,); empty or all 0: none.

    Returns:
        method -> tally, in the order of `maps`, baselines last, merged maps after the maps they come from.

    Raises:
        UserError: no coarse map, a map of another size than the label, or an id that is no class.
    """
    if "coarse" not in maps:
        raise UserError(f"{region.id}: evaluation needs the coarse map, found {', '.join(maps) or 'no map'}")
    truth = read_ids(region.label)
    coarse = read_ids(maps["coarse"])
    tallies: dict[str, Tally] = {}

    def count(method: str, source: Map) -> None:
        reference = None if method == "coarse" else coarse
        tallies[method] = _count(region, method, source, truth, reference, classes, block, fragment)
        if any(min_pixels) and (method == "coarse" or method in BASELINES):
            merged = _merged(read_ids(source), probabilities, classes, min_pixels)
            tallies[method + MERGED] = _count(region, method + MERGED, merged, truth, coarse, classes, block, fragment)

    for method, source in maps.items():
        count(method, source)
    methods = available(baselines)
    if methods:
        image, valid = region.image.read(Window(0, 0, *truth.shape))
        for method in methods:
            count(method, refine_classically(method, image, coarse, classes, valid, probabilities))
    return tallies


def _merged(ids: np.ndarray, probabilities: np.ndarray | None, classes: int, min_pixels: Sequence[float]) -> np.ndarray:
    """Class ids with small regions merged; without probabilities by the longest common border."""
    if probabilities is None:
        scores = np.zeros((classes, *ids.shape), np.uint8)
    else:
        scores = np.rint(255.0 * probabilities).astype(np.uint8)
    return sieve(ids, scores, min_pixels)


def _count(
    region: MeasuredRegion,
    method: str,
    source: Map,
    truth: np.ndarray,
    coarse: np.ndarray | None,
    classes: int,
    block: int,
    fragment: int,
) -> Tally:
    ids = read_ids(source)
    name = f"{method} map" if isinstance(source, np.ndarray) else fspath(source)
    if ids.shape != truth.shape:
        raise UserError(
            f"{name}: {ids.shape[0]} x {ids.shape[1]} px, but the label of {region.id} has "
            f"{truth.shape[0]} x {truth.shape[1]} px (rows x columns); a map must lie on its region's grid"
        )
    try:
        return tally_region(truth, ids, coarse, classes, block, region.id, fragment)
    except ValueError as error:
        raise UserError(f"{name} against the label of {region.id} ({region.label}): {error}") from error


def summarise(
    tallies: Iterable[Mapping[str, Tally]],
    classes: Sequence[ClassSpec],
    *,
    data: str,
    model: str,
    split: str = "test",
    block: int = 256,
    fragment: int = FRAGMENT,
    bootstrap: int = 1000,
    seed: int = 0,
    commit: str | None = None,
) -> EvaluationResult:
    """Compute the figures from the tallies of all regions.

    Args:
        tallies: results of `evaluate_region`, in any order; every region with the same methods.
        classes: in the order of their ids.
        data: name of the data set.
        model: name and version of the model.
        split: which split the regions are.
        block: side of the blocks the tallies were made with.
        fragment: pixels of the smallest region that is no fragment, as in the tallies.
        bootstrap: resamples for the intervals; 0 for none.
        seed: of the resampling.
        commit: git commit of the code.

    Raises:
        ValueError: no tally, or regions that were not measured with the same methods.
    """
    parts = list(tallies)
    merged = merge_methods(parts)
    scenes = {
        name: {method: Scores.of(tally.only([name])) for method, tally in part.items()}
        for part in parts
        for name in next(iter(part.values())).regions
    }
    return EvaluationResult(
        data=data,
        model=model,
        split=split,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit,
        classes=list(classes),
        block=block,
        fragment=fragment,
        methods={method: Scores.of(tally) for method, tally in merged.items()},
        scenes=dict(sorted(scenes.items())),
        block_changes=block_changes(merged["refined"]).round(6).tolist() if "refined" in merged else [],
        intervals=intervals(merged["coarse"], merged["refined"], bootstrap, seed) if "refined" in merged else [],
    )


def merge_methods(tallies: Sequence[Mapping[str, Tally]]) -> dict[str, Tally]:
    """One tally per method over all regions.

    Raises:
        ValueError: no tally, or regions that were not measured with the same methods.
    """
    if not tallies:
        raise ValueError("no region was measured")
    methods = list(tallies[0])
    if any(set(part) != set(methods) for part in tallies):
        raise ValueError("regions were measured with different methods")
    return {method: merge(part[method] for part in tallies) for method in methods}
