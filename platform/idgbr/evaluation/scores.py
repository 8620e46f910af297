"""The figures of one method, drawn from its tally."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict

from idgbr.evaluation.boundary import KERNELS
from idgbr.evaluation.fragments import fragment_density, length_ratio, region_ratio
from idgbr.evaluation.region import RegionScores, mean, ratio
from idgbr.evaluation.repair import class_iou_imp, class_repair_shares, repair_shares
from idgbr.evaluation.tally import Tally


def _absent(value: Any) -> Any:
    return None if value is None or math.isnan(value) else float(value)


Score = Annotated[float | None, BeforeValidator(_absent)]
"""A figure, None where there is nothing to measure."""


class Scores(BaseModel):
    """Figures of one method in 0..1 (kappa in -1..1); None where there was nothing to measure.

    Lists have an entry per class, None for classes absent from truth and prediction, which the means leave out.
    Boundary figures: band of 3 px, tolerance of 2 px, pooled, mean over classes. wfmK_min is the smaller of the edge
    and the non-edge value. Repair figures are None for the coarse map; those whose names end in _per_class follow the
    IDGBR release's definition per class (shares of pairs of block and class), the others pool the classes. `regions`
    and `boundary_length` are ratios to the truth; `fragments` are regions below the minimum mapping unit per million
    labelled pixels, `truth_fragments` those of the truth.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pixels: int
    miou: Score
    accuracy: Score
    mean_f1: Score
    kappa: Score
    fwiou: Score
    boundary_iou: Score
    boundary_f1: Score
    wfm3_edge: Score
    wfm3_min: Score
    wfm5_edge: Score
    wfm5_min: Score
    wfm7_edge: Score
    wfm7_min: Score
    repair_complete: Score
    repair_partial: Score
    repair_damage: Score
    repair_worse: Score
    iou_imp: Score
    repair_complete_per_class: Score
    repair_partial_per_class: Score
    repair_damage_per_class: Score
    iou_imp_per_class: Score
    regions: Score
    fragments: Score
    boundary_length: Score
    truth_regions: int
    truth_fragments: Score
    class_pixels: list[int]
    class_iou: list[Score]
    class_f1: list[Score]
    class_boundary_iou: list[Score]
    class_boundary_f1: list[Score]
    class_iou_imp: list[Score]
    class_regions: list[Score]
    class_fragments: list[Score]
    class_boundary_length: list[Score]

    @classmethod
    def of(cls, tally: Tally) -> Scores:
        """Scores of a tally; counts are pooled over its blocks, WFm averaged over its images."""
        counts = tally.confusion.sum(0)
        region = RegionScores.from_confusion(counts)
        band_iou, rim_f1 = boundary_iou(tally.boundary_iou.sum(0)), boundary_f1(tally.boundary_f1.sum(0))
        edges = mean(tally.wfm, axis=0)
        repair, class_repair = repair_shares(tally.repair), class_repair_shares(tally.class_repair)
        areas, lengths = tally.region_counts.sum(0), tally.boundary_length.sum(0)
        density = fragment_density(areas, counts.sum())
        figures: dict[str, Any] = {}
        for i, k in enumerate(KERNELS):
            figures[f"wfm{k}_edge"] = edges[i, 0]
            figures[f"wfm{k}_min"] = edges[i].min()
        return cls(
            pixels=int(counts.sum()),
            miou=region.miou,
            accuracy=region.accuracy,
            mean_f1=region.mean_f1,
            kappa=region.kappa,
            fwiou=region.fwiou,
            boundary_iou=float(mean(band_iou)),
            boundary_f1=float(mean(rim_f1)),
            repair_complete=repair["complete"],
            repair_partial=repair["partial"],
            repair_damage=repair["damage"],
            repair_worse=repair["worse"],
            iou_imp=repair["iou_imp"],
            repair_complete_per_class=class_repair["complete"],
            repair_partial_per_class=class_repair["partial"],
            repair_damage_per_class=class_repair["damage"],
            iou_imp_per_class=class_repair["iou_imp"],
            regions=float(region_ratio(areas.sum(0))),
            fragments=float(density[:, 1].sum()),
            boundary_length=float(length_ratio(lengths.sum(0))),
            truth_regions=int(areas[:, 2].sum()),
            truth_fragments=float(density[:, 3].sum()),
            class_pixels=counts.sum(1).tolist(),
            class_iou=region.iou.tolist(),
            class_f1=region.f1.tolist(),
            class_boundary_iou=band_iou.tolist(),
            class_boundary_f1=rim_f1.tolist(),
            class_iou_imp=class_iou_imp(tally.class_repair.sum(0)).tolist(),
            class_regions=region_ratio(areas).tolist(),
            class_fragments=density[:, 1].tolist(),
            class_boundary_length=length_ratio(lengths).tolist(),
            **figures,
        )


def boundary_iou(counts: np.ndarray) -> np.ndarray:
    """Boundary IoU per class, (..., K), of counts (..., K, 2); NaN for classes nobody has."""
    return ratio(counts[..., 0], counts[..., 1])


def boundary_f1(counts: np.ndarray) -> np.ndarray:
    """Boundary F1 per class, (..., K), of counts (..., K, 4); NaN for classes without a boundary in either map."""
    precision, recall = ratio(counts[..., 0], counts[..., 1]), ratio(counts[..., 2], counts[..., 3])
    absent = np.isnan(precision) & np.isnan(recall)
    precision, recall = np.nan_to_num(precision), np.nan_to_num(recall)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    return np.where(absent, np.nan, f1)
