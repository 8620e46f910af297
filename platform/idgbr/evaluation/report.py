"""The report: one HTML file with tables, figures and pictures that can be sent to a colleague."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from idgbr.evaluation import figures
from idgbr.evaluation.result import COLUMNS, EvaluationResult, describe, heading_of, label, percent
from idgbr.evaluation.windows import WindowPicture

SCENES_SHOWN = 30
"""Most regions the table per scene lists."""
REPAIR = {
    "repair_complete": "complete",
    "repair_partial": "partial",
    "repair_damage": "damage",
    "repair_worse": "blocks made worse",
    "iou_imp": "IoU_imp, pooled",
}
GROUPS = {
    "best": "Where refinement helped most",
    "median": "What it mostly does",
    "worst": "Where it helped least or hurt",
}


def write_report(path: str | Path, result: EvaluationResult, pictures: Sequence[WindowPicture] = ()) -> Path:
    """Write the report; the file appears complete or not at all.

    Args:
        path: the HTML file.
        result: the figures.
        pictures: windows to show, of the groups best, median and worst.

    Returns:
        The path.
    """
    environment = Environment(
        loader=PackageLoader("idgbr.evaluation"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(_content(result, pictures))
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_text(html, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _content(result: EvaluationResult, pictures: Sequence[WindowPicture]) -> dict[str, Any]:
    colours = [c.colour for c in result.classes]
    best = {figure: result.best(figure) for figure in COLUMNS}
    scenes = sorted(result.scenes.items(), key=lambda item: -abs(_gain(item[1])))[:SCENES_SHOWN]
    return {
        "result": result,
        "label": label,
        "percent": percent,
        "columns": COLUMNS,
        "repair": REPAIR,
        "best": best,
        "pixels": max((s.pixels for s in result.methods.values()), default=0),
        "class_tables": [
            ("IoU", "class_iou"),
            ("boundary IoU", "class_boundary_iou"),
            ("F1", "class_f1"),
            ("boundary F1", "class_boundary_f1"),
        ],
        "scenes": sorted(scenes),
        "intervals": [(heading_of(i.metric), describe(i), i) for i in result.intervals if i.difference is not None],
        "gains": figures.gains_figure(result),
        "blocks": figures.blocks_figure(result),
        "groups": [
            (title, [_panels(p, colours) for p in pictures if p.chosen.group == group])
            for group, title in GROUPS.items()
            if any(p.chosen.group == group for p in pictures)
        ],
        "uncertain": any(p.uncertainty is not None for p in pictures),
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


def _panels(picture: WindowPicture, colours: list[str]) -> dict[str, Any]:
    chosen = picture.chosen
    panels = [
        ("image", figures.data_uri(picture.image, lossless=False)),
        ("truth", figures.data_uri(figures.paint(picture.truth, colours))),
        ("coarse", figures.data_uri(figures.paint(picture.coarse, colours))),
        ("refined", figures.data_uri(figures.paint(picture.refined, colours))),
        ("wrong", figures.data_uri(figures.paint_errors(picture.truth, picture.coarse, picture.refined))),
    ]
    if picture.uncertainty is not None:
        doubt = figures.paint_uncertainty(np.asarray(picture.uncertainty))
        panels.append(("uncertainty", figures.data_uri(doubt)))
    return {
        "region": chosen.region,
        "where": f"row {chosen.window.row}, column {chosen.window.col}",
        "change": percent(chosen.change, signed=True),
        "before": percent(chosen.coarse_accuracy),
        "after": percent(chosen.coarse_accuracy + chosen.change),
        "panels": panels,
    }
