"""Cost of a window on this machine, measured when a model is loaded, and the work of an image derived from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idgbr.config.inference import WindowsConfig
from idgbr.config.models import SamplerConfig
from idgbr.raster.windows import plan_windows

if TYPE_CHECKING:
    from idgbr.inference.predictor import Part
    from idgbr.models.description import ModelSpec

_FULL_BATCH_S = 1.0
"""A full batch is measured where it takes no longer than this; else a single window."""
_SHORT_S = 0.5
_MAX_RUNS = 5
_MIN_PASSES = 4


@dataclass(frozen=True)
class StageCost:
    """Seconds of one idle replica.

    Attributes:
        window_s: for a window, whatever the sampler.
        pass_s: for each pass of a window through the denoiser; 0 for stage 1.
    """

    window_s: float
    pass_s: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """Estimated work of a request, in seconds of one idle replica.

    Attributes:
        windows: of each stage.
        window_s: seconds of a window of each stage.
    """

    windows: dict[Part, int]
    window_s: dict[Part, float]

    @property
    def seconds(self) -> float:
        return sum(count * self.window_s[part] for part, count in self.windows.items())


@dataclass(frozen=True)
class ModelCosts:
    """Costs of both stages; None for a stage that the model lacks."""

    coarse: StageCost | None = None
    refiner: StageCost | None = None

    def estimate(
        self, spec: ModelSpec, height: int, width: int, sampler: SamplerConfig, parts: Sequence[Part]
    ) -> Estimate:
        """The work of some stages for an image."""
        cuts: dict[Part, WindowsConfig] = {"coarse": spec.inference.coarse, "refiner": spec.inference.refiner}
        costs: dict[Part, StageCost | None] = {"coarse": self.coarse, "refiner": self.refiner}
        windows: dict[Part, int] = {}
        window_s: dict[Part, float] = {}
        for part in parts:
            cut, cost = cuts[part], costs[part]
            windows[part] = len(plan_windows(height, width, cut.window, cut.overlap))
            window_s[part] = 0.0 if cost is None else cost.window_s + passes(sampler) * cost.pass_s
        return Estimate(windows, window_s)

    def both_s(self, spec: ModelSpec, side: int) -> float:
        """Seconds of both stages for a square image, with the model's own sampler."""
        return self.estimate(spec, side, side, spec.sampler, ("coarse", "refiner")).seconds

    def largest_side(self, spec: ModelSpec, budget_s: float, max_pixels: int) -> int:
        """Side in pixels of the largest square image that takes no longer than the budget; 0 where even one window
        takes longer.
        """
        low, high = 0, math.isqrt(max_pixels)
        if self.both_s(spec, high) <= budget_s:
            return high
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.both_s(spec, middle) <= budget_s else (low, middle - 1)
        return low


def passes(sampler: SamplerConfig) -> int:
    """Passes of a window through the denoiser; with guidance two a step."""
    return sampler.steps * sampler.samples * (1 if sampler.guidance in (0, 1) else 2)


def measure_coarse(run: Callable[[int], object], batch: int) -> StageCost:
    """The cost of stage 1.

    Args:
        run: predicts so many windows.
        batch: windows at once.
    """
    count, took = _timed_batch(run, batch)
    return StageCost(took / count)


def measure_refiner(run: Callable[[int, SamplerConfig], object], batch: int, sampler: SamplerConfig) -> StageCost:
    """The cost of stage 2, from a run with the model's own sampler and one with a single pass.

    Args:
        run: refines so many windows with a sampler.
        batch: windows at once.
        sampler: the model's own.
    """
    full = sampler if passes(sampler) >= _MIN_PASSES else sampler.model_copy(update={"steps": _MIN_PASSES})
    one = sampler.model_copy(update={"steps": 1, "samples": 1, "guidance": 1.0})
    count, took = _timed_batch(lambda windows: run(windows, full), batch)
    single = _timed(lambda: run(count, one))
    # Whatever the noise of the measurement, at least half of the time is passes.
    pass_s = max((took - single) / (passes(full) - 1), took / passes(full) / 2) / count
    return StageCost(max(0.0, single / count - pass_s), pass_s)


def _timed_batch(run: Callable[[int], object], batch: int) -> tuple[int, float]:
    """Windows that were run at once, and the seconds they took."""
    took = _timed(lambda: run(1))
    if batch == 1 or took * batch > _FULL_BATCH_S:
        return 1, took
    run(batch)  # the first run of a shape prepares kernels
    return batch, _timed(lambda: run(batch))


def _timed(run: Callable[[], object]) -> float:
    """Seconds of a run; of a short one the fastest of several, since anything else on the machine only adds to them."""
    fastest, spent = math.inf, 0.0
    for _ in range(_MAX_RUNS):
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        fastest, spent = min(fastest, seconds), spent + seconds
        if spent > _SHORT_S:
            break
    return fastest
