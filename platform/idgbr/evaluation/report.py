"""The report: one self-contained HTML file with tables, figures and map windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from idgbr.evaluation import figures
from idgbr.evaluation.quantities import COLUMNS, describe, heading_of, percent, shown
from idgbr.evaluation.result import MERGED, EvaluationResult, label
from idgbr.evaluation.windows import WindowSample
from idgbr.files import write_atomically

SCENES_SHOWN = 30
"""Maximum number of regions in the table per scene."""
REPAIR = {
    "repair_complete": "complete",
    "repair_partial": "partial",
    "repair_damage": "damage",
    "repair_worse": "blocks made worse",
    "iou_imp": "IoU_imp",
    "repair_complete_per_class": "complete, per class",
    "repair_partial_per_class": "partial, per class",
    "repair_damage_per_class": "error, per class",
    "iou_imp_per_class": "IoU_imp, per class",
}
CLASS_TABLES = {
    "class_iou": "IoU",
    "class_boundary_iou": "boundary IoU",
    "class_f1": "F1",
    "class_boundary_f1": "boundary F1",
    "class_regions": "Regions over the truth's",
    "class_fragments": "Fragments per million labelled pixels",
    "class_boundary_length": "Boundary length over the truth's",
    "class_iou_imp": "IoU_imp per class, as the IDGBR release defines it",
}
GROUPS = {
    "best": "Where refinement helped most",
    "median": "Its median effect",
    "worst": "Where it helped least or hurt",
}


def write_report(path: str | Path, result: EvaluationResult, samples: Sequence[WindowSample] = ()) -> Path:
    """Write the report; the file appears complete or not at all.

    Args:
        path: the HTML file.
        result: the figures.
        samples: windows to show, of the groups best, median, worst and fragments.

    Returns:
        The path.
    """
    environment = Environment(
        loader=PackageLoader("idgbr.evaluation"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(_content(result, samples))
    write_atomically(path, html)
    return Path(path)


def _content(result: EvaluationResult, samples: Sequence[WindowSample]) -> dict[str, Any]:
    colours = [c.colour for c in result.classes]
    best = {figure: result.best(figure) for figure in COLUMNS}
    scenes = sorted(result.scenes.items(), key=lambda item: -abs(_gain(item[1])))[:SCENES_SHOWN]
    return {
        "result": result,
        "label": label,
        "percent": percent,
        "shown": shown,
        "heading_of": heading_of,
        "columns": COLUMNS,
        "repair": REPAIR,
        "best": best,
        "merged": any(method.endswith(MERGED) for method in result.methods),
        "pixels": max((s.pixels for s in result.methods.values()), default=0),
        "class_tables": CLASS_TABLES,
        "scenes": sorted(scenes),
        "intervals": [(heading_of(i.metric), describe(i), i) for i in result.intervals if i.difference is not None],
        "gains": figures.gains_figure(result),
        "blocks": figures.blocks_figure(result),
        "groups": [
            (title, [_panels(s, colours) for s in samples if s.chosen.group == group])
            for group, title in GROUPS.items()
            if any(s.chosen.group == group for s in samples)
        ],
        "fragmented": [_fragment_panels(s, colours, result.fragment) for s in samples if s.chosen.group == "fragments"],
        "fragment_legend": [
            (figures.FRAGMENT_COLOUR, f"fragment, below {result.fragment} px"),
            (figures.BOUNDARY_COLOUR, "class boundary"),
        ],
        "uncertain": any(s.uncertainty is not None for s in samples if s.chosen.group in GROUPS),
        "errors": [
            (figures.FIXED, "fixed by refinement"),
            (figures.BROKEN, "broken by refinement"),
            (figures.STILL_WRONG, "still wrong"),
            (figures.UNLABELLED, "no label"),
        ],
    }


def _gain(methods: dict[str, Any]) -> float:
    before, after = methods.get("coarse"), methods.get("refined")
    if before is None or after is None or before.miou is None or after.miou is None:
        return 0.0
    return float(after.miou - before.miou)


def _panels(sample: WindowSample, colours: list[str]) -> dict[str, Any]:
    panels = [
        ("image", figures.data_uri(sample.image, lossless=False)),
        ("truth", figures.data_uri(figures.paint(sample.truth, colours))),
        ("coarse", figures.data_uri(figures.paint(sample.coarse, colours))),
        ("refined", figures.data_uri(figures.paint(sample.refined, colours))),
        ("wrong", figures.data_uri(figures.paint_errors(sample.truth, sample.coarse, sample.refined))),
    ]
    if sample.uncertainty is not None:
        uncertainty = figures.paint_uncertainty(np.asarray(sample.uncertainty))
        panels.append(("uncertainty", figures.data_uri(uncertainty)))
    return _window(sample, panels)


def _fragment_panels(sample: WindowSample, colours: list[str], fragment: int) -> dict[str, Any]:
    maps = {"truth": sample.truth, "coarse: before": sample.coarse, "refined: after": sample.refined}
    panels = [("image", figures.data_uri(sample.image, lossless=False))]
    panels += [
        (name, figures.data_uri(figures.paint_fragments(ids, sample.truth, colours, fragment)))
        for name, ids in maps.items()
    ]
    return _window(sample, panels)


def _window(sample: WindowSample, panels: list[tuple[str, str]]) -> dict[str, Any]:
    chosen = sample.chosen
    return {
        "region": chosen.region,
        "where": f"row {chosen.window.row}, column {chosen.window.col}",
        "change": percent(chosen.change, signed=True),
        "before": percent(chosen.coarse_accuracy),
        "after": percent(chosen.coarse_accuracy + chosen.change),
        "panels": panels,
    }
