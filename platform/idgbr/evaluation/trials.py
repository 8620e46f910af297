"""The gate's error rates: simulated models on real label windows, whose true difference is known.

A simulated model makes a window's map by moving the true boundaries along a smooth random field, and by giving patches
the class of a nearby patch. The larger the moves, the worse the model; another seed gives another model of the same
quality whose errors are independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from idgbr import IGNORE
from idgbr.config.evaluation import GateConfig
from idgbr.evaluation.bootstrap import compare
from idgbr.evaluation.gate import compare_rules, differences
from idgbr.evaluation.region import mean
from idgbr.evaluation.scores import boundary_iou
from idgbr.evaluation.tally import Tally, tally_region

_SMOOTH = 6.0
"""Correlation length of the errors in pixels."""
_COUNTED = ("confusion", "boundary_iou", "boundary_f1", "repair", "class_repair", "region_counts", "boundary_length")


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of simulated challengers.

    Attributes:
        promoted: share that passed every rule.
        gain: mean gain of the gate's figure.
        spread: standard deviation of the gain over the repeats: the paired spread.
        half_width: mean half width of the 95 % interval.
        covered: share of intervals that hold the true gain.
    """

    promoted: float
    gain: float
    spread: float
    half_width: float
    covered: float


def cut_labels(labels: np.ndarray, size: int) -> list[np.ndarray]:
    """Windows (size, size) of a label raster (H, W) without overlap, those with two classes and mostly labelled."""
    rows, columns = (range(0, length - size + 1, size) for length in labels.shape)
    windows = [labels[row : row + size, column : column + size] for row in rows for column in columns]
    return [w for w in windows if (w != IGNORE).mean() > 0.8 and len(np.unique(w[w != IGNORE])) > 1]


def simulated_map(truth: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    """A map whose boundaries are off by about so many pixels; (H, W) uint8.

    Args:
        truth: (H, W) class ids; ignored pixels are answered as their neighbourhood is.
        pixels: root mean square of the moves.
        rng: the model's errors.
    """
    height, width = truth.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    near = [rows + pixels * _field(truth.shape, rng), columns + pixels * _field(truth.shape, rng)]
    # In patches, the class of 20 px further on: semantic errors, not boundary errors.
    far = (_field(truth.shape, rng) > 2.0) * 20.0
    source = [np.clip(np.rint(p + far), 0, n - 1).astype(int) for p, n in zip(near, truth.shape, strict=True)]
    moved = truth[source[0], source[1]]
    return np.where(moved == IGNORE, np.where(truth == IGNORE, 0, truth), moved).astype(np.uint8)


def _field(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A smooth random field of mean 0 and standard deviation 1."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), _SMOOTH)
    return np.asarray((noise - noise.mean()) / noise.std())


class Trials:
    """Counts of simulated models on a pool of windows, from which repeats of a gate are drawn.

    Args:
        windows: true class ids, each (H, W); at least two classes.
        classes: number of classes.
        pixels: how far off the champion's boundaries are, and those of a better model.
        models: models drawn of each quality, at least 2.
        seed: of the models' errors.
    """

    def __init__(
        self,
        windows: Sequence[np.ndarray],
        classes: int,
        pixels: tuple[float, float] = (2.5, 1.8),
        models: int = 4,
        seed: int = 0,
    ) -> None:
        self.classes, self.models, self.size = classes, models, len(windows)
        rng = np.random.default_rng(seed)
        coarse = [simulated_map(window, 1.4 * pixels[0], rng) for window in windows]
        self._counts: list[dict[str, np.ndarray]] = []
        for off in pixels:
            tallies = [
                [
                    tally_region(window, simulated_map(window, off, rng), rough, classes, max(window.shape))
                    for window, rough in zip(windows, coarse, strict=True)
                ]
                for _ in range(models)
            ]
            names = (*_COUNTED, "wfm")
            self._counts.append(
                {name: np.array([[getattr(t, name)[0] for t in model] for model in tallies]) for name in names}
            )

    def share_of_better(self, gain: float) -> float:
        """How many of the challenger's windows the better model draws, for a true gain in pooled boundary IoU.

        Raises:
            ValueError: even the better model gains less.
        """
        sums = [counts["boundary_iou"].sum((0, 1)) for counts in self._counts]

        def gained(share: float) -> float:
            mixed = (1 - share) * sums[0] + share * sums[1]
            return float(mean(boundary_iou(mixed)) - mean(boundary_iou(sums[0])))

        low, high = 0.0, 1.0
        if gained(high) < gain:
            raise ValueError(f"the better model gains {gained(high):.3f}, less than {gain}")
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if gained(middle) < gain else (low, middle)
        return high

    def run(
        self, gain: float, windows: int = 400, repeats: int = 200, seed: int = 0, resamples: int = 1000
    ) -> Outcomes:
        """Repeats of a gate with the default rules: each draws windows, with replacement, and two models.

        Args:
            gain: true gain of the challenger in boundary IoU; 0 for models of equal quality.
            windows: windows of a gate.
            repeats: gates.
            seed: of the draws.
            resamples: of each bootstrap.
        """
        share = self.share_of_better(gain) if gain else 0.0
        gate, rng = GateConfig(), np.random.default_rng(seed)
        names = [str(number) for number in range(self.classes)]
        promoted, found = [], []
        for repeat in range(repeats):
            drawn = rng.integers(self.size, size=windows)
            models = rng.integers(self.models, size=windows)
            others = (models + rng.integers(1, self.models, size=windows)) % self.models
            champion = self._tally(drawn, models, np.zeros(windows, bool))
            challenger = self._tally(drawn, others, rng.random(windows) < share)
            changes = differences(champion, challenger, gate, names, repeats=0)
            figure = gate.gain.figure
            interval = compare(champion, challenger, figure, None, resamples, seed=repeat)
            changes = [interval if change.metric == figure else change for change in changes]
            promoted.append(all(rule.passed for rule in compare_rules(changes, gate)))
            found.append((interval.difference, interval.low, interval.high))
        differ, low, high = np.array(found, np.float64).T
        return Outcomes(
            float(np.mean(promoted)),
            float(differ.mean()),
            float(differ.std()),
            float((high - low).mean() / 2),
            float(((low <= gain) & (gain <= high)).mean()),
        )

    def _tally(self, windows: np.ndarray, models: np.ndarray, better: np.ndarray) -> Tally:
        """The counts of one model on drawn windows, as of one region."""
        picked = {
            name: np.where(
                better.reshape(-1, *[1] * (plain.ndim - 2)),
                self._counts[1][name][models, windows],
                plain[models, windows],
            )
            for name, plain in self._counts[0].items()
        }
        block_windows, region = np.zeros((len(windows), 4), np.int64), np.zeros(len(windows), np.int64)
        return Tally(self.classes, ("drawn",), region, block_windows, image_region=region, **picked)
