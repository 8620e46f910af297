"""Figures of the report as data URIs, so that the HTML file needs nothing else."""

from __future__ import annotations

import base64
from io import BytesIO

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from idgbr import IGNORE
from idgbr.evaluation.fragments import fragment_mask
from idgbr.evaluation.quantities import heading_of
from idgbr.evaluation.result import MERGED, EvaluationResult, label

PALETTE = ("#6b7280", "#0b6e4f", "#d08c3f", "#7a5ea8", "#3f7fb5", "#b5533c")
"""Colours of the methods in the figures, coarse and refined first."""
FIXED, BROKEN, STILL_WRONG, RIGHT, UNLABELLED = "#2e9e5b", "#d1342f", "#7d7d7d", "#ffffff", "#e6e2d8"
"""Colours of the map of errors."""
FRAGMENT_COLOUR, BOUNDARY_COLOUR = "#d400d4", "#20242b"
"""Colours of fragments and of class boundaries."""


def data_uri(pixels: np.ndarray, lossless: bool = True) -> str:
    """Pixels (H, W, 3) uint8 as a data URI: PNG with a palette, or WebP for photographs."""
    buffer = BytesIO()
    if lossless:
        Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE).save(buffer, "PNG", optimize=True)
    else:
        Image.fromarray(pixels).save(buffer, "WEBP", quality=85)
    kind = "png" if lossless else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def rgb(colour: str) -> tuple[int, int, int]:
    """#rrggbb as three numbers 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def paint(ids: np.ndarray, colours: list[str]) -> np.ndarray:
    """Class ids (H, W) in the classes' colours, (H, W, 3) uint8; other ids as unlabelled ground."""
    table = np.tile(np.array(rgb(UNLABELLED), np.uint8), (256, 1))
    table[: len(colours)] = [rgb(c) for c in colours]
    painted: np.ndarray = table[ids]
    return painted


def paint_errors(truth: np.ndarray, coarse: np.ndarray, refined: np.ndarray) -> np.ndarray:
    """Where each map is wrong: fixed by refinement, broken by it, still wrong; (H, W, 3) uint8."""
    was, now = coarse == truth, refined == truth
    painted = np.tile(np.array(rgb(RIGHT), np.uint8), (*truth.shape, 1))
    for where, colour in ((~was & now, FIXED), (was & ~now, BROKEN), (~was & ~now, STILL_WRONG)):
        painted[where] = rgb(colour)
    painted[truth == IGNORE] = rgb(UNLABELLED)
    return painted


def paint_fragments(ids: np.ndarray, truth: np.ndarray, colours: list[str], fragment: int) -> np.ndarray:
    """Pale class colours, dark class boundaries and magenta fragments, at twice the size; (2 H, 2 W, 3) uint8.

    Args:
        ids: (H, W) class ids.
        truth: (H, W) true class ids; only labelled pixels count, as in the figures.
        colours: of the classes as #rrggbb.
        fragment: pixels of the smallest region that is no fragment.
    """
    labelled = truth != IGNORE
    shown = np.where(labelled, ids, np.uint8(IGNORE))
    large = shown.repeat(2, axis=0).repeat(2, axis=1)
    painted = (0.45 * paint(large, colours) + 0.55 * 255).astype(np.uint8)
    known = large != IGNORE
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        border = (large[before] != large[after]) & known[before] & known[after]
        painted[before][border] = painted[after][border] = rgb(BOUNDARY_COLOUR)
    fragments = fragment_mask(shown, labelled, fragment).repeat(2, axis=0).repeat(2, axis=1)
    painted[cv2.dilate(fragments.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0] = rgb(FRAGMENT_COLOUR)
    return painted


def paint_uncertainty(values: np.ndarray) -> np.ndarray:
    """Uncertainty (H, W) in 0..1, dark to bright; (H, W, 3) uint8."""
    coloured: np.ndarray = colormaps["magma"](np.clip(values, 0, 1), bytes=True)[..., :3]
    return coloured


def gains_figure(result: EvaluationResult) -> str | None:
    """Change of the main figures against the coarse map, in points, for every other method; None without any."""
    others = [m for m in result.methods if m != "coarse" and not m.endswith(MERGED)]
    if "coarse" not in result.methods or not others:
        return None
    shown = ("miou", "boundary_iou", "boundary_f1", "wfm3_edge")
    figure, axes = _canvas(6.2, 3.1)
    height = 0.8 / len(others)
    for i, method in enumerate(others):
        gains = [_points(result, method, name) - _points(result, "coarse", name) for name in shown]
        at = np.arange(len(shown)) + (i - (len(others) - 1) / 2) * height
        bars = axes.barh(at, gains, 0.9 * height, color=_colour(result, method), label=label(method))
        axes.bar_label(bars, [f"{g:+.1f}" for g in gains], padding=3, fontsize=7.5, color="#333333")
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [heading_of(name) for name in shown])
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel("change against the coarse map, points")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.45, 1.15), ncols=len(others))
    return _encode(figure)


def blocks_figure(result: EvaluationResult) -> str | None:
    """Change in right pixels of every block, sorted; None without a refined map."""
    changes = 100 * np.array(result.block_changes)
    if not changes.size:
        return None
    figure, axes = _canvas(6.2, 3.1)
    at = (np.arange(changes.size) + 0.5) / changes.size * 100
    for keep, colour in ((changes >= 0, FIXED), (changes < 0, BROKEN)):
        axes.bar(at[keep], changes[keep], 100 / changes.size, color=colour, linewidth=0)
    axes.axhline(0, color="#333333", linewidth=0.8)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"blocks of {result.block} px, sorted, percent of {changes.size}")
    axes.set_ylabel("change in right pixels, points")
    worse = float((changes < 0).mean() * 100)
    axes.set_title(f"{worse:.0f} % of blocks worse, median {np.median(changes):+.2f} points", fontsize=9, loc="left")
    return _encode(figure)


def _points(result: EvaluationResult, method: str, name: str) -> float:
    value = getattr(result.methods[method], name)
    return float("nan") if value is None else 100 * value


def _colour(result: EvaluationResult, method: str) -> str:
    return PALETTE[list(result.methods).index(method) % len(PALETTE)]


def _canvas(width: float, height: float):  # type: ignore[no-untyped-def]
    figure = Figure(figsize=(width, height), dpi=170, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=8.5, length=0)
    axes.xaxis.label.set_fontsize(8.5)
    axes.yaxis.label.set_fontsize(8.5)
    axes.grid(True, axis="x", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _encode(figure: Figure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
